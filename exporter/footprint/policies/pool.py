"""What vLLM and SGLang share: ranks and stages, and a KV pool that takes what a budget leaves.

A budget couples the parts: activations that turn out larger make the pool smaller. Low ends of estimated
parts are therefore cut to what the exact parts leave, so that a guess alone never exceeds the budget of an
engine that runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporter.footprint import kv_cache
from exporter.footprint.deployment import DeviceShape, FootprintError
from exporter.footprint.policies.job import Job
from exporter.footprint.result import (
    Basis,
    HostFootprint,
    KvCacheFigures,
    RankFootprint,
    Term,
    exact,
    sum_terms,
)
from exporter.footprint.runtime import worker_processes
from exporter.footprint.weights import Layout, Stage, draft_weights, rank_weights

LLAMA_CPP_SETTINGS = frozenset(
    {
        "gpu_layers",
        "n_cpu_moe",
        "parallel",
        "kv_unified",
        "micro_batch",
        "cache_type_k",
        "cache_type_v",
        "flash_attention",
        "mmap",
        "mlock",
        "repack",
        "cache_ram_bytes",
    }
)
_DRAFT_METHODS = frozenset({"mtp", "deepseek_mtp", "nextn", "eagle"})


@dataclass(frozen=True, slots=True)
class Rank:
    """One process on one device, its exact parts and its estimated parts."""

    rank: int
    stage: int
    device: DeviceShape
    token_bytes: int
    weights_bytes: int
    draft_bytes: int
    estimates: Mapping[str, Term]

    @property
    def fixed_bytes(self) -> int:
        return self.weights_bytes + self.draft_bytes

    @property
    def estimate(self) -> Term:
        return sum_terms(self.estimates)


def draft_layers(job: Job) -> int:
    """Draft layers that speculation loads. Raises FootprintError for a method that the model lacks."""
    method = job.spec.speculative
    if method is None:
        return 0
    if method.lower() not in _DRAFT_METHODS or job.architecture.draft_layers == 0:
        raise FootprintError(
            "speculative: only the draft layers of the checkpoint (mtp) are known, "
            f"and {job.model.id} has {job.architecture.draft_layers}"
        )
    return job.architecture.draft_layers


def placed(job: Job, replicas: int) -> tuple[tuple[int, int, DeviceShape], ...]:
    """(rank, stage, device) in the engines' order: tensor ranks within stages within replicas."""
    spec = job.spec
    needed = spec.tp * spec.pp * replicas
    if len(job.devices) < needed:
        raise FootprintError(
            f"devices: {len(job.devices)} given, but tp x pp x dp = "
            f"{spec.tp} x {spec.pp} x {replicas} needs {needed}"
        )
    if spec.pp > job.architecture.layers:
        raise FootprintError(f"pp must be at most the {job.architecture.layers} layers, not {spec.pp}")
    return tuple(
        (rank, rank // spec.tp % spec.pp, device) for rank, device in enumerate(job.devices[:needed])
    )


def make_rank(
    job: Job, place: tuple[int, int, DeviceShape], layout: Layout, stage: Stage, estimates: Mapping[str, Term]
) -> Rank:
    """The rank's exact parts, and its estimates as given."""
    rank, number, device = place
    drafts = draft_layers(job) if stage.is_last else 0
    element_bytes = kv_cache.pool_element_bytes(job.spec.kv_cache_dtype)
    return Rank(
        rank,
        number,
        device,
        kv_cache.bytes_per_token(job.architecture, len(stage) + drafts, layout.attention, element_bytes),
        sum(rank_weights(job.architecture, job.quantization, layout, stage).values()),
        draft_weights(job.architecture, job.quantization, layout) if drafts else 0,
        estimates,
    )


@dataclass(frozen=True, slots=True)
class Pool:
    """Tokens that every rank's pool holds, between two ends. ``fits`` is False where the engine would not
    start.
    """

    low_tokens: int
    high_tokens: int
    basis: Basis
    fits: bool


def known_pool(ranks: Sequence[Rank], pool_bytes: int, least_tokens: int, block_tokens: int) -> Pool:
    """A pool whose bytes per rank were declared: it does not fit where it is too large for a device."""
    tokens = min(kv_cache.pool_tokens(pool_bytes, rank.token_bytes, block_tokens) for rank in ranks)
    roomy = all(rank.fixed_bytes + pool_bytes <= rank.device.usable_bytes for rank in ranks)
    return Pool(tokens, tokens, "engine", roomy and tokens >= least_tokens)


def budget_pool(ranks: Sequence[Rank], rooms: Sequence[Term], least_tokens: int, block_tokens: int) -> Pool:
    """The pool that the smallest room leaves (every rank holds the same tokens), and never less than one full
    sequence.

    ``rooms`` are the bytes that each rank's budget leaves for the pool, negative ones cut to 0. The pool does
    not fit where even the high end leaves no room for ``least_tokens``: it is then answered as if it had
    exactly these.
    """
    pairs = tuple(zip(ranks, rooms, strict=True))
    low = min(kv_cache.pool_tokens(room.low_bytes, rank.token_bytes, block_tokens) for rank, room in pairs)
    high = min(kv_cache.pool_tokens(room.high_bytes, rank.token_bytes, block_tokens) for rank, room in pairs)
    if high < least_tokens:
        return Pool(least_tokens, least_tokens, "architecture", False)
    return Pool(max(low, least_tokens), high, "estimate", True)


def rank_footprint(rank: Rank, pool: Pool, limit_bytes: int, whole: Term | None) -> RankFootprint:
    """The rank's components. Estimates' low ends are cut to what ``limit_bytes`` leaves beside the exact
    parts.

    ``whole``: what is known of the rank's total from the engine's accounting, to narrow the sum of the
    components.
    """
    cache = Term(pool.low_tokens * rank.token_bytes, pool.high_tokens * rank.token_bytes, pool.basis)
    certain = rank.fixed_bytes + cache.low_bytes
    estimates = rank.estimates
    if certain <= limit_bytes:
        estimates = _cut_to(estimates, limit_bytes - certain)
    components = {
        "weights": exact(rank.weights_bytes, "architecture"),
        "kv_cache": cache,
        **({"speculative": exact(rank.draft_bytes, "architecture")} if rank.draft_bytes else {}),
        **{name: term for name, term in estimates.items() if term.high_bytes},
    }
    total = sum_terms(components)
    if whole is not None:
        low = max(total.low_bytes, whole.low_bytes)
        total = Term(low, max(low, min(total.high_bytes, whole.high_bytes)), total.basis)
    return RankFootprint(rank.rank, rank.stage, rank.device.index, components, total)


def figures(
    ranks: Sequence[Rank], pool: Pool, length: int, block_tokens: int, replicas: int, sequences: int | None
) -> KvCacheFigures:
    """Cache figures of the deployment; ``sequences`` is the declared concurrency of all replicas together."""
    capacity = pool.low_tokens * replicas if pool.fits else None
    return KvCacheFigures(
        bytes_per_token=max(rank.token_bytes for rank in ranks),
        capacity_tokens=capacity,
        demand_tokens=sequences * length if sequences is not None else None,
        full_length_sequences=capacity / kv_cache.in_blocks(length, block_tokens)
        if capacity is not None
        else None,
    )


def worker_host(ranks: int) -> HostFootprint:
    """RAM of an engine that keeps weights and cache on its devices."""
    return HostFootprint({"runtime": worker_processes(ranks)})


def stages(layer_counts: Sequence[int]) -> tuple[Stage, ...]:
    """Stages from the number of layers of each."""
    total = sum(layer_counts)
    starts = [sum(layer_counts[:index]) for index in range(len(layer_counts))]
    return tuple(
        Stage(start, start + count, total) for start, count in zip(starts, layer_counts, strict=True)
    )


def _cut_to(estimates: Mapping[str, Term], room_bytes: int) -> Mapping[str, Term]:
    wanted = sum(term.low_bytes for term in estimates.values())
    if wanted <= room_bytes:
        return estimates
    return {
        name: Term(term.low_bytes * room_bytes // wanted, term.high_bytes, term.basis, term.note)
        for name, term in estimates.items()
    }
