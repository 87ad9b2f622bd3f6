"""What the daemon remembers of the series whose past its conditions ask for: growth, peaks, straight lines.

Values are kept at a sixtieth of the shortest window that asks for them, on monotonic time, so that the
longest window of the table, a day beside one of an hour, costs 1,440 numbers a series.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

_POINTS_PER_WINDOW = 60


@dataclass(slots=True)
class Track:
    """The past of one value: times (monotonic seconds, ascending) and what it was then."""

    times: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def since(self, at: float) -> tuple[array[float], array[float]]:
        """Times and values from `at` on."""
        first = bisect_left(self.times, at)
        return self.times[first:], self.values[first:]


class History:
    """Tracks of every value that windows ask for. `windows`: what is tracked → its windows in seconds."""

    def __init__(self, windows: Mapping[Hashable, tuple[float, ...]]) -> None:
        self._step = {what: min(asked) / _POINTS_PER_WINDOW for what, asked in windows.items()}
        self._longest = {what: max(asked) for what, asked in windows.items()}
        self._tracks: dict[tuple[Hashable, Hashable], Track] = {}

    def add(self, what: Hashable, of: Hashable, now: float, value: float) -> None:
        """Remember a value of `what` that belongs to `of`, unless the last one is younger than a step."""
        track = self._tracks.setdefault((what, of), Track())
        if track.times and now - track.times[-1] < self._step[what]:
            return
        track.times.append(now)
        track.values.append(value)
        # One point beyond the window stays, so that the value at its beginning is known.
        first = bisect_left(track.times, now - self._longest[what]) - 1
        if first > _POINTS_PER_WINDOW:
            del track.times[:first], track.values[:first]

    def forget(self, now: float) -> None:
        """Drop tracks that ended before their longest window."""
        for key in [key for key, one in self._tracks.items() if now - one.times[-1] > self._longest[key[0]]]:
            del self._tracks[key]

    def peak(self, what: Hashable, of: Hashable, now: float, window: float, value: float) -> float:
        """The greatest value within the window, the present one included."""
        track = self._tracks.get((what, of))
        return value if track is None else max(value, *track.since(now - window)[1], value)

    def growth(self, what: Hashable, of: Hashable, now: float, window: float, value: float) -> float | None:
        """By how much a counter grew within the window; a reset counts from zero. None: no past."""
        track = self._tracks.get((what, of))
        if track is None:
            return None
        past = track.since(now - window)[1]
        if not past:
            return None
        grown, before = 0.0, past[0]
        for at in (*past[1:], value):
            grown += at - before if at >= before else at
            before = at
        return grown

    def at_beginning(self, what: Hashable, of: Hashable, now: float, window: float) -> float | None:
        """The value as it was when the window began; None when the track does not reach back so far."""
        track = self._tracks.get((what, of))
        if track is None:
            return None
        after = bisect_right(track.times, now - window)
        if not after or now - window - track.times[after - 1] > 2 * self._step[what]:
            return None
        return track.values[after - 1]

    def is_steady(self, what: Hashable, of: Hashable, now: float, window: float, value: float) -> bool:
        """Whether every value since the beginning of the window is the present one."""
        if self.at_beginning(what, of, now, window) != value:
            return False
        return all(one == value for one in self._tracks[what, of].since(now - window)[1])

    def line(self, what: Hashable, of: Hashable, now: float, window: float, ahead: float) -> float | None:
        """Where the least-squares line through the window's values will be `ahead` seconds from now.

        As Prometheus' predict_linear. None with fewer than two values at different times.
        """
        track = self._tracks.get((what, of))
        if track is None:
            return None
        times, values = track.since(now - window)
        count = len(times)
        if count < 2:
            return None
        mean_time = sum(times) / count
        mean_value = sum(values) / count
        spread = sum((one - mean_time) ** 2 for one in times)
        if spread == 0:
            return None
        slope = (
            sum((at - mean_time) * (one - mean_value) for at, one in zip(times, values, strict=True)) / spread
        )
        return mean_value + slope * (now + ahead - mean_time)
