"""The key-value cache: bytes per token and rank, blocks of a pool, cells of llama.cpp."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.footprint.deployment import FootprintError
from exporter.footprint.kv_cache import (
    bytes_per_token,
    cache_type,
    cell_bytes,
    cell_layout,
    in_blocks,
    pool_element_bytes,
    pool_tokens,
)
from exporter.models.catalog import catalog

ARCHITECTURES = {model.architecture.name: model.architecture for model in catalog().models}
V3 = ARCHITECTURES["deepseek-v3"]


@pytest.mark.parametrize(
    ("name", "size_bytes"),
    [
        ("deepseek-v3", 70_272),
        ("r1-distill-llama-70b", 327_680),
        ("r1-distill-llama-8b", 131_072),
        ("r1-distill-qwen-32b", 262_144),
        ("r1-distill-qwen-14b", 196_608),
        ("r1-distill-qwen-7b", 57_344),
        ("r1-distill-qwen-1.5b", 28_672),
        ("r1-0528-qwen3-8b", 147_456),
    ],
)
def test_bytes_per_token_in_16_bits_on_one_rank(name: str, size_bytes: int) -> None:
    architecture = ARCHITECTURES[name]
    assert bytes_per_token(architecture, architecture.layers, 1, 2) == size_bytes


def test_fp8_halves_the_cache_of_deepseek_v3() -> None:
    assert bytes_per_token(V3, 61, 1, pool_element_bytes("fp8_e4m3")) == 35_136


def test_fp8_weights_do_not_make_the_cache_fp8() -> None:
    assert pool_element_bytes(None) == pool_element_bytes("auto") == 2


@given(st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128]))
def test_latent_attention_keeps_the_same_bytes_on_every_rank(parts: int) -> None:
    assert bytes_per_token(V3, 61, parts, 2) == 70_272


@given(st.sampled_from(sorted(ARCHITECTURES)), st.sampled_from([1, 2, 4, 8, 16]))
def test_all_ranks_together_never_keep_less_than_one_would(name: str, parts: int) -> None:
    architecture = ARCHITECTURES[name]
    assert bytes_per_token(architecture, 1, parts, 2) * parts >= bytes_per_token(architecture, 1, 1, 2)


def test_grouped_query_heads_are_cut_until_one_is_left() -> None:
    llama = ARCHITECTURES["r1-distill-llama-70b"]
    assert [bytes_per_token(llama, 80, parts, 2) // 40_960 for parts in (1, 2, 4, 8, 16)] == [8, 4, 2, 1, 1]


def test_a_pool_is_handed_out_in_whole_blocks() -> None:
    assert pool_tokens(44_667_659_878, 70_272, 64) == 9931 * 64
    assert in_blocks(8192, 64) == 8192
    assert in_blocks(8193, 64) == 8256


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


@pytest.mark.parametrize(("name", "size_bytes"), [("f16", 70_272), ("q8_0", 37_332)])
def test_llamacpp_stores_no_values_with_latent_attention(name: str, size_bytes: int) -> None:
    kind = cache_type(name, "cache_type_k")
    assert 61 * cell_bytes(V3, kind, kind) == size_bytes


def test_llamacpp_stores_keys_and_values_in_types_of_their_own_otherwise() -> None:
    qwen = ARCHITECTURES["r1-distill-qwen-7b"]
    assert cell_bytes(qwen, "F16", "F16") == 2048
    assert cell_bytes(qwen, "Q8_0", "F16") == 1024 + 544


@pytest.mark.parametrize(
    ("key", "value", "field"), [("q8_0", "f16", "cache_type_v"), ("f16", "q4_0", "cache_type_v")]
)
def test_latent_attention_refuses_two_cache_types(key: str, value: str, field: str) -> None:
    with pytest.raises(FootprintError, match=field):
        cell_bytes(V3, cache_type(key, "cache_type_k"), cache_type(value, "cache_type_v"))


def test_unknown_cache_types_are_refused_with_the_known_ones() -> None:
    with pytest.raises(FootprintError, match=r"kv_cache_dtype .* fp8_e4m3"):
        pool_element_bytes("int4")
    with pytest.raises(FootprintError, match=r"cache_type_k .* q8_0"):
        cache_type("q9", "cache_type_k")
