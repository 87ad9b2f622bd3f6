"""On a real NVIDIA GPU only (`make gpu-smoke`): do we say what nvidia-smi says, how long do the calls take,
do we let go of the driver? Saves what was read, with identifiers masked, under tests/captures/.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_process import RunningDaemon

pytestmark = pytest.mark.gpu

MIB = 2**20
CAPTURES = Path(__file__).parents[1] / "captures"
FIELDS = ("uuid", "memory.total", "memory.reserved", "enforced.power.limit", "pci.bus_id")
DEVICE_NODE = re.compile(r"/dev/nvidia(ctl|\d+)$")

LATENCIES = """
import inspect, json, sys, time
import pynvml as nvml
from exporter.hardware.nvidia import Driver
calls = {}
def timed(function):
    def call(*arguments, **named):
        started = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            calls.setdefault(function.__name__, []).append((time.perf_counter() - started) * 1e3)
    call.__name__ = function.__name__
    return call
for name, function in inspect.getmembers(nvml, inspect.isfunction):
    if name.startswith(("nvmlDevice", "nvmlSystem", "nvmlInit")):
        setattr(nvml, name, timed(function))
driver = Driver()
for _ in range(20):
    for index in range(driver.count()):
        driver.read(index)
json.dump({name: sorted(times) for name, times in calls.items()}, sys.stdout)
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("gpu")
    with RunningDaemon.start(folder, "--nvml.enabled", "true", env=os.environ, poll_seconds=1) as running:
        running.wait_until(lambda: "up" in running.states().values(), 120)
        yield running


def devices(daemon: RunningDaemon) -> dict[str, dict[str, Any]]:
    """Readings of our own by uuid."""
    gpus = daemon.request("snapshot")["gpus"]
    return {gpu["identity"]["uuid"]: gpu for gpu in gpus if gpu["reading"]}


def test_memory_and_limits_are_those_of_nvidia_smi(daemon: RunningDaemon) -> None:
    answer = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    ours = devices(daemon)
    rows = [line.split(", ") for line in answer.stdout.splitlines()]
    assert {row[0] for row in rows} == ours.keys()
    for uuid, total, reserved, limit, bus in rows:
        reading = ours[uuid]["reading"]
        assert reading["memory_total_bytes"] // MIB == int(total)
        assert reading["memory_reserved_bytes"] / MIB == pytest.approx(int(reserved), abs=1)
        assert reading["power_limit_watts"] == pytest.approx(float(limit), abs=0.01)
        assert ours[uuid]["identity"]["pci_bus_id"] == bus.lower()
        parts = ("memory_used_bytes", "memory_free_bytes", "memory_reserved_bytes")
        assert sum(reading[part] for part in parts) == reading["memory_total_bytes"]


def test_latency_of_every_call_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATENCIES], capture_output=True, text=True, timeout=300, check=True
    )
    calls = json.loads(done.stdout)
    assert "nvmlDeviceGetHandleByIndex" in calls
    with capsys.disabled():
        print(f"\n{'call':48}{'n':>5}{'p50 ms':>10}{'max ms':>10}")
        for name, times in sorted(calls.items(), key=lambda item: -item[1][-1]):
            print(f"{name:48}{len(times):5}{times[len(times) // 2]:10.3f}{times[-1]:10.3f}")


def test_release_closes_every_device_node(daemon: RunningDaemon) -> None:
    assert daemon.ctl("release").returncode == 0
    assert holders(daemon.process.pid) == set()
    assert daemon.ctl("resume").returncode == 0
    daemon.wait_until(lambda: "up" in daemon.states().values(), 120)


def test_a_capture_is_saved(daemon: RunningDaemon) -> None:
    for number, gpu in enumerate(devices(daemon).values()):
        identity = gpu["identity"]
        identity["uuid"] = f"GPU-masked-{number}"
        gpu["reading"]["processes"] = None
        name = re.sub(r"[^a-z0-9.]+", "-", f"{identity['name']}__{identity['driver_version']}".lower())
        CAPTURES.mkdir(exist_ok=True)
        (CAPTURES / f"{name}-{number}.json").write_text(json.dumps(gpu, indent=1, sort_keys=True) + "\n")
        assert gpu["reading"]["memory_total_bytes"] > 0


def holders(parent: int) -> set[int]:
    """Our processes that hold a device node open."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    pids = [parent, *(int(child) for child in children)]
    return {
        pid
        for pid in pids
        for link in Path(f"/proc/{pid}/fd").glob("*")
        if link.exists() and DEVICE_NODE.match(str(link.readlink()))
    }
