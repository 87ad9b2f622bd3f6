"""Devices that are left alone for a while, by index: those whose driver call does not return, and those whose
reading ends the worker process. Each further time the rest is twice as long.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from exporter.hardware.process import WorkerProcess

_LONGEST_SECONDS = 600.0


@dataclass(slots=True)
class Rest:
    """One device's rest: until its sentinel, the worker that is stuck there, returns or, without one, until
    `until` (monotonic). `worker_ended`: reading the device ended the worker."""

    until: float
    delay_seconds: float
    sentinel: WorkerProcess | None
    worker_ended: bool

    @property
    def over(self) -> bool:
        return self.sentinel is None and time.monotonic() >= self.until


class Quarantine:
    """The rests of all devices; one that is over stays known until the device answers."""

    def __init__(self) -> None:
        self._rests: dict[int, Rest] = {}

    def __len__(self) -> int:
        return len(self._rests)

    def __iter__(self) -> Iterator[int]:
        """Indices of the devices that rest now."""
        return (index for index, rest in self._rests.items() if not rest.over)

    def get(self, index: int) -> Rest | None:
        return self._rests.get(index)

    def add(self, index: int, first_seconds: float, sentinel: WorkerProcess | None) -> None:
        """Let a device rest: `first_seconds`, or twice as long as the last time, at most ten minutes."""
        before = self._rests.get(index)
        delay = first_seconds if before is None else before.delay_seconds * 2
        delay = min(delay, _LONGEST_SECONDS)
        self._rests[index] = Rest(time.monotonic() + delay, delay, sentinel, worker_ended=sentinel is None)

    def end(self, index: int) -> None:
        """The device has answered."""
        self._rests.pop(index, None)

    def clear(self) -> None:
        self._rests.clear()

    def sentinel_gone(self, sentinel: WorkerProcess, index: int, *, returned: bool) -> bool:
        """The stuck call returned, which ends the rest, or its worker died, which leaves the device to its
        time. False when this sentinel has no charge any more."""
        rest = self._rests.get(index)
        if rest is None or rest.sentinel is not sentinel:
            return False
        rest.sentinel = None
        if returned:
            rest.until = 0.0
        return True
