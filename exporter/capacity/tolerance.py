"""How far what a deployment holds may be from what it should, before somebody is told.

What was counted from the checkpoint and the settings is held to a tight tolerance, what could only be
estimated to a wide one; and nothing between the two ends of the estimate is a deviation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from exporter.footprint.result import RankFootprint


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Shares of the expected bytes, and bytes on top. The defaults are those of `deepseek_threshold`."""

    exact_ratio: float = 0.03
    exact_bytes: int = 2**29
    estimate_ratio: float = 0.08
    estimate_bytes: int = 2**31

    def of(self, ranks: Iterable[RankFootprint]) -> int:
        """Bytes by which a device may differ from the sum of these ranks."""
        counted = expected = high = 0
        for rank in ranks:
            counted += sum(
                term.low_bytes for term in rank.components.values() if term.low_bytes == term.high_bytes
            )
            expected += rank.total.expected_bytes
            high += rank.total.high_bytes
        counted = min(counted, expected)
        estimated = expected - counted
        margin = self.estimate_bytes if estimated else self.exact_bytes
        wide = self.exact_ratio * counted + self.estimate_ratio * estimated + margin
        return round(max(wide, high - expected + self.exact_bytes))
