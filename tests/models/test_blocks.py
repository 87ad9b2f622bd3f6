"""What a layer of each generation is made of."""

from __future__ import annotations

import pytest

from exporter.models.architecture import (
    CompressedAttention,
    draft_tensors,
    layer_groups,
    layer_tensors,
    main_tensors,
    outer_tensors,
)
from exporter.models.roles import CUTS, Cut, Role
from exporter.models.rows import architectures

ARCHITECTURES = architectures()


def roles(name: str, layer: int) -> set[Role]:
    return {tensor.role for tensor in layer_tensors(ARCHITECTURES[name], layer)}


def layers_with(name: str, role: Role) -> list[int | None]:
    return [tensor.layer for tensor in main_tensors(ARCHITECTURES[name]) if tensor.role is role]


def test_v2_lite_projects_its_queries_without_a_low_rank() -> None:
    assert Role.Q in roles("deepseek-v2-lite", 0)
    assert not {Role.Q_A, Role.Q_B} & roles("deepseek-v2-lite", 0)


def test_the_indexer_of_v3_2_adds_13_96_million_parameters_to_a_layer() -> None:
    indexer = [t for t in layer_tensors(ARCHITECTURES["deepseek-v3.2"], 0) if t.role.startswith("indexer")]
    assert sum(t.parameters for t in indexer) == 13_959_424


def test_v4_flash_compresses_by_4_and_by_128_in_turn_after_two_windows() -> None:
    attention = ARCHITECTURES["deepseek-v4-flash"].attention
    assert isinstance(attention, CompressedAttention)
    assert [attention.ratio(layer) for layer in range(5)] == [0, 0, 4, 128, 4]
    assert layers_with("deepseek-v4-flash", Role.INDEXER_Q) == list(range(2, 43, 2))
    assert layers_with("deepseek-v4-flash", Role.COMPRESSOR_KV) == list(range(2, 43))


def test_the_first_three_layers_of_v4_route_by_a_table_of_tokens() -> None:
    assert layers_with("deepseek-v4-pro", Role.ROUTER_HASH) == [0, 1, 2]
    assert 0 not in layers_with("deepseek-v4-pro", Role.ROUTER_BIAS)


def test_draft_layers_of_v4_attend_to_their_window_alone() -> None:
    drafted = {t.role for t in draft_tensors(ARCHITECTURES["deepseek-v4-flash"])}
    assert Role.KV in drafted and Role.COMPRESSOR_KV not in drafted


def test_only_base_models_of_v4_store_embedding_and_head_of_the_draft_layer() -> None:
    for name, owns in (("deepseek-v4-flash", False), ("deepseek-v4-flash-base", True)):
        assert (Role.DRAFT_OUTPUT in {t.role for t in draft_tensors(ARCHITECTURES[name])}) is owns


def test_dspark_is_one_block_of_three_stages() -> None:
    drafted = draft_tensors(ARCHITECTURES["deepseek-v4-flash-dspark"])
    assert {t.layer for t in drafted} == {43, 44, 45}
    assert [t.layer for t in drafted if t.role is Role.DRAFT_MAIN_PROJECTION] == [43]
    assert [t.layer for t in drafted if t.role is Role.DRAFT_MARKOV_OUTPUT] == [45]


def test_four_layers_of_v4_1_own_the_caches_that_all_read() -> None:
    name = "deepseek-v4.1-flash"
    attention = ARCHITECTURES[name].attention
    assert isinstance(attention, CompressedAttention) and attention.shares_caches
    assert layers_with(name, Role.COMPRESSOR_KV) == [2, 8, 14, 20]
    assert layers_with(name, Role.INDEXER_K) == [2, 8, 14, 20]
    assert layers_with(name, Role.INDEXER_Q) == [2, 8, 14, 20, 24, 28, 32, 36]
    assert layers_with(name, Role.COMPRESSOR_GATE) == [2, 8, 14]
    assert layers_with(name, Role.ENGRAM_TABLE) == [1, 14]


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_groups_of_equal_layers_are_a_partition_of_all(name: str) -> None:
    arch = ARCHITECTURES[name]
    groups = layer_groups(arch)
    assert sorted(layer for layers in groups.values() for layer in layers) == list(range(arch.layers))
    for first, layers in groups.items():
        sizes = [t.parameters for t in layer_tensors(arch, first)]
        assert all([t.parameters for t in layer_tensors(arch, layer)] == sizes for layer in layers)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_layers_and_what_belongs_to_none_are_the_whole_model(name: str) -> None:
    arch = ARCHITECTURES[name]
    counted = sum(
        len(layers) * sum(t.parameters for t in layer_tensors(arch, first))
        for first, layers in layer_groups(arch).items()
    ) + sum(t.parameters for t in outer_tensors(arch))
    assert counted == sum(t.parameters for t in main_tensors(arch))


def test_every_role_has_a_cut_and_what_latent_attention_shares_is_repeated() -> None:
    assert set(CUTS) == set(Role)
    for role in (Role.Q_A, Role.KV_A, Role.ROUTER, Role.INDEXER_Q, Role.COMPRESSOR_KV, Role.ATTENTION_NORM):
        assert CUTS[role] is Cut.REPEATED


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_whatever_is_cut_by_columns_or_experts_is_a_matrix(name: str) -> None:
    for tensor in main_tensors(ARCHITECTURES[name]):
        if CUTS[tensor.role] in (Cut.COLUMNS, Cut.EXPERTS, Cut.VOCABULARY, Cut.TABLE):
            assert len(tensor.shape) == 2
