"""llama.cpp's caches in bytes: cells and streams, and what each layer keeps in them.

Sources: llama.cpp b11434 src/llama-kv-cache.cpp, llama-kv-cache-dsv4.cpp (measured, docs/METHOD.md); latent
modes of ik_llama.cpp src/llama.cpp llama_kv_cache_init.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from exporter.footprint.deployment import FootprintError
from exporter.footprint.kv_cache import CellLayout, cache_row, cell_layout, pad_cells
from exporter.models.architecture import Architecture
from exporter.models.blocks import CompressedAttention, GroupedQueryAttention, LatentAttention

_STATE_BYTES = 4
_FINE_STATE_TOKENS = 8
# A layer's state: keys and gates of a window of 8 tokens twice as wide (ratio 4), or of 128 (ratio 128).


@dataclass(frozen=True, slots=True)
class CellMode:
    """How an engine keeps latent attention: ``latent`` rows or all heads; ``transposed``: the latent part
    once more as values; ``row_in_v``: the row is in the type of the values (ik_llama.cpp without flash
    attention). ``one_type``: the engine refuses different types of keys and values.
    """

    latent: bool = True
    transposed: bool = False
    row_in_v: bool = False
    one_type: bool = True


@dataclass(frozen=True, slots=True)
class CellCache:
    """A cache that is allocated whole at start: bytes of each layer, and what one more token takes of it."""

    layout: CellLayout
    layers: tuple[int, ...]
    token_bytes: Fraction


def ik_mode(mla: int, flash_attention: bool) -> CellMode:
    """The cache of ik_llama.cpp's ``-mla``: 0 all heads, 1 latent rows and, without flash attention, their
    transposed copy, 2 and 3 latent rows alone.
    """
    if mla == 0:
        return CellMode(latent=False, one_type=False)
    if flash_attention:
        return CellMode(one_type=False)
    return CellMode(transposed=mla == 1, row_in_v=mla != 1, one_type=False)


def cell_cache(
    architecture: Architecture,
    context_tokens: int,
    *,
    slots: int,
    unified: bool,
    type_k: str,
    type_v: str,
    mode: CellMode,
    micro_batch: int,
    swa_full: bool = False,
) -> CellCache:
    """The cache for a context and slots. Raises FootprintError for types that do not fit the rows."""
    attention = architecture.attention
    if isinstance(attention, CompressedAttention):
        if type_k != type_v:
            raise _types_differ()
        layout = cell_layout(context_tokens, slots, unified=False)
        if unified and slots > 1:
            # V4 keeps a stream for each slot, each of the whole context.
            layout = CellLayout(pad_cells(context_tokens), slots)
        return _compressed(architecture, attention, layout, type_k, micro_batch, swa_full=swa_full)
    layout = cell_layout(context_tokens, slots, unified)
    row = _row(attention, type_k, type_v, mode)
    return CellCache(
        layout, (row * layout.tokens,) * architecture.layers, Fraction(row * architecture.layers)
    )


def _row(attention: GroupedQueryAttention | LatentAttention, type_k: str, type_v: str, mode: CellMode) -> int:
    if isinstance(attention, GroupedQueryAttention):
        elements = attention.kv_heads * attention.head_dim
        return cache_row(type_k, elements, "cache_type_k") + cache_row(type_v, elements, "cache_type_v")
    if not mode.latent:
        keys = attention.heads * (attention.nope_head_dim + attention.rope_head_dim)
        values = attention.heads * attention.value_head_dim
        return cache_row(type_k, keys, "cache_type_k") + cache_row(type_v, values, "cache_type_v")
    if mode.one_type and type_k != type_v:
        raise _types_differ()
    row = cache_row(type_v if mode.row_in_v else type_k, attention.cache_row_elements, "cache_type_k")
    if mode.transposed:
        row += cache_row(type_v, attention.kv_lora_rank, "cache_type_v")
    if attention.indexer is not None:
        row += cache_row(type_k, attention.indexer.head_dim, "cache_type_k")
    return row


def _compressed(
    architecture: Architecture,
    attention: CompressedAttention,
    layout: CellLayout,
    type_k: str,
    micro_batch: int,
    *,
    swa_full: bool,
) -> CellCache:
    if attention.shares_caches:
        raise FootprintError("model: llama.cpp has no cache for this architecture")
    row = cache_row(type_k, attention.head_dim, "cache_type_k")
    key = cache_row(type_k, attention.indexer.head_dim, "cache_type_k")
    cells = layout.cells
    window = cells if swa_full else pad_cells(min(cells, attention.window + micro_batch))
    layers, token = [], Fraction(0)
    for layer in range(architecture.layers):
        ratio = attention.ratio(layer)
        size = window * row
        if ratio:
            wide = row + (key if attention.runs_indexer(layer) else 0)
            size += pad_cells(-(-cells // ratio)) * wide + _state(attention, layer)
            token += Fraction(wide, ratio)
        layers.append(size * layout.streams)
    return CellCache(layout, tuple(layers), token)


def _state(attention: CompressedAttention, layer: int) -> int:
    if attention.runs_indexer(layer):
        width = 2 * (attention.head_dim + attention.indexer.head_dim)
        return 2 * _FINE_STATE_TOKENS * width * _STATE_BYTES
    return 2 * attention.ratio(layer) * attention.head_dim * _STATE_BYTES


def _types_differ() -> FootprintError:
    return FootprintError(
        "cache_type_v must equal cache_type_k: llama.cpp takes one type with latent attention"
    )
