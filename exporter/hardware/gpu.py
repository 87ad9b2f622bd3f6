"""Devices as the rest of the program knows them, whatever the vendor.

A value that the device does not give is None; it is never zero and never an older value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_PID_MAX = 2**22  # PID_MAX_LIMIT of include/linux/threads.h, 64 bits


class GpuState(StrEnum):
    """Why a device can or cannot be read now."""

    UP = "up"
    STALLED = "stalled"
    """a call did not return in time; the device is left alone until it answers"""
    LOST = "lost"
    """remembered, and the driver no longer has it"""
    ERROR = "error"
    NO_PERMISSION = "no_permission"
    RELEASED = "released"
    """the driver was let go on request"""
    DRIVER_DOWN = "driver_down"
    """no driver answers, so nothing is known of the device"""
    SOURCE_DOWN = "source_down"
    """the exporter that tells of it does not answer, so nothing is known of the device"""
    SUSPENDED = "suspended"
    """powered down by the kernel because nobody uses it; reading it would wake it"""


HEALTHY = frozenset({GpuState.UP, GpuState.SUSPENDED})
"""States in which nothing is wrong with a device."""


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """What a device is; stays the same while the driver runs. `index` is the driver's at last sight; where
    drivers of several vendors run, NVIDIA's devices come first. `source` names the exporter that tells of
    the device; "" where we read it ourselves."""

    uuid: str
    index: int
    name: str
    vendor: str
    pci_bus_id: str
    memory_kind: str
    numa_node: int | None = None
    driver_version: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """One process's hold on a device; `used_bytes` None where the driver does not say."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One device's values. `total = used + free + reserved`; reserved is None on drivers that count it as
    used. `processes` None: the list could not be read, which differs from an empty list."""

    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    utilization_ratio: float | None = None
    memory_bandwidth_utilization_ratio: float | None = None
    temperature_celsius: Mapping[str, float] = field(default_factory=dict)
    clocks_limited: Mapping[str, bool] = field(default_factory=dict)
    ecc_errors: Mapping[str, int] = field(default_factory=dict)
    pcie_bytes: Mapping[str, int] = field(default_factory=dict)
    """`sent` and `received` since the driver was loaded; read only when asked for"""
    nvlink_bytes: Mapping[str, int] = field(default_factory=dict)
    gtt_total_bytes: int | None = None
    """RAM that the device may map (AMD's graphics translation table); part of the memory of a unified one"""
    gtt_used_bytes: int | None = None
    visible_memory_total_bytes: int | None = None
    """device memory that the processor can reach directly"""
    visible_memory_used_bytes: int | None = None
    firmware: Mapping[str, str] = field(default_factory=dict)
    """part of the device → version that it runs"""
    healthy: bool | None = None
    """whether the exporter that tells of the device calls it healthy; None: it does not say"""
    partitioning: Mapping[str, str] = field(default_factory=dict)
    """`compute` and `memory` → mode that the device is divided in"""
    processes: tuple[GpuProcess, ...] | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device of this host, present or remembered. `reading` is there only while the state is UP."""

    identity: GpuIdentity
    state: GpuState
    reason: str = ""
    reading: GpuReading | None = None
    last_success_seconds: float | None = None
    """Unix time of the last complete reading."""
    xid_errors: Mapping[int, tuple[int, float]] = field(default_factory=dict)
    """Xid → (times seen, Unix time of the last)"""


def identity_from(
    plain: Mapping[str, Any], *, vendor: str, driver_version: str, first_index: int = 0
) -> GpuIdentity:
    """The identity that a worker sent, its index counted from `first_index`. Raises KeyError, TypeError or
    ValueError on a malformed one."""
    node = dict(plain).get("numa_node")
    return GpuIdentity(
        uuid=str(plain["uuid"]),
        index=first_index + int(plain["index"]),
        name=str(plain["name"]),
        vendor=vendor,
        pci_bus_id=str(plain["pci_bus_id"]),
        memory_kind=str(plain["memory_kind"]),
        numa_node=None if node is None or int(node) < 0 else int(node),
        driver_version=driver_version,
    )


def reading_from(plain: Mapping[str, Any]) -> GpuReading:
    """The reading that a worker sent. Raises KeyError, TypeError or ValueError on a malformed one.

    Rows that cannot be true (a process holding more than the device has, a pid that no Linux gives) are
    dropped: some driver and binding pairs shift or swap pid and bytes.
    """
    values = dict(plain["values"])
    rows = plain["processes"]
    total = values.get("memory_total_bytes")
    processes = None
    if rows is not None:
        processes = tuple(
            GpuProcess(int(pid), used)
            for pid, used in rows
            if 0 < pid <= _PID_MAX and (used is None or 0 <= used <= (math.inf if total is None else total))
        )
    return GpuReading(processes=processes, **values)
