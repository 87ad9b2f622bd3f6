"""Every metric family of this exporter: name, type, labels, meaning. docs/METRICS.md is generated from it.

Conventions: base units; an unknown value is an absent series; `gpu` is the driver's index as text and `uuid`
its identifier verbatim, together on every device series; what only describes stands on `…_info`.
"""

from __future__ import annotations

from exporter.exposition.families import (
    capacity,
    confined,
    deployments,
    devices,
    host,
    itself,
    network,
    stores,
)
from exporter.exposition.families.family import Family, Kind

__all__ = ["FAMILIES", "SECTIONS", "Family", "Kind"]

SECTIONS: dict[str, tuple[Family, ...]] = {
    "Devices": devices.FAMILIES,
    "Host": host.FAMILIES,
    "Network": network.FAMILIES,
    "Stores": stores.FAMILIES,
    "Deployments": deployments.FAMILIES,
    "RAM of a deployment": confined.FAMILIES,
    "Capacity": capacity.FAMILIES,
    "The exporter itself": itself.FAMILIES,
}
"""The table, by section of docs/METRICS.md."""

FAMILIES: tuple[Family, ...] = tuple(family for section in SECTIONS.values() for family in section)
