"""LMDeploy, TensorRT-LLM and TGI: the KV pool is a share of what is free once the weights are loaded.

Sources: LMDeploy 0.18.0 lmdeploy/messages.py (cache_max_entry_count 0.8, cache_block_seq_len 64), turbomind's
cache manager; TensorRT-LLM llmapi/llm_args.py KvCacheConfig (free_gpu_memory_fraction 0.9, tokens_per_block
32); TGI server models/flash_causal_lm.py warmup (wiggle room 0.9).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.footprint import cache_rows, pool_layout, runtime
from exporter.footprint.deployment import DeploymentSpec, DeviceShape, FootprintError
from exporter.footprint.policies import pool
from exporter.footprint.policies.draft_model import with_draft_model
from exporter.footprint.policies.explain import explain_pool
from exporter.footprint.policies.host_memory import engine_host
from exporter.footprint.policies.job import Job, Policy
from exporter.footprint.policies.speculation import draft_layers
from exporter.footprint.policies.vllm import stage_layers
from exporter.footprint.pool_layout import PoolLayout
from exporter.footprint.result import Footprint, Term
from exporter.footprint.weights import Layout, Stage, check_layout
from exporter.models.blocks import CompressedAttention, GroupedQueryAttention, LatentAttention
from exporter.models.quantization import Container


@dataclass(frozen=True, slots=True)
class Rules:
    """``fraction`` of what is free after loading (and, with ``after_activations``, after a trial run) becomes
    the pool; ``batched_tokens`` are those of the widest forward pass.
    """

    name: str
    fraction: float
    of_rest: float
    block_tokens: int
    batched_tokens: int
    sequences: int
    after_activations: bool
    absorbed: bool


RULES: Mapping[str, Rules] = {
    "lmdeploy": Rules("LMDeploy", 0.8, 1.0, 64, 8192, 256, after_activations=False, absorbed=False),
    "tensorrt-llm": Rules("TensorRT-LLM", 0.9, 1.0, 32, 8192, 2048, after_activations=True, absorbed=True),
    "tgi": Rules("TGI", 1.0, 0.9, 16, 4096, 128, after_activations=True, absorbed=False),
}

# LMDeploy's quant_policy, and the names that it also takes.
_QUANT_POLICIES = {
    "0": "auto", "none": "auto", "4": "int4", "8": "int8", "16": "fp8", "17": "fp8_e5m2",
}  # fmt: skip
_SCALE_AND_ZERO_BYTES = 4


def allocate(job: Job) -> Footprint:
    """The footprint of a warm server. Raises FootprintError for settings that it would refuse."""
    spec, arch, length = job.spec, job.architecture, job.context_tokens
    rules = RULES[spec.engine.lower()]
    parts = spec.tp * (spec.dp if spec.dp_attention else 1)
    layout = Layout(
        spec.tp, spec.tp, parts, spec.tp, spec.tp, whole_experts=(spec.ep or 1) > 1, absorbed=rules.absorbed
    )
    check_layout(arch, layout)
    stages = pool.stages(job, stage_layers(arch.layers, spec.pp))
    places = pool.placed(job, spec.dp)
    ranks = pool.like_first(places, lambda place: _rank(job, rules, layout, place, stages[place.stage]))
    fraction = (spec.memory_fraction or rules.fraction) * rules.of_rest
    shared: pool.Pool | None = None
    if spec.kv_cache_bytes is not None:
        shared = pool.known_pool(ranks, spec.kv_cache_bytes, length)
    elif spec.max_total_tokens is not None:
        blocks = spec.max_total_tokens // rules.block_tokens
        shared = pool.Pool(blocks, blocks, "engine", None)
    elif all(rank.is_known for rank in ranks):
        shared = pool.budget_pool(ranks, [_room(rank, rules, fraction) for rank in ranks], 1)
    roomy = shared is not None and shared.fits is True
    devices = tuple(
        pool.rank_footprint(
            rank,
            shared,
            rank.device.usable_bytes if roomy else 0,
            _whole(rank, shared) if roomy and shared is not None else None,
        )
        for rank in ranks
    )
    sequences = spec.max_num_seqs * spec.dp if spec.max_num_seqs is not None else None
    return Footprint(
        job.model.id,
        arch.name,
        job.quantization,
        devices,
        engine_host(job, ranks, shared),
        pool.figures(ranks, shared, length, spec.dp, sequences),
        shared.fits if shared is not None else None,
        _notes(job, rules, shared),
        pool.limiting_of(ranks, shared, tuple(rank.device.usable_bytes for rank in ranks)),
        explain_pool(job, layout, ranks[0], shared, f"pool = {fraction:.2f} x free after loading"),
    )


def cache_layout(job: Job, rules: Rules, stage: Stage, drafts: int) -> PoolLayout:
    """The pool of one rank of a stage."""
    spec, attention = job.spec, job.architecture.attention
    name = (spec.kv_cache_dtype or "auto").lower()
    name = _QUANT_POLICIES.get(name, name)
    block = spec.block_size or rules.block_tokens
    layers = len(stage) + drafts
    if name in ("int4", "int8") and rules.name == "LMDeploy":
        if not isinstance(attention, GroupedQueryAttention):
            raise FootprintError("kv_cache_dtype: LMDeploy quantizes no latent cache")
        heads = max(1, -(-attention.kv_heads // spec.tp))
        vector = attention.head_dim // (2 if name == "int4" else 1) + _SCALE_AND_ZERO_BYTES
        return pool_layout.plain_layout(layers * 2 * heads * vector, block)
    name = cache_rows.cache_format(name)
    if isinstance(attention, LatentAttention) and spec.mla == 0:
        row = cache_rows.padded_heads_bytes(
            attention.heads, attention.nope_head_dim + attention.rope_head_dim, name, spec.tp
        )
        return pool_layout.plain_layout(layers * row, block)
    if isinstance(attention, CompressedAttention):
        # What a token adds is the architecture's; windows and states of a sequence are not counted here.
        here = range(stage.first, stage.end)
        return pool_layout.plain_layout(
            pool_layout.compressed_token_bytes(attention, here, name, spec.fp4_indexer), block
        )
    row = pool_layout.token_row_bytes(job.architecture, name, spec.tp)
    return pool_layout.plain_layout(layers * row, block)


def _rank(job: Job, rules: Rules, layout: Layout, place: pool.Place, stage: Stage) -> pool.Rank:
    spec = job.spec
    drafts = draft_layers(job) if stage.is_last else 0
    weights, draft = pool.rank_bytes(job, layout, stage, drafts)
    tokens = spec.max_num_batched_tokens or rules.batched_tokens
    sequences = (spec.max_num_seqs or rules.sequences) if stage.is_last else 0
    estimates = {
        "activations": runtime.activations(job.architecture, tokens, sequences, job.context_tokens, spec.tp),
        "graphs": runtime.cuda_graphs(spec.enforce_eager),
        "runtime": runtime.cuda_context(),
        "communication": runtime.communication(spec.tp * spec.pp),
    }
    rank = pool.Rank(
        place.rank,
        place.stage,
        place.device,
        cache_layout(job, rules, stage, drafts),
        weights,
        draft,
        estimates,
        job.weights_basis,
    )
    return with_draft_model(job, rank, layout) if stage.is_last else rank


def _room(rank: pool.Rank, rules: Rules, fraction: float) -> Term:
    taken = [rank.estimates["runtime"], rank.estimates["communication"]]
    if rules.after_activations:
        taken.append(rank.estimates["activations"])
    free = rank.device.usable_bytes - rank.fixed_bytes
    low = free - sum(term.high_bytes for term in taken)
    high = free - sum(term.low_bytes for term in taken)
    return Term(int(max(0, low) * fraction), int(max(0, low, high) * fraction), "estimate")


def _whole(rank: pool.Rank, shared: pool.Pool) -> Term:
    """Both ends of the rank: what makes the pool smaller is larger itself, so that its ends are opposite."""
    low = rank.fixed_bytes + rank.estimate.low_bytes + rank.layout.bytes_of(shared.high_blocks)
    high = rank.fixed_bytes + rank.estimate.high_bytes + rank.layout.bytes_of(shared.low_blocks)
    most = rank.device.usable_bytes
    return Term(min(low, most), max(min(low, most), min(high, most)), "estimate")


def _notes(job: Job, rules: Rules, shared: pool.Pool | None) -> tuple[str, ...]:
    spec = job.spec
    notes = []
    if spec.kv_cache_bytes is None and spec.memory_fraction is None:
        notes.append(f"memory_fraction {rules.fraction} of what is free is {rules.name}'s default")
    if spec.max_model_len is None:
        notes.append(f"max_model_len {job.architecture.context_tokens} is the model's own")
    if isinstance(job.architecture.attention, CompressedAttention):
        notes.append(
            f"how {rules.name} caches this architecture was not read: the cache is what a token adds, no more"
        )
    if shared is None:
        notes.append("the size of the KV pool is not known without the devices' memory and the weights")
    elif shared.fits is False:
        notes.append("does not fit: weights leave no room for a cache")
    return tuple(notes)


def _unsized(spec: DeploymentSpec, gpus: int | None) -> tuple[DeviceShape, ...]:
    return pool.unsized_devices(gpus if gpus is not None else pool.needed_devices(spec, spec.dp))


FREE_MEMORY = Policy(
    Container.SAFETENSORS,
    pool.LLAMA_CPP_SETTINGS | {"hicache", "dcp", "chunked_prefill", "moe_dense_tp"},
    allocate,
    unsized=_unsized,
)
