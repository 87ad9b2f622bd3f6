"""vLLM: a budget of total x gpu_memory_utilization, of which the KV pool takes what the profile run leaves.

Source: vLLM 0.33 v1/worker/gpu_worker.py, v1/worker/utils.py, utils/mem_utils.py memory_profiling,
engine/arg_utils.py; older rules by release where an engine version is stated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import ceil

from exporter.footprint import cache_rows, pool_layout, runtime
from exporter.footprint.deployment import DeploymentSpec, DeviceShape, FootprintError
from exporter.footprint.policies import pool
from exporter.footprint.policies.draft_model import with_draft_model
from exporter.footprint.policies.explain import explain_pool
from exporter.footprint.policies.host_memory import engine_host
from exporter.footprint.policies.job import Job, Policy
from exporter.footprint.policies.speculation import draft_layers
from exporter.footprint.pool_layout import PoolLayout
from exporter.footprint.result import Footprint, RankFootprint, Term, sum_terms
from exporter.footprint.versions import before
from exporter.footprint.weights import Layout, Stage, check_layout
from exporter.models.blocks import CompressedAttention, LatentAttention
from exporter.models.quantization import Container
from exporter.units import GIB

DEFAULT_MEMORY_FRACTION = 0.92
"""``--gpu-memory-utilization`` of vLLM 0.33."""
OLD_MEMORY_FRACTION = 0.90
"""Until graphs were measured and taken off the pool, see GRAPHS_MEASURED."""
GRAPHS_MEASURED = (0, 21)
"""From 0.21 on CUDA graphs are trial-captured before the pool is sized
(VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS).
"""
LATENT_ROWS_SINCE = (0, 7, 1)
"""Before, DeepSeek-V2 and V3 kept keys and values of all heads, padded to 256 elements."""
UNABSORBED_HEAD_DIM = 256
PACKED_BY_DEFAULT_BEFORE = (0, 11, 1)
"""The first releases with V3.2 took the packed FP8 cache for ``auto``; later ones only when FP8 is asked for.
"""
LEFTOVER_LAYERS_TO_LAST_BEFORE = (0, 8)

# arg_utils.py: (least device bytes, max_num_batched_tokens, max_num_seqs) of the API server.
_BATCH_DEFAULTS = ((160 * GIB, 16_384, 1024), (70 * GIB, 8192, 1024), (0, 2048, 256))
_SMALLER_DEFAULTS_BEFORE = (0, 8, 5)
_SMALLER_DEFAULTS = (2048, 256)

ROTARY_ELEMENT_BYTES = 2

LATENT_BLOCK_TOKENS = 64
"""FlashMLA's block; capacities in logs of V3 and R1 are multiples of it."""
BLOCK_TOKENS = 16

WARM_SPREAD_BYTES = GIB
"""nvidia-smi shows the budget within about 1 GiB once warm: the pool takes exactly what was measured beside
it.
"""


def stage_layers(layers: int, stage_count: int, version: str | None = None) -> tuple[int, ...]:
    """Layers of each stage: the rest goes one each to the stages before the last, backwards
    (distributed/utils.py get_pp_indices); before 0.8 all of it to the last.
    """
    counts = [layers // stage_count] * stage_count
    rest = layers % stage_count
    if before(version, LEFTOVER_LAYERS_TO_LAST_BEFORE):
        counts[-1] += rest
        return tuple(counts)
    for index in range(2, rest + 2):
        counts[-index] += 1
    return tuple(counts)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The launch with its defaults: fractions, batch limits (None where they depend on an unknown device)."""

    fraction: float
    layout: Layout
    stages: tuple[Stage, ...]
    places: tuple[pool.Place, ...]
    batched_tokens: int | None
    sequences: int | None


def allocate(job: Job) -> Footprint:
    """The footprint of a warm vLLM server. Raises FootprintError for settings that it would refuse."""
    spec, length = job.spec, job.context_tokens
    plan = _plan(job)
    ranks = pool.like_first(plan.places, partial(_rank, job, plan))
    budgets = tuple(ceil(rank.device.usable_bytes * plan.fraction) for rank in ranks)
    shared: pool.Pool | None = None
    if spec.kv_cache_bytes is not None:
        shared = pool.known_pool(ranks, spec.kv_cache_bytes, length)
        devices = tuple(pool.rank_footprint(rank, shared, rank.device.usable_bytes, None) for rank in ranks)
    elif all(rank.is_known and "activations" in rank.estimates for rank in ranks):
        inside = not before(spec.engine_version, GRAPHS_MEASURED)
        shared = _pool(ranks, budgets, length, graphs_inside=inside)
        devices = tuple(
            _rank_footprint(rank, shared, budget, graphs_inside=inside)
            for rank, budget in zip(ranks, budgets, strict=True)
        )
    else:
        devices = tuple(pool.rank_footprint(rank, None, 0, None) for rank in ranks)
    sequences = spec.max_num_seqs * spec.dp if spec.max_num_seqs is not None else None
    return Footprint(
        job.model.id,
        job.architecture.name,
        job.quantization,
        devices,
        engine_host(job, ranks, shared),
        pool.figures(ranks, shared, length, spec.dp, sequences),
        shared.fits if shared is not None else None,
        _notes(job, plan, shared),
        pool.limiting_of(ranks, shared, budgets),
        explain_pool(job, plan.layout, ranks[0], shared, f"budget = ceil(usable x {plan.fraction})"),
    )


def keeps_latent_rows(spec: DeploymentSpec) -> bool:
    """Whether latent attention is cached as latent rows (and absorbed copies of its up-projections exist)."""
    return spec.mla != 0 and not before(spec.engine_version, LATENT_ROWS_SINCE)


def cache_layout(job: Job, stage: Stage, drafts: int, step_tokens: int | None) -> PoolLayout:
    """The pool of one rank of a stage. ``step_tokens``: max_num_batched_tokens, None where not known."""
    spec, arch, attention = job.spec, job.architecture, job.architecture.attention
    name = cache_rows.cache_format(spec.kv_cache_dtype)
    layers = range(stage.first, stage.end)
    if isinstance(attention, CompressedAttention):
        if attention.shares_caches:
            return pool_layout.window_layout(attention, layers, drafts, name, spec.fp4_indexer)
        ahead = (step_tokens or _BATCH_DEFAULTS[1][1]) * (2 if spec.pp == 1 else spec.pp)
        return pool_layout.block_group_layout(arch, attention, layers, drafts, name, ahead, spec.fp4_indexer)
    block = spec.block_size or BLOCK_TOKENS
    if isinstance(attention, LatentAttention):
        block = spec.block_size or LATENT_BLOCK_TOKENS
        if not keeps_latent_rows(spec):
            head_dim = UNABSORBED_HEAD_DIM
            if not before(spec.engine_version, LATENT_ROWS_SINCE):
                head_dim = attention.nope_head_dim + attention.rope_head_dim
            row = cache_rows.padded_heads_bytes(attention.heads, head_dim, name, spec.tp)
            return pool_layout.plain_layout((len(stage) + drafts) * row, block, spec.dcp)
        if attention.indexer is not None:
            name = _sparse_format(name, spec.engine_version)
    row = pool_layout.token_row_bytes(arch, name, spec.tp, spec.fp4_indexer)
    return pool_layout.plain_layout((len(stage) + drafts) * row, block, spec.dcp)


def _sparse_format(name: str, version: str | None) -> str:
    # models/config.py DeepseekV32ForCausalLM: fp8 means the packed format.
    if cache_rows.is_fp8(name) or (name == "auto" and before(version, PACKED_BY_DEFAULT_BEFORE)):
        return cache_rows.PACKED_LATENT
    return name


def _plan(job: Job) -> _Plan:
    spec, arch = job.spec, job.architecture
    if spec.dp_attention:
        raise FootprintError("dp_attention is SGLang's; vLLM repeats attention by dp")
    parts = spec.tp * spec.dp
    if spec.ep is not None and spec.ep not in (1, parts):
        raise FootprintError(f"ep must be tp x dp = {parts} where experts are dealt out, not {spec.ep}")
    layout = Layout(
        spec.tp,
        spec.tp,
        parts,
        spec.tp,
        spec.tp,
        whole_experts=(spec.ep or 1) > 1,
        redundant_experts=spec.redundant_experts,
        absorbed=keeps_latent_rows(spec),
        table=spec.tp if spec.engram_on_device else 0,
    )
    check_layout(arch, layout)
    if spec.tp % spec.dcp:
        raise FootprintError(f"dcp must divide tp: {spec.dcp} does not divide {spec.tp}")
    old = before(spec.engine_version, GRAPHS_MEASURED)
    fraction = spec.memory_fraction
    if fraction is None:
        fraction = OLD_MEMORY_FRACTION if old else DEFAULT_MEMORY_FRACTION
    places = pool.placed(job, spec.dp)
    default_tokens, default_sequences = batch_defaults(places[0].device, spec.engine_version)
    return _Plan(
        fraction,
        layout,
        pool.stages(job, stage_layers(arch.layers, spec.pp, spec.engine_version)),
        places,
        spec.max_num_batched_tokens or default_tokens,
        spec.max_num_seqs or default_sequences,
    )


def _rank(job: Job, plan: _Plan, place: pool.Place) -> pool.Rank:
    stage = plan.stages[place.stage]
    drafts = draft_layers(job) if stage.is_last else 0
    weights, draft = pool.rank_bytes(job, plan.layout, stage, drafts, ROTARY_ELEMENT_BYTES)
    rank = pool.Rank(
        place.rank,
        place.stage,
        place.device,
        cache_layout(job, stage, drafts, plan.batched_tokens),
        weights,
        draft,
        _estimates(job, plan, stage),
        job.weights_basis,
    )
    return with_draft_model(job, rank, plan.layout) if stage.is_last else rank


def _taken(rank: pool.Rank, *, graphs_inside: bool) -> Term:
    """What is estimated to come off the budget: until 0.21 graphs were captured on top of it."""
    parts = rank.estimates
    return sum_terms({name: term for name, term in parts.items() if graphs_inside or name != "graphs"})


def _pool(
    ranks: tuple[pool.Rank, ...], budgets: tuple[int, ...], length: int, *, graphs_inside: bool
) -> pool.Pool:
    rooms = []
    for rank, budget in zip(ranks, budgets, strict=True):
        left = budget - rank.fixed_bytes
        taken = _taken(rank, graphs_inside=graphs_inside)
        least = rank.layout.bytes_of(rank.layout.sequence_blocks(length))
        # The high end leaves out what is only estimated: guesses must not say that a running server cannot
        # run.
        low = max(0, left - taken.high_bytes)
        high = max(left - taken.low_bytes, min(left, least), 0)
        rooms.append(Term(low, max(low, high), "estimate"))
    return pool.budget_pool(ranks, rooms, length)


def _rank_footprint(rank: pool.Rank, shared: pool.Pool, budget: int, *, graphs_inside: bool) -> RankFootprint:
    if not shared.fits:
        return pool.rank_footprint(rank, shared, 0, None)
    # A rank whose pool was cut to another rank's stays below its budget: its lower end is the sum of its
    # parts.
    pool_high = rank.layout.bytes_of(shared.high_blocks)
    taken = _taken(rank, graphs_inside=graphs_inside)
    spare = budget - rank.fixed_bytes - taken.low_bytes - pool_high
    limited = spare > rank.layout.block_bytes
    low = 0 if limited else max(0, budget - WARM_SPREAD_BYTES)
    beyond = 0 if graphs_inside else rank.estimates["graphs"].high_bytes
    high = min(budget + beyond + WARM_SPREAD_BYTES, rank.device.usable_bytes)
    return pool.rank_footprint(rank, shared, budget, Term(low, high, "estimate"))


def _estimates(job: Job, plan: _Plan, stage: Stage) -> dict[str, Term]:
    spec = job.spec
    estimates = {
        "graphs": runtime.cuda_graphs(spec.enforce_eager),
        "runtime": runtime.cuda_context(),
        "communication": runtime.communication(spec.tp * spec.pp * spec.dp),
    }
    if plan.batched_tokens is not None and plan.sequences is not None:
        sequences = plan.sequences if stage.is_last else 0
        activations = runtime.activations(
            job.architecture, plan.batched_tokens, sequences, job.context_tokens, spec.tp
        )
        estimates = {"activations": activations, **estimates}
    return estimates


def batch_defaults(device: DeviceShape, version: str | None = None) -> tuple[int | None, int | None]:
    """max_num_batched_tokens and max_num_seqs that the API server picks by device memory; None for a device
    of unknown size.
    """
    if before(version, _SMALLER_DEFAULTS_BEFORE):
        return _SMALLER_DEFAULTS
    if not device.is_sized:
        return None, None
    return next((tokens, seqs) for least, tokens, seqs in _BATCH_DEFAULTS if device.usable_bytes >= least)


def _notes(job: Job, plan: _Plan, shared: pool.Pool | None) -> tuple[str, ...]:
    spec = job.spec
    notes = []
    if spec.kv_cache_bytes is None and spec.memory_fraction is None:
        notes.append(f"memory_fraction {plan.fraction:.2f} is vLLM's default")
    if spec.max_num_batched_tokens is None and plan.batched_tokens is not None:
        notes.append(f"max_num_batched_tokens {plan.batched_tokens} is vLLM's default on this device")
    if spec.max_model_len is None:
        notes.append(f"max_model_len {job.architecture.context_tokens} is the model's own")
    if isinstance(job.architecture.attention, CompressedAttention) and plan.batched_tokens is None:
        notes.append(
            f"max_num_batched_tokens depends on the device: {_BATCH_DEFAULTS[1][1]} was taken for what a "
            "sequence reserves"
        )
    if spec.swap_space_bytes and not before(spec.engine_version, (0, 8)):
        notes.append("swap_space has no effect: the engine has had none since 0.8")
    if shared is None:
        notes.append("the size of the KV pool is not known without the devices' memory and the weights")
    elif shared.fits is False:
        notes.append(
            "does not fit: weights and the cache of one sequence exceed the budget of a device; "
            "answered with the cache of one sequence of max_model_len"
        )
    return tuple(notes)


def _unsized(spec: DeploymentSpec, gpus: int | None) -> tuple[DeviceShape, ...]:
    return pool.unsized_devices(gpus if gpus is not None else pool.needed_devices(spec, spec.dp))


VLLM = Policy(
    Container.SAFETENSORS,
    pool.LLAMA_CPP_SETTINGS | {"hicache", "chunked_prefill", "moe_dense_tp"},
    allocate,
    unsized=_unsized,
)
