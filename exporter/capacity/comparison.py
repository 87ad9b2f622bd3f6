"""Expected against observed, per deployment: what it holds beside what it should, what its engine says."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from exporter.capacity.attribution import Holding
from exporter.capacity.observation import Declared, Running
from exporter.capacity.tolerance import Tolerance
from exporter.engines.process import ProcessMemory
from exporter.engines.telemetry.types import Telemetry
from exporter.footprint.result import Term


@dataclass(frozen=True, slots=True)
class Deviation:
    """Observed − expected on one device; ``ratio`` None where nothing is expected there."""

    size_bytes: int
    ratio: float | None


@dataclass(frozen=True, slots=True)
class KvUse:
    """The KV cache of a deployment, in tokens; the engine's own word first, None where nobody tells."""

    capacity_tokens: int | None
    used_tokens: int | None
    usage_ratio: float | None


def deviations(
    deployment: Declared, held: Mapping[str, tuple[Holding, ...]], untold: Set[str] = frozenset()
) -> dict[str, Deviation]:
    """Device → deviation of a deployment that runs, where its holding and its whole expectation are known.

    ``untold``: devices whose driver does not say what each process holds.
    """
    found: dict[str, Deviation] = {}
    if deployment.footprint is None:
        return found
    expected: dict[str, int] = {}
    unknown: set[str] = set()
    for uuid, rank in zip(deployment.ranks, deployment.footprint.devices, strict=False):
        expected[uuid] = expected.get(uuid, 0) + rank.total.expected_bytes
        if not rank.complete:
            unknown.add(uuid)
    for uuid, size in expected.items():
        if uuid in unknown or uuid in untold or uuid not in held:
            continue
        observed = sum(one.size_bytes for one in held[uuid] if one.holder == deployment.name)
        strange = sum(one.size_bytes for one in held[uuid] if one.kind != "deployment")
        if not observed and 2 * strange >= size:
            continue  # its memory is there, under a process that is not known to be its own
        found[uuid] = Deviation(observed - size, (observed - size) / size if size else None)
    return found


def tolerances(
    deployment: Declared, deviation: Mapping[str, Deviation], tolerance: Tolerance
) -> dict[str, int]:
    """Device → bytes by which a deployment may differ there, of the devices that have a deviation."""
    if deployment.footprint is None:
        return {}
    placed = tuple(zip(deployment.ranks, deployment.footprint.devices, strict=False))
    return {uuid: tolerance.of(rank for at, rank in placed if at == uuid) for uuid in deviation}


def resident_ratio(deployment: Declared, memory: ProcessMemory | None) -> float | None:
    """How much of the weights that are mapped from files and read is in RAM; None where none should be. What
    is only looked up, the token embedding, comes back row by row once it was evicted, and is not missed.

    Of weights that are mapped when they are first read, those that ever were: by the peak of the process.
    """
    if deployment.footprint is None or memory is None:
        return None
    host = deployment.footprint.host
    mapped = host.mapped_bytes - host.looked_up_bytes
    if mapped <= 0:
        return None
    if host.mapped_lazily:
        mapped = min(mapped, max(memory.file, memory.peak - memory.anonymous - memory.shared))
    return min(1.0, memory.file / mapped) if mapped else None


def kv_use(deployment: Declared, telemetry: Telemetry | None) -> KvUse:
    """Capacity and use of the KV cache."""
    planned = deployment.footprint.kv_cache.capacity_tokens if deployment.footprint is not None else None
    if telemetry is None:
        return KvUse(planned, None, None)
    capacity = telemetry.kv_capacity_tokens
    if capacity is None or (telemetry.kv_capacity_from_blocks and planned is not None):
        capacity = planned if planned is not None else capacity
    used, ratio = telemetry.kv_used_tokens, telemetry.kv_usage_ratio
    if used is None and ratio is not None and capacity is not None:
        used = round(ratio * capacity)
    if ratio is None and used is not None and capacity:
        ratio = min(1.0, used / capacity)
    return KvUse(capacity, used, ratio)


def plan_shortfall(deployment: Declared, telemetry: Telemetry | None) -> int | None:
    """Planned tokens that the KV cache cannot hold; 0 or less: it can. None without a plan or a capacity.

    By the engine's own word, else at the optimistic end of the estimate: a guess must not page.
    """
    if deployment.planned_tokens is None:
        return None
    told = telemetry.kv_capacity_tokens if telemetry is not None else None
    if told is None or (telemetry is not None and telemetry.kv_capacity_from_blocks):
        told = _most_tokens(deployment)
    return None if told is None else deployment.planned_tokens - told


def _most_tokens(deployment: Declared) -> int | None:
    """Capacity of the KV cache if the pool of the tightest rank turns out at its high end."""
    footprint = deployment.footprint
    if footprint is None or footprint.kv_cache.capacity_tokens is None:
        return None
    terms = [rank.components.get("kv_cache") for rank in footprint.devices]
    shares = [term.high_bytes / term.low_bytes for term in terms if term is not None and term.low_bytes]
    return int(footprint.kv_cache.capacity_tokens * min(shares, default=1.0))


def plan_errors(deployment: Declared, telemetry: Telemetry | None) -> dict[str, float]:
    """Component → expected / observed − 1, where the engine itself prints the truth."""
    found: dict[str, float] = {}
    footprint = deployment.footprint
    if footprint is None or telemetry is None:
        return found
    planned = footprint.kv_cache.likely_capacity_tokens or footprint.kv_cache.capacity_tokens
    if telemetry.kv_capacity_tokens and planned and not telemetry.kv_capacity_from_blocks:
        found["kv_cache"] = planned / telemetry.kv_capacity_tokens - 1
    elif telemetry.kv_bytes and (term := _largest(deployment, "kv_cache")) is not None:
        found["kv_cache"] = term.expected_bytes / telemetry.kv_bytes - 1
    if telemetry.weights_bytes and (term := _largest(deployment, "weights")) is not None:
        found["weights"] = term.expected_bytes / telemetry.weights_bytes - 1
    return found


def reclaimable(
    deployment: Declared, running: Running | None, held: Mapping[str, tuple[Holding, ...]]
) -> dict[str, int]:
    """Device → bytes of the KV pool that no request uses now; nothing while the use is not told.

    Never more than the deployment holds there.
    """
    if running is None or deployment.footprint is None:
        return {}
    ratio = kv_use(deployment, running.telemetry).usage_ratio
    if ratio is None:
        return {}
    found: dict[str, int] = {}
    for uuid, rank in zip(deployment.ranks, deployment.footprint.devices, strict=False):
        pool = rank.components.get("kv_cache")
        if pool is None or uuid not in held:
            continue
        here = sum(one.size_bytes for one in held[uuid] if one.holder == deployment.name)
        free = min(here, round(pool.expected_bytes * (1 - ratio)))
        found[uuid] = found.get(uuid, 0) + free
    return found


def _largest(deployment: Declared, component: str) -> Term | None:
    ranks = deployment.footprint.devices if deployment.footprint is not None else ()
    terms = [rank.components[component] for rank in ranks if component in rank.components]
    return max(terms, key=lambda term: term.expected_bytes, default=None)
