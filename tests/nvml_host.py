"""An NvmlSource for the hardware tests, with deadlines short enough for a test, and what is asked of it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from fake_nvml.control import FakeDriver

from exporter.hardware.gpu import Gpu, GpuState, Number
from exporter.hardware.inventory import Inventory
from exporter.hardware.nvidia_source import NvmlSource
from exporter.hardware.process import COMMAND
from exporter.hardware.sweep import Sweep
from exporter.settings.options import Nvml

INTERVAL_SECONDS = 2.0
PACE_SECONDS = 0.05
"""between two sweeps: more often than a daemon would, so that a test is short"""
OPTIONS = Nvml(device_deadline=0.4, init_deadline=2.0, quarantine=0.4, retry=0.1, release_for=60.0)

DriverFactory = Callable[..., FakeDriver]


@dataclass
class Host:
    """One NvmlSource and what its sweeps gave."""

    source: NvmlSource
    interval_seconds: float = INTERVAL_SECONDS
    sweeps: list[Sweep] = field(default_factory=list)
    longest_seconds: float = 0.0

    @property
    def last(self) -> Sweep:
        return self.sweeps[-1]

    async def sweep(self) -> Sweep:
        started = time.monotonic()
        sweep = await self.source.sweep(self.interval_seconds)
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - started)
        self.sweeps.append(sweep)
        return sweep

    async def until(self, condition: Callable[[Sweep], object], *, seconds: float = 10.0) -> Sweep:
        """Sweep until it comes true; AssertionError when it does not in time."""
        deadline = time.monotonic() + seconds
        while not condition(sweep := await self.sweep()):
            assert time.monotonic() < deadline, f"not within {seconds} s: {sweep.state} {states(sweep)}"
            await asyncio.sleep(PACE_SECONDS)
        return sweep

    async def within(self, sweeps: int, condition: Callable[[Sweep], object]) -> Sweep:
        """One of the next `sweeps` meets the condition."""
        for _ in range(sweeps):
            if condition(sweep := await self.sweep()):
                return sweep
            await asyncio.sleep(PACE_SECONDS)
        raise AssertionError(f"not within {sweeps} sweeps: {sweep.state} {states(sweep)}")

    async def up(self) -> Sweep:
        """The first sweep in which the driver answers."""
        return await self.until(lambda sweep: sweep.up)


def states(sweep: Sweep) -> dict[Number, str]:
    """Number → state, of the devices in the inventory and their slices."""
    return {gpu.identity.number: gpu.state.value for gpu in sweep.gpus}


def gpu_at(sweep: Sweep, number: Number) -> Gpu:
    """The one device with this number."""
    (found,) = (gpu for gpu in sweep.gpus if gpu.identity.number == number)
    return found


def all_up(count: int) -> Callable[[Sweep], bool]:
    return lambda sweep: states(sweep) == dict.fromkeys(range(count), GpuState.UP)


def run(
    body: Callable[[Host], Coroutine[Any, Any, None]],
    *,
    options: Nvml = OPTIONS,
    inventory: Path | None = None,
    interval_seconds: float = INTERVAL_SECONDS,
    command: Sequence[str] = COMMAND,
) -> Host:
    """Run a test's body with a fresh source, close it, and check that it leaves no process behind."""

    async def main() -> Host:
        host = Host(NvmlSource(options, Inventory(inventory), command=command), interval_seconds)
        try:
            await body(host)
        finally:
            await host.source.close()
        return host

    before = set(children())
    host = asyncio.run(main())
    assert set(children()) <= before, "close() left a worker behind"
    return host


def children() -> list[int]:
    """Living children of this process."""
    return [child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # the folder changes while a Path would list it


@dataclass
class FakeClock:
    """A clock that a test turns."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now
