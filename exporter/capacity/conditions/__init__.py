"""What this exporter alerts on: the table of conditions, and of the thresholds that they compare with.

The terms are those of `exporter.capacity.terms`. Names, severities and durations follow docs/ALERTS.md.
"""

from __future__ import annotations

from exporter.capacity.conditions import (
    confined,
    deployments,
    deviation,
    devices,
    forecasts,
    kv_cache,
    links,
    monitoring,
    ram,
    stores,
    vram,
)
from exporter.capacity.conditions.thresholds import THRESHOLDS
from exporter.capacity.terms import Condition

__all__ = ["CONDITIONS", "THRESHOLDS"]

CONDITIONS: tuple[Condition, ...] = (
    *vram.CONDITIONS,
    *deviation.CONDITIONS,
    *ram.CONDITIONS,
    *confined.CONDITIONS,
    *stores.CONDITIONS,
    *kv_cache.CONDITIONS,
    *links.CONDITIONS,
    *devices.CONDITIONS,
    *deployments.CONDITIONS,
    *forecasts.CONDITIONS,
    *monitoring.CONDITIONS,
)
