"""How fast counters grew lately, through resets: a pair of readings between which one fell is left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from exporter.hardware.network import Interface, NetworkReading

WINDOW_SECONDS = 60.0
"""Over which a rate is the average: longer than bursts, shorter than any alert waits."""
LEAST_SECONDS = 1.0
"""Two readings that lie closer tell more of the clock than of the link."""


class _Point(NamedTuple):
    at: float
    counters: Mapping[str, int]


class Rates:
    """The last minute (`window_seconds`) of every interface, on monotonic time."""

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window = window_seconds
        self._points: dict[str, deque[_Point]] = {}

    def add(self, reading: NetworkReading, at: float) -> NetworkReading:
        """The reading with the rates that follow from it and those before."""
        here = {one.name for one in reading.interfaces}
        self._points = {name: points for name, points in self._points.items() if name in here}
        return replace(reading, interfaces=tuple(self._rated(one, at) for one in reading.interfaces))

    def _rated(self, one: Interface, at: float) -> Interface:
        points = self._points.setdefault(one.name, deque())
        if not points or at - points[-1].at >= LEAST_SECONDS:
            points.append(_Point(at, one.bytes_total))
        # One point beyond the window stays, so that the whole of it is known.
        while len(points) > 2 and points[1].at <= at - self._window:
            points.popleft()
        rates = {}
        for direction in one.bytes_total:
            if (rate := _rate(points, direction)) is not None:
                rates[direction] = rate
        return replace(one, rate_bytes_per_second=rates)


def _rate(points: deque[_Point], direction: str) -> float | None:
    grown, seconds = 0, 0.0
    for before, after in zip(points, list(points)[1:], strict=False):
        first, last = before.counters.get(direction), after.counters.get(direction)
        if first is not None and last is not None and last >= first:
            grown += last - first
            seconds += after.at - before.at
    return grown / seconds if seconds else None
