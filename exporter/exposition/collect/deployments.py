"""Samples of deployments: what they are, should hold, and say of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from exporter.capacity.assessment import Commitment, DeploymentStatus
from exporter.capacity.observation import Running
from exporter.exposition.collect.sample import Sample
from exporter.exposition.families import deployments, itself


def deployment_samples(status: DeploymentStatus, index: Mapping[str, str]) -> Iterator[Sample]:
    """One deployment; `index`: uuid of a device → its index as text."""
    declared, footprint = status.declared, status.declared.footprint
    name = (declared.name,)
    yield deployments.DEPLOYMENT_INFO, _described(status), 1
    yield deployments.DEPLOYMENT_STATE, (*name, status.state), 1
    told = status.running_as.telemetry if status.running_as is not None else None
    # The engine's word first: llama.cpp's launch states the cache of all slots, of which a request gets one.
    longest = (told.max_model_len if told is not None else None) or declared.max_model_len
    if longest is not None:
        yield deployments.MAX_CONTEXT, name, longest
    if declared.max_num_seqs is not None:
        yield deployments.MAX_SEQUENCES, name, declared.max_num_seqs
    if status.running_as is not None:
        yield from _running(status, status.running_as)
    tokens = status.kv.capacity_tokens if status.kv is not None else None
    if tokens is None and footprint is not None:
        tokens = footprint.kv_cache.capacity_tokens
    if tokens is not None:
        yield deployments.KV_CAPACITY, name, tokens
    if footprint is None:
        return
    yield from _expected(status, index)
    kv = footprint.kv_cache
    yield deployments.KV_BYTES_PER_TOKEN, name, kv.bytes_per_token
    if kv.demand_tokens is not None:
        yield deployments.KV_DEMAND, name, kv.demand_tokens
    if tokens and kv.demand_tokens is not None:
        yield deployments.KV_OVERCOMMIT, name, kv.demand_tokens / tokens
    if declared.planned_tokens is not None:
        yield deployments.KV_PLANNED, name, declared.planned_tokens
        if (missing := status.plan_shortfall_tokens) is not None:
            yield deployments.KV_SHORTFALL, name, missing
    if kv.full_length_sequences is not None:
        yield deployments.FULL_LENGTH, name, kv.full_length_sequences


def tightest(status: DeploymentStatus, devices: Mapping[str, Commitment]) -> Iterator[Sample]:
    """Headroom of the fullest device that a deployment has a place on, of those that gave a reading."""
    declared = status.declared
    places = [devices[uuid] for uuid in declared.ranks if uuid in devices] if declared.footprint else []
    for bound in ("low", "high") if places else ():
        least = min(getattr(one.headroom, bound) for one in places)
        yield deployments.TIGHTEST_HEADROOM, (declared.name, bound), least


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
        yield deployments.DEPLOYMENT_START, name, running.started_seconds
    if running.answered is not None:
        yield deployments.DEPLOYMENT_UP, name, running.answered
    if status.resident_ratio is not None:
        yield deployments.WEIGHTS_RESIDENT, name, status.resident_ratio
    for field, same in status.matches.items():
        yield deployments.MATCHES_DECLARATION, (*name, field), same
    for component, ratio in status.plan_error.items():
        yield itself.PLAN_ERROR, (*name, component), ratio
    if status.kv is not None and status.kv.used_tokens is not None:
        yield deployments.KV_USED, name, status.kv.used_tokens
    if status.kv is not None and status.kv.usage_ratio is not None:
        yield deployments.KV_USAGE, name, status.kv.usage_ratio
    said = running.telemetry
    if said is None:
        return
    if said.requests_running is not None:
        yield deployments.REQUESTS_RUNNING, name, said.requests_running
    if said.requests_waiting is not None:
        yield deployments.REQUESTS_WAITING, name, said.requests_waiting
    if said.preemptions_total is not None:
        yield deployments.PREEMPTIONS, name, said.preemptions_total
    for kind, count in said.tokens.items():
        yield deployments.TOKENS, (*name, kind), count


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
        yield deployments.EXPECTED_GPU, (*name, index[uuid], uuid, component), size
    for uuid in dict.fromkeys(uuid for uuid, _ in sizes):
        whole = sum(size for (of, _), size in sizes.items() if of == uuid)
        yield deployments.EXPECTED_GPU_SUM, (*name, index[uuid], uuid), whole
    for component, term in footprint.host.components.items():
        bases.setdefault(component, term.basis)
        yield deployments.EXPECTED_HOST, (*name, component), term.expected_bytes
    for component, basis in bases.items():
        yield deployments.EXPECTED_BASIS, (*name, component, basis), 1
    for uuid, deviation in status.deviation.items():
        if uuid in index:
            yield deployments.DEVIATION, (*name, index[uuid], uuid), deviation.size_bytes
            if deviation.ratio is not None:
                yield deployments.DEVIATION_RATIO, (*name, index[uuid], uuid), deviation.ratio
            yield deployments.DEVIATION_TOLERANCE, (*name, index[uuid], uuid), status.tolerance[uuid]
