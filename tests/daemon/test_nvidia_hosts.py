"""Whole hosts with NVIDIA GPUs, from the driver to the exposition, read and rendered as the daemon does.

Hosts, and what of them is recorded: tests/nvidia_hosts.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import recorded_exposition
from fake_nvml.devices import MIB, FakeDevice
from nvidia_hosts import NvidiaHost, a100_mig, eight_h100, four_rtx_4090, gb10, h100_mig
from recorded_exposition import assert_as_recorded, exposition

from exporter.settings.options import Amd, Deployment, Host, Settings
from exporter.snapshot import Snapshot

GOLDEN = Path(__file__).parent / "golden"
Poll = Callable[..., Snapshot]


@pytest.fixture
def poll(monkeypatch: pytest.MonkeyPatch) -> Poll:
    """One poll of a host, as soon as its driver has answered."""

    def once(made: NvidiaHost, **more: object) -> Snapshot:
        for key, text in made.env.items():
            monkeypatch.setenv(key, text)
        base: dict[str, object] = {
            "host": Host(proc_path=made.proc, sys_path=made.sys, cgroup_limit="ignore"),
            "amd": Amd(enabled=False),
        }
        return recorded_exposition.poll(Settings(**(base | more)))  # type: ignore[arg-type]

    return once


def value(snapshot: Snapshot, name: str, **labels: str) -> float:
    """The one sample of a family that has these labels."""
    found = [line for line in exposition(snapshot) if line.startswith(f"{name}{{")]
    (line,) = [line for line in found if all(f'{key}="{text}"' in line for key, text in labels.items())]
    return float(line.rpartition(" ")[2])


def total(snapshot: Snapshot, name: str) -> float:
    """What `sum(name)` gives over the host."""
    return sum(
        float(line.rpartition(" ")[2]) for line in exposition(snapshot) if line.startswith(f"{name}{{")
    )


@pytest.mark.parametrize(
    "make", [eight_h100, four_rtx_4090, a100_mig, h100_mig, gb10], ids=lambda make: make.__name__
)
def test_a_host_s_exposition_is_as_recorded(
    tmp_path: Path, poll: Poll, make: Callable[[Path], NvidiaHost]
) -> None:
    assert_as_recorded(poll(make(tmp_path)), GOLDEN / f"{make.__name__}.prom")


def test_sums_over_a_host_in_mig_mode_count_every_byte_and_watt_once(tmp_path: Path, poll: Poll) -> None:
    snapshot = poll(h100_mig(tmp_path))
    assert total(snapshot, "deepseek_gpu_memory_total_bytes") == 80_512 * MIB
    assert total(snapshot, "deepseek_gpu_memory_capacity_bytes") == 80_512 * MIB
    assert total(snapshot, "deepseek_gpu_power_watts") == 432
    assert snapshot.expected_gpus == 1
    assert total(snapshot, "deepseek_gpus") == 1


def test_an_engine_is_found_on_its_slice_and_judged_there(tmp_path: Path, poll: Poll) -> None:
    snapshot = poll(h100_mig(tmp_path))
    (one,) = snapshot.assessment.deployments
    assert one.declared.device_indices == ("0:3",)
    assert one.declared.footprint is not None
    assert one.state == "warm"
    name = one.declared.name
    assert value(snapshot, "deepseek_gpu_memory_held_bytes", gpu="0:3", holder=name) == 18_050 * MIB
    assert abs(value(snapshot, "deepseek_gpu_memory_deviation_ratio", gpu="0:3", deployment=name)) < 0.05
    assert 0.85 < value(snapshot, "deepseek_gpu_memory_overcommit_ratio", gpu="0:3", bound="low") < 1
    # The three strangers of the capture hold what is theirs of the other slice.
    assert value(snapshot, "deepseek_gpu_memory_held_bytes", gpu="0:2", holder="other") == 11_052 * MIB


def test_a_deployment_can_be_declared_on_a_slice_and_must_find_room_there(tmp_path: Path, poll: Poll) -> None:
    entry = Deployment(
        name="distill", model="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", devices=["0:9"], memory_fraction=0.9
    )
    snapshot = poll(h100_mig(tmp_path), deployments=[entry])
    assert value(snapshot, "deepseek_gpu_memory_overcommit_ratio", gpu="0:9", bound="low") > 1
    assert value(snapshot, "deepseek_gpu_memory_overcommit_ratio", gpu="0:2", bound="low") < 1


def test_ram_of_a_unified_device_is_told_once_as_memory_and_never_as_its_use(
    tmp_path: Path, poll: Poll
) -> None:
    snapshot = poll(gb10(tmp_path))
    assert total(snapshot, "deepseek_gpu_memory_total_bytes") == 127_600_748 * 1024
    lines = exposition(snapshot)
    assert not [line for line in lines if re.match(r"deepseek_gpu_memory_(used|free|reserved)_bytes", line)]
    (one,) = snapshot.assessment.deployments
    assert one.state == "warm"
    held = value(snapshot, "deepseek_gpu_memory_held_bytes", holder=one.declared.name)
    assert held == 62_200 * MIB
    host = snapshot.assessment.host
    assert host is not None
    in_use = (127_600_748 - 118_566_368 + 62_200 * 1024) * 1024
    # All that is in use, and what the engine may still take; nothing twice.
    may_take = snapshot.assessment.devices[one.declared.ranks[0]].committed.low - held
    assert host.committed.low == in_use + max(0, may_take)


def test_without_slices_a_gpu_in_mig_mode_says_that_it_has_none(tmp_path: Path, poll: Poll) -> None:
    device = FakeDevice.h100()
    device.mig_enabled = 1
    entry = Deployment(name="v2", model="deepseek-ai/DeepSeek-V2-Lite", devices=[0])
    snapshot = poll(NvidiaHost(tmp_path, [device], 64 << 20, 60 << 20), deployments=[entry])
    assert value(snapshot, "deepseek_gpu_mig_slices", gpu="0") == 0
    assert value(snapshot, "deepseek_gpu_up", gpu="0") == 1
    assert total(snapshot, "deepseek_gpu_memory_total_bytes") == 0
    assert snapshot.assessment.devices == {}
    assert snapshot.assessment.deployments[0].declared.footprint is None


def test_an_orin_has_the_size_of_ram_and_no_word_on_who_holds_it(tmp_path: Path, poll: Poll) -> None:
    host = NvidiaHost(tmp_path, [FakeDevice.orin()], 64 << 20, 20 << 20, driver_version="595.78")
    host.runs(900, "/usr/bin/python3 /usr/local/bin/vllm serve deepseek-ai/DeepSeek-R1-Distill-Qwen-7B")
    snapshot = poll(host)
    assert total(snapshot, "deepseek_gpu_memory_total_bytes") == 64 << 30
    assert total(snapshot, "deepseek_gpu_power_watts") == 0
    assert "deepseek_gpu_memory_held_bytes" not in " ".join(exposition(snapshot))
    assert snapshot.assessment.host is not None
    assert snapshot.assessment.host.committed.low >= 44 << 30
