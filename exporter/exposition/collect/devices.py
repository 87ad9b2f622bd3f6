"""Samples of devices."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.capacity.assessment import Commitment
from exporter.capacity.attribution import is_by_placement
from exporter.capacity.conditions.devices import SLOWDOWNS
from exporter.exposition.collect.commitment import commitment_samples
from exporter.exposition.collect.sample import Sample
from exporter.exposition.families import Family, capacity, devices
from exporter.hardware.gpu import HEALTHY, Gpu, GpuReading
from exporter.snapshot import Snapshot


def device_samples(gpu: Gpu, snapshot: Snapshot) -> Iterator[Sample]:
    """One device, present or remembered."""
    one = gpu.identity
    device = (str(one.number), one.uuid)
    node = "" if one.numa_node is None else str(one.numa_node)
    yield (
        devices.GPU_INFO,
        (
            *device,
            one.name,
            one.vendor,
            one.driver_version,
            one.pci_bus_id,
            one.memory_kind,
            node,
            snapshot.pool,
        ),
        1,
    )
    if one.source:
        yield from _origin(device, gpu)
    if _speaks_for_itself(gpu, snapshot):
        yield devices.GPU_UP, device, gpu.state in HEALTHY
    yield devices.GPU_STATE, (*device, gpu.state), 1
    if one.mig is not None:
        yield devices.GPU_MIG, (*device, one.mig.parent_uuid, one.mig.profile), 1
    for xid, (times, last) in gpu.xid_errors.items():
        yield devices.GPU_XID, (*device, str(xid)), times
        yield devices.GPU_XID_LAST, (*device, str(xid)), last
    if gpu.reading is not None:
        yield from _reading(device, gpu.reading)
    for holding in snapshot.assessment.held.get(one.uuid, ()):
        yield devices.GPU_MEMORY_HELD, (*device, holding.holder, holding.kind), holding.size_bytes
    commitment = snapshot.assessment.devices.get(one.uuid)
    if commitment is not None:
        yield from commitment_samples(_DEVICE_FAMILIES, device, commitment)
        yield from _prospects(device, commitment)
    if (size := snapshot.assessment.reclaimable.get(one.uuid)) is not None:
        yield capacity.RECLAIMABLE, device, size


def _origin(device: tuple[str, str], gpu: Gpu) -> Iterator[Sample]:
    """Of a device that another exporter tells of."""
    source = gpu.identity.source
    attribution = "" if gpu.reading is None else "placement" if is_by_placement(gpu) else "processes"
    yield devices.GPU_ORIGIN, (*device, source, "experimental", attribution), 1
    if gpu.reading is not None and gpu.reading.healthy is not None:
        yield devices.GPU_HEALTHY, (*device, source), gpu.reading.healthy


def _speaks_for_itself(gpu: Gpu, snapshot: Snapshot) -> bool:
    """A GPU that is lost takes its slices with it, and is one device that is down: its slices are no more."""
    mig = gpu.identity.mig
    return mig is None or any(
        one.identity.uuid == mig.parent_uuid and one.state in HEALTHY for one in snapshot.gpus
    )


_DEVICE_FAMILIES = (capacity.CAPACITY, capacity.COMMITTED, capacity.HEADROOM, capacity.OVERCOMMIT)


def _prospects(device: tuple[str, ...], commitment: Commitment) -> Iterator[Sample]:
    """What of the commitment is still to come, or about to go."""
    for bound, size in commitment.pending.items():
        yield capacity.PENDING, (*device, bound), size
    for bound, ratio in commitment.pending_ratio.items():
        yield capacity.OVERCOMMIT_PENDING, (*device, bound), ratio
    for bound, ratio in commitment.optional_ratio.items():
        yield capacity.OVERCOMMIT_OPTIONAL, (*device, bound), ratio
    if commitment.outgoing is not None:
        yield capacity.ROLLOUT_OVERLAP, device, commitment.outgoing
    if commitment.settled_ratio is not None:
        yield capacity.OVERCOMMIT_SETTLED, device, commitment.settled_ratio


_READINGS: tuple[tuple[Family, str], ...] = (
    (devices.GPU_MEMORY_TOTAL, "memory_total_bytes"),
    (devices.GPU_MEMORY_USED, "memory_used_bytes"),
    (devices.GPU_MEMORY_FREE, "memory_free_bytes"),
    (devices.GPU_MEMORY_RESERVED, "memory_reserved_bytes"),
    (devices.GPU_GTT_TOTAL, "gtt_total_bytes"),
    (devices.GPU_GTT_USED, "gtt_used_bytes"),
    (devices.GPU_VISIBLE_TOTAL, "visible_memory_total_bytes"),
    (devices.GPU_VISIBLE_USED, "visible_memory_used_bytes"),
    (devices.GPU_UTILIZATION, "utilization_ratio"),
    (devices.GPU_BANDWIDTH, "memory_bandwidth_utilization_ratio"),
    (devices.GPU_POWER, "power_watts"),
    (devices.GPU_POWER_LIMIT, "power_limit_watts"),
    (devices.GPU_MIG_SLICES, "mig_slices"),
)


def _reading(device: tuple[str, str], reading: GpuReading) -> Iterator[Sample]:
    for family, attribute in _READINGS:
        value = getattr(reading, attribute)
        if value is not None:
            yield family, device, value
    if reading.energy_joules is not None:
        yield devices.GPU_ENERGY, (*device, "counter"), reading.energy_joules
    for sensor, celsius in reading.temperature_celsius.items():
        yield devices.GPU_TEMPERATURE, (*device, sensor), celsius
    for reason, holds in reading.clocks_limited.items():
        yield devices.GPU_CLOCKS_LIMITED, (*device, reason), holds
    if faults := [holds for reason, holds in reading.clocks_limited.items() if reason in SLOWDOWNS]:
        yield devices.GPU_SLOWED, device, any(faults)
    for kind, errors in reading.ecc_errors.items():
        yield devices.GPU_ECC, (*device, kind), errors
    for direction, size in reading.pcie_bytes.items():
        yield devices.GPU_PCIE, (*device, direction), size
    for direction, size in reading.nvlink_bytes.items():
        yield devices.GPU_NVLINK, (*device, direction), size
    for mode, enabled in reading.mig_enabled.items():
        yield devices.GPU_MIG_ENABLED, (*device, mode), enabled
    for part, version in reading.firmware.items():
        yield devices.GPU_FIRMWARE, (*device, part, version), 1
    if modes := reading.partitioning:
        yield devices.GPU_PARTITIONING, (*device, modes.get("compute", ""), modes.get("memory", "")), 1
