"""One poll: what it reads, and that nothing on the host makes it wait for ever."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from exporter.daemon import engines
from exporter.daemon.poller import Poller
from exporter.hardware.gpu import GpuIdentity
from exporter.hardware.inventory import Inventory
from exporter.settings.options import Deployment, Host, Nvml, Poll, Settings
from exporter.snapshot import Snapshot

LLAMA = Deployment(name="r1", model="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", engine="llama.cpp")


def a_poller(root: Path, **settings: object) -> Poller:
    """A poller of a small host without NVIDIA."""
    (root / "proc").mkdir()
    (root / "proc" / "meminfo").write_text("MemTotal: 67108864 kB\nMemAvailable: 41943040 kB\n")
    base: dict[str, object] = {
        "nvml": Nvml(enabled=False),
        "host": Host(proc_path=root / "proc", sys_path=root / "sys"),
    }
    return Poller(Settings(**(base | settings)), Inventory(None))  # type: ignore[arg-type]


def states(snapshot: Snapshot) -> dict[str, str]:
    return {source.name: source.state for source in snapshot.sources}


def test_one_poll_reads_the_host(tmp_path: Path) -> None:
    snapshot = asyncio.run(a_poller(tmp_path).poll())
    assert states(snapshot) == {"nvml": "disabled", "host": "up", "processes": "up"}
    assert snapshot.host is not None
    assert snapshot.host.memory_available_bytes == 40 * 2**30
    assert snapshot.visible_gpus == {}


def test_a_host_that_cannot_be_read_is_absent_with_its_last_success(tmp_path: Path) -> None:
    one = a_poller(tmp_path)

    async def main() -> tuple[Snapshot, Snapshot]:
        before = await one.poll()
        (tmp_path / "proc" / "meminfo").unlink()
        return before, await one.poll()

    before, after = asyncio.run(main())
    assert after.host is None
    assert after.assessment.host is None
    assert states(after)["host"] == "unreadable"
    (seen,) = (source for source in before.sources if source.name == "host")
    (lost,) = (source for source in after.sources if source.name == "host")
    assert lost.last_success_seconds == seen.last_success_seconds
    assert lost.errors == {"unreadable": 1}


GPU = GpuIdentity("GPU-1", 0, "NVIDIA H200", "nvidia", "", "dedicated")
DECLARED = Deployment(name="r1", model="deepseek-ai/DeepSeek-R1", engine="vllm", devices=[0])


@pytest.mark.parametrize(
    ("enabled", "remembered", "deployments", "expected"),
    [
        (True, False, [], False),
        (True, True, [], True),
        (True, False, [DECLARED], True),
        (True, False, [LLAMA], False),
        (False, True, [DECLARED], False),
    ],
)
def test_gpus_are_expected_where_one_was_seen_or_is_declared_and_nvml_is_not_switched_off(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    enabled: bool,
    remembered: bool,
    deployments: list[Deployment],
    expected: bool,
) -> None:
    (tmp_path / "libnvidia-ml.so.1").touch()  # no library, also where this machine has one
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    one = a_poller(tmp_path, nvml=Nvml(enabled=enabled), deployments=deployments)
    if remembered:
        one.nvml.inventory.remember(GPU)

    async def main() -> Snapshot:
        try:
            return await one.poll()
        finally:
            await one.nvml.close()

    snapshot = asyncio.run(main())
    assert [source.expected for source in snapshot.sources if source.name == "nvml"] == [expected]
    assert snapshot.expected_gpus == int(remembered)


def test_a_process_file_that_blocks_does_not_hold_polls_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "SCAN_SECONDS", 0.2)
    one = a_poller(tmp_path, deployments=[LLAMA])
    asleep = tmp_path / "proc" / "77"
    asleep.mkdir()
    os.mkfifo(asleep / "stat")  # opening it waits, as the command line of a process in the D state does

    async def main() -> list[Snapshot]:
        started = time.monotonic()
        stalled = [await one.poll() for _ in range(2)]
        assert time.monotonic() - started < 2
        with (asleep / "stat").open("w"):
            (asleep / "stat").unlink()  # it returns, and does not wait again for whoever looks next
        return [*stalled, await one.poll()]

    first, second, third = asyncio.run(main())
    assert states(first)["processes"] == states(second)["processes"] == "stalled"
    assert first.host is not None
    assert states(third)["processes"] == "up"


def test_polls_keep_to_their_interval_and_end_when_told(tmp_path: Path) -> None:
    one = a_poller(tmp_path, poll=Poll(interval=0.2))
    times: list[float] = []

    async def main() -> None:
        stop = asyncio.Event()

        def publish(snapshot: Snapshot) -> None:
            times.append(time.monotonic())
            if len(times) == 4:
                stop.set()

        async with asyncio.timeout(5):
            await one.run(publish, stop)

    asyncio.run(main())
    assert len(times) == 4
    assert times[-1] - times[0] == pytest.approx(0.6, abs=0.15)
