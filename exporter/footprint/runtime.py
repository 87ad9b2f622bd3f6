"""What an engine holds beside weights and cache: estimated as low and high ends, but for llama.cpp's buffers,
which are measured.

The ends say how far logs and sources spread, not a confidence interval: docs/METHOD.md lists the evidence for
each.
"""

from __future__ import annotations

from exporter.footprint.kv_cache import CELL_BOOKKEEPING_BYTES
from exporter.footprint.result import Term, exact
from exporter.models.architecture import Architecture
from exporter.models.blocks import CompressedAttention, LatentAttention, SparseIndexer
from exporter.units import GIB, MIB

# Activations of one forward pass per token, in units of hidden x 2 bytes: aiconfigurator fits 10 at TP8 and
# 22 at TP1; profiles of mixture-of-experts models reach 25.
_ACTIVATION_FACTORS = (10, 25)

# vLLM 0.33 layers/attention/mla_attention.py: context up-projected to all 128 heads takes up to 3 GB, cut by
# tensor parallelism; workspace of at most 65,536 latent rows in 16 bits.
_LATENT_UP_PROJECTION_BYTES = 3_000_000_000
_LATENT_WORKSPACE_TOKENS = 65_536

# aiconfigurator systems/*.yaml nccl_mem, by number of ranks.
_NCCL_BYTES = ((2, 342 * MIB), (4, 392 * MIB))


def cuda_context() -> Term:
    """CUDA context, loaded modules and library workspaces of one engine process on one GPU.

    Logs: 0.20 … 0.25 GiB outside PyTorch on 24 GB cards (vllm#14447, vllm#13061), 1.79 GiB on an H100 with
    FlashInfer (vllm#10511).
    """
    return Term(200 * MIB, int(1.8 * GIB), "estimate")


def bare_context() -> Term:
    """CUDA context of a process without PyTorch (llama.cpp): 0.25 … 0.7 GiB by card generation."""
    return Term(256 * MIB, 700 * MIB, "estimate")


def rotary_table_bytes(architecture: Architecture, element_bytes: int) -> int:
    """Sines and cosines of every position up to the trained length, once on each rank (vLLM 0.33
    layers/rotary_embedding/base.py, in 16 bits; SGLang 0.5.23 keeps 32). V4's are f32 on both, one table for
    layers that compress and one for those with a window alone (deepseek_scaling_rope.py).
    """
    attention = architecture.attention
    if isinstance(attention, CompressedAttention):
        kinds = {attention.ratio(layer) > 0 for layer in range(architecture.layers)}
        return len(kinds) * architecture.context_tokens * attention.rope_head_dim * 4
    if isinstance(attention, LatentAttention):
        return architecture.context_tokens * attention.rope_head_dim * element_bytes
    return architecture.context_tokens * attention.head_dim * element_bytes


def communication(ranks: int) -> Term:
    """NCCL and all-reduce buffers per rank; nothing for a single rank."""
    if ranks == 1:
        return exact(0, "engine")
    nccl = next(size for least, size in reversed(_NCCL_BYTES) if ranks >= least)
    return Term(nccl // 2, 2 * nccl + 8 * MIB, "estimate")


def activations(
    architecture: Architecture, batched_tokens: int, sequences: int, context_tokens: int, parts: int
) -> Term:
    """Transient tensors of the widest forward pass that the engine may run, and the logits of ``sequences``
    rows.
    """
    unit = 2 * batched_tokens * architecture.hidden
    low, high = (factor * unit for factor in _ACTIVATION_FACTORS)
    high += 4 * min(sequences, batched_tokens) * architecture.vocabulary
    if isinstance(architecture.attention, LatentAttention):
        row = 2 * architecture.attention.cache_row_elements
        high += min(8 * context_tokens, _LATENT_WORKSPACE_TOKENS) * row + _LATENT_UP_PROJECTION_BYTES // parts
    return Term(low, high, "estimate")


def cuda_graphs(enforce_eager: bool) -> Term:
    """Private pools of captured CUDA graphs: 0.2 GiB for a small model to 3 GiB for long capture lists."""
    if enforce_eager:
        return exact(0, "engine")
    return Term(200 * MIB, 3 * GIB, "estimate")


def worker_processes(ranks: int) -> Term:
    """Anonymous RAM of an engine's Python processes: one per rank and one that serves.

    Import of PyTorch and CUDA alone takes about 1 GiB; with NCCL and pinned staging 4 … 8 GiB a worker are
    seen.
    """
    return Term((ranks + 1) * GIB, (ranks + 1) * 8 * GIB, "estimate")


def llamacpp_compute_bytes(
    architecture: Architecture, micro_batch: int, cells: int, flash_attention: bool, *, latent: bool = True
) -> tuple[int, int]:
    """llama.cpp's compute buffer on a CPU: the whole, and the part that grows with the cells in use.

    Formulas fitted to llama-server b11434 and checked on 66 shapes: 55 within 0.05 MiB, the worst 18 MiB low;
    those with an indexer (V3.2, V4) within 5 to 6 % (docs/METHOD.md). Latent attention: elements per token of
    the micro-batch are the larger of an attention and a feed-forward part. ``latent`` False: latent attention
    whose cache holds all heads.
    """
    attention = architecture.attention
    hidden = architecture.hidden
    per_cell = 2 * cells * micro_batch
    if isinstance(attention, CompressedAttention):
        return _compressed_compute(attention, hidden, micro_batch, cells, flash_attention)
    if not isinstance(attention, LatentAttention):
        part = 4 * micro_batch * (5 * hidden + 3 * _widest_dense(architecture))
        if not flash_attention:
            per_cell = 4 * cells * micro_batch * (attention.heads + 1)
        return per_cell + part, per_cell
    if attention.indexer is not None and latent:
        return _sparse_compute(attention, attention.indexer, hidden, micro_batch, cells, flash_attention)
    feed_forward = 5 * hidden + _feed_forward_elements(architecture)
    key_length = attention.nope_head_dim + attention.rope_head_dim
    if not latent:
        return _all_heads_compute(attention, hidden, feed_forward, micro_batch, cells, flash_attention)
    rope_all = attention.heads * attention.rope_head_dim
    attend = (
        5 * hidden
        + attention.heads * (2 * attention.kv_lora_rank + attention.rope_head_dim + key_length)
        + (rope_all if rope_all > hidden else 0)
        + (attention.q_lora_rank if attention.q_lora_rank > hidden else 0)
    )
    if flash_attention:
        return per_cell + 4 * micro_batch * max(attend, feed_forward), per_cell
    scores = 4 * cells * micro_batch * (attention.heads + 1)
    transposed = 2 * cells * attention.kv_lora_rank if cells > 2 * attention.heads * micro_batch else 0
    with_attention = scores + 4 * micro_batch * attend + transposed
    with_feed_forward = 4 * cells * micro_batch + 4 * micro_batch * feed_forward
    return max(with_attention, with_feed_forward), scores + transposed


def _widest_dense(architecture: Architecture) -> int:
    if architecture.experts is None:
        return architecture.intermediate
    return max(architecture.intermediate, -(-_feed_forward_elements(architecture) // 3))


def _all_heads_compute(
    attention: LatentAttention,
    hidden: int,
    feed_forward: int,
    micro_batch: int,
    cells: int,
    flash_attention: bool,
) -> tuple[int, int]:
    key = attention.nope_head_dim + attention.rope_head_dim
    joint = attention.nope_head_dim + attention.value_head_dim
    attend = 5 * hidden + attention.heads * (
        2 * key + joint + attention.value_head_dim + attention.rope_head_dim
    )
    if flash_attention:
        per_cell = 2 * cells * micro_batch
        return per_cell + 4 * micro_batch * max(attend, feed_forward), per_cell
    scores = 4 * cells * micro_batch * (attention.heads + 1)
    whole = scores + 4 * micro_batch * (5 * hidden + attention.heads * (2 * key + joint))
    return max(whole, 4 * cells * micro_batch + 4 * micro_batch * feed_forward), scores


def _sparse_compute(
    attention: LatentAttention,
    indexer: SparseIndexer,
    hidden: int,
    micro_batch: int,
    cells: int,
    flash_attention: bool,
) -> tuple[int, int]:
    part = 4 * micro_batch * (4 * hidden + 832 * attention.heads + 3 * indexer.top_k + 9200)
    factor = 8 if flash_attention else 4 * attention.heads + 6
    return factor * cells * micro_batch + part, factor * cells * micro_batch


def _compressed_compute(
    attention: CompressedAttention, hidden: int, micro_batch: int, cells: int, flash_attention: bool
) -> tuple[int, int]:
    indexer = attention.indexer
    width = attention.heads * attention.head_dim + 2 * indexer.heads * indexer.head_dim
    growing = 6 * cells * micro_batch // 5
    part = 4 * micro_batch * (2 * hidden + width + 13_300)
    times = 1 if flash_attention else 2
    return times * (part + growing), times * growing


def llamacpp_output_bytes(architecture: Architecture, slots: int) -> int:
    """One row of f32 logits for each slot (llama_context output buffer)."""
    return 4 * architecture.vocabulary * slots


def llamacpp_rest_bytes(architecture: Architecture, cells: int) -> int:
    """Heap of a llama-server: vocabulary, merges, cell bookkeeping, graph. Measured within 5 MiB on
    llama-server b11434.
    """
    return (
        5 * MIB
        + 180 * architecture.vocabulary
        + 150 * architecture.tokenizer_merges
        + CELL_BOOKKEEPING_BYTES * cells
        + 15 * MIB * architecture.layers // 100
    )


def _feed_forward_elements(architecture: Architecture) -> int:
    experts = architecture.experts
    if experts is None:
        return 3 * architecture.intermediate
    used = experts.active
    widest = max(3 * used * experts.intermediate, used * (2 * experts.intermediate + architecture.hidden))
    return max(3 * architecture.intermediate, widest) if experts.dense_layers else widest
