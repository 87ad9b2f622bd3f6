"""Architectures, and the tensors that follow from them in checkpoint terms.

Shapes come from each model's config.json (numbers and sources: data/architectures.toml) and the layer
definitions of the DeepSeek-V3, Qwen2, Qwen3 and Llama reference code; parameter totals agree with the
published ones to the last parameter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from math import prod


class Role(StrEnum):
    """What a tensor is for. The values are the names that llama.cpp gives (``blk.N.<value>.weight`` within a
    layer).
    """

    EMBEDDING = "token_embd"
    OUTPUT = "output"
    OUTPUT_NORM = "output_norm"
    ATTENTION_NORM = "attn_norm"
    FFN_NORM = "ffn_norm"
    Q = "attn_q"
    K = "attn_k"
    V = "attn_v"
    Q_BIAS = "attn_q.bias"
    K_BIAS = "attn_k.bias"
    V_BIAS = "attn_v.bias"
    Q_NORM = "attn_q_norm"
    K_NORM = "attn_k_norm"
    Q_A = "attn_q_a"
    Q_A_NORM = "attn_q_a_norm"
    Q_B = "attn_q_b"
    KV_A = "attn_kv_a_mqa"
    KV_A_NORM = "attn_kv_a_norm"
    KV_B = "attn_kv_b"
    K_B = "attn_k_b"
    V_B = "attn_v_b"
    ATTENTION_OUTPUT = "attn_output"
    FFN_GATE = "ffn_gate"
    FFN_UP = "ffn_up"
    FFN_DOWN = "ffn_down"
    ROUTER = "ffn_gate_inp"
    ROUTER_BIAS = "exp_probs_b"
    EXPERTS_GATE = "ffn_gate_exps"
    EXPERTS_UP = "ffn_up_exps"
    EXPERTS_DOWN = "ffn_down_exps"
    SHARED_GATE = "ffn_gate_shexp"
    SHARED_UP = "ffn_up_shexp"
    SHARED_DOWN = "ffn_down_shexp"
    DRAFT_PROJECTION = "nextn.eh_proj"
    DRAFT_EMBEDDING_NORM = "nextn.enorm"
    DRAFT_HIDDEN_NORM = "nextn.hnorm"
    DRAFT_OUTPUT_NORM = "nextn.shared_head_norm"
    DRAFT_EMBEDDING = "nextn.embed_tokens"
    DRAFT_OUTPUT = "nextn.shared_head_head"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in checkpoint terms: ``shape`` is (out, in) or (length,); ``count`` equal ones are stacked
    (experts, heads).

    ``layer`` is None for what belongs to no layer. A draft layer (multi-token prediction) has a number from
    ``Architecture.layers`` on.
    """

    role: Role
    layer: int | None
    shape: tuple[int, ...]
    count: int = 1

    @property
    def parameters(self) -> int:
        return prod(self.shape) * self.count


@dataclass(frozen=True, slots=True)
class GroupedQueryAttention:
    """Attention with whole key and value heads in the cache (Llama, Qwen)."""

    heads: int
    kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    qk_norm: bool = False


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention: the cache holds one latent row per token (DeepSeek-V2 report, section
    2.1).
    """

    heads: int
    q_lora_rank: int
    kv_lora_rank: int
    nope_head_dim: int
    rope_head_dim: int
    value_head_dim: int

    @property
    def cache_row_elements(self) -> int:
        return self.kv_lora_rank + self.rope_head_dim


@dataclass(frozen=True, slots=True)
class MixtureOfExperts:
    """The feed-forward part of every layer after the first ``dense_layers``."""

    routed: int
    active: int
    shared: int
    intermediate: int
    dense_layers: int
    correction_bias: bool


@dataclass(frozen=True)
class Architecture:
    """Numbers of a config.json that decide tensors and cache. Lengths are elements, ``context_tokens`` is the
    trained limit.

    ``gguf_size_class`` is llama.cpp's name for the size where its quantization rules ask for it ("70B"), else
    "".
    """

    name: str
    family: str
    layers: int
    hidden: int
    vocabulary: int
    intermediate: int
    context_tokens: int
    attention: GroupedQueryAttention | LatentAttention
    experts: MixtureOfExperts | None = None
    draft_layers: int = 0
    tied_embeddings: bool = False
    tokenizer_merges: int = 0
    gguf_size_class: str = ""

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.layers, self.hidden, self.attention, self.experts, self.draft_layers))

    def __hash__(self) -> int:
        # It is the key of every cached table below: hashing all fields at each look-up would cost more than
        # the look-up.
        return self._hash

    @property
    def parameters(self) -> int:
        """Parameters of the model that answers, without draft layers."""
        return sum(tensor.parameters for tensor in main_tensors(self))

    @property
    def draft_parameters(self) -> int:
        """Parameters that the checkpoint stores for draft layers, their copies of embedding and head
        included.
        """
        return sum(tensor.parameters for tensor in draft_tensors(self))

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes through, the embedding row's table included (as model cards
        count).
        """
        total = self.parameters
        if self.experts is None:
            return total
        routed = sum(t.parameters for t in main_tensors(self) if t.role in ROUTED_EXPERTS)
        return total - routed + routed * self.experts.active // self.experts.routed

    def is_dense(self, layer: int) -> bool:
        return self.experts is None or layer < self.experts.dense_layers


ROUTED_EXPERTS = frozenset({Role.EXPERTS_GATE, Role.EXPERTS_UP, Role.EXPERTS_DOWN})


@lru_cache(maxsize=64)
def main_tensors(architecture: Architecture) -> tuple[Tensor, ...]:
    """Every tensor of the model that answers; draft layers are apart."""
    return tuple(_main_tensors(architecture))


@lru_cache(maxsize=64)
def draft_tensors(architecture: Architecture) -> tuple[Tensor, ...]:
    """Tensors of the multi-token-prediction layers (DeepSeek-V3 README_WEIGHTS.md): one more layer,
    projection and norms, and copies of embedding and head that an engine shares with the main model.
    """
    return tuple(_draft_tensors(architecture))


@lru_cache(maxsize=4096)
def layer_tensors(architecture: Architecture, layer: int) -> tuple[Tensor, ...]:
    """The tensors of one layer; layers that are both dense or both of experts differ in the number alone."""
    return tuple(_layer_tensors(architecture, layer))


@lru_cache(maxsize=64)
def outer_tensors(architecture: Architecture) -> tuple[Tensor, ...]:
    """The tensors that belong to no layer: embedding, last norm and, unless it shares the embedding, the
    head.
    """
    arch = architecture
    embedding = Tensor(Role.EMBEDDING, None, (arch.vocabulary, arch.hidden))
    norm = Tensor(Role.OUTPUT_NORM, None, (arch.hidden,))
    if arch.tied_embeddings:
        return (embedding, norm)
    return (embedding, norm, Tensor(Role.OUTPUT, None, (arch.vocabulary, arch.hidden)))


def _main_tensors(arch: Architecture) -> Iterator[Tensor]:
    for layer in range(arch.layers):
        yield from layer_tensors(arch, layer)
    yield from outer_tensors(arch)


def _draft_tensors(arch: Architecture) -> Iterator[Tensor]:
    for layer in range(arch.layers, arch.layers + arch.draft_layers):
        yield from _layer_tensors(arch, layer)
        yield Tensor(Role.DRAFT_PROJECTION, layer, (arch.hidden, 2 * arch.hidden))
        yield Tensor(Role.DRAFT_EMBEDDING_NORM, layer, (arch.hidden,))
        yield Tensor(Role.DRAFT_HIDDEN_NORM, layer, (arch.hidden,))
        yield Tensor(Role.DRAFT_OUTPUT_NORM, layer, (arch.hidden,))
        yield Tensor(Role.DRAFT_EMBEDDING, layer, (arch.vocabulary, arch.hidden))
        yield Tensor(Role.DRAFT_OUTPUT, layer, (arch.vocabulary, arch.hidden))


def _layer_tensors(arch: Architecture, layer: int) -> Iterator[Tensor]:
    yield Tensor(Role.ATTENTION_NORM, layer, (arch.hidden,))
    if isinstance(arch.attention, LatentAttention):
        yield from _latent_attention(arch.attention, arch.hidden, layer)
    else:
        yield from _grouped_query_attention(arch.attention, arch.hidden, layer)
    yield Tensor(Role.FFN_NORM, layer, (arch.hidden,))
    if arch.experts is None or layer < arch.experts.dense_layers:
        yield Tensor(Role.FFN_GATE, layer, (arch.intermediate, arch.hidden))
        yield Tensor(Role.FFN_UP, layer, (arch.intermediate, arch.hidden))
        yield Tensor(Role.FFN_DOWN, layer, (arch.hidden, arch.intermediate))
    else:
        yield from _experts(arch.experts, arch.hidden, layer)


def _latent_attention(attention: LatentAttention, hidden: int, layer: int) -> Iterator[Tensor]:
    a = attention
    yield Tensor(Role.Q_A, layer, (a.q_lora_rank, hidden))
    yield Tensor(Role.Q_A_NORM, layer, (a.q_lora_rank,))
    yield Tensor(Role.Q_B, layer, (a.heads * (a.nope_head_dim + a.rope_head_dim), a.q_lora_rank))
    yield Tensor(Role.KV_A, layer, (a.kv_lora_rank + a.rope_head_dim, hidden))
    yield Tensor(Role.KV_A_NORM, layer, (a.kv_lora_rank,))
    yield Tensor(Role.KV_B, layer, (a.heads * (a.nope_head_dim + a.value_head_dim), a.kv_lora_rank))
    yield Tensor(Role.ATTENTION_OUTPUT, layer, (hidden, a.heads * a.value_head_dim))


def _grouped_query_attention(attention: GroupedQueryAttention, hidden: int, layer: int) -> Iterator[Tensor]:
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


def _experts(experts: MixtureOfExperts, hidden: int, layer: int) -> Iterator[Tensor]:
    e = experts
    yield Tensor(Role.ROUTER, layer, (e.routed, hidden))
    if e.correction_bias:
        yield Tensor(Role.ROUTER_BIAS, layer, (e.routed,))
    yield Tensor(Role.EXPERTS_GATE, layer, (e.intermediate, hidden), e.routed)
    yield Tensor(Role.EXPERTS_UP, layer, (e.intermediate, hidden), e.routed)
    yield Tensor(Role.EXPERTS_DOWN, layer, (hidden, e.intermediate), e.routed)
    if e.shared:
        width = e.shared * e.intermediate
        yield Tensor(Role.SHARED_GATE, layer, (width, hidden))
        yield Tensor(Role.SHARED_UP, layer, (width, hidden))
        yield Tensor(Role.SHARED_DOWN, layer, (hidden, width))
