"""SGLang: weights and KV pool share a static fraction of the memory that was free before loading; the rest is
slack for activations and graphs.

Source: SGLang 0.5.23 arg_groups/memory_hook.py and mem_cache/kv_cache_configurator.py; tiers by device memory
from server_args.py.
"""

from __future__ import annotations

from exporter.footprint import cache_rows, pool_layout, runtime
from exporter.footprint.deployment import DeploymentSpec, DeviceShape, FootprintError
from exporter.footprint.gpus import is_blackwell
from exporter.footprint.policies import pool
from exporter.footprint.policies.draft_model import with_draft_model
from exporter.footprint.policies.explain import explain_pool
from exporter.footprint.policies.host_memory import engine_host
from exporter.footprint.policies.job import Job, Policy
from exporter.footprint.policies.speculation import draft_layers
from exporter.footprint.pool_layout import PoolLayout
from exporter.footprint.result import Footprint, Term
from exporter.footprint.weights import Layout, Stage, check_layout
from exporter.models.blocks import CompressedAttention, GroupedQueryAttention, LatentAttention
from exporter.models.quantization import Container
from exporter.units import MIB

# (least MiB of device memory, chunked_prefill_size, largest captured batch below TP4, from TP4 on)
_TIERS = (
    (160 * 1024, 16_384, 512, 512),
    (60 * 1024, 8192, 256, 512),
    (35 * 1024, 4096, 32, 160),
    (20 * 1024, 2048, 24, 80),
    (0, 2048, 8, 8),
)
_LATENT_PREFILL_GRAPHS_MIB = 1536
_POST_CAPTURE_RESERVE_MIB = 1536
_DRAFT_RESERVE_MIB = 2048
ROTARY_ELEMENT_BYTES = 4
PAGE_TOKENS = 1
SPARSE_PAGE_TOKENS = 64
COMPRESSED_PAGE_TOKENS = 256
"""Pages of models with an indexer, and of V4 (server_args.py)."""


def tier(device: DeviceShape, tp: int) -> tuple[int, int]:
    """chunked_prefill_size and the largest batch captured in CUDA graphs, by the device's total memory."""
    mib = device.total_bytes / MIB
    chunk, small, large = next(row[1:] for row in _TIERS if mib >= row[0])
    return chunk, small if tp < 4 else large


def default_memory_fraction(job: Job, device: DeviceShape) -> float:
    """``--mem-fraction-static`` when it is not given: the device less a reserve, rounded to 3 digits."""
    spec = job.spec
    total_mib = device.total_bytes / MIB
    chunk, batch = tier(device, spec.tp)
    chunk = spec.chunked_prefill or chunk
    parallel = 1024 * spec.tp * spec.pp / 8
    # SGLang's floor of 10 GiB above 60 GiB never binds: the chunk of such devices alone reserves 12 GiB.
    if not isinstance(job.architecture.attention, GroupedQueryAttention):
        reserved = 512 + 1.5 * max(chunk, 2048) + parallel + 2 * batch + _LATENT_PREFILL_GRAPHS_MIB
        if spec.dp_attention:
            reserved += 3 * batch * spec.dp + (1.5 * batch * spec.dp if batch > 300 else 0)
    else:
        reserved = _POST_CAPTURE_RESERVE_MIB + parallel
    if spec.speculative is not None:
        reserved += _DRAFT_RESERVE_MIB
    if reserved >= total_mib:
        raise FootprintError(
            f"devices: SGLang would keep {reserved:.0f} MiB free of {total_mib:.0f} MiB; set memory_fraction"
        )
    return round((total_mib - reserved) / total_mib, 3)


def stage_layers(layers: int, stage_count: int) -> tuple[int, ...]:
    """Layers of each stage: the last ones get the rest, one each (distributed/utils.py get_pp_indices)."""
    base, rest = divmod(layers, stage_count)
    return tuple(base + (index >= stage_count - rest) for index in range(stage_count))


def allocate(job: Job) -> Footprint:
    """The footprint of a warm SGLang server. Raises FootprintError for settings that it would refuse."""
    spec, arch, length = job.spec, job.architecture, job.context_tokens
    layout = _layout(job)
    check_layout(arch, layout)
    places = pool.placed(job, _replicas(spec))
    stages = pool.stages(job, stage_layers(arch.layers, spec.pp))
    ranks = pool.like_first(places, lambda place: _rank(job, layout, place, stages[place.stage]))
    shared = _shared_pool(job, ranks)
    roomy = shared is not None and shared.fits
    devices = tuple(
        pool.rank_footprint(
            rank,
            shared,
            rank.device.usable_bytes if roomy else 0,
            Term(0, rank.device.usable_bytes, "estimate") if roomy else None,
        )
        for rank in ranks
    )
    return Footprint(
        job.model.id,
        arch.name,
        job.quantization,
        devices,
        engine_host(job, ranks, shared),
        pool.figures(ranks, shared, length, spec.dp, spec.max_num_seqs),
        shared.fits if shared is not None else None,
        _notes(job, places[0].device, shared),
        pool.limiting_of(ranks, shared, tuple(rank.device.usable_bytes for rank in ranks)),
        explain_pool(job, layout, ranks[0], shared, "pool = free before load x fraction - weights"),
    )


def cache_layout(job: Job, stage: Stage, drafts: int, device: DeviceShape) -> PoolLayout:
    """The pool of one rank of a stage."""
    spec, arch, attention = job.spec, job.architecture, job.architecture.attention
    name = cache_rows.cache_format(spec.kv_cache_dtype)
    layers = range(stage.first, stage.end)
    if isinstance(attention, CompressedAttention):
        page = spec.block_size or COMPRESSED_PAGE_TOKENS
        if attention.shares_caches:
            return pool_layout.window_layout(attention, layers, drafts, name, spec.fp4_indexer)
        return pool_layout.shared_pools_layout(
            attention, layers, name, page, spec.speculative is not None, spec.fp4_indexer
        )
    page = spec.block_size or PAGE_TOKENS
    if isinstance(attention, LatentAttention):
        if spec.mla == 0:
            # --disable-mla: keys and values of all heads.
            width = attention.nope_head_dim + attention.rope_head_dim + attention.value_head_dim
            heads = attention.heads // _attention_parts(spec)
            row = heads * width * cache_rows.POOL_ELEMENT_BYTES.get(name, 2)
            return pool_layout.plain_layout((len(stage) + drafts) * row, page)
        if attention.indexer is not None:
            page = spec.block_size or SPARSE_PAGE_TOKENS
            name = _sparse_format(name, device)
    row = pool_layout.token_row_bytes(arch, name, _attention_parts(spec), spec.fp4_indexer)
    return pool_layout.plain_layout((len(stage) + drafts) * row, page)


def _sparse_format(name: str, device: DeviceShape) -> str:
    # server_args.py: V3.2 takes fp8 for `auto` on Blackwell, 16 bits on Hopper; fp8 is the packed row.
    if cache_rows.is_fp8(name) or (name == "auto" and is_blackwell(device.name)):
        return cache_rows.PACKED_LATENT
    return name


def _replicas(spec: DeploymentSpec) -> int:
    return 1 if spec.dp_attention else spec.dp


def _attention_parts(spec: DeploymentSpec) -> int:
    return spec.tp // spec.dp if spec.dp_attention else spec.tp


def _shared_pool(job: Job, ranks: tuple[pool.Rank, ...]) -> pool.Pool | None:
    spec, length = job.spec, job.context_tokens
    if spec.kv_cache_bytes is not None:
        return pool.known_pool(ranks, spec.kv_cache_bytes, 1)
    if spec.max_total_tokens is not None:
        blocks = min(spec.max_total_tokens // rank.layout.block_tokens for rank in ranks)
        return pool.Pool(blocks, blocks, "engine", _fits_beside(ranks, blocks))
    if not all(rank.is_known for rank in ranks):
        return None
    rooms = tuple(_room(job, rank) for rank in ranks)
    shared = pool.budget_pool(ranks, rooms, 1)
    if shared.fits:
        return shared
    blocks = max(rank.layout.sequence_blocks(length) for rank in ranks)
    return pool.Pool(blocks, blocks, "architecture", False)


def _fits_beside(ranks: tuple[pool.Rank, ...], blocks: int) -> bool | None:
    if not all(rank.is_known for rank in ranks):
        return None
    return all(rank.fixed_bytes + rank.layout.bytes_of(blocks) <= rank.device.usable_bytes for rank in ranks)


def _rank(job: Job, layout: Layout, place: pool.Place, stage: Stage) -> pool.Rank:
    drafts = draft_layers(job) if stage.is_last else 0
    weights, draft = pool.rank_bytes(job, layout, stage, drafts, ROTARY_ELEMENT_BYTES)
    rank = pool.Rank(
        place.rank,
        place.stage,
        place.device,
        cache_layout(job, stage, drafts, place.device),
        weights,
        draft,
        _estimates(job, place.device, stage),
        job.weights_basis,
    )
    return with_draft_model(job, rank, layout) if stage.is_last else rank


def _layout(job: Job) -> Layout:
    spec = job.spec
    if spec.dp_attention and spec.tp % spec.dp:
        raise FootprintError(f"dp must divide tp with dp_attention: {spec.dp} does not divide {spec.tp}")
    attention = _attention_parts(spec)
    ep = spec.ep or 1
    if spec.tp % ep:
        raise FootprintError(f"ep must divide tp: {ep} does not divide {spec.tp}")
    return Layout(
        attention,
        spec.moe_dense_tp or spec.tp,
        spec.tp,
        attention,
        attention if spec.dp_lm_head else spec.tp,
        whole_experts=ep > 1,
        expert_width=spec.tp // ep if ep > 1 else 1,
        redundant_experts=spec.redundant_experts,
        absorbed=spec.mla != 0,
        table=spec.tp if spec.engram_on_device else 0,
    )


def _room(job: Job, rank: pool.Rank) -> Term:
    fraction = job.spec.memory_fraction
    if fraction is None:
        fraction = default_memory_fraction(job, rank.device)
    before = rank.estimates["runtime"], rank.estimates["communication"]
    free_high = rank.device.usable_bytes - sum(term.low_bytes for term in before)
    free_low = rank.device.usable_bytes - sum(term.high_bytes for term in before)
    graphs = rank.estimates["graphs"]
    # Models without latent attention are sized after graph capture (0.5.23 post_capture_kv_sizing_planned):
    # the graphs come off.
    dense = isinstance(job.architecture.attention, GroupedQueryAttention)
    captured = graphs.high_bytes if dense else 0
    low = int(free_low * fraction) - rank.fixed_bytes - captured
    high = int(free_high * fraction) - rank.fixed_bytes
    return Term(max(0, low), max(0, low, high), "estimate")


def _estimates(job: Job, device: DeviceShape, stage: Stage) -> dict[str, Term]:
    spec = job.spec
    estimates = {
        "graphs": runtime.cuda_graphs(spec.enforce_eager),
        "runtime": runtime.cuda_context(),
        "communication": runtime.communication(spec.tp * spec.pp),
    }
    if not device.is_sized:
        return estimates
    chunk, batch = tier(device, spec.tp)
    sequences = batch if stage.is_last else 0
    activations = runtime.activations(
        job.architecture,
        spec.chunked_prefill or chunk,
        sequences,
        job.context_tokens,
        _attention_parts(spec),
    )
    return {"activations": activations, **estimates}


def _notes(job: Job, device: DeviceShape, shared: pool.Pool | None) -> tuple[str, ...]:
    spec = job.spec
    notes = []
    if spec.kv_cache_bytes is None and spec.memory_fraction is None and device.is_sized:
        notes.append(
            f"memory_fraction {default_memory_fraction(job, device)} is SGLang's default on this device"
        )
    if spec.max_model_len is None:
        notes.append(f"max_model_len {job.architecture.context_tokens} is the model's own")
    attention = job.architecture.attention
    sparse = isinstance(attention, LatentAttention) and attention.indexer is not None
    if sparse and not device.name and spec.kv_cache_dtype in (None, "auto"):
        notes.append("kv_cache_dtype auto: 16 bits were taken, on Blackwell the default is fp8")
    if shared is None:
        notes.append("the size of the KV pool is not known without the devices' memory and the weights")
    elif shared.fits is False:
        notes.append(
            "does not fit: weights leave no room for a cache in the static fraction of a device; "
            "answered with the cache of one sequence of max_model_len"
        )
    return tuple(notes)


def _unsized(spec: DeploymentSpec, gpus: int | None) -> tuple[DeviceShape, ...]:
    return pool.unsized_devices(gpus if gpus is not None else pool.needed_devices(spec, _replicas(spec)))


SGLANG = Policy(
    Container.SAFETENSORS,
    pool.LLAMA_CPP_SETTINGS | {"max_num_batched_tokens", "dcp"},
    allocate,
    unsized=_unsized,
)
