"""Weights per rank: the published layouts of DeepSeek-V3, and what cutting must conserve."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.footprint.deployment import FootprintError
from exporter.footprint.weights import Layout, Stage, check_layout, draft_weights, rank_weights
from exporter.models.blocks import GroupedQueryAttention, LatentAttention
from exporter.models.catalog import catalog
from exporter.models.quantization import Container, total_bytes
from exporter.units import GIB

ARCHITECTURES = {model.architecture.name: model.architecture for model in catalog().models}
V3 = ARCHITECTURES["deepseek-v3"]
LLAMA_70B = ARCHITECTURES["r1-distill-llama-70b"]
WHOLE = Stage(0, 61, 61)
REPEATED = {"norms", "attention_repeated", "router"}


def tensor_parallel(parts: int) -> Layout:
    return Layout(parts, parts, parts, parts, parts)


def expert_parallel(replicas: int) -> Layout:
    return Layout(experts=replicas, whole_experts=True)


# GiB per GPU of V3 or R1 in FP8 on vLLM: total, then by group, then total with the draft layer.
TABLE = {
    "TP8": (tensor_parallel(8), 79.53, [76.14, 0.86, 1.22, 0.24, 0.20, 0.30, 0.14, 0.43], 81.08),
    "TP16": (tensor_parallel(16), 40.30, [38.07, 0.86, 0.61, 0.12, 0.20, 0.15, 0.07, 0.22], 41.18),
    "TP1 DP8 EP": (expert_parallel(8), 95.82, [76.14, 0.86, 9.77, 1.91, 0.20, 2.38, 1.11, 3.45], 97.58),
    "TP1 DP16 EP": (expert_parallel(16), 57.75, [38.07, 0.86, 9.77, 1.91, 0.20, 2.38, 1.11, 3.45], 58.85),
}
GROUPS = (
    "experts",
    "attention_repeated",
    "attention",
    "absorbed",
    "router",
    "shared_experts",
    "dense",
    "vocabulary",
)


@pytest.mark.parametrize("name", TABLE)
def test_deepseek_v3_fp8_per_gpu(name: str) -> None:
    layout, total, columns, with_draft = TABLE[name]
    groups = rank_weights(V3, "fp8", layout, WHOLE)
    assert [round(groups[group] / GIB, 2) for group in GROUPS] == columns
    assert round(sum(groups.values()) / GIB, 2) == total
    drafts = draft_weights(V3, "fp8", layout)
    assert round((sum(groups.values()) + drafts) / GIB, 2) == with_draft


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_one_rank_holds_the_whole_model_and_the_absorbed_copies(name: str) -> None:
    architecture = ARCHITECTURES[name]
    groups = dict(
        rank_weights(
            architecture, "bf16", Layout(table=1), Stage(0, architecture.layers, architecture.layers)
        )
    )
    absorbed = groups.pop("absorbed", 0)
    assert sum(groups.values()) == total_bytes(architecture, "bf16", Container.SAFETENSORS)
    assert (absorbed > 0) == isinstance(architecture.attention, LatentAttention)


@pytest.mark.parametrize("quantization", ["fp8", "bf16"])
@pytest.mark.parametrize("parts", [2, 4, 8, 16])
def test_ranks_sum_to_the_whole_plus_what_every_rank_repeats(parts: int, quantization: str) -> None:
    whole = rank_weights(V3, quantization, Layout(), WHOLE)
    rank = rank_weights(V3, quantization, tensor_parallel(parts), WHOLE)
    for group, size in whole.items():
        assert rank[group] == size if group in REPEATED else rank[group] * parts == size


@given(st.integers(1, 61))
def test_stages_sum_to_the_whole_model(cut: int) -> None:
    whole = sum(rank_weights(V3, "fp8", tensor_parallel(8), WHOLE).values())
    first = rank_weights(V3, "fp8", tensor_parallel(8), Stage(0, cut, 61))
    parts = sum(first.values())
    if cut < 61:
        parts += sum(rank_weights(V3, "fp8", tensor_parallel(8), Stage(cut, 61, 61)).values())
    assert parts == whole


def test_key_and_value_heads_are_repeated_where_there_are_more_ranks_than_heads() -> None:
    attention = LLAMA_70B.attention
    assert isinstance(attention, GroupedQueryAttention)
    stage = Stage(0, 80, 80)
    at_8 = rank_weights(LLAMA_70B, "bf16", tensor_parallel(8), stage)["attention"]
    at_16 = rank_weights(LLAMA_70B, "bf16", tensor_parallel(16), stage)["attention"]
    one_kv_head = 80 * 2 * 2 * attention.head_dim * LLAMA_70B.hidden
    assert at_16 == (at_8 - one_kv_head) // 2 + one_kv_head


def test_only_the_first_stage_has_the_embedding_and_the_last_the_head() -> None:
    layout = tensor_parallel(1)
    head = 2 * 129_280 * 7168
    assert rank_weights(V3, "fp8", layout, Stage(0, 30, 61))["vocabulary"] == head
    assert "vocabulary" not in rank_weights(V3, "fp8", layout, Stage(30, 45, 61))
    assert rank_weights(V3, "fp8", layout, Stage(45, 61, 61))["vocabulary"] == head


@pytest.mark.parametrize(
    ("layout", "field"),
    [(tensor_parallel(7), "tp"), (tensor_parallel(32), "tp"), (expert_parallel(7), "ep")],
    ids=["heads", "fp8 blocks", "experts"],
)
def test_cuts_that_the_engine_refuses_are_refused_by_name(layout: Layout, field: str) -> None:
    with pytest.raises(FootprintError, match=field):
        check_layout(V3, layout)
        rank_weights(V3, "fp8", layout, WHOLE)


def test_tensor_parallelism_must_divide_the_key_value_heads_or_the_other_way_round() -> None:
    check_layout(LLAMA_70B, tensor_parallel(16))
    with pytest.raises(FootprintError, match="key-value heads"):
        check_layout(ARCHITECTURES["r1-distill-qwen-7b"], tensor_parallel(14))
