"""vLLM: a budget of total x gpu_memory_utilization, of which the KV pool takes what the profile run leaves.

Source: vLLM 0.33 v1/worker/gpu_worker.py, v1/worker/utils.py, utils/mem_utils.py memory_profiling,
engine/arg_utils.py.
"""

from __future__ import annotations

from math import ceil

from exporter.footprint import runtime
from exporter.footprint.deployment import DeviceShape, FootprintError
from exporter.footprint.kv_cache import in_blocks
from exporter.footprint.policies import pool
from exporter.footprint.policies.job import Job, Policy
from exporter.footprint.result import Footprint, RankFootprint, Term
from exporter.footprint.weights import Layout, Stage, check_layout
from exporter.models.architecture import LatentAttention
from exporter.models.quantization import Container
from exporter.units import GIB

DEFAULT_MEMORY_FRACTION = 0.92
"""``--gpu-memory-utilization`` of vLLM 0.33; older versions used 0.90."""

# arg_utils.py: (least device bytes, max_num_batched_tokens, max_num_seqs) of the API server.
_BATCH_DEFAULTS = ((160 * GIB, 16_384, 1024), (70 * GIB, 8192, 1024), (0, 2048, 256))

LATENT_BLOCK_TOKENS = 64
"""FlashMLA's block; capacities in logs of V3 and R1 are multiples of it."""
BLOCK_TOKENS = 16

WARM_SPREAD_BYTES = GIB
"""nvidia-smi shows the budget within about 1 GiB once warm: the pool takes exactly what was measured beside
it.
"""


def stage_layers(layers: int, stage_count: int) -> tuple[int, ...]:
    """Layers of each stage: the rest goes one each to the stages before the last, backwards
    (distributed/utils.py get_pp_indices).
    """
    counts = [layers // stage_count] * stage_count
    for index in range(2, layers % stage_count + 2):
        counts[-index] += 1
    return tuple(counts)


def allocate(job: Job) -> Footprint:
    """The footprint of a warm vLLM server. Raises FootprintError for settings that it would refuse."""
    spec, arch = job.spec, job.architecture
    if spec.dp_attention:
        raise FootprintError("dp_attention is SGLang's; vLLM repeats attention by dp")
    parts = spec.tp * spec.dp
    if spec.ep is not None and spec.ep not in (1, parts):
        raise FootprintError(f"ep must be tp x dp = {parts} where experts are dealt out, not {spec.ep}")
    layout = Layout(spec.tp, spec.tp, parts, spec.tp, spec.tp, whole_experts=(spec.ep or 1) > 1)
    check_layout(arch, layout)
    fraction = spec.memory_fraction if spec.memory_fraction is not None else DEFAULT_MEMORY_FRACTION
    places = pool.placed(job, spec.dp)
    stages = pool.stages(stage_layers(arch.layers, spec.pp))
    ranks = tuple(
        pool.make_rank(job, place, layout, stages[place[1]], _estimates(job, place[2], stages[place[1]]))
        for place in places
    )
    budgets = tuple(ceil(rank.device.usable_bytes * fraction) for rank in ranks)
    block = LATENT_BLOCK_TOKENS if isinstance(arch.attention, LatentAttention) else BLOCK_TOKENS
    least = in_blocks(job.context_tokens, block)
    if spec.kv_cache_bytes is not None:
        shared = pool.known_pool(ranks, spec.kv_cache_bytes, least, block)
        devices = tuple(pool.rank_footprint(rank, shared, rank.device.usable_bytes, None) for rank in ranks)
    else:
        shared = _pool(ranks, budgets, least, block)
        devices = tuple(
            _rank_footprint(rank, shared, budget, block) for rank, budget in zip(ranks, budgets, strict=True)
        )
    sequences = spec.max_num_seqs * spec.dp if spec.max_num_seqs is not None else None
    return Footprint(
        job.model.id,
        arch.name,
        job.quantization,
        devices,
        pool.worker_host(len(ranks)),
        pool.figures(ranks, shared, job.context_tokens, block, spec.dp, sequences),
        shared.fits,
        _notes(job, places[0][2], shared),
    )


def _pool(ranks: tuple[pool.Rank, ...], budgets: tuple[int, ...], least: int, block: int) -> pool.Pool:
    rooms = []
    for rank, budget in zip(ranks, budgets, strict=True):
        left = budget - rank.fixed_bytes
        # The high end leaves out what is only estimated: guesses must not say that a running server cannot
        # run.
        low = max(0, left - rank.estimate.high_bytes)
        high = max(left - rank.estimate.low_bytes, min(left, least * rank.token_bytes), 0)
        rooms.append(Term(low, max(low, high), "estimate"))
    return pool.budget_pool(ranks, rooms, least, block)


def _rank_footprint(rank: pool.Rank, shared: pool.Pool, budget: int, block: int) -> RankFootprint:
    if not shared.fits:
        return pool.rank_footprint(rank, shared, 0, None)
    # A rank whose pool was cut to another rank's stays below its budget: its lower end is the sum of its
    # parts.
    spare = budget - rank.fixed_bytes - rank.estimate.low_bytes - shared.high_tokens * rank.token_bytes
    limited = spare > block * rank.token_bytes
    low = 0 if limited else max(0, budget - WARM_SPREAD_BYTES)
    high = min(budget + WARM_SPREAD_BYTES, rank.device.usable_bytes)
    return pool.rank_footprint(rank, shared, budget, Term(low, high, "estimate"))


def _estimates(job: Job, device: DeviceShape, stage: Stage) -> dict[str, Term]:
    spec = job.spec
    tokens, sequences = batch_defaults(device)
    tokens = spec.max_num_batched_tokens or tokens
    sequences = (spec.max_num_seqs or sequences) if stage.is_last else 0
    return {
        "activations": runtime.activations(job.architecture, tokens, sequences, job.context_tokens, spec.tp),
        "graphs": runtime.cuda_graphs(spec.enforce_eager),
        "runtime": runtime.cuda_context(),
        "communication": runtime.communication(spec.tp * spec.pp * spec.dp),
    }


def batch_defaults(device: DeviceShape) -> tuple[int, int]:
    """max_num_batched_tokens and max_num_seqs that the API server picks by device memory."""
    return next((tokens, seqs) for least, tokens, seqs in _BATCH_DEFAULTS if device.usable_bytes >= least)


def _notes(job: Job, device: DeviceShape, shared: pool.Pool) -> tuple[str, ...]:
    spec = job.spec
    notes = []
    if spec.kv_cache_bytes is None and spec.memory_fraction is None:
        notes.append(f"memory_fraction {DEFAULT_MEMORY_FRACTION} is vLLM's default")
    if spec.max_num_batched_tokens is None:
        notes.append(f"max_num_batched_tokens {batch_defaults(device)[0]} is vLLM's default on this device")
    if spec.max_model_len is None:
        notes.append(f"max_model_len {job.architecture.context_tokens} is the model's own")
    if not shared.fits:
        notes.append(
            "does not fit: weights and the cache of one sequence exceed the budget of a device; "
            "answered with the cache of one sequence of max_model_len"
        )
    return tuple(notes)


VLLM = Policy(Container.SAFETENSORS, pool.LLAMA_CPP_SETTINGS, allocate)
