"""The example routes and inhibitions, in a real Alertmanager: who is told, and what is not told twice."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_tools import found, run

EXAMPLE = Path(__file__).parents[2] / "rules" / "alertmanager.example.yml"
START_SECONDS = 20.0
SETTLE_SECONDS = 5.0

HOST_A = {"instance": "a:9671", "job": "deepseek"}
HOST_B = {"instance": "b:9671", "job": "deepseek"}
GPU_0 = {"gpu": "0", "uuid": "GPU-a0"}
GPU_1 = {"gpu": "1", "uuid": "GPU-a1"}

Labels = dict[str, str]


def test_the_configuration_is_valid() -> None:
    checked = run("amtool", "check-config", EXAMPLE)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("alert", "severity", "receiver"),
    [
        ("DeepSeekVramOvercommitted", "critical", "page"),
        ("DeepSeekExporterAbsent", "critical", "page"),
        ("DeepSeekMonitoringBlind", "warning", "ticket"),
        ("DeepSeekWatchdog", "none", "dead-mans-switch"),
        ("DeepSeekIdleWaste", "info", "board"),
        ("DeepSeekKvCapacityBelowPlan", "critical", "page"),
        ("DeepSeekCapacityExhaustion", "warning", "ticket"),
        ("DeepSeekCapacityExhaustion", "info", "board"),
    ],
)
def test_severity_decides_who_is_told(alert: str, severity: str, receiver: str) -> None:
    labels = (f"alertname={alert}", f"severity={severity}")
    routed = run("amtool", "config", "routes", "test", f"--config.file={EXAMPLE}", *labels)
    assert routed.stdout.splitlines()[-1] == receiver


class Alertmanager:
    """Talks to one that runs on loopback."""

    def __init__(self, port: int) -> None:
        self._alerts = f"http://127.0.0.1:{port}/api/v2/alerts"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def answers(self) -> bool:
        try:
            self._opener.open(self._alerts, timeout=2).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def fire(self, *alerts: Labels) -> None:
        headers = {"Content-Type": "application/json"}
        body = json.dumps([{"labels": labels} for labels in alerts]).encode()
        self._opener.open(urllib.request.Request(self._alerts, body, headers), timeout=5).close()

    def inhibited(self) -> list[str]:
        """Which alerts are silenced by another, as `name instance` and what else names the subject."""
        with self._opener.open(self._alerts, timeout=5) as answer:
            alerts = json.load(answer)
        named = ("alertname", "instance", "resource", "deployment", "uuid")
        return sorted(
            " ".join(alert["labels"][name] for name in named if name in alert["labels"])
            for alert in alerts
            if alert["status"]["inhibitedBy"]
        )

    def settles_on(self, expected: list[str]) -> None:
        """The server inhibits a moment after it takes an alert; AssertionError with what it ends on."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.inhibited() != expected and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.inhibited() == expected


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    log = tmp_path / "alertmanager.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                found("prometheus-alertmanager"),
                f"--config.file={EXAMPLE}",
                f"--storage.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=output,
            stderr=output,
        )
    try:
        server = Alertmanager(port)
        deadline = time.monotonic() + START_SECONDS
        while not server.answers():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait(10)


def alert(name: str, *labels: Labels, severity: str = "critical") -> Labels:
    merged: Labels = {"alertname": name, "severity": severity}
    for more in labels:
        merged |= more
    return merged


@pytest.mark.e2e
def test_a_host_whose_exporter_is_down_makes_one_ticket(alertmanager: Alertmanager) -> None:
    alertmanager.fire(
        alert("DeepSeekExporterDown", HOST_A, severity="warning"),
        alert("DeepSeekVramOvercommitted", HOST_A, GPU_0),
        alert("DeepSeekHostMemoryOvercommitted", HOST_A),
        alert("DeepSeekHostMemoryOvercommitted", HOST_B),
        alert("DeepSeekExporterAbsent"),
        alert("DeepSeekWatchdog", severity="none"),
        alert("NodeDown", HOST_A),
    )
    alertmanager.settles_on(
        ["DeepSeekHostMemoryOvercommitted a:9671", "DeepSeekVramOvercommitted a:9671 GPU-a0"]
    )


@pytest.mark.e2e
def test_a_lost_device_silences_its_own_alerts_only(alertmanager: Alertmanager) -> None:
    # RAM alerts have no uuid: a rule that took a label missing on both sides for equal would silence them.
    alertmanager.fire(
        alert("DeepSeekGpuLost", HOST_A, GPU_0),
        alert("DeepSeekVramOvercommitted", HOST_A, GPU_0),
        alert("DeepSeekVramOvercommitted", HOST_A, GPU_1),
        alert("DeepSeekHostMemoryOvercommitted", HOST_A),
        alert("DeepSeekMonitoringBlind", HOST_A, {"source": "nvml"}, severity="warning"),
    )
    alertmanager.settles_on(["DeepSeekVramOvercommitted a:9671 GPU-a0"])


@pytest.mark.e2e
def test_a_certain_shortage_silences_suspicions_of_its_host_only(alertmanager: Alertmanager) -> None:
    others_b = {"gpu": "0", "uuid": "GPU-b0"}
    alertmanager.fire(
        alert("DeepSeekVramOvercommitted", HOST_A, GPU_0),
        alert("DeepSeekVramOvercommitLikely", HOST_A, GPU_1, severity="warning"),
        alert("DeepSeekForeignVram", HOST_A, GPU_0, severity="warning"),
        alert("DeepSeekGpuErrors", HOST_A, GPU_0, severity="warning"),
        alert("DeepSeekHostMemoryPressure", HOST_A),
        alert("DeepSeekVramOvercommitLikely", HOST_B, others_b, severity="warning"),
        alert("DeepSeekForeignVram", HOST_B, others_b, severity="warning"),
    )
    alertmanager.settles_on(
        ["DeepSeekForeignVram a:9671 GPU-a0", "DeepSeekVramOvercommitLikely a:9671 GPU-a1"]
    )


@pytest.mark.e2e
def test_lost_devices_do_not_silence_each_other(alertmanager: Alertmanager) -> None:
    for device in (GPU_0, GPU_1):
        alertmanager.fire(
            alert("DeepSeekGpuLost", HOST_A, device), alert("DeepSeekVramOvercommitted", HOST_A, device)
        )
    alertmanager.settles_on(
        ["DeepSeekVramOvercommitted a:9671 GPU-a0", "DeepSeekVramOvercommitted a:9671 GPU-a1"]
    )


@pytest.mark.e2e
def test_a_certain_shortage_silences_the_forecast_of_its_device_only(alertmanager: Alertmanager) -> None:
    pool = {"job": "deepseek", "pool": "h200"}
    alertmanager.fire(
        alert("DeepSeekVramOvercommitted", HOST_A, GPU_0),
        alert("DeepSeekVramGrowthWillExhaust", HOST_A, GPU_0, severity="warning"),
        alert("DeepSeekVramGrowthWillExhaust", HOST_A, GPU_1, severity="warning"),
        alert("DeepSeekVramRolloutOverlap", HOST_A, GPU_1, severity="warning"),
        alert("DeepSeekCapacityNMinusOne", pool, severity="warning"),
    )
    alertmanager.settles_on(["DeepSeekVramGrowthWillExhaust a:9671 GPU-a0"])


@pytest.mark.e2e
@pytest.mark.parametrize("source", ["nvml", "processes"])
def test_blindness_silences_deviations_of_its_host_only(alertmanager: Alertmanager, source: str) -> None:
    r1 = {"deployment": "r1"}
    alertmanager.fire(
        alert("DeepSeekMonitoringBlind", HOST_A, {"source": source}, severity="warning"),
        alert("DeepSeekVramAboveExpected", HOST_A, r1, GPU_0, severity="warning"),
        alert("DeepSeekVramBelowExpected", HOST_A, r1, GPU_1, severity="warning"),
        alert("DeepSeekVramAboveExpected", HOST_B, r1, GPU_0, severity="warning"),
        alert("DeepSeekVramOvercommitted", HOST_A, GPU_0),
        alert("DeepSeekGpuErrors", HOST_A, GPU_0, severity="warning"),
    )
    alertmanager.settles_on(
        ["DeepSeekVramAboveExpected a:9671 r1 GPU-a0", "DeepSeekVramBelowExpected a:9671 r1 GPU-a1"]
    )


@pytest.mark.e2e
def test_blindness_for_something_else_silences_no_deviation(alertmanager: Alertmanager) -> None:
    alertmanager.fire(
        alert("DeepSeekMonitoringBlind", HOST_A, {"source": "host"}, severity="warning"),
        alert("DeepSeekVramAboveExpected", HOST_A, {"deployment": "r1"}, GPU_0, severity="warning"),
        # A pair that is silenced shows that the server has got as far as inhibiting.
        alert("DeepSeekGpuLost", HOST_B, GPU_1),
        alert("DeepSeekGpuErrors", HOST_B, GPU_1, severity="warning"),
    )
    alertmanager.settles_on(["DeepSeekGpuErrors b:9671 GPU-a1"])


@pytest.mark.e2e
def test_a_pool_below_its_plan_silences_its_own_saturation_only(alertmanager: Alertmanager) -> None:
    alertmanager.fire(
        alert("DeepSeekKvCapacityBelowPlan", HOST_A, {"deployment": "r1"}),
        alert("DeepSeekKvCacheSaturated", HOST_A, {"deployment": "r1"}, severity="warning"),
        alert("DeepSeekKvCacheSaturated", HOST_A, {"deployment": "v3"}, severity="warning"),
        alert("DeepSeekKvCacheSaturated", HOST_B, {"deployment": "r1"}, severity="warning"),
    )
    alertmanager.settles_on(["DeepSeekKvCacheSaturated a:9671 r1"])


@pytest.mark.e2e
def test_a_ticket_about_exhaustion_silences_its_own_note_only(alertmanager: Alertmanager) -> None:
    # GPU memory and RAM have no deployment: only `resource` keeps the one from silencing the other.
    name = "DeepSeekCapacityExhaustion"
    of_r1 = {"resource": "kv_cache", "deployment": "r1"}
    of_v3 = {"resource": "kv_cache", "deployment": "v3"}
    gpu_memory, ram = {"resource": "gpu_memory"}, {"resource": "ram"}
    alertmanager.fire(
        alert(name, HOST_A, of_r1, severity="warning"),
        alert(name, HOST_A, gpu_memory, severity="warning"),
        *(alert(name, HOST_A, one, severity="info") for one in (of_r1, of_v3, gpu_memory, ram)),
        alert(name, HOST_B, gpu_memory, severity="info"),
    )
    alertmanager.settles_on([f"{name} a:9671 gpu_memory", f"{name} a:9671 kv_cache r1"])


@pytest.mark.e2e
def test_overcommitted_ram_silences_evictions_of_its_host_only(alertmanager: Alertmanager) -> None:
    r1 = {"deployment": "r1"}
    alertmanager.fire(
        alert("DeepSeekHostMemoryOvercommitted", HOST_A),
        alert("DeepSeekWeightsEvicted", HOST_A, r1, severity="warning"),
        alert("DeepSeekWeightsEvicted", HOST_B, r1, severity="warning"),
        alert("DeepSeekHostMemoryPressure", HOST_A),
    )
    alertmanager.settles_on(["DeepSeekWeightsEvicted a:9671 r1"])


@pytest.mark.e2e
def test_a_lost_device_silences_placements_on_it_only(alertmanager: Alertmanager) -> None:
    r1 = {"deployment": "r1"}
    alertmanager.fire(
        alert("DeepSeekGpuLost", HOST_A, GPU_0),
        alert("DeepSeekVramBelowExpected", HOST_A, r1, GPU_0, severity="warning"),
        alert("DeepSeekVramBelowExpected", HOST_A, r1, GPU_1, severity="warning"),
        alert("DeepSeekKvCacheSaturated", HOST_A, r1, severity="warning"),
    )
    alertmanager.settles_on(["DeepSeekVramBelowExpected a:9671 r1 GPU-a0"])
