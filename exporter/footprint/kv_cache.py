"""llama.cpp's cells: how many a context takes, in how many streams, and the types that they can have."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.footprint.deployment import FootprintError
from exporter.models.gguf import gguf_tables, row_bytes

CELL_MULTIPLE = 256
"""llama.cpp pads the cells of a stream (llama-context.cpp, GGML_PAD(n_ctx, 256))."""

CELL_BOOKKEEPING_BYTES = 52
"""Heap per cell beside the cache itself, measured on llama-server b11434."""


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
        return CellLayout(pad_cells(context_tokens), 1)
    return CellLayout(pad_cells(max(1, pad_cells(context_tokens) // slots)), slots)


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


def cache_row(type_name: str, elements: int, field: str) -> int:
    """Bytes of one row of a ggml type. Raises FootprintError naming ``field`` where no whole blocks fit."""
    try:
        return row_bytes(type_name, elements)
    except ValueError as error:
        raise FootprintError(f"{field}: {error}") from None


def pad_cells(tokens: int) -> int:
    """Cells that the engine allocates for so many tokens."""
    return -(-tokens // CELL_MULTIPLE) * CELL_MULTIPLE
