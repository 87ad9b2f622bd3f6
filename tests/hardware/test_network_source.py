"""The network is read beside the polls: a driver that sleeps costs its own reading and nobody's time."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from network_tree import NetworkTree

from exporter.hardware import network_source
from exporter.hardware.network_source import NetworkSource


def test_what_changes_seldom_is_looked_up_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = NetworkTree(tmp_path)
    tree.card("eth0", "25000", sent=1)

    async def main() -> None:
        source = NetworkSource(tmp_path, tmp_path)
        first = await source.read()
        tree.card("eth0", "10000", sent=2)
        second = await source.read()
        monkeypatch.setattr(network_source, "LOOK_SECONDS", 0.0)
        third = await source.read()
        source.close()
        assert first is not None and second is not None and third is not None
        seen = [(one.interfaces[0].bytes_total["sent"], one.interfaces[0].speed_bytes_per_second)
                for one in (first, second, third)]  # fmt: skip
        assert seen == [(1, 3_125_000_000), (2, 3_125_000_000), (2, 1_250_000_000)]
        assert source.state == "up"

    asyncio.run(main())


def test_what_is_newly_wanted_is_looked_up_at_once(tmp_path: Path) -> None:
    tree = NetworkTree(tmp_path)
    tree.virtual("eth0")

    async def main() -> None:
        source = NetworkSource(tmp_path, tmp_path)
        before, after = await source.read(), await source.read(("eth0",))
        source.close()
        assert before is not None and after is not None
        assert (len(before.interfaces), len(after.interfaces)) == (0, 1)

    asyncio.run(main())


def test_a_driver_that_sleeps_keeps_no_poll_and_is_not_asked_again_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_source, "WAIT_SECONDS", 0.05)
    tree = NetworkTree(tmp_path)
    folder = tree.card("eth0", None, sent=1)
    # Opening a named pipe blocks until somebody writes.
    os.mkfifo(folder / "speed")

    async def main() -> None:
        source = NetworkSource(tmp_path, tmp_path)
        started = time.monotonic()
        assert [await source.read() for _ in range(3)] == [None] * 3
        assert time.monotonic() - started < 1
        assert (source.state, dict(source.errors)) == ("stalled", {"stalled": 1})
        (folder / "speed").write_text("25000\n")
        async with asyncio.timeout(5):
            while (reading := await source.read()) is None:
                await asyncio.sleep(0.01)
        source.close()
        assert source.state == "up"
        assert reading.interfaces[0].bytes_total == {"sent": 1, "received": 0}

    asyncio.run(main())


def test_a_host_without_a_network_says_why(tmp_path: Path) -> None:
    async def main() -> None:
        source = NetworkSource(tmp_path, tmp_path)
        assert await source.read() is None
        source.close()
        assert source.state == "enoent"

    asyncio.run(main())
