"""One pass over the devices of a vendor: what it gave, and what it has collected while it goes on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from exporter.hardware.gpu import Gpu


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one pass over the devices gave. `state` is "up" or why the driver as a whole does not answer."""

    gpus: tuple[Gpu, ...]
    state: str
    driver_version: str
    visible: int
    """devices that the driver counts now; slices are none"""

    @property
    def up(self) -> bool:
        return self.state == "up"


@dataclass(frozen=True, slots=True)
class Slices:
    """The MIG slices that one GPU listed. `problem`: why the list may lack some, else ""."""

    gpus: tuple[Gpu, ...]
    problem: str


@dataclass(slots=True)
class Pass:
    """What one sweep has collected so far; filled by several workers when one gets stuck."""

    ends_at: float
    """monotonic"""
    visible: int = 0
    fresh: dict[str, Gpu] = field(default_factory=dict)
    slices: dict[str, Slices] = field(default_factory=dict)
    """by the uuid of their GPU; of those in MIG mode only"""
    done: set[int] = field(default_factory=set)
    """indices of the devices that answered or showed that they do not"""
    renumbered: bool = False
    """the driver's list changed, so what was asked for by index has to be asked again"""
    cut_short: bool = False
    """time was over before every device had its turn"""

    @property
    def remaining_seconds(self) -> float:
        return self.ends_at - time.monotonic()
