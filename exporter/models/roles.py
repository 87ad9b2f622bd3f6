"""What tensors are for, and how an engine cuts each kind over its ranks.

Names are those of llama.cpp's GGUF files (gguf-py constants.py); which tensor is cut follows vLLM 0.33
models/deepseek_v2.py, models/deepseek_v4/ and models/deepseek_v41/, and SGLang 0.5.23, which places alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod
from types import MappingProxyType


class Role(StrEnum):
    """What a tensor is for. The values are the names that llama.cpp gives (``blk.N.<value>.weight`` within a
    layer).
    """

    EMBEDDING = "token_embd"
    OUTPUT = "output"
    OUTPUT_NORM = "output_norm"
    ATTENTION_NORM = "attn_norm"
    FFN_NORM = "ffn_norm"
    # grouped-query attention
    Q = "attn_q"
    K = "attn_k"
    V = "attn_v"
    Q_BIAS = "attn_q.bias"
    K_BIAS = "attn_k.bias"
    V_BIAS = "attn_v.bias"
    Q_NORM = "attn_q_norm"
    K_NORM = "attn_k_norm"
    # latent attention
    Q_A = "attn_q_a"
    Q_A_NORM = "attn_q_a_norm"
    Q_B = "attn_q_b"
    KV_A = "attn_kv_a_mqa"
    KV_A_NORM = "attn_kv_a_norm"
    KV_B = "attn_kv_b"
    K_B = "attn_k_b"
    V_B = "attn_v_b"
    ATTENTION_OUTPUT = "attn_output"
    # sparse attention's indexer
    INDEXER_Q = "indexer.attn_q_b"
    INDEXER_K = "indexer.attn_k"
    INDEXER_K_NORM = "indexer.k_norm"
    INDEXER_K_NORM_BIAS = "indexer.k_norm.bias"
    INDEXER_PROJECTION = "indexer.proj"
    INDEXER_COMPRESSOR_KV = "indexer_compressor_kv"
    INDEXER_COMPRESSOR_GATE = "indexer_compressor_gate"
    INDEXER_COMPRESSOR_POSITION = "indexer_compressor_ape"
    INDEXER_COMPRESSOR_NORM = "indexer_compressor_norm"
    # compressed attention (V4)
    KV = "attn_kv"
    KV_NORM = "attn_kv_norm"
    SINKS = "attn_sinks"
    OUTPUT_A = "attn_output_a"
    OUTPUT_B = "attn_output_b"
    COMPRESSOR_KV = "attn_compressor_kv"
    COMPRESSOR_GATE = "attn_compressor_gate"
    COMPRESSOR_POSITION = "attn_compressor_ape"
    COMPRESSOR_NORM = "attn_compressor_norm"
    # hyper-connections (V4)
    HYPER_ATTENTION = "hc_attn_fn"
    HYPER_ATTENTION_BASE = "hc_attn_base"
    HYPER_ATTENTION_SCALE = "hc_attn_scale"
    HYPER_FFN = "hc_ffn_fn"
    HYPER_FFN_BASE = "hc_ffn_base"
    HYPER_FFN_SCALE = "hc_ffn_scale"
    HYPER_HEAD = "output_hc_fn"
    HYPER_HEAD_BASE = "output_hc_base"
    HYPER_HEAD_SCALE = "output_hc_scale"
    # feed-forward
    FFN_GATE = "ffn_gate"
    FFN_UP = "ffn_up"
    FFN_DOWN = "ffn_down"
    ROUTER = "ffn_gate_inp"
    ROUTER_BIAS = "exp_probs_b"
    ROUTER_IMAGE_BIAS = "exp_probs_b_vl"
    ROUTER_HASH = "ffn_gate_tid2eid"
    EXPERTS_GATE = "ffn_gate_exps"
    EXPERTS_UP = "ffn_up_exps"
    EXPERTS_DOWN = "ffn_down_exps"
    SHARED_GATE = "ffn_gate_shexp"
    SHARED_UP = "ffn_up_shexp"
    SHARED_DOWN = "ffn_down_shexp"
    # n-gram memory (V4.1)
    ENGRAM_TABLE = "engram.embed"
    ENGRAM_PROJECTION = "engram.wkv"
    ENGRAM_Q = "engram.q_weight"
    ENGRAM_K = "engram.k_weight"
    # draft layers
    DRAFT_PROJECTION = "nextn.eh_proj"
    DRAFT_EMBEDDING_PROJECTION = "nextn.e_proj"
    DRAFT_HIDDEN_PROJECTION = "nextn.h_proj"
    DRAFT_EMBEDDING_NORM = "nextn.enorm"
    DRAFT_HIDDEN_NORM = "nextn.hnorm"
    DRAFT_OUTPUT_NORM = "nextn.shared_head_norm"
    DRAFT_EMBEDDING = "nextn.embed_tokens"
    DRAFT_OUTPUT = "nextn.shared_head_head"
    DRAFT_MAIN_PROJECTION = "dspark.main_proj"
    DRAFT_MAIN_NORM = "dspark.main_norm"
    DRAFT_MARKOV_EMBEDDING = "dspark.markov_embed"
    DRAFT_MARKOV_OUTPUT = "dspark.markov_head"
    DRAFT_CONFIDENCE = "dspark.confidence"
    # whatever sees images or speech: counted as one, not taken apart
    ENCODER = "encoder"


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


class Cut(StrEnum):
    """How a tensor is dealt to the ranks of a tensor-parallel group.

    ``rows`` cuts the output dimension, ``columns`` the input dimension, ``experts`` deals or cuts the routed
    experts, ``vocabulary`` cuts padded rows of embedding and head, ``table`` cuts the rows of an n-gram
    table; ``repeated`` is whole on every rank.
    """

    REPEATED = "repeated"
    ROWS = "rows"
    COLUMNS = "columns"
    EXPERTS = "experts"
    VOCABULARY = "vocabulary"
    TABLE = "table"


_ROWS = (
    Role.Q, Role.K, Role.V, Role.Q_BIAS, Role.K_BIAS, Role.V_BIAS, Role.Q_B, Role.KV_B, Role.K_B, Role.V_B,
    Role.OUTPUT_A, Role.SINKS, Role.FFN_GATE, Role.FFN_UP, Role.SHARED_GATE, Role.SHARED_UP,
)  # fmt: skip
_COLUMNS = (Role.ATTENTION_OUTPUT, Role.OUTPUT_B, Role.FFN_DOWN, Role.SHARED_DOWN)

ROUTED_EXPERTS = frozenset({Role.EXPERTS_GATE, Role.EXPERTS_UP, Role.EXPERTS_DOWN})

CUTS: Mapping[Role, Cut] = MappingProxyType(
    dict.fromkeys(Role, Cut.REPEATED)
    | dict.fromkeys(_ROWS, Cut.ROWS)
    | dict.fromkeys(_COLUMNS, Cut.COLUMNS)
    | dict.fromkeys(ROUTED_EXPERTS, Cut.EXPERTS)
    | dict.fromkeys((Role.EMBEDDING, Role.OUTPUT, Role.DRAFT_EMBEDDING, Role.DRAFT_OUTPUT), Cut.VOCABULARY)
    | {Role.ENGRAM_TABLE: Cut.TABLE}
)
"""The cut of every role under tensor parallelism. Indexer, compressors, hyper-connections, routers and the
low-rank first halves are repeated on every rank.
"""

NOT_PARAMETERS = frozenset({Role.ROUTER_HASH})
"""Integer tables that a checkpoint stores beside its parameters."""

SHARED_WITH_MAIN_MODEL = frozenset({Role.DRAFT_EMBEDDING, Role.DRAFT_OUTPUT})
"""Copies in the checkpoint for which an engine uses the main model's own (vLLM 0.33 models/deepseek_mtp.py,
SGLang 0.5.23 models/deepseek_nextn.py).
"""
