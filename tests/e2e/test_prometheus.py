"""The whole way: this host and fake GPUs, through the daemon, into a real Prometheus with our rules."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil
import pytest
from daemon_process import RunningDaemon
from fake_nvml.control import FakeDriver
from fake_nvml.devices import many
from prometheus_process import RunningPrometheus

pytestmark = pytest.mark.e2e

R1_ON_GPUS = """
[[deployments]]
name = "{name}"
model = "deepseek-ai/DeepSeek-R1"
engine = "vllm"
devices = [0, 1, 2, 3, 4, 5, 6, 7]
tp = 8
max_model_len = 32768
max_num_seqs = 64
"""
IN_RAM = """
[[deployments]]
name = "cpu"
model = "{model}"
engine = "llama.cpp"
quantization = "Q4_K_M"
max_model_len = 4096
"""


def test_this_hosts_memory_arrives_as_the_kernel_tells_it(tmp_path: Path) -> None:
    with (
        RunningDaemon.start(tmp_path / "daemon") as daemon,
        RunningPrometheus.start(tmp_path / "prometheus", daemon.address) as prometheus,
    ):
        prometheus.wait_until(lambda: prometheus.value("deepseek_host_memory_available_bytes"))
        seen = prometheus.value("deepseek_host_memory_available_bytes")
        assert seen == pytest.approx(psutil.virtual_memory().available, rel=0.01)
        assert prometheus.value("deepseek_host_memory_total_bytes") == psutil.virtual_memory().total
        prometheus.wait_until(lambda: prometheus.firing() == set())


def test_what_is_served_is_clean_to_promtool(tmp_path: Path) -> None:
    driver = FakeDriver.create(tmp_path / "driver", many("h200", 8))
    with RunningDaemon.start(
        tmp_path / "daemon", driver=driver, config=R1_ON_GPUS.format(name="r1")
    ) as daemon:
        daemon.wait_until(lambda: daemon.value("deepseek_gpus", vendor="nvidia") == 8)
        _, body = daemon.get("/metrics")
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=body, capture_output=True, timeout=30, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_a_model_larger_than_ram_pages_and_resolves_when_the_declaration_goes(tmp_path: Path) -> None:
    config = IN_RAM.format(model="deepseek-ai/DeepSeek-R1")
    with (
        RunningDaemon.start(tmp_path / "daemon", config=config) as daemon,
        RunningPrometheus.start(tmp_path / "prometheus", daemon.address) as prometheus,
    ):
        prometheus.wait_until(lambda: "DeepSeekHostMemoryOvercommitted" in prometheus.firing())
        daemon.config_file.write_text("")
        assert daemon.ctl("reload").returncode == 0
        prometheus.wait_until(lambda: prometheus.firing() == set())
        assert daemon.value("deepseek_host_memory_overcommit_ratio", bound="low") < 1


def test_a_distill_in_ram_leaves_the_headroom_of_the_hand_calculation(tmp_path: Path) -> None:
    config = IN_RAM.format(model="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B")
    with RunningDaemon.start(tmp_path / "daemon", config=config) as daemon:
        snapshot = daemon.request("snapshot")
    assessment, host = snapshot["assessment"], snapshot["host"]
    [deployment] = assessment["deployments"]
    terms = deployment["declared"]["footprint"]["host"]["components"]
    low = {component: term["low_bytes"] for component, term in terms.items()}
    # Ollama's blob of this file has 4,683,073,184 bytes, 5.95 MB of them metadata.
    assert low["weights"] == pytest.approx(4_683_073_184 - 5.95e6, rel=0.001)
    # K and V of 28 layers with 4 heads of 128, 4,096 cells of 2 bytes.
    assert low["kv_cache"] == 2 * 28 * 4 * 128 * 4096 * 2
    in_use = host["memory_total_bytes"] - host["memory_available_bytes"]
    by_hand = host["memory_total_bytes"] - 2**30 - in_use - sum(low.values())
    assert assessment["host"]["headroom"]["low"] == by_hand
    assert by_hand > 0


def test_one_r1_fits_eight_gpus_and_a_second_one_pages(tmp_path: Path) -> None:
    driver = FakeDriver.create(tmp_path / "driver", many("h200", 8))
    one = R1_ON_GPUS.format(name="r1")
    with (
        RunningDaemon.start(tmp_path / "daemon", driver=driver, config=one) as daemon,
        RunningPrometheus.start(tmp_path / "prometheus", daemon.address) as prometheus,
    ):
        vram = 'deepseek_gpu_memory_overcommit_ratio{bound="low",gpu="0"}'
        prometheus.wait_until(lambda: prometheus.value(vram))
        assert prometheus.value(vram) < 1
        prometheus.wait_until(lambda: prometheus.value("count(ALERTS{alertname='DeepSeekWatchdog'})"))
        assert "DeepSeekVramOvercommitted" not in prometheus.firing()
        daemon.config_file.write_text(one + R1_ON_GPUS.format(name="r1-b"))
        assert daemon.ctl("reload").returncode == 0
        prometheus.wait_until(lambda: "DeepSeekVramOvercommitted" in prometheus.firing())
        page = prometheus.query('ALERTS{alertname="DeepSeekVramOvercommitted",alertstate="firing"}')
        assert {alert["metric"]["gpu"] for alert in page} == set("01234567")
        daemon.config_file.write_text(one)
        daemon.ctl("reload")
        prometheus.wait_until(lambda: "DeepSeekVramOvercommitted" not in prometheus.firing())


def test_a_lost_gpu_and_a_dead_driver_are_told_apart_from_capacity(tmp_path: Path) -> None:
    driver = FakeDriver.create(tmp_path / "driver", many("h200", 2))
    with (
        RunningDaemon.start(tmp_path / "daemon", driver=driver) as daemon,
        RunningPrometheus.start(tmp_path / "prometheus", daemon.address) as prometheus,
    ):
        prometheus.wait_until(lambda: prometheus.value("sum(deepseek_gpu_up)") == 2)
        driver.lose(0)
        prometheus.wait_until(lambda: prometheus.firing() == {"DeepSeekGpuLost"})
        driver.restore(0)
        prometheus.wait_until(lambda: prometheus.firing() == set())
