"""Bytes of one cached row in the formats of vLLM and SGLang: whole heads, latent rows, indexer keys, V4 rows.

Sources: vLLM 0.33 config/cache.py, v1/attention/backends/mla/flashmla_sparse.py and indexer.py,
models/deepseek_v4/attention.py and compressor.py; SGLang 0.5.23 mem_cache/kv_cache_configurator.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from exporter.footprint.deployment import FootprintError
from exporter.models.blocks import (
    CompressedAttention,
    GroupedQueryAttention,
    LatentAttention,
    SparseIndexer,
)

POOL_ELEMENT_BYTES: Mapping[str, int] = {
    "auto": 2,
    "bf16": 2,
    "bfloat16": 2,
    "f16": 2,
    "float16": 2,
    "fp16": 2,
    "half": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e4m3fn": 1,
    "fp8_e5m2": 1,
    "fp8_inc": 1,
}
"""``--kv-cache-dtype`` of vLLM, SGLang and TGI; ``auto`` is the model's 16-bit type, also when its weights
are FP8.
"""

PACKED_LATENT = "fp8_ds_mla"
PACKED_LATENT_FP4 = "nvfp4_ds_mla"

# Formats with scales beside the elements: bytes per element, scale elements per element, bytes of a scale.
_SCALED_ELEMENT_BYTES: Mapping[str, Fraction] = {
    "nvfp4": Fraction(1, 2) + Fraction(1, 16),
    "nvfp4_4over6": Fraction(1, 2) + Fraction(1, 16),
    "fp4_mx_block16": Fraction(1, 2) + Fraction(1, 16),
    "mxfp8": 1 + Fraction(1, 32),
}
# One f32 scale for each token and head.
_PER_HEAD_BITS: Mapping[str, int] = {
    "int4_per_token_head": 4,
    "int8_per_token_head": 8,
    "fp8_per_token_head": 8,
}

_SCALE_BYTES = 4
_LATENT_SCALE_GROUP = 128
_NVFP4_GROUP = 16
_V4_SCALE_GROUP = 64


def cache_format(name: str | None) -> str:
    """The format's name as the tables have it. Raises FootprintError for one that is not known here."""
    key = (name or "auto").lower()
    known = (*POOL_ELEMENT_BYTES, *_SCALED_ELEMENT_BYTES, *_PER_HEAD_BITS, PACKED_LATENT, PACKED_LATENT_FP4)
    if key not in known:
        raise FootprintError(f"kv_cache_dtype is not known; known: {', '.join(known)}")
    return key


def is_fp8(name: str) -> bool:
    return name.startswith("fp8")


def head_rows_bytes(attention: GroupedQueryAttention, name: str, parts: int) -> int:
    """Keys and values of one token in one layer on one of ``parts`` tensor ranks; a head is never cut."""
    heads = max(1, -(-attention.kv_heads // parts))
    return 2 * heads * _vector_bytes(attention.head_dim, name)


def padded_heads_bytes(heads: int, head_dim: int, name: str, parts: int) -> int:
    """Keys and values of all heads, both in rows of ``head_dim``: latent attention that an engine does not
    keep as a latent row.
    """
    return 2 * max(1, heads // parts) * _vector_bytes(head_dim, name)


def latent_row_bytes(attention: LatentAttention, name: str) -> int:
    """One latent row in one layer, the same on every tensor rank.

    The packed formats keep ``kv_lora_rank`` elements in 8 (4) bits with a scale per 128 (16), and the rotary
    part in 16 (8) bits: 656 and 352 bytes of V3.2.
    """
    latent, rope = attention.kv_lora_rank, attention.rope_head_dim
    if name == PACKED_LATENT:
        return latent + latent // _LATENT_SCALE_GROUP * _SCALE_BYTES + 2 * rope
    if name == PACKED_LATENT_FP4:
        return latent // 2 + latent // _NVFP4_GROUP + rope
    return _vector_bytes(latent + rope, name)


def indexer_row_bytes(indexer: SparseIndexer, fp4: bool = False) -> int:
    """One indexer key: 8 (4) bits an element and one f32 scale, whatever the main cache is in."""
    return indexer.head_dim // (2 if fp4 else 1) + _SCALE_BYTES


def compressed_row_bytes(attention: CompressedAttention, name: str) -> int:
    """One row of V4's shared key-value head: 448 elements in fp8, 64 rotary ones in 16 bits, scales per 64
    padded to 8 bytes (584); V4.1 keeps all 512 in fp8 with a scale per 32 (528), or in NVFP4 (288).
    """
    if attention.shares_caches:
        if name.startswith("nvfp4"):
            return attention.head_dim // 2 + attention.head_dim // _NVFP4_GROUP
        if POOL_ELEMENT_BYTES.get(name) == 2 and name != "auto":
            return 2 * attention.head_dim
        return attention.head_dim + attention.head_dim // 32
    if POOL_ELEMENT_BYTES.get(name) == 2 and name != "auto":
        return 2 * attention.head_dim
    rope = attention.rope_head_dim
    nope = attention.head_dim - rope
    return nope + 2 * rope + -(-(nope // _V4_SCALE_GROUP) // 8) * 8


def _vector_bytes(elements: int, name: str) -> int:
    if name in _SCALED_ELEMENT_BYTES:
        return int(elements * _SCALED_ELEMENT_BYTES[name])
    if name in _PER_HEAD_BITS:
        return elements * _PER_HEAD_BITS[name] // 8 + _SCALE_BYTES
    if name not in POOL_ELEMENT_BYTES:
        raise FootprintError(f"kv_cache_dtype {name} is only for latent attention with an indexer")
    return elements * POOL_ELEMENT_BYTES[name]
