"""The key-value cache: bytes per token and rank, blocks of a pool, cells of llama.cpp."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.footprint.cache_rows import (
    cache_format,
    compressed_row_bytes,
    indexer_row_bytes,
    latent_row_bytes,
)
from exporter.footprint.cells import CellMode, cell_cache, ik_mode
from exporter.footprint.deployment import FootprintError
from exporter.footprint.kv_cache import cache_type, cell_layout
from exporter.footprint.pool_layout import (
    block_group_layout,
    compressed_token_bytes,
    plain_layout,
    shared_pools_layout,
    token_row_bytes,
    window_layout,
)
from exporter.models.architecture import Architecture
from exporter.models.blocks import CompressedAttention, LatentAttention
from exporter.models.catalog import catalog

MODELS = {model.short_id: model.architecture for model in catalog().models}
V3, V32 = MODELS["DeepSeek-V3"], MODELS["DeepSeek-V3.2"]
V4_FLASH, V4_PRO, V41 = MODELS["DeepSeek-V4-Flash"], MODELS["DeepSeek-V4-Pro"], MODELS["DeepSeek-V4.1-Flash"]
PLAIN = {
    name: architecture
    for name, architecture in MODELS.items()
    if not isinstance(architecture.attention, CompressedAttention)
}


def latent(architecture: Architecture) -> LatentAttention:
    assert isinstance(architecture.attention, LatentAttention)
    return architecture.attention


def compressed(architecture: Architecture) -> CompressedAttention:
    assert isinstance(architecture.attention, CompressedAttention)
    return architecture.attention


def token_bytes(name: str, kind: str = "auto", parts: int = 1) -> int:
    return MODELS[name].layers * token_row_bytes(MODELS[name], kind, parts)


@pytest.mark.parametrize(
    ("name", "size_bytes"),
    [
        ("DeepSeek-V3", 70_272),
        ("DeepSeek-V2", 69_120),
        ("DeepSeek-V2-Lite", 31_104),
        ("DeepSeek-R1-Distill-Llama-70B", 327_680),
        ("DeepSeek-R1-Distill-Llama-8B", 131_072),
        ("DeepSeek-R1-Distill-Qwen-32B", 262_144),
        ("DeepSeek-R1-Distill-Qwen-14B", 196_608),
        ("DeepSeek-R1-Distill-Qwen-7B", 57_344),
        ("DeepSeek-R1-Distill-Qwen-1.5B", 28_672),
        ("DeepSeek-R1-0528-Qwen3-8B", 147_456),
        ("deepseek-llm-67b-base", 389_120),
        ("deepseek-llm-7b-base", 491_520),
        ("deepseek-moe-16b-base", 229_376),
    ],
)
def test_bytes_per_token_in_16_bits_on_one_rank(name: str, size_bytes: int) -> None:
    assert token_bytes(name) == size_bytes


@pytest.mark.parametrize(
    ("kind", "size_bytes"), [("auto", 78_324), ("fp8_ds_mla", 48_068), ("nvfp4_ds_mla", 29_524)]
)
def test_sparse_attention_keeps_indexer_keys_beside_its_rows(kind: str, size_bytes: int) -> None:
    assert token_bytes("DeepSeek-V3.2", kind) == size_bytes


def test_a_packed_row_has_scales_and_a_wide_rotary_part() -> None:
    assert latent_row_bytes(latent(V32), "fp8_ds_mla") == 512 + 4 * 4 + 2 * 64 == 656
    indexer = latent(V32).indexer
    assert indexer is not None
    assert indexer_row_bytes(indexer) == 132
    assert indexer_row_bytes(indexer, fp4=True) == 68


def test_fp8_halves_the_cache_of_deepseek_v3() -> None:
    assert token_bytes("DeepSeek-V3", "fp8_e4m3") == 35_136


def test_fp8_weights_do_not_make_the_cache_fp8() -> None:
    assert cache_format(None) == "auto"
    assert token_bytes("DeepSeek-V3", cache_format(None)) == 70_272


@given(st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128]))
def test_latent_attention_keeps_the_same_bytes_on_every_rank(parts: int) -> None:
    assert token_bytes("DeepSeek-V3", parts=parts) == 70_272


@given(st.sampled_from(sorted(PLAIN)), st.sampled_from([1, 2, 4, 8, 16]))
def test_all_ranks_together_never_keep_less_than_one_would(name: str, parts: int) -> None:
    assert token_row_bytes(PLAIN[name], "auto", parts) * parts >= token_row_bytes(PLAIN[name], "auto", 1)


def test_grouped_query_heads_are_cut_until_one_is_left() -> None:
    sizes = [
        token_bytes("DeepSeek-R1-Distill-Llama-70B", parts=parts) // 40_960 for parts in (1, 2, 4, 8, 16)
    ]
    assert sizes == [8, 4, 2, 1, 1]


def test_a_pool_is_handed_out_in_whole_blocks() -> None:
    layout = plain_layout(70_272, 64)
    assert layout.tokens(layout.blocks(44_667_659_878), 8192) == 9931 * 64
    assert layout.sequence_blocks(8192) == 128
    assert layout.sequence_blocks(8193) == 129


def test_ranks_that_share_a_cache_hold_as_many_times_the_tokens() -> None:
    alone, shared = plain_layout(70_272, 64), plain_layout(70_272, 64, shared_by=8)
    assert shared.tokens(100, 8192) == 8 * alone.tokens(100, 8192)
    assert shared.sequence_blocks(8192) == 16


class TestV4:
    """DeepSeek-V4: one shared head, windows, and caches that keep a row for 4 or 128 tokens."""

    @pytest.mark.parametrize(
        ("architecture", "growth", "paged", "block_bytes"),
        [(V4_FLASH, 3850.25, 3915, 1_002_240), (V4_PRO, 5511.4375, 5609.25, 1_435_968)],
        ids=["flash", "pro"],
    )
    def test_a_token_grows_the_compressed_caches_and_vllm_pages_them(
        self, architecture: Architecture, growth: float, paged: float, block_bytes: int
    ) -> None:
        attention, layers = compressed(architecture), range(architecture.layers)
        assert compressed_row_bytes(attention, "auto") == 584
        assert compressed_token_bytes(attention, layers, "auto") == Fraction(growth)
        layout = block_group_layout(architecture, attention, layers, 0, "auto", 16_384)
        assert (layout.token_bytes, layout.block_bytes) == (Fraction(paged), Fraction(block_bytes))

    def test_a_sequence_reserves_blocks_for_windows_and_states(self) -> None:
        layout = block_group_layout(V4_FLASH, compressed(V4_FLASH), range(43), 0, "fp8", 16_384)
        assert layout.sequence_blocks(121_344) == 474 + 6682
        # 7.71 GiB at that length: 140,064 tokens (vllm#51041 logged 150,992).
        assert layout.tokens(layout.blocks(8_278_549_463), 121_344) == 140_064

    def test_an_fp4_indexer_makes_keys_half_as_large(self) -> None:
        attention = compressed(V4_FLASH)
        assert compressed_token_bytes(attention, range(43), "auto", fp4_indexer=True) == Fraction("3514.25")

    def test_sglang_adds_a_tenth_of_the_tokens_in_windows_and_states(self) -> None:
        layout = shared_pools_layout(compressed(V4_FLASH), range(43), "auto", 256, speculative=False)
        assert layout.token_bytes == Fraction("7705.45")

    @pytest.mark.parametrize(("kind", "size"), [("nvfp4", 890), ("fp8", 1650)])
    def test_v41_caches_in_four_layers_that_the_others_read(self, kind: str, size: int) -> None:
        layout = window_layout(compressed(V41), range(V41.layers), 0, kind)
        assert layout.token_bytes == size

    @pytest.mark.parametrize(("architecture", "size"), [(V4_FLASH, 6880), (V4_PRO, 9848)])
    def test_llamacpp_keeps_rows_of_its_own_type(self, architecture: Architecture, size: int) -> None:
        cache = cell_cache(
            architecture, 8192, slots=1, unified=False, type_k="F16", type_v="F16", mode=CellMode(),
            micro_batch=512,
        )  # fmt: skip
        assert cache.token_bytes == size

    def test_llamacpp_gives_every_slot_the_whole_context_when_unified(self) -> None:
        def total(slots: int) -> int:
            cache = cell_cache(
                V4_FLASH, 8192, slots=slots, unified=True, type_k="F16", type_v="F16", mode=CellMode(),
                micro_batch=512,
            )  # fmt: skip
            return sum(cache.layers)

        assert total(4) == 4 * total(1)


@pytest.mark.parametrize(
    ("context", "slots", "unified", "cells", "streams"),
    [
        (4096, 4, True, 4096, 1),
        (4097, 4, True, 4352, 1),
        (7000, 5, False, 1536, 5),
        (4096, 4, False, 1024, 4),
        (4096, 1, False, 4096, 1),
        (3, 8, False, 256, 8),
    ],
)
def test_context_and_slots_become_padded_cells(
    context: int, slots: int, unified: bool, cells: int, streams: int
) -> None:
    layout = cell_layout(context, slots, unified)
    assert (layout.cells, layout.streams) == (cells, streams)
    assert layout.tokens == cells * streams


def cell_token(
    architecture: Architecture, type_k: str, type_v: str, mode: CellMode | None = None
) -> Fraction:
    return cell_cache(
        architecture,
        2048,
        slots=1,
        unified=False,
        type_k=cache_type(type_k, "cache_type_k"),
        type_v=cache_type(type_v, "cache_type_v"),
        mode=mode or CellMode(),
        micro_batch=512,
    ).token_bytes


@pytest.mark.parametrize(("name", "size_bytes"), [("f16", 70_272), ("q8_0", 37_332)])
def test_llamacpp_stores_no_values_with_latent_attention(name: str, size_bytes: int) -> None:
    assert cell_token(V3, name, name) == size_bytes


def test_llamacpp_stores_indexer_keys_in_the_type_of_its_keys() -> None:
    assert cell_token(V32, "f16", "f16") == 85_888


def test_a_file_without_the_split_caches_all_heads() -> None:
    assert cell_token(V3, "f16", "f16", CellMode(latent=False)) == 4_997_120


@pytest.mark.parametrize(
    ("mla", "flash", "type_k", "type_v", "size_bytes"),
    [
        (0, False, "f16", "f16", 4_997_120),
        (1, True, "f16", "f16", 70_272),
        (1, False, "f16", "f16", 70_272 + 61 * 512 * 2),
        (1, False, "q8_0", "f16", 37_332 + 61 * 512 * 2),
        (2, False, "q8_0", "f16", 70_272),
        (2, True, "q8_0", "f16", 37_332),
        (3, True, "q8_0", "f16", 37_332),
        (3, True, "f16", "f16", 70_272),
    ],
)
def test_ik_llamacpps_latent_modes(mla: int, flash: bool, type_k: str, type_v: str, size_bytes: int) -> None:
    assert cell_token(V3, type_k, type_v, ik_mode(mla, flash)) == size_bytes


def test_llamacpp_stores_keys_and_values_in_types_of_their_own_otherwise() -> None:
    qwen = MODELS["DeepSeek-R1-Distill-Qwen-7B"]
    assert cell_token(qwen, "f16", "f16") == 28 * 2048
    assert cell_token(qwen, "q8_0", "f16") == 28 * (1024 + 544)


@pytest.mark.parametrize(("key", "value"), [("q8_0", "f16"), ("f16", "q4_0")])
def test_latent_attention_refuses_two_cache_types(key: str, value: str) -> None:
    with pytest.raises(FootprintError, match="cache_type_v"):
        cell_token(V3, key, value)


def test_unknown_cache_types_are_refused_with_the_known_ones() -> None:
    with pytest.raises(FootprintError, match=r"kv_cache_dtype .* fp8_e4m3"):
        cache_format("int3")
    with pytest.raises(FootprintError, match=r"cache_type_k .* q8_0"):
        cache_type("q9", "cache_type_k")
