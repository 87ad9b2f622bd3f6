"""Recorded hosts through the whole pipeline: quiet means quiet, each incident moves what it is about."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest
from daemon_process import Metrics, value
from demo_host import see

from exporter.demo import profile

GIB = 2**30

SERVED = {
    "8xh200-r1": ("deepseek-ai/DeepSeek-R1", "fp8", "8"),
    "8xh100-v3-sglang": ("deepseek-ai/DeepSeek-V3-0324", "awq", "8"),
    "8xmi300x-r1": ("deepseek-ai/DeepSeek-R1", "fp8", "8"),
    "4x4090-distill": ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "bf16", "4"),
    "4090-hybrid-r1": ("deepseek-ai/DeepSeek-R1", "Q4_K_M", "1"),
    "dual-epyc-cpu": ("deepseek-ai/DeepSeek-R1", "Q4_K_M", "1"),
    "two-node-r1-a": ("deepseek-ai/DeepSeek-R1", "bf16", "16"),
    "two-node-r1-b": ("deepseek-ai/DeepSeek-R1", "bf16", "16"),
}
"""model, quantization and tensor parallel size that must be found"""


def test_every_profile_has_its_expectation_here() -> None:
    assert SERVED.keys() == set(profile.names())


@pytest.mark.parametrize("name", profile.names())
def test_a_quiet_host_is_found_whole_and_within_its_limits(name: str, tmp_path: Path) -> None:
    seen = see(tmp_path / "host", name)
    metrics, host = seen.metrics, profile.load(name)
    [(info, _)] = metrics["deepseek_deployment_info"]
    model, quantization, tp = SERVED[name]
    assert (info["model"], info["quantization"], info.get("tp")) == (model, quantization, tp)
    assert info["origin"] == "discovered"
    assert value(metrics, "deepseek_deployment_state", state="warm") == 1
    devices = host.devices.count if host.devices else 0
    assert len(metrics.get("deepseek_gpu_up", [])) == devices
    assert all(up == 1 for _, up in metrics.get("deepseek_gpu_up", []))
    deviations = [ratio for _, ratio in metrics.get("deepseek_gpu_memory_deviation_ratio", [])]
    assert len(deviations) == devices
    assert all(0 < abs(ratio) < 0.03 for ratio in deviations)
    ratios = metrics.get("deepseek_gpu_memory_overcommit_ratio", [])
    assert all(ratio < 1 for _, ratio in ratios + metrics["deepseek_host_memory_overcommit_ratio"])
    if any(engine.answers for engine in host.engines):
        assert value(metrics, "deepseek_deployment_up") == 1
        assert 0.2 < (value(metrics, "deepseek_kv_cache_usage_ratio") or 0) < 0.7
        assert (value(metrics, "deepseek_kv_cache_overcommit_ratio") or 0) <= 1
        assert (value(metrics, "deepseek_tokens_total", kind="generated") or 0) > 0
        assert value(metrics, "deepseek_requests_waiting") == 0


@pytest.mark.parametrize("name", ["8xh200-r1", "dual-epyc-cpu"])
def test_nothing_of_this_machine_is_shown(name: str, tmp_path: Path) -> None:
    seen = see(tmp_path / "host", name)
    ram = profile.load(name).ram
    assert (
        value(seen.metrics, "deepseek_host_memory_total_bytes") == round(ram.total_gib * GIB) // 1024 * 1024
    )
    total = value(seen.metrics, "deepseek_host_memory_total_bytes")
    assert total == round(ram.total_gib * GIB) // 1024 * 1024 != psutil.virtual_memory().total
    [(cpu, _)] = seen.metrics["deepseek_host_cpu_info"]
    assert (cpu["model"], cpu["sockets"]) == (ram.cpu, str(ram.sockets))
    assert f'"{socket.gethostname()}"' not in seen.text
    assert str(tmp_path) not in seen.text
    assert value(seen.metrics, "deepseek_exporter_demo_info", profile=name) == 1
    assert seen.snapshot.demo == name
    assert seen.snapshot.visible_gpus.get("nvidia", 0) == (8 if name == "8xh200-r1" else 0)


def test_a_second_deployment_overcommits_its_device_before_it_has_taken_anything(tmp_path: Path) -> None:
    metrics = see(tmp_path / "host", "8xh200-r1", "second-deployment").metrics
    over = {
        labels["gpu"]
        for labels, ratio in metrics["deepseek_gpu_memory_overcommit_ratio"]
        if labels["bound"] == "low" and ratio > 1
    }
    assert over == {"7"}
    assert (value(metrics, "deepseek_gpu_memory_free_bytes", gpu="7") or 0) > 10 * GIB
    states = {(one["deployment"], one["state"]) for one, _ in metrics["deepseek_deployment_state"]}
    assert states == {
        ("vllm:deepseek-ai/DeepSeek-R1", "warm"),
        ("vllm:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "loading"),
    }


@pytest.mark.parametrize(("name", "gpu"), [("8xh200-r1", "5"), ("8xmi300x-r1", "2")])
def test_a_stranger_holds_what_belongs_to_no_deployment(name: str, gpu: str, tmp_path: Path) -> None:
    metrics = see(tmp_path / "host", name, "stranger").metrics
    assert {one for one in map(str, range(8)) if others(metrics, one) > GIB} == {gpu}
    assert value(metrics, "deepseek_gpu_memory_held_bytes", gpu=gpu, holder="other") == 10 * GIB


def others(metrics: Metrics, gpu: str) -> float:
    return sum(
        size
        for labels, size in metrics["deepseek_gpu_memory_held_bytes"]
        if labels["gpu"] == gpu and labels["holder_kind"] != "deployment"
    )


@pytest.mark.parametrize("name", ["8xh200-r1", "8xh100-v3-sglang", "two-node-r1-a"])
def test_a_saturated_cache_makes_requests_wait(name: str, tmp_path: Path) -> None:
    metrics = see(tmp_path / "host", name, "kv-saturation").metrics
    assert (value(metrics, "deepseek_kv_cache_usage_ratio") or 0) > 0.95
    assert (value(metrics, "deepseek_requests_waiting") or 0) > 0
    assert (value(metrics, "deepseek_preemptions_total") or 0) > 0


@pytest.mark.parametrize(("name", "gpu"), [("8xh100-v3-sglang", "3"), ("two-node-r1-b", "6")])
def test_a_lost_device_is_down_with_its_xid_and_no_other(name: str, gpu: str, tmp_path: Path) -> None:
    metrics = see(tmp_path / "host", name, "gpu-lost").metrics
    assert {labels["gpu"]: up for labels, up in metrics["deepseek_gpu_up"]} == {
        str(index): float(str(index) != gpu) for index in range(8)
    }
    assert value(metrics, "deepseek_gpu_state", gpu=gpu, state="lost") == 1
    assert value(metrics, "deepseek_gpu_xid_errors_total", gpu=gpu, xid="79") == 1
    assert value(metrics, "deepseek_gpu_memory_used_bytes", gpu=gpu) is None
    expected = {labels["gpu"] for labels, _ in metrics["deepseek_expected_gpu_memory_bytes"]}
    assert expected == set(map(str, range(8))), "a deployment keeps its expectation when a device is lost"


def test_amd_devices_are_read_from_the_recorded_sys(tmp_path: Path) -> None:
    metrics = see(tmp_path / "host", "8xmi300x-r1").metrics
    assert {(labels["vendor"], labels["name"]) for labels, _ in metrics["deepseek_gpu_info"]} == {
        ("amd", "AMD Instinct MI300X")
    }
    assert value(metrics, "deepseek_exporter_source_state", source="amdgpu", state="up") == 1
    assert 300 < (value(metrics, "deepseek_gpu_power_watts", gpu="0") or 0) < 750


def test_a_link_between_nodes_is_full_one_way_and_a_node_without_server_knows_its_ceiling(
    tmp_path: Path,
) -> None:
    metrics = see(tmp_path / "host", "two-node-r1-b", "link-full").metrics
    assert (value(metrics, "deepseek_deployment_link_usage_ratio", direction="sent") or 0) > 0.9
    assert (value(metrics, "deepseek_deployment_link_usage_ratio", direction="received") or 1) < 0.1
    assert value(metrics, "deepseek_deployment_link_info", interface="mlx5_0:1", basis="rdma") == 1
    assert (value(metrics, "deepseek_deployment_link_ceiling_tokens_per_second", bound="low") or 0) > 14_000
    assert value(metrics, "deepseek_deployment_active") == 1


def test_heat_slows_one_device(tmp_path: Path) -> None:
    metrics = see(tmp_path / "host", "4x4090-distill", "heat").metrics
    limited = {
        labels["gpu"]
        for labels, holds in metrics["deepseek_gpu_clocks_limited"]
        if labels["reason"] == "sw_thermal_slowdown" and holds
    }
    assert limited == {"2"}
    assert (value(metrics, "deepseek_gpu_temperature_celsius", gpu="2", sensor="gpu") or 0) > 85


@pytest.mark.parametrize("name", ["dual-epyc-cpu", "4090-hybrid-r1"])
def test_ram_that_runs_out_drives_mapped_weights_away(name: str, tmp_path: Path) -> None:
    metrics = see(tmp_path / "host", name, "ram").metrics
    assert (value(metrics, "deepseek_host_memory_overcommit_ratio", bound="low") or 0) > 1
    assert (value(metrics, "deepseek_host_swap_used_bytes") or 0) > GIB
    assert 0.5 < (value(metrics, "deepseek_deployment_weights_resident_ratio") or 0) < 0.98
    assert value(metrics, "deepseek_deployment_up") == 1
