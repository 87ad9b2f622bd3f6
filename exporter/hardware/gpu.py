"""Devices as the rest of the program knows them, whatever the vendor.

A value that the device does not give is None; it is never zero and never an older value.
"""

from __future__ import annotations

import math
import sys
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


Number = int | str
"""What people call a device, and the label `gpu`: its index; of a MIG slice "0:3", GPU and GPU instance."""


@dataclass(frozen=True, slots=True)
class MigSlice:
    """Where a MIG slice is cut from. A slice is a GPU instance: its memory is that of all its compute
    instances together."""

    parent_uuid: str
    instance: int
    """GPU instance id: the same as long as the slice exists, which its MIG index is not"""
    profile: str
    """such as "3g.40gb"; empty where the driver does not tell"""
    uuids: tuple[str, ...]
    """MIG uuids of its compute instances, nearly always one; the first is the device's"""
    places: tuple[int, ...]
    """their MIG indices now, by which containers ask for them (NVIDIA_VISIBLE_DEVICES=0:1)"""


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """What a device is; stays the same while the driver runs. `index` is the driver's at last sight; where
    drivers of several vendors run, NVIDIA's devices come first; a slice has the index of its GPU. `source`
    names the exporter that tells of the device; "" where we read it ourselves."""

    uuid: str
    index: int
    name: str
    vendor: str
    pci_bus_id: str
    memory_kind: str
    numa_node: int | None = None
    driver_version: str = ""
    source: str = ""
    mig: MigSlice | None = None
    """None: not a slice"""

    @property
    def number(self) -> Number:
        return self.index if self.mig is None else f"{self.index}:{self.mig.instance}"

    @property
    def order(self) -> tuple[int, int, str]:
        """By it, slices follow their GPU."""
        return self.index, -1 if self.mig is None else self.mig.instance, self.uuid

    @property
    def uuids(self) -> tuple[str, ...]:
        """Every uuid that means this device."""
        return (self.uuid,) if self.mig is None else self.mig.uuids


def by_number(number: Number) -> tuple[int, int, str]:
    """Sorts numbers of devices, and leaves what is none to the end."""
    gpu, _, instance = str(number).partition(":")
    if not gpu.isdecimal() or (instance and not instance.isdecimal()):
        return sys.maxsize, 0, str(number)
    return int(gpu), int(instance or -1), ""


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
    """`compute` and `memory` → mode that an AMD device is divided in"""
    mig_enabled: Mapping[str, bool] = field(default_factory=dict)
    """`current` and `pending` (after the next reset) → whether the GPU is in MIG mode; empty where neither"""
    mig_slices: int | None = None
    """slices of a GPU in MIG mode; None where they cannot be listed"""
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
    node, mig = dict(plain).get("numa_node"), dict(plain).get("mig")
    return GpuIdentity(
        uuid=str(plain["uuid"]),
        index=first_index + int(plain["index"]),
        name=str(plain["name"]),
        vendor=vendor,
        pci_bus_id=str(plain["pci_bus_id"]),
        memory_kind=str(plain["memory_kind"]),
        numa_node=None if node is None or int(node) < 0 else int(node),
        driver_version=driver_version,
        mig=None
        if mig is None
        else MigSlice(
            parent_uuid=str(mig["parent_uuid"]),
            instance=int(mig["instance"]),
            profile=str(mig["profile"]),
            uuids=tuple(str(one) for one in mig["uuids"]),
            places=tuple(int(one) for one in mig["places"]),
        ),
    )


_MOST: Mapping[str, float] = {
    "memory_total_bytes": 2**50,
    "memory_used_bytes": 2**50,
    "memory_free_bytes": 2**50,
    "memory_reserved_bytes": 2**50,
    "power_watts": 1e5,
    "power_limit_watts": 1e5,
    "energy_joules": 2**50,
    "utilization_ratio": 1,
    "memory_bandwidth_utilization_ratio": 1,
}
"""What no device has more of. Drivers say "not available" as all bits set: 2⁶⁴ - 1 bytes, 2³² - 1 mW (nvml.h,
NVML_VALUE_NOT_AVAILABLE)."""
_PARTS = ("memory_used_bytes", "memory_free_bytes", "memory_reserved_bytes")


def reading_from(plain: Mapping[str, Any]) -> GpuReading:
    """The reading that a worker sent. Raises KeyError, TypeError or ValueError on a malformed one.

    What cannot be true is dropped: values no device has, parts of a memory larger than the whole, and rows
    of processes (one holding more than the device has, a pid that no Linux gives), which some driver and
    binding pairs shift or swap.
    """
    values = {name: value for name, value in dict(plain["values"]).items() if _may_be(name, value)}
    rows = plain["processes"]
    total = values.get("memory_total_bytes")
    if total is not None and any((values.get(name) or 0) > total for name in _PARTS):
        values = {name: value for name, value in values.items() if name not in _PARTS}
    processes = None
    if rows is not None:
        processes = tuple(
            GpuProcess(int(pid), used)
            for pid, used in rows
            if 0 < pid <= _PID_MAX and (used is None or 0 <= used <= (math.inf if total is None else total))
        )
    return GpuReading(processes=processes, **values)


def _may_be(name: str, value: Any) -> bool:
    most = _MOST.get(name)
    return most is None or value is None or 0 <= value <= most
