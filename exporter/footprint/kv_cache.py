"""Bytes of the key-value cache: per token and rank for pools of blocks, per cell for llama.cpp.

Latent attention keeps one row of kv_lora_rank + rope elements per token and layer on every tensor-parallel
rank (vLLM 0.33 layers/attention/mla_attention.py: one KV head, never sharded); grouped-query attention keeps
whole heads, cut by rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.footprint.deployment import FootprintError
from exporter.models.architecture import Architecture, LatentAttention
from exporter.models.gguf import gguf_tables, row_bytes

POOL_ELEMENT_BYTES = {
    "auto": 2,
    "bf16": 2,
    "bfloat16": 2,
    "f16": 2,
    "float16": 2,
    "half": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}
"""``--kv-cache-dtype`` of vLLM and SGLang; ``auto`` is the model's 16-bit type, also when its weights are
FP8.
"""

CELL_MULTIPLE = 256
"""llama.cpp pads the cells of a stream (llama-context.cpp, GGML_PAD(n_ctx, 256))."""

CELL_BOOKKEEPING_BYTES = 52
"""Heap per cell beside the cache itself, measured on llama-server b11434."""


def pool_element_bytes(kv_cache_dtype: str | None) -> int:
    """Bytes of one cached element. Raises FootprintError for a type that is not known here."""
    name = (kv_cache_dtype or "auto").lower()
    if name not in POOL_ELEMENT_BYTES:
        raise FootprintError(f"kv_cache_dtype is not known; known: {', '.join(POOL_ELEMENT_BYTES)}")
    return POOL_ELEMENT_BYTES[name]


def row_elements(architecture: Architecture, attention_parts: int = 1) -> int:
    """Elements that one rank keeps for one token in one layer."""
    attention = architecture.attention
    if isinstance(attention, LatentAttention):
        return attention.cache_row_elements
    heads = max(1, -(-attention.kv_heads // attention_parts))
    return 2 * heads * attention.head_dim


def bytes_per_token(architecture: Architecture, layers: int, attention_parts: int, element_bytes: int) -> int:
    """Bytes that one rank with ``layers`` layers keeps for one token."""
    return layers * row_elements(architecture, attention_parts) * element_bytes


def pool_tokens(pool_bytes: int, token_bytes: int, block_tokens: int) -> int:
    """Tokens of a pool that is handed out in whole blocks."""
    if token_bytes == 0:
        return 0
    return pool_bytes // (token_bytes * block_tokens) * block_tokens


def in_blocks(tokens: int, block_tokens: int) -> int:
    """Tokens that a sequence occupies: its length, up to the next whole block."""
    return -(-tokens // block_tokens) * block_tokens


@dataclass(frozen=True, slots=True)
class CellLayout:
    """llama.cpp's cache: ``streams`` separate caches of ``cells`` cells; all of it is allocated at start."""

    cells: int
    streams: int

    @property
    def tokens(self) -> int:
        return self.cells * self.streams


def cell_layout(context_tokens: int, slots: int, unified: bool) -> CellLayout:
    """``--ctx-size`` and slots to cells: one shared cache, or one of ctx div slots for each slot, both padded
    to 256.
    """
    if unified or slots == 1:
        return CellLayout(_pad(context_tokens), 1)
    return CellLayout(_pad(max(1, context_tokens // slots)), slots)


def cell_bytes(architecture: Architecture, type_k: str, type_v: str) -> int:
    """Bytes of one cell in one layer. Latent attention stores no values.

    Raises FootprintError for an unknown type, one that does not divide the row, or one that the engine
    refuses.
    """
    attention = architecture.attention
    if isinstance(attention, LatentAttention):
        if type_k != type_v:
            raise FootprintError(
                "cache_type_v must equal cache_type_k: llama.cpp takes one type with latent attention"
            )
        return _cache_row(type_k, attention.cache_row_elements, "cache_type_k")
    elements = attention.kv_heads * attention.head_dim
    return _cache_row(type_k, elements, "cache_type_k") + _cache_row(type_v, elements, "cache_type_v")


def cache_type(name: str | None, field: str) -> str:
    """The ggml type of ``--cache-type-k|v``; unset is F16. Raises FootprintError naming the field."""
    chosen = (name or "f16").upper()
    if chosen not in _CACHE_TYPES:
        raise FootprintError(f"{field} is not known; known: {', '.join(t.lower() for t in _CACHE_TYPES)}")
    return chosen


# llama.cpp common/arg.cpp, kv_cache_types.
_CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1")


def is_quantized_cache(type_name: str) -> bool:
    return gguf_tables().types[type_name].block_elements > 1


def _cache_row(type_name: str, elements: int, field: str) -> int:
    try:
        return row_bytes(type_name, elements)
    except ValueError as error:
        raise FootprintError(f"{field}: {error}") from None


def _pad(tokens: int) -> int:
    return -(-tokens // CELL_MULTIPLE) * CELL_MULTIPLE
