"""The blocks that models are built of, and the tensors of each: attention, feed-forward, hyper-connections,
n-gram memory, draft stages.

Shapes follow the reference code of each generation: Llama and Qwen, DeepSeek-MoE, V2/V3
(modeling_deepseek.py), V3.2, V4 and V4.1 (inference/model.py of the releases); transformers 5.23 skeletons
agree up to V4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from exporter.models.roles import Role, Tensor

HYPER_SCALES = 3
"""Learned scales of one hyper-connection: pre, post and the mixing matrix."""


@dataclass(frozen=True, slots=True)
class SparseIndexer:
    """The indexer that picks ``top_k`` cached rows per query ("lightning indexer"). Its keys are cached."""

    heads: int
    head_dim: int
    top_k: int


@dataclass(frozen=True, slots=True)
class GroupedQueryAttention:
    """Attention with whole key and value heads in the cache (Llama, Qwen, DeepSeek-LLM, DeepSeek-MoE)."""

    heads: int
    kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    qk_norm: bool = False


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention: the cache holds one latent row per token (DeepSeek-V2 report, section
    2.1).

    ``q_lora_rank`` 0: queries are projected directly (V2-Lite). ``indexer``: sparse attention (V3.2).
    """

    heads: int
    q_lora_rank: int
    kv_lora_rank: int
    nope_head_dim: int
    rope_head_dim: int
    value_head_dim: int
    indexer: SparseIndexer | None = None

    @property
    def cache_row_elements(self) -> int:
        return self.kv_lora_rank + self.rope_head_dim


@dataclass(frozen=True, slots=True)
class CompressedAttention:
    """Attention over one shared key-value head: a sliding window in every layer, and a cache that keeps one
    row per ``compress_ratios[layer]`` tokens (V4, V4.1).

    Ratio 0 is a layer with its window alone. ``kv_sources``: the only layers that own a compressed cache and
    indexer keys, the others read them; ``index_sources``: the layers that run the indexer; both None where
    every compressed layer has its own (V4: the indexer belongs to layers of ratio 4). ``overlapping``:
    compressors of ratio 4 keep two windows (V4), those of V4.1 one, without position table.
    """

    heads: int
    head_dim: int
    rope_head_dim: int
    q_lora_rank: int
    o_lora_rank: int
    o_groups: int
    window: int
    compress_ratios: tuple[int, ...]
    indexer: SparseIndexer
    kv_sources: tuple[int, ...] | None = None
    index_sources: tuple[int, ...] | None = None

    def ratio(self, layer: int) -> int:
        """Tokens per compressed row of a layer; 0 for a window alone, as draft layers have."""
        return self.compress_ratios[layer] if layer < len(self.compress_ratios) else 0

    @property
    def shares_caches(self) -> bool:
        """Whether layers read the caches of others (V4.1)."""
        return self.kv_sources is not None

    def owns_compressed_cache(self, layer: int) -> bool:
        if self.kv_sources is not None:
            return layer in self.kv_sources
        return self.ratio(layer) > 0

    def runs_indexer(self, layer: int) -> bool:
        if self.index_sources is not None:
            return layer in self.index_sources
        return self.ratio(layer) == INDEXED_RATIO

    def caches_indexer_keys(self, layer: int) -> bool:
        if self.kv_sources is not None:
            return layer in self.kv_sources
        return self.runs_indexer(layer)


INDEXED_RATIO = 4
"""The compression whose layers have an indexer in V4 (vLLM 0.33 models/deepseek_v4/attention.py)."""

Attention = GroupedQueryAttention | LatentAttention | CompressedAttention


@dataclass(frozen=True, slots=True)
class MixtureOfExperts:
    """The feed-forward part of every layer after the first ``dense_layers``.

    ``hash_layers``: the first ones choose experts by a table of token ids instead of a bias (V4);
    ``image_bias``: a second correction bias for image tokens (V4.1). ``groups`` and ``active_groups``: the
    experts lie in so many groups, of which a token is sent to so many (n_group and topk_group, DeepSeek-V2
    report section 2.2.2); they decide traffic, no tensor, and a GGUF need not tell them.
    """

    routed: int
    active: int
    shared: int
    intermediate: int
    dense_layers: int
    correction_bias: bool
    hash_layers: int = 0
    image_bias: bool = False
    groups: int = field(default=1, compare=False)
    active_groups: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class Engram:
    """N-gram memory of V4.1: ``rows[i]`` rows of ``head_dim`` in layer ``layers[i]``, looked up by
    ``heads`` hashes for each n-gram length from 2 to ``max_ngram``.
    """

    layers: tuple[int, ...]
    rows: tuple[int, ...]
    head_dim: int
    heads: int
    max_ngram: int

    @property
    def columns(self) -> int:
        """Elements that are looked up for one token."""
        return (self.max_ngram - 1) * self.heads * self.head_dim


@dataclass(frozen=True, slots=True)
class DraftStages:
    """Draft layers that are not V3's multi-token prediction.

    ``markov_rank`` 0: V4's prediction layer; above 0: one DSpark block of all stages, reading ``targets``
    hidden states. ``owns_vocabulary``: embedding and head are stored once more. ``experts``: of the stages,
    when other than the model's.
    """

    owns_vocabulary: bool = False
    markov_rank: int = 0
    targets: int = 0
    experts: MixtureOfExperts | None = None


def attention_tensors(attention: Attention, hidden: int, layer: int) -> Iterator[Tensor]:
    """The tensors of one layer's attention, without the norm before it."""
    if isinstance(attention, LatentAttention):
        return _latent(attention, hidden, layer)
    if isinstance(attention, CompressedAttention):
        return _compressed(attention, hidden, layer)
    return _grouped_query(attention, hidden, layer)


def expert_tensors(experts: MixtureOfExperts, hidden: int, vocabulary: int, layer: int) -> Iterator[Tensor]:
    """Router, routed and shared experts of one layer; the shared ones are one matrix of their joint width."""
    e = experts
    yield Tensor(Role.ROUTER, layer, (e.routed, hidden))
    if layer < e.hash_layers:
        yield Tensor(Role.ROUTER_HASH, layer, (vocabulary, e.active))
    elif e.correction_bias:
        yield Tensor(Role.ROUTER_BIAS, layer, (e.routed,))
    if e.image_bias:
        yield Tensor(Role.ROUTER_IMAGE_BIAS, layer, (e.routed,))
    yield Tensor(Role.EXPERTS_GATE, layer, (e.intermediate, hidden), e.routed)
    yield Tensor(Role.EXPERTS_UP, layer, (e.intermediate, hidden), e.routed)
    yield Tensor(Role.EXPERTS_DOWN, layer, (hidden, e.intermediate), e.routed)
    if e.shared:
        width = e.shared * e.intermediate
        yield Tensor(Role.SHARED_GATE, layer, (width, hidden))
        yield Tensor(Role.SHARED_UP, layer, (width, hidden))
        yield Tensor(Role.SHARED_DOWN, layer, (hidden, width))


def dense_tensors(intermediate: int, hidden: int, layer: int) -> Iterator[Tensor]:
    """A gated feed-forward block."""
    yield Tensor(Role.FFN_GATE, layer, (intermediate, hidden))
    yield Tensor(Role.FFN_UP, layer, (intermediate, hidden))
    yield Tensor(Role.FFN_DOWN, layer, (hidden, intermediate))


def hyper_connection_tensors(streams: int, hidden: int, layer: int) -> Iterator[Tensor]:
    """The two manifold-constrained hyper-connections of a layer (V4): mixing weights of ``streams`` residual
    streams.
    """
    mixes = streams * (2 + streams)
    for function, base, scale in (
        (Role.HYPER_ATTENTION, Role.HYPER_ATTENTION_BASE, Role.HYPER_ATTENTION_SCALE),
        (Role.HYPER_FFN, Role.HYPER_FFN_BASE, Role.HYPER_FFN_SCALE),
    ):
        yield Tensor(function, layer, (mixes, streams * hidden))
        yield Tensor(base, layer, (mixes,))
        yield Tensor(scale, layer, (HYPER_SCALES,))


def hyper_head_tensors(streams: int, hidden: int, layer: int | None) -> Iterator[Tensor]:
    """The hyper-connection that joins the streams before the head (V4)."""
    yield Tensor(Role.HYPER_HEAD, layer, (streams, streams * hidden))
    yield Tensor(Role.HYPER_HEAD_BASE, layer, (streams,))
    yield Tensor(Role.HYPER_HEAD_SCALE, layer, (1,))


def engram_tensors(engram: Engram, streams: int, hidden: int, layer: int) -> Iterator[Tensor]:
    """The n-gram table of one layer and its projections: one value and, per residual stream, one key."""
    rows = engram.rows[engram.layers.index(layer)]
    yield Tensor(Role.ENGRAM_TABLE, layer, (rows, engram.head_dim))
    yield Tensor(Role.ENGRAM_PROJECTION, layer, ((streams + 1) * hidden, engram.columns))
    yield Tensor(Role.ENGRAM_Q, layer, (streams, hidden))
    yield Tensor(Role.ENGRAM_K, layer, (streams, hidden))


def _latent(a: LatentAttention, hidden: int, layer: int) -> Iterator[Tensor]:
    q_rows = a.heads * (a.nope_head_dim + a.rope_head_dim)
    if a.q_lora_rank:
        yield Tensor(Role.Q_A, layer, (a.q_lora_rank, hidden))
        yield Tensor(Role.Q_A_NORM, layer, (a.q_lora_rank,))
        yield Tensor(Role.Q_B, layer, (q_rows, a.q_lora_rank))
    else:
        yield Tensor(Role.Q, layer, (q_rows, hidden))
    yield Tensor(Role.KV_A, layer, (a.kv_lora_rank + a.rope_head_dim, hidden))
    yield Tensor(Role.KV_A_NORM, layer, (a.kv_lora_rank,))
    yield Tensor(Role.KV_B, layer, (a.heads * (a.nope_head_dim + a.value_head_dim), a.kv_lora_rank))
    yield Tensor(Role.ATTENTION_OUTPUT, layer, (hidden, a.heads * a.value_head_dim))
    if a.indexer is not None:
        i = a.indexer
        yield Tensor(Role.INDEXER_Q, layer, (i.heads * i.head_dim, a.q_lora_rank))
        yield Tensor(Role.INDEXER_K, layer, (i.head_dim, hidden))
        yield Tensor(Role.INDEXER_K_NORM, layer, (i.head_dim,))
        yield Tensor(Role.INDEXER_K_NORM_BIAS, layer, (i.head_dim,))
        yield Tensor(Role.INDEXER_PROJECTION, layer, (i.heads, hidden))


def _grouped_query(attention: GroupedQueryAttention, hidden: int, layer: int) -> Iterator[Tensor]:
    q_rows = attention.heads * attention.head_dim
    kv_rows = attention.kv_heads * attention.head_dim
    yield Tensor(Role.Q, layer, (q_rows, hidden))
    yield Tensor(Role.K, layer, (kv_rows, hidden))
    yield Tensor(Role.V, layer, (kv_rows, hidden))
    if attention.qkv_bias:
        yield Tensor(Role.Q_BIAS, layer, (q_rows,))
        yield Tensor(Role.K_BIAS, layer, (kv_rows,))
        yield Tensor(Role.V_BIAS, layer, (kv_rows,))
    if attention.qk_norm:
        yield Tensor(Role.Q_NORM, layer, (attention.head_dim,))
        yield Tensor(Role.K_NORM, layer, (attention.head_dim,))
    yield Tensor(Role.ATTENTION_OUTPUT, layer, (hidden, q_rows))


def _compressed(a: CompressedAttention, hidden: int, layer: int) -> Iterator[Tensor]:
    heads_width = a.heads * a.head_dim
    yield Tensor(Role.Q_A, layer, (a.q_lora_rank, hidden))
    yield Tensor(Role.Q_A_NORM, layer, (a.q_lora_rank,))
    yield Tensor(Role.Q_B, layer, (heads_width, a.q_lora_rank))
    yield Tensor(Role.KV, layer, (a.head_dim, hidden))
    yield Tensor(Role.KV_NORM, layer, (a.head_dim,))
    yield Tensor(Role.SINKS, layer, (a.heads,))
    yield Tensor(Role.OUTPUT_A, layer, (a.o_groups * a.o_lora_rank, heads_width // a.o_groups))
    yield Tensor(Role.OUTPUT_B, layer, (hidden, a.o_groups * a.o_lora_rank))
    if a.owns_compressed_cache(layer):
        yield from _compressor(a, hidden, layer)
    i = a.indexer
    if a.runs_indexer(layer):
        yield Tensor(Role.INDEXER_Q, layer, (i.heads * i.head_dim, a.q_lora_rank))
        yield Tensor(Role.INDEXER_PROJECTION, layer, (i.heads, hidden))
    if a.caches_indexer_keys(layer):
        yield from _indexer_keys(a, hidden, layer)


def _compressor(a: CompressedAttention, hidden: int, layer: int) -> Iterator[Tensor]:
    ratio = a.ratio(layer)
    width = _windows(a, ratio) * a.head_dim
    yield Tensor(Role.COMPRESSOR_KV, layer, (width, hidden))
    if ratio > 1:
        # A ratio of 1 pools nothing and needs no gate.
        yield Tensor(Role.COMPRESSOR_GATE, layer, (width, hidden))
    if not a.shares_caches:
        yield Tensor(Role.COMPRESSOR_POSITION, layer, (ratio, width))
    yield Tensor(Role.COMPRESSOR_NORM, layer, (a.head_dim,))


def _indexer_keys(a: CompressedAttention, hidden: int, layer: int) -> Iterator[Tensor]:
    width = a.indexer.head_dim
    if a.shares_caches:
        yield Tensor(Role.INDEXER_K, layer, (width, a.head_dim))
        yield Tensor(Role.INDEXER_K_NORM, layer, (width,))
        return
    ratio = a.ratio(layer)
    joint = _windows(a, ratio) * width
    yield Tensor(Role.INDEXER_COMPRESSOR_KV, layer, (joint, hidden))
    yield Tensor(Role.INDEXER_COMPRESSOR_GATE, layer, (joint, hidden))
    yield Tensor(Role.INDEXER_COMPRESSOR_POSITION, layer, (ratio, joint))
    yield Tensor(Role.INDEXER_COMPRESSOR_NORM, layer, (width,))


def _windows(a: CompressedAttention, ratio: int) -> int:
    # V4 overlaps the windows of its finest compression (inference/model.py, Compressor.overlap).
    return 2 if not a.shares_caches and ratio == INDEXED_RATIO else 1
