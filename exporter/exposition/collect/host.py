"""Samples of the host."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.capacity.attribution import OTHER
from exporter.exposition.collect.commitment import commitment_samples, devices_together
from exporter.exposition.collect.sample import Sample
from exporter.exposition.families import Family, capacity, host
from exporter.hardware.host import HostReading
from exporter.snapshot import Snapshot


def host_samples(snapshot: Snapshot) -> Iterator[Sample]:
    """RAM as it is, and what of it is committed and held."""
    if snapshot.host is not None:
        yield from _reading(snapshot.host)
    yield from _capacity(snapshot)


_HOST_READINGS: tuple[tuple[Family, str], ...] = (
    (host.HOST_TOTAL, "memory_total_bytes"),
    (host.HOST_AVAILABLE, "memory_available_bytes"),
    (host.HOST_SWAP_TOTAL, "swap_total_bytes"),
    (host.HOST_SWAP_USED, "swap_used_bytes"),
    (host.HOST_HUGEPAGES_TOTAL, "hugepages_total_bytes"),
    (host.HOST_HUGEPAGES_FREE, "hugepages_free_bytes"),
    (host.HOST_SHARED, "shared_bytes"),
    (host.HOST_OOM_KILLS, "oom_kills"),
)


def _reading(reading: HostReading) -> Iterator[Sample]:
    for family, attribute in _HOST_READINGS:
        value = getattr(reading, attribute)
        if value is not None:
            yield family, (), value
    for scope, seconds in (("some", reading.pressure_some_seconds), ("full", reading.pressure_full_seconds)):
        if seconds is not None:
            yield host.HOST_PRESSURE, (scope,), seconds
    for node, memory in reading.numa.items():
        yield host.HOST_NUMA_FREE, (str(node),), memory.free_bytes
        yield host.HOST_NUMA_TOTAL, (str(node),), memory.total_bytes
        if memory.available_bytes is not None:
            yield host.HOST_NUMA_AVAILABLE, (str(node),), memory.available_bytes
    if reading.bandwidth is not None:
        yield host.HOST_BANDWIDTH, (reading.bandwidth.basis,), reading.bandwidth.bytes_per_second
    if reading.cpu is not None:
        numbers = (reading.cpu.sockets, reading.cpu.cores, reading.cpu.threads)
        yield host.HOST_CPU, (reading.cpu.model, *("" if n is None else str(n) for n in numbers)), 1


_HOST_FAMILIES = (
    capacity.HOST_CAPACITY,
    capacity.HOST_COMMITTED,
    capacity.HOST_HEADROOM,
    capacity.HOST_OVERCOMMIT,
)


def _capacity(snapshot: Snapshot) -> Iterator[Sample]:
    yield from devices_together(snapshot.assessment.devices.values())
    if snapshot.assessment.host is not None:
        yield from commitment_samples(_HOST_FAMILIES, (), snapshot.assessment.host)
    for holder, memory in snapshot.assessment.host_held.items():
        for kind in ("anonymous", "file", "shared", "hugepages"):
            yield host.HOST_HELD, (holder, kind), getattr(memory, kind)
    if snapshot.assessment.host_other is not None:
        yield host.HOST_HELD, (OTHER, "anonymous"), snapshot.assessment.host_other
