"""Turns a snapshot into samples of the families, in the order of the table."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping

from exporter import __revision__, __version__
from exporter.capacity.alert import Alert
from exporter.capacity.assessment import Commitment, DeploymentStatus
from exporter.capacity.attribution import OTHER
from exporter.capacity.observation import Running
from exporter.exposition import families as f
from exporter.exposition.families import Family
from exporter.hardware.gpu import HEALTHY, Gpu, GpuReading
from exporter.hardware.host import HostReading
from exporter.snapshot import Receiver, Snapshot, Source

Sample = tuple[Family, tuple[str, ...], float]
"""A family, its label values in the family's order, and the value."""


def samples(snapshot: Snapshot) -> Iterator[Sample]:
    """Every sample of a snapshot; unknown values are left out."""
    for gpu in snapshot.gpus:
        yield from _gpu(gpu, snapshot)
    for vendor, count in snapshot.visible_gpus.items():
        yield f.GPUS, (vendor,), count
    yield f.GPUS_EXPECTED, (), snapshot.expected_gpus
    if snapshot.host is not None:
        yield from _host(snapshot.host)
    yield from _host_capacity(snapshot)
    if any(one.name == "processes" and one.up for one in snapshot.sources):
        yield f.DEPLOYMENTS_RUNNING, (), sum(one.running for one in snapshot.assessment.deployments)
    index = {gpu.identity.uuid: str(gpu.identity.index) for gpu in snapshot.gpus}
    for status in snapshot.assessment.deployments:
        yield from _deployment(status, index)
    for name, value in snapshot.thresholds.items():
        yield f.THRESHOLD, (name,), value
    yield f.BUILD_INFO, (__version__, __revision__, platform.python_version()), 1
    if snapshot.demo:
        yield f.DEMO_INFO, (snapshot.demo,), 1
    for source in snapshot.sources:
        yield from _source(source)
    yield f.WORKERS_STUCK, (), snapshot.workers_stuck
    yield f.SNAPSHOT_TIME, (), snapshot.taken_at_seconds
    yield f.SNAPSHOT_DURATION, (), snapshot.duration_seconds
    yield f.RELOAD_SUCCESSFUL, (), snapshot.reload.successful
    yield f.RELOAD_TIME, (), snapshot.reload.at_seconds
    yield f.CLOCK_STEPS, (), snapshot.clock_steps
    yield from alert_samples(snapshot.alerts)
    yield from receiver_samples(snapshot.receivers)


def _gpu(gpu: Gpu, snapshot: Snapshot) -> Iterator[Sample]:
    one = gpu.identity
    device = (str(one.index), one.uuid)
    node = "" if one.numa_node is None else str(one.numa_node)
    yield (
        f.GPU_INFO,
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
    yield f.GPU_UP, device, gpu.state in HEALTHY
    yield f.GPU_STATE, (*device, gpu.state), 1
    for xid, (times, last) in gpu.xid_errors.items():
        yield f.GPU_XID, (*device, str(xid)), times
        yield f.GPU_XID_LAST, (*device, str(xid)), last
    if gpu.reading is not None:
        yield from _reading(device, gpu.reading)
    for holding in snapshot.assessment.held.get(one.uuid, ()):
        yield f.GPU_MEMORY_HELD, (*device, holding.holder, holding.kind), holding.size_bytes
    commitment = snapshot.assessment.devices.get(one.uuid)
    if commitment is not None:
        yield from _commitment(_DEVICE_FAMILIES, device, commitment)
        yield from _prospects(device, commitment)
    if (size := snapshot.assessment.reclaimable.get(one.uuid)) is not None:
        yield f.RECLAIMABLE, device, size


def _prospects(device: tuple[str, ...], commitment: Commitment) -> Iterator[Sample]:
    """What of the commitment is still to come, or about to go."""
    for bound, size in commitment.pending.items():
        yield f.PENDING, (*device, bound), size
    for bound, ratio in commitment.optional_ratio.items():
        yield f.OVERCOMMIT_OPTIONAL, (*device, bound), ratio
    if commitment.outgoing is not None:
        yield f.ROLLOUT_OVERLAP, device, commitment.outgoing
    if commitment.settled_ratio is not None:
        yield f.OVERCOMMIT_SETTLED, device, commitment.settled_ratio


_READINGS: tuple[tuple[Family, str], ...] = (
    (f.GPU_MEMORY_TOTAL, "memory_total_bytes"),
    (f.GPU_MEMORY_USED, "memory_used_bytes"),
    (f.GPU_MEMORY_FREE, "memory_free_bytes"),
    (f.GPU_MEMORY_RESERVED, "memory_reserved_bytes"),
    (f.GPU_GTT_TOTAL, "gtt_total_bytes"),
    (f.GPU_GTT_USED, "gtt_used_bytes"),
    (f.GPU_VISIBLE_TOTAL, "visible_memory_total_bytes"),
    (f.GPU_VISIBLE_USED, "visible_memory_used_bytes"),
    (f.GPU_UTILIZATION, "utilization_ratio"),
    (f.GPU_BANDWIDTH, "memory_bandwidth_utilization_ratio"),
    (f.GPU_POWER, "power_watts"),
    (f.GPU_POWER_LIMIT, "power_limit_watts"),
)


def _reading(device: tuple[str, str], reading: GpuReading) -> Iterator[Sample]:
    for family, attribute in _READINGS:
        value = getattr(reading, attribute)
        if value is not None:
            yield family, device, value
    if reading.energy_joules is not None:
        yield f.GPU_ENERGY, (*device, "counter"), reading.energy_joules
    for sensor, celsius in reading.temperature_celsius.items():
        yield f.GPU_TEMPERATURE, (*device, sensor), celsius
    for reason, holds in reading.clocks_limited.items():
        yield f.GPU_CLOCKS_LIMITED, (*device, reason), holds
    for kind, errors in reading.ecc_errors.items():
        yield f.GPU_ECC, (*device, kind), errors
    for direction, size in reading.pcie_bytes.items():
        yield f.GPU_PCIE, (*device, direction), size
    for direction, size in reading.nvlink_bytes.items():
        yield f.GPU_NVLINK, (*device, direction), size
    for part, version in reading.firmware.items():
        yield f.GPU_FIRMWARE, (*device, part, version), 1
    if modes := reading.partitioning:
        yield f.GPU_PARTITIONING, (*device, modes.get("compute", ""), modes.get("memory", "")), 1


_HOST_READINGS: tuple[tuple[Family, str], ...] = (
    (f.HOST_TOTAL, "memory_total_bytes"),
    (f.HOST_AVAILABLE, "memory_available_bytes"),
    (f.HOST_SWAP_TOTAL, "swap_total_bytes"),
    (f.HOST_SWAP_USED, "swap_used_bytes"),
    (f.HOST_HUGEPAGES_TOTAL, "hugepages_total_bytes"),
    (f.HOST_HUGEPAGES_FREE, "hugepages_free_bytes"),
    (f.HOST_SHARED, "shared_bytes"),
    (f.HOST_OOM_KILLS, "oom_kills"),
)


def _host(host: HostReading) -> Iterator[Sample]:
    for family, attribute in _HOST_READINGS:
        value = getattr(host, attribute)
        if value is not None:
            yield family, (), value
    for scope, seconds in (("some", host.pressure_some_seconds), ("full", host.pressure_full_seconds)):
        if seconds is not None:
            yield f.HOST_PRESSURE, (scope,), seconds
    for node, memory in host.numa.items():
        yield f.HOST_NUMA_FREE, (str(node),), memory.free_bytes
        yield f.HOST_NUMA_TOTAL, (str(node),), memory.total_bytes
    if host.cpu is not None:
        numbers = (host.cpu.sockets, host.cpu.cores, host.cpu.threads)
        yield f.HOST_CPU, (host.cpu.model, *("" if n is None else str(n) for n in numbers)), 1


_DEVICE_FAMILIES = (f.CAPACITY, f.COMMITTED, f.HEADROOM, f.OVERCOMMIT)
_HOST_FAMILIES = (f.HOST_CAPACITY, f.HOST_COMMITTED, f.HOST_HEADROOM, f.HOST_OVERCOMMIT)


def _commitment(
    of: tuple[Family, Family, Family, Family], labels: tuple[str, ...], commitment: Commitment
) -> Iterator[Sample]:
    capacity, committed, headroom, overcommit = of
    yield capacity, labels, commitment.capacity
    for bound, size in commitment.committed.items():
        yield committed, (*labels, bound), size
    for bound, size in commitment.headroom.items():
        yield headroom, (*labels, bound), size
    for bound, ratio in commitment.overcommit_ratio.items():
        yield overcommit, (*labels, bound), ratio


def _host_capacity(snapshot: Snapshot) -> Iterator[Sample]:
    if snapshot.assessment.host is not None:
        yield from _commitment(_HOST_FAMILIES, (), snapshot.assessment.host)
    for holder, memory in snapshot.assessment.host_held.items():
        for kind in ("anonymous", "file", "shared", "hugepages"):
            yield f.HOST_HELD, (holder, kind), getattr(memory, kind)
    if snapshot.assessment.host_other is not None:
        yield f.HOST_HELD, (OTHER, "anonymous"), snapshot.assessment.host_other


def _deployment(status: DeploymentStatus, index: Mapping[str, str]) -> Iterator[Sample]:
    declared, footprint = status.declared, status.declared.footprint
    name = (declared.name,)
    yield f.DEPLOYMENT_INFO, _described(status), 1
    yield f.DEPLOYMENT_STATE, (*name, status.state), 1
    told = status.running_as.telemetry if status.running_as is not None else None
    # The engine's word first: llama.cpp's launch states the cache of all slots, of which a request gets one.
    longest = (told.max_model_len if told is not None else None) or declared.max_model_len
    if longest is not None:
        yield f.MAX_CONTEXT, name, longest
    if declared.max_num_seqs is not None:
        yield f.MAX_SEQUENCES, name, declared.max_num_seqs
    if status.running_as is not None:
        yield from _running(status, status.running_as)
    capacity = status.kv.capacity_tokens if status.kv is not None else None
    if capacity is None and footprint is not None:
        capacity = footprint.kv_cache.capacity_tokens
    if capacity is not None:
        yield f.KV_CAPACITY, name, capacity
    if footprint is None:
        return
    yield from _expected(status, index)
    kv = footprint.kv_cache
    yield f.KV_BYTES_PER_TOKEN, name, kv.bytes_per_token
    if kv.demand_tokens is not None:
        yield f.KV_DEMAND, name, kv.demand_tokens
    if capacity and kv.demand_tokens is not None:
        yield f.KV_OVERCOMMIT, name, kv.demand_tokens / capacity
    if declared.planned_tokens is not None:
        yield f.KV_PLANNED, name, declared.planned_tokens
        if (missing := status.plan_shortfall_tokens) is not None:
            yield f.KV_SHORTFALL, name, missing
    if kv.full_length_sequences is not None:
        yield f.FULL_LENGTH, name, kv.full_length_sequences


def _described(status: DeploymentStatus) -> tuple[str, ...]:
    """The labels of what a deployment is: what runs where it runs, else what was declared."""
    declared, footprint, running = status.declared, status.declared.footprint, status.running_as
    model = footprint.model_id if footprint else declared.model
    quantization = footprint.quantization if footprint else ""
    degrees: tuple[int | None, ...] = (declared.tp, declared.pp, declared.dp)
    if running is None:
        version = served = speculative = ""
        ep = rank = None
        engine, cache_type = declared.engine, declared.kv_cache_dtype
    else:
        engine, version, served = running.engine, running.engine_version or "", running.served_model or ""
        model = running.model or model
        quantization = running.quantization or quantization
        cache_type = running.kv_cache_dtype or declared.kv_cache_dtype
        if not running.orphaned:
            degrees = (running.tp or 1, running.pp or 1, running.dp or 1)
        ep, rank, speculative = running.ep, running.node_rank, running.speculative or ""
    return (
        declared.name,
        engine,
        version,
        model,
        served,
        footprint.architecture if footprint else "",
        quantization,
        cache_type or "",
        *(str(one) for one in degrees),
        "" if ep is None else str(ep),
        speculative,
        "" if rank is None else str(rank),
        declared.origin,
    )


def _running(status: DeploymentStatus, running: Running) -> Iterator[Sample]:
    name = (status.declared.name,)
    if running.started_seconds is not None:
        yield f.DEPLOYMENT_START, name, running.started_seconds
    if running.answered is not None:
        yield f.DEPLOYMENT_UP, name, running.answered
    if status.resident_ratio is not None:
        yield f.WEIGHTS_RESIDENT, name, status.resident_ratio
    for field, same in status.matches.items():
        yield f.MATCHES_DECLARATION, (*name, field), same
    for component, ratio in status.plan_error.items():
        yield f.PLAN_ERROR, (*name, component), ratio
    if status.kv is not None and status.kv.used_tokens is not None:
        yield f.KV_USED, name, status.kv.used_tokens
    if status.kv is not None and status.kv.usage_ratio is not None:
        yield f.KV_USAGE, name, status.kv.usage_ratio
    said = running.telemetry
    if said is None:
        return
    if said.requests_running is not None:
        yield f.REQUESTS_RUNNING, name, said.requests_running
    if said.requests_waiting is not None:
        yield f.REQUESTS_WAITING, name, said.requests_waiting
    if said.preemptions_total is not None:
        yield f.PREEMPTIONS, name, said.preemptions_total
    for kind, count in said.tokens.items():
        yield f.TOKENS, (*name, kind), count


def _expected(status: DeploymentStatus, index: Mapping[str, str]) -> Iterator[Sample]:
    """What a deployment with a footprint should hold, and how far what it holds is from that."""
    declared, footprint = status.declared, status.declared.footprint
    assert footprint is not None
    name = (declared.name,)
    bases: dict[str, str] = {}
    sizes: dict[tuple[str, str], int] = {}
    for uuid, rank in zip(declared.ranks, footprint.devices, strict=False):
        for component, term in rank.components.items():
            bases[component] = term.basis
            if uuid in index:
                sizes[uuid, component] = sizes.get((uuid, component), 0) + term.expected_bytes
    for (uuid, component), size in sizes.items():
        yield f.EXPECTED_GPU, (*name, index[uuid], uuid, component), size
    for component, term in footprint.host.components.items():
        bases.setdefault(component, term.basis)
        yield f.EXPECTED_HOST, (*name, component), term.expected_bytes
    for component, basis in bases.items():
        yield f.EXPECTED_BASIS, (*name, component, basis), 1
    for uuid, deviation in status.deviation.items():
        if uuid in index:
            yield f.DEVIATION, (*name, index[uuid], uuid), deviation.size_bytes
            if deviation.ratio is not None:
                yield f.DEVIATION_RATIO, (*name, index[uuid], uuid), deviation.ratio
            yield f.DEVIATION_TOLERANCE, (*name, index[uuid], uuid), status.tolerance[uuid]


def alert_samples(alerts: Iterable[Alert]) -> Iterator[Sample]:
    """The daemon's own alerts, pending and firing."""
    for alert in alerts:
        subject = " ".join(f"{name}={value}" for name, value in alert.subject.items() if name != "uuid")
        yield f.ALERT_ACTIVE, (alert.name, alert.severity, subject), 1


def receiver_samples(receivers: Iterable[Receiver]) -> Iterator[Sample]:
    """How each Alertmanager took what it was told."""
    for one in receivers:
        yield f.NOTIFICATIONS_UP, (one.name,), one.up
        yield f.NOTIFICATIONS, (one.name, "sent"), one.sent
        yield f.NOTIFICATIONS, (one.name, "failed"), one.failed


def _source(source: Source) -> Iterator[Sample]:
    name = (source.name,)
    yield f.SOURCE_UP, name, source.up
    yield f.SOURCE_STATE, (*name, source.state), 1
    yield f.SOURCE_EXPECTED, name, source.expected
    if source.last_success_seconds is not None:
        yield f.SOURCE_LAST, name, source.last_success_seconds
    yield f.SOURCE_DURATION, name, source.duration_seconds
    for reason, times in source.errors.items():
        yield f.SOURCE_ERRORS, (*name, reason), times
    if source.worker_restarts is not None:
        yield f.WORKER_RESTARTS, name, source.worker_restarts
