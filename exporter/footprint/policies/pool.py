"""What engines with a KV pool share: ranks and stages, and a pool that takes what a budget leaves.

A budget couples the parts: activations that turn out larger make the pool smaller. Low ends of estimated
parts are therefore cut to what the exact parts leave, so that a guess alone never exceeds the budget of an
engine that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from exporter.footprint.deployment import DeploymentSpec, DeviceShape, FootprintError
from exporter.footprint.policies.job import Job
from exporter.footprint.pool_layout import PoolLayout
from exporter.footprint.result import (
    Basis,
    KvCacheFigures,
    RankFootprint,
    Term,
    exact,
    sum_terms,
)
from exporter.footprint.runtime import rotary_table_bytes
from exporter.footprint.weights import Layout, Stage, draft_weights, rank_weights, stored_rank_bytes

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
        "override_tensor",
        "tensor_split",
        "cpu_moe",
        "kv_on_host",
        "swa_full",
        "numa",
    }
)


@dataclass(frozen=True, slots=True)
class Rank:
    """One process on one device: its exact parts, and its estimated ones, absent where nothing is known.

    ``weights_bytes`` None: the bytes of the quantization are not known.
    """

    rank: int
    stage: int
    device: DeviceShape
    layout: PoolLayout
    weights_bytes: int | None
    draft_bytes: int | None
    estimates: Mapping[str, Term]
    weights_basis: Basis = "architecture"

    @property
    def is_known(self) -> bool:
        return self.weights_bytes is not None and self.draft_bytes is not None and self.device.is_sized

    @property
    def fixed_bytes(self) -> int:
        return (self.weights_bytes or 0) + (self.draft_bytes or 0)

    @property
    def estimate(self) -> Term:
        return sum_terms(self.estimates)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rank is: its number, its pipeline stage and its device."""

    rank: int
    stage: int
    device: DeviceShape


def needed_devices(spec: DeploymentSpec, replicas: int) -> int:
    return spec.tp * spec.pp * replicas


def unsized_devices(count: int) -> tuple[DeviceShape, ...]:
    """Devices of which nothing but their number is known."""
    return tuple(DeviceShape(index, 0) for index in range(count))


def placed(job: Job, replicas: int) -> tuple[Place, ...]:
    """The ranks in the engines' order: tensor ranks within stages within replicas."""
    spec = job.spec
    needed = needed_devices(spec, replicas)
    if len(job.devices) < needed:
        raise FootprintError(
            f"devices: {len(job.devices)} given, but tp x pp x dp = "
            f"{spec.tp} x {spec.pp} x {replicas} needs {needed}"
        )
    if spec.pp > job.architecture.layers:
        raise FootprintError(f"pp must be at most the {job.architecture.layers} layers, not {spec.pp}")
    return tuple(
        Place(rank, rank // spec.tp % spec.pp, device) for rank, device in enumerate(job.devices[:needed])
    )


def stages(job: Job, layer_counts: Sequence[int]) -> tuple[Stage, ...]:
    """Stages from the number of layers of each, or from the partition that was declared."""
    declared = job.spec.layer_partition
    counts = declared or tuple(layer_counts)
    total = job.architecture.layers
    if len(counts) != job.spec.pp or sum(counts) != total or min(counts) < 1:
        raise FootprintError(
            f"layer_partition must be {job.spec.pp} counts of at least 1 that sum to {total} layers"
        )
    starts = [sum(counts[:index]) for index in range(len(counts))]
    return tuple(Stage(start, start + count, total) for start, count in zip(starts, counts, strict=True))


def rank_bytes(
    job: Job, layout: Layout, stage: Stage, drafts: int, rotary_element_bytes: int = 0
) -> tuple[int | None, int | None]:
    """Weights of a rank, its rotary tables included, and of its draft layers; None where the quantization's
    bytes are not known.
    """
    if not job.weights_known:
        return None, None if drafts else 0
    if job.stored is not None:
        weights, draft = stored_rank_bytes(job.architecture, job.stored, layout, stage)
    else:
        weights = sum(rank_weights(job.architecture, job.quantization, layout, stage).values())
        draft = draft_weights(job.architecture, job.quantization, layout) if drafts else 0
    weights -= min(weights, job.spec.cpu_offload_bytes or 0)
    if rotary_element_bytes:
        weights += rotary_table_bytes(job.architecture, rotary_element_bytes)
    return weights, draft if drafts else 0


def like_first(places: Sequence[Place], make: Callable[[Place], Rank]) -> tuple[Rank, ...]:
    """The ranks of all places: those of one stage on equal devices are worked out once."""
    known: dict[tuple[int, int, int, str], Rank] = {}
    ranks = []
    for place in places:
        device = place.device
        kind = (place.stage, device.total_bytes, device.reserved_bytes, device.name)
        if kind not in known:
            known[kind] = make(place)
        ranks.append(replace(known[kind], rank=place.rank, device=device))
    return tuple(ranks)


@dataclass(frozen=True, slots=True)
class Pool:
    """Blocks that every rank's pool holds, between two ends. ``fits`` is False where the engine would not
    start, None where it is not known.
    """

    low_blocks: int
    high_blocks: int
    basis: Basis
    fits: bool | None


def known_pool(ranks: Sequence[Rank], pool_bytes: int, length: int) -> Pool:
    """A pool whose bytes per rank were declared: it does not fit where it is too large for a device."""
    blocks = min(rank.layout.blocks(pool_bytes) for rank in ranks)
    fits: bool | None = None
    if all(rank.is_known for rank in ranks):
        fits = all(rank.fixed_bytes + pool_bytes <= rank.device.usable_bytes for rank in ranks)
    if blocks < max(rank.layout.sequence_blocks(length) for rank in ranks):
        fits = False
    return Pool(blocks, blocks, "engine", fits)


def budget_pool(ranks: Sequence[Rank], rooms: Sequence[Term], length: int) -> Pool:
    """The pool that the smallest room leaves (every rank holds the same tokens), and never less than one
    sequence of ``length``.

    ``rooms`` are the bytes that each rank's budget leaves for the pool, negative ones cut to 0. The pool does
    not fit where even the high end leaves no room for the sequence: it is then answered as if it had exactly
    that.
    """
    pairs = tuple(zip(ranks, rooms, strict=True))
    least = max(rank.layout.sequence_blocks(length) for rank in ranks)
    low = min(rank.layout.blocks(room.low_bytes) for rank, room in pairs)
    high = min(rank.layout.blocks(room.high_bytes) for rank, room in pairs)
    if high < least:
        return Pool(least, least, "architecture", False)
    return Pool(max(low, least), high, "estimate", True)


def rank_footprint(rank: Rank, pool: Pool | None, limit_bytes: int, whole: Term | None) -> RankFootprint:
    """The rank's components. Estimates' low ends are cut to what ``limit_bytes`` leaves beside the exact
    parts.

    ``pool`` None: its size is not known. ``whole``: what is known of the rank's total from the engine's
    accounting, to narrow the sum of the components.
    """
    components: dict[str, Term] = {}
    if rank.weights_bytes is not None:
        components["weights"] = exact(rank.weights_bytes, rank.weights_basis)
    estimates = rank.estimates
    if pool is not None:
        low, high = (rank.layout.bytes_of(blocks) for blocks in (pool.low_blocks, pool.high_blocks))
        components["kv_cache"] = Term(low, high, pool.basis)
        if rank.is_known and rank.fixed_bytes + low <= limit_bytes:
            estimates = _cut_to(estimates, limit_bytes - rank.fixed_bytes - low)
    if rank.draft_bytes:
        components["speculative"] = exact(rank.draft_bytes, rank.weights_basis)
    components.update((name, term) for name, term in estimates.items() if term.high_bytes)
    total = sum_terms(components)
    if whole is not None:
        least = max(total.low_bytes, whole.low_bytes)
        total = Term(least, max(least, min(total.high_bytes, whole.high_bytes)), total.basis)
    complete = rank.weights_bytes is not None and rank.draft_bytes is not None and pool is not None
    return RankFootprint(
        rank.rank,
        rank.stage,
        rank.device.index,
        components,
        total,
        complete and "activations" in rank.estimates,
    )


def figures(
    ranks: Sequence[Rank], pool: Pool | None, length: int, replicas: int, sequences: int | None
) -> KvCacheFigures:
    """Cache figures of the deployment; ``sequences`` is the declared concurrency of all replicas together."""
    capacity: int | None = None
    full_length: float | None = None
    likely: int | None = None
    likely_full_length: float | None = None
    if pool is not None and (pool.fits is not False or pool.basis == "engine"):
        widest = max(ranks, key=lambda rank: rank.layout.sequence_blocks(length))
        capacity = widest.layout.tokens(pool.low_blocks, length) * replicas
        full_length = pool.low_blocks / widest.layout.sequence_blocks(length) * replicas
        if pool.low_blocks != pool.high_blocks:
            middle = (pool.low_blocks + pool.high_blocks) // 2
            likely = widest.layout.tokens(middle, length) * replicas
            likely_full_length = middle / widest.layout.sequence_blocks(length) * replicas
    return KvCacheFigures(
        bytes_per_token=max(round(rank.layout.token_bytes) for rank in ranks),
        capacity_tokens=capacity,
        demand_tokens=sequences * length if sequences is not None else None,
        full_length_sequences=full_length,
        likely_capacity_tokens=likely,
        likely_full_length_sequences=likely_full_length,
    )


def limiting_of(ranks: Sequence[Rank], pool: Pool | None, limits: Sequence[int]) -> str | None:
    """What keeps the deployment from starting, None where nothing does or it is not known."""
    if pool is None or pool.fits is not False:
        return None
    for rank, limit in zip(ranks, limits, strict=True):
        if rank.fixed_bytes > limit:
            return f"weights of rank {rank.rank} exceed what its device may hold"
    return "the KV cache of one sequence of full length does not fit beside the weights"


def _cut_to(estimates: Mapping[str, Term], room_bytes: int) -> Mapping[str, Term]:
    wanted = sum(term.low_bytes for term in estimates.values())
    if wanted <= room_bytes:
        return estimates
    return {
        name: Term(term.low_bytes * room_bytes // wanted, term.high_bytes, term.basis, term.note)
        for name, term in estimates.items()
    }
