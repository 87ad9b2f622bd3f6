"""Time on a recorded host: how load moves, and how far each incident of the script has come.

Everything is a function of the seconds since the start, with its integral in closed form: a counter at a time
needs no memory of the times before, so that the worker process and the daemon agree without talking.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin

from exporter.demo.profile import Incident, Profile

RAMP_SECONDS = 3.0
"""How long an incident takes to come and to go."""
ALONE_STARTS_AT = 10.0
ALONE_LASTS = 30.0
ALONE_CYCLE = 60.0
"""A single incident that was asked for: seen at once, over soon, and again each minute."""

_MEAN = 0.5
_WAVES = ((480.0, 0.12), (97.0, 0.08), (23.0, 0.05))
"""(period in seconds, amplitude): a day in eight minutes, and what lies on top; constructed."""


def load(seconds: float, phase: float = 0.0) -> float:
    """How busy a host is, 0.25 to 0.75; `phase` (0 to 1) sets two apart."""
    return _MEAN + sum(size * sin(2 * pi * (seconds / period + phase)) for period, size in _WAVES)


def load_until(seconds: float, phase: float = 0.0) -> float:
    """∫ load from 0 to `seconds`."""
    waves = (
        size * period / (2 * pi) * (cos(2 * pi * phase) - cos(2 * pi * (seconds / period + phase)))
        for period, size in _WAVES
    )
    return _MEAN * seconds + sum(waves)


@dataclass(frozen=True, slots=True)
class Span:
    """One incident's place in a cycle that repeats."""

    starts_at: float
    lasts: float
    cycle: float

    def intensity(self, seconds: float) -> float:
        """0 while it is quiet, 1 while it is on, and between as it comes and goes."""
        since = seconds % self.cycle - self.starts_at
        ramp = min(RAMP_SECONDS, self.lasts / 2)
        return max(0.0, min(1.0, since / ramp, (self.lasts - since) / ramp))

    def intensity_until(self, seconds: float) -> float:
        """∫ intensity from 0 to `seconds`."""
        ramp = min(RAMP_SECONDS, self.lasts / 2)
        whole = self.lasts - ramp
        cycles, within = divmod(seconds, self.cycle)
        since = min(max(within - self.starts_at, 0.0), self.lasts)
        rising, left = min(since, ramp), max(0.0, since - (self.lasts - ramp))
        flat = max(0.0, since - ramp - left)
        return cycles * whole + rising**2 / (2 * ramp) + flat + left - left**2 / (2 * ramp)

    def is_on(self, seconds: float) -> bool:
        return self.starts_at <= seconds % self.cycle < self.starts_at + self.lasts

    def count(self, seconds: float) -> int:
        """How often it has begun."""
        cycles, within = divmod(seconds, self.cycle)
        return int(cycles) + (within >= self.starts_at)

    def last_end(self, seconds: float) -> float | None:
        """When it last ended; None before the first time."""
        over = int((seconds - self.starts_at - self.lasts) // self.cycle)
        return None if over < 0 else over * self.cycle + self.starts_at + self.lasts


@dataclass(frozen=True, slots=True)
class Script:
    """The incidents of a host, each in its place."""

    spans: tuple[tuple[Incident, Span], ...]

    def span(self, name: str) -> Span | None:
        """None for an incident that this script leaves out."""
        return next((span for incident, span in self.spans if incident.name == name), None)


def script(profile: Profile, alone: str | None = None) -> Script:
    """All incidents of a profile in turn, or the one that was asked for. Raises UnknownProfile."""
    if alone is not None:
        return Script(((profile.incident(alone), Span(ALONE_STARTS_AT, ALONE_LASTS, ALONE_CYCLE)),))
    spans = ((one, Span(one.starts_at, one.lasts, profile.cycle_seconds)) for one in profile.incidents)
    return Script(tuple(spans))
