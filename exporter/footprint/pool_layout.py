"""How a pool of blocks stores one rank's cache: the size of a block, and how many a sequence holds.

Plain caches need one block for so many tokens. V4's on vLLM draw blocks of one size from five groups, three
of which a sequence holds whatever its length (v1/kv_cache_interface.py SlidingWindowSpec, max admission
blocks).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from exporter.footprint.cache_rows import (
    cache_format,
    compressed_row_bytes,
    head_rows_bytes,
    indexer_row_bytes,
    latent_row_bytes,
)
from exporter.models.architecture import Architecture
from exporter.models.blocks import CompressedAttention, GroupedQueryAttention, LatentAttention


@dataclass(frozen=True, slots=True)
class SequenceReserve:
    """Blocks that a sequence holds for a window or a state: as many as cover ``window`` tokens and those of
    one scheduling step, and one more.
    """

    window: int
    block_tokens: int
    groups: int = 1

    def blocks(self, length: int, step_tokens: int) -> int:
        covered = min(self.window - 1 + step_tokens, length)
        return self.groups * (ceil(covered / self.block_tokens) + 1)


@dataclass(frozen=True, slots=True)
class PoolLayout:
    """Blocks of one rank's pool. ``token_bytes`` is what one more token costs, ``step_tokens`` what the
    engine may schedule ahead of a sequence, ``shared_by`` the ranks over which one sequence's cache is spread
    (DCP).
    """

    token_bytes: Fraction
    block_tokens: int
    block_bytes: Fraction
    reserves: tuple[SequenceReserve, ...] = ()
    step_tokens: int = 0
    shared_by: int = 1

    def blocks(self, pool_bytes: int) -> int:
        """Blocks that a pool holds."""
        return int(pool_bytes // self.block_bytes) if self.block_bytes else 0

    def bytes_of(self, blocks: int) -> int:
        """Bytes of so many blocks."""
        return ceil(blocks * self.block_bytes)

    def sequence_blocks(self, length: int) -> int:
        """Blocks that one sequence of ``length`` tokens holds on this rank."""
        own = ceil(length / (self.block_tokens * self.shared_by))
        return own + sum(reserve.blocks(length, self.step_tokens) for reserve in self.reserves)

    def tokens(self, blocks: int, length: int) -> int:
        """Tokens in so many blocks, as the engine counts: with reserves, sequences of ``length`` at once
        times ``length``.
        """
        if not self.reserves:
            return blocks * self.block_tokens * self.shared_by
        return blocks * length // self.sequence_blocks(length)


def plain_layout(token_bytes: int | Fraction, block_tokens: int, shared_by: int = 1) -> PoolLayout:
    """A cache in which every token costs the same."""
    size = Fraction(token_bytes)
    return PoolLayout(size, block_tokens, size * block_tokens, shared_by=shared_by)


def token_row_bytes(architecture: Architecture, name: str, parts: int, fp4_indexer: bool = False) -> int:
    """Bytes of one token in one layer on one rank, indexer keys included; not for compressed attention."""
    attention = architecture.attention
    if isinstance(attention, LatentAttention):
        row = latent_row_bytes(attention, name)
        if attention.indexer is not None:
            row += indexer_row_bytes(attention.indexer, fp4_indexer)
        return row
    assert isinstance(attention, GroupedQueryAttention)
    return head_rows_bytes(attention, name, parts)


def compressed_token_bytes(
    attention: CompressedAttention, layers: Iterable[int], name: str, fp4_indexer: bool = False
) -> Fraction:
    """What one token adds to the compressed caches of ``layers``; windows and states are per sequence."""
    row = compressed_row_bytes(attention, name)
    key = indexer_row_bytes(attention.indexer, fp4_indexer or name.startswith("nvfp4"))
    total = Fraction(0)
    for layer in layers:
        ratio = attention.ratio(layer)
        if ratio and attention.owns_compressed_cache(layer):
            total += Fraction(row, ratio)
        if ratio and attention.caches_indexer_keys(layer):
            total += Fraction(key, ratio)
    return total


# vLLM 0.33 models/deepseek_v4: pages of 256 tokens in multiples of 576 bytes; windows in blocks of 64 tokens,
# compressor states (f32) in blocks of 4 and 8 tokens.
_PAGE_TOKENS = 256
_PAGE_ALIGNMENT = 576
_WINDOW_BLOCK = 64
_STATE_BLOCKS = {4: 4, 128: 8}
_STATE_BYTES = 4


def block_group_layout(
    architecture: Architecture,
    attention: CompressedAttention,
    layers: range,
    draft_layers: int,
    kv_cache_dtype: str | None,
    step_tokens: int,
    fp4_indexer: bool = False,
) -> PoolLayout:
    """V4 on vLLM: one pool of equal blocks, as large as the largest of the groups' (1,002,240 bytes for
    V4-Flash).
    """
    name = cache_format(kv_cache_dtype)
    row = compressed_row_bytes(attention, name)
    key = indexer_row_bytes(attention.indexer, fp4_indexer)
    indexed = [layer for layer in layers if attention.runs_indexer(layer)]
    paged = sum(
        _aligned(_PAGE_TOKENS // attention.ratio(layer) * row) for layer in layers if attention.ratio(layer)
    )
    paged += sum(_aligned(_PAGE_TOKENS // attention.ratio(layer) * key) for layer in indexed)
    window_page = _aligned(_WINDOW_BLOCK * row)
    others = len(layers) - len(indexed) + draft_layers
    sizes = [paged, len(indexed) * window_page, others * window_page]
    reserves = [SequenceReserve(attention.window, _WINDOW_BLOCK, sum(size > 0 for size in sizes[1:]))]
    for ratio, block in _STATE_BLOCKS.items():
        here = [layer for layer in layers if attention.ratio(layer) == ratio]
        if not here:
            continue
        sizes.append(sum(_state_bytes(attention, layer, block) for layer in here))
        windows = 2 if attention.runs_indexer(here[0]) else 1
        reserves.append(SequenceReserve(windows * ratio, block))
    block_bytes = max(sizes)
    return PoolLayout(
        Fraction(paged, _PAGE_TOKENS), _PAGE_TOKENS, Fraction(block_bytes), tuple(reserves), step_tokens
    )


def _state_bytes(attention: CompressedAttention, layer: int, block: int) -> int:
    # Keys and gates of the running window; the finest compression keeps two windows, and its indexer's too.
    windows = 2 if attention.runs_indexer(layer) else 1
    size = _aligned(block * windows * 2 * attention.head_dim * _STATE_BYTES)
    if attention.runs_indexer(layer):
        size += _aligned(block * windows * 2 * attention.indexer.head_dim * _STATE_BYTES)
    return size


def window_layout(
    attention: CompressedAttention,
    layers: range,
    draft_layers: int,
    kv_cache_dtype: str | None,
    fp4_indexer: bool = False,
) -> PoolLayout:
    """V4.1: compressed caches of the layers that own one, and a window of every layer for each sequence."""
    name = cache_format(kv_cache_dtype)
    token = compressed_token_bytes(attention, layers, name, fp4_indexer)
    window_row = compressed_row_bytes(attention, "auto")
    window = attention.window * window_row * (len(layers) + draft_layers)
    block = token * _PAGE_TOKENS
    per_sequence = ceil(window / block) if block else 0
    reserve = SequenceReserve(1, 1, 0) if not per_sequence else _FixedReserve(1, 1, per_sequence)
    return PoolLayout(token, _PAGE_TOKENS, block, (reserve,))


@dataclass(frozen=True, slots=True)
class _FixedReserve(SequenceReserve):
    """So many blocks for each sequence, whatever its length."""

    def blocks(self, length: int, step_tokens: int) -> int:
        return self.groups


# SGLang 0.5.23 model_executor/pool_configurator.py DSV4PoolConfigurator: a tenth of the tokens in windows,
# with the states of the finest compressor in a ring of 8 rows for each window of 128 (16 with speculation).
SWA_TOKENS_SHARE = Fraction(1, 10)
_STATE_RING = 8


def shared_pools_layout(
    attention: CompressedAttention,
    layers: range,
    kv_cache_dtype: str | None,
    page_tokens: int,
    speculative: bool,
    fp4_indexer: bool = False,
) -> PoolLayout:
    """V4 on SGLang: full, window, compressed and state pools grow together (V4-Flash: 7,705 bytes)."""
    name = cache_format(kv_cache_dtype)
    row = compressed_row_bytes(attention, name)
    ring = Fraction(_STATE_RING * (2 if speculative else 1), attention.window)
    indexed = sum(1 for layer in layers if attention.runs_indexer(layer))
    state = 2 * 2 * (attention.head_dim + attention.indexer.head_dim) * _STATE_BYTES
    window = len(layers) * row + ring * state * indexed
    token = SWA_TOKENS_SHARE * window + compressed_token_bytes(attention, layers, name, fp4_indexer)
    if speculative:
        token *= Fraction(len(layers) + 1, len(layers))
    return plain_layout(token, page_tokens)


LayoutOf = Callable[[range, int], PoolLayout]
"""From the layers of a stage and its draft layers to the layout of its pool."""


def _aligned(size: int) -> int:
    return -(-size // _PAGE_ALIGNMENT) * _PAGE_ALIGNMENT
