"""A size of which two ends are known: pages are decided on the low one, tickets on the high one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from exporter.footprint.result import Term


@dataclass(frozen=True, slots=True)
class Bounds:
    """A number of bytes that lies between `low` and `high`."""

    low: int
    high: int

    def __add__(self, other: Bounds) -> Bounds:
        return Bounds(self.low + other.low, self.high + other.high)

    def at_least(self, floor: int) -> Bounds:
        """Both ends raised to `floor`."""
        return Bounds(max(self.low, floor), max(self.high, floor))

    def beyond(self, part: int) -> Bounds:
        """What of both ends lies above `part`."""
        return Bounds(max(self.low - max(part, 0), 0), max(self.high - max(part, 0), 0))

    def items(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """("low", bytes), ("high", bytes)"""
        return ("low", self.low), ("high", self.high)


ZERO = Bounds(0, 0)


def sum_bounds(terms: Iterable[Term]) -> Bounds:
    """Both ends of several terms together."""
    total = ZERO
    for term in terms:
        total += Bounds(term.low_bytes, term.high_bytes)
    return total
