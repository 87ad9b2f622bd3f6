"""What differs between GPU vendors for whoever watches their worker process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

NO_DEVICE = "no_device"
"""The state of a driver that is loaded and has no device, or none any more."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One vendor's driver, seen from the supervisor."""

    vendor: str
    command: Sequence[str]
    """starts the worker"""
    quiet_state: str
    """the state of a host without this vendor's driver, which usually has none of its GPUs: no warning"""
    advice: Mapping[str, str]
    """state of the driver → what to do about it, for the log and `doctor`"""
    module: Callable[[], object]
    """identity of the loaded kernel module: changes when a driver appears or is replaced"""
    absence: Callable[[], str | None] = lambda: None
    """why no worker is worth starting now: the driver's state; None where one is. Touches no device."""
    after_vendors: tuple[str, ...] = ()
    """vendors whose devices come first in the numbering of a host that has several"""
