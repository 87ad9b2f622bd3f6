"""The enumeration of tensors against published parameter totals: equal to the last parameter."""

from __future__ import annotations

import pytest

from exporter.models.architecture import ROUTED_EXPERTS, Architecture, Role, main_tensors
from exporter.models.catalog import architecture_rows, catalog
from exporter.models.rows import architectures

ARCHITECTURES = architectures()


def deepseek_v3() -> Architecture:
    return ARCHITECTURES["deepseek-v3"]


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_parameters_equal_the_published_total(name: str) -> None:
    assert ARCHITECTURES[name].parameters == architecture_rows()[name]["parameters"]


def test_every_architecture_row_is_used_and_names_its_sources() -> None:
    rows = architecture_rows()
    assert set(rows) == {model.architecture_name for model in catalog().models}
    assert all(row["sources"] for row in rows.values())


def test_deepseek_v3_main_model_has_671_billion_parameters() -> None:
    assert deepseek_v3().parameters == 671_026_419_200


def test_deepseek_v3_stores_a_draft_layer_with_copies_of_embedding_and_head() -> None:
    assert deepseek_v3().draft_parameters == 13_463_426_304


def test_deepseek_v3_activates_37_billion_parameters_per_token() -> None:
    assert deepseek_v3().active_parameters == 37_552_297_472


def test_routed_experts_are_97_percent_of_deepseek_v3() -> None:
    routed = sum(t.parameters for t in main_tensors(deepseek_v3()) if t.role in ROUTED_EXPERTS)
    assert routed == 653_908_770_816


def test_the_first_three_layers_of_deepseek_v3_are_dense() -> None:
    with_experts = {t.layer for t in main_tensors(deepseek_v3()) if t.role is Role.ROUTER}
    assert with_experts == set(range(3, 61))
    assert [layer for layer in range(61) if deepseek_v3().is_dense(layer)] == [0, 1, 2]


def test_the_1_5b_distillation_keeps_a_head_of_its_own() -> None:
    roles = {t.role for t in main_tensors(ARCHITECTURES["r1-distill-qwen-1.5b"])}
    assert Role.OUTPUT in roles


def test_a_dense_model_activates_every_parameter() -> None:
    qwen = ARCHITECTURES["r1-distill-qwen-7b"]
    assert qwen.active_parameters == qwen.parameters == 7_615_616_512
