"""llama-quantize's mixed recipes: which tensor gets which type, and files that people published."""

from __future__ import annotations

from collections import Counter

import pytest

from exporter.models.architecture import Architecture, Role
from exporter.models.catalog import catalog
from exporter.models.gguf import GgufLayout, gguf_name, gguf_tables
from exporter.models.quantization import Container, stored_tensors, total_bytes

GIB = 2**30


def architecture(name: str) -> Architecture:
    return catalog().resolve(f"deepseek-ai/{name}").architecture


V3 = architecture("DeepSeek-V3")
QWEN_7B = architecture("DeepSeek-R1-Distill-Qwen-7B")


def types_of(
    arch: Architecture, recipe: str, role: Role, layout: GgufLayout = GgufLayout.SPLIT
) -> dict[int | None, str]:
    stored = stored_tensors(arch, recipe, Container.GGUF, layout=layout)
    return {s.tensor.layer: s.type for s in stored if s.tensor.role is role}


# Files as publishers list them; the rounding of the source is the tolerance.
@pytest.mark.parametrize(
    ("name", "recipe", "size_gib", "tolerance"),
    [
        ("DeepSeek-R1", "Q8_0", 664.295, 1e-4),  # ikawrakow/ik_llama.cpp#285
        ("DeepSeek-R1", "Q4_K_M", 377.0, 2e-3),  # kvcache-ai/ktransformers doc/en/install.md
        ("DeepSeek-R1", "Q2_K", 227.689, 2e-3),  # ikawrakow/ik_llama.cpp#235, split and joint halves both
        ("DeepSeek-V2", "Q4_K_M", 133.0, 4e-3),  # kvcache-ai/ktransformers doc/en/install.md
        ("DeepSeek-V2.5", "IQ4_XS", 117.0, 4e-3),  # the same
        ("DeepSeek-V2-Lite", "Q4_K_M", 9.7, 6e-3),  # the same
        ("DeepSeek-Coder-V2-Lite-Instruct", "Q4_K_M", 9.649, 1e-3),  # ikawrakow/ik_llama.cpp#230
        ("DeepSeek-R1-Distill-Llama-8B", "Q4_K_M", 4.58, 2e-3),  # gpustack/gpustack#1060
        ("DeepSeek-R1", "F16", 1251.99, 2e-3),  # ikawrakow/ik_llama.cpp#242, both halves
    ],
)
def test_published_files(name: str, recipe: str, size_gib: float, tolerance: float) -> None:
    size = total_bytes(architecture(name), recipe, Container.GGUF)
    assert size / GIB == pytest.approx(size_gib, rel=tolerance)


def test_a_file_with_both_halves_of_kv_b_has_a_billion_parameters_more() -> None:
    both = stored_tensors(V3, "F16", Container.GGUF, layout=GgufLayout.BOTH)
    assert sum(s.tensor.parameters for s in both) / 1e9 == pytest.approx(672.05, abs=0.01)
    size = total_bytes(V3, "F16", Container.GGUF, layout=GgufLayout.BOTH)
    assert size == pytest.approx(1_344_314_026_230, rel=1e-4)


@pytest.mark.parametrize("recipe", ["BF16", "Q8_0"])
def test_the_joint_layout_holds_the_same_elements_as_the_split_one(recipe: str) -> None:
    sizes = {total_bytes(V3, recipe, Container.GGUF, layout=layout) for layout in ("split", "joint")}
    assert len(sizes) == 1


def test_a_joint_kv_b_counts_as_value_projection_and_the_halves_do_not() -> None:
    joint = types_of(V3, "Q4_K_M", Role.KV_B, GgufLayout.JOINT)
    assert Counter(joint.values()) == {"Q6_K": 7 + 15 + 8, "Q4_K": 31}
    assert set(types_of(V3, "Q4_K_M", Role.V_B).values()) == {"Q4_K"}
    assert not types_of(V3, "Q4_K_M", Role.KV_B)


def test_q2_k_asks_how_many_heads_share_a_key() -> None:
    assert set(types_of(QWEN_7B, "Q2_K", Role.V).values()) == {"Q4_K"}
    dense = architecture("deepseek-llm-7b-base")
    assert set(types_of(dense, "Q2_K", Role.V).values()) == {"Q3_K"}


def test_q3_k_m_starts_with_more_bits() -> None:
    down = types_of(QWEN_7B, "Q3_K_M", Role.FFN_DOWN)
    assert [down[layer] for layer in range(3)] == ["Q5_K", "Q4_K", "Q4_K"]
    values = types_of(QWEN_7B, "Q3_K_M", Role.V)
    assert [values[layer] for layer in range(4)] == ["Q5_K", "Q5_K", "Q4_K", "Q4_K"]


def test_the_middle_layers_of_iq3_xs_are_smaller() -> None:
    gates = types_of(QWEN_7B, "IQ3_XS", Role.FFN_GATE)
    assert [layer for layer, kind in gates.items() if kind == "IQ3_XXS"] == list(range(3, 24))


def test_iq2_counts_routed_and_shared_matrices_alike() -> None:
    # 61 layers: the first seven matrices are three dense ones and both of layers 3 and 4.
    experts = types_of(V3, "IQ2_XXS", Role.EXPERTS_DOWN)
    assert [layer for layer, kind in experts.items() if kind == "Q2_K"] == [3, 4]
    assert list(types_of(V3, "IQ2_XXS", Role.FFN_DOWN).values()) == ["Q2_K"] * 3


def test_expert_widths_that_are_not_whole_blocks_fall_back() -> None:
    lite = architecture("DeepSeek-V2-Lite")
    assert set(types_of(lite, "Q4_K_M", Role.EXPERTS_DOWN).values()) == {"Q5_0", "Q8_0"}
    assert set(types_of(lite, "IQ4_XS", Role.EXPERTS_DOWN).values()) == {"IQ4_NL"}


def test_mxfp4_moe_keeps_everything_but_stacked_matrices_at_8_bits() -> None:
    assert set(types_of(V3, "MXFP4_MOE", Role.EXPERTS_UP).values()) == {"MXFP4"}
    assert set(types_of(V3, "MXFP4_MOE", Role.SHARED_UP).values()) == {"Q8_0"}
    assert set(types_of(V3, "MXFP4_MOE", Role.EMBEDDING).values()) == {"Q8_0"}


def test_converted_v4_files_keep_the_published_fp4_experts() -> None:
    flash = architecture("DeepSeek-V4-Flash")
    for recipe in ("BF16", "Q8_0"):
        assert set(types_of(flash, recipe, Role.EXPERTS_UP).values()) == {"MXFP4"}
    base = architecture("DeepSeek-V4-Flash-Base")
    assert set(types_of(base, "BF16", Role.EXPERTS_UP).values()) == {"BF16"}
    assert set(types_of(flash, "BF16", Role.ROUTER_HASH).values()) == {"I32"}


def test_images_are_a_file_of_their_own() -> None:
    stored = stored_tensors(architecture("DeepSeek-OCR"), "BF16", Container.GGUF)
    assert Role.ENCODER not in {s.tensor.role for s in stored}


@pytest.mark.parametrize(
    ("name", "canonical"),
    [("q4_k_m", "Q4_K_M"), ("Q4_K", "Q4_K_M"), ("Q8_0_R8", "Q8_0"), ("Q4_0_4_4", "Q4_0"),
     ("MXFP4", "MXFP4_MOE"), ("iq4_k_r4", "IQ4_K_R4"), ("IQ4_KSS", "IQ4_KSS"), ("UD-Q2_K_XL", "UD-Q2_K_XL"),
     ("UD-IQ1_S", "UD-IQ1_S"), ("IQ1_S_R4", "IQ1_S_R4"), ("IQ2_KT", "IQ2_KT"),
     ("Q9_K", None), ("", None), ("Q4", None)],
)  # fmt: skip
def test_names_of_file_types(name: str, canonical: str | None) -> None:
    assert gguf_name(name) == canonical


@pytest.mark.parametrize("recipe", sorted(gguf_tables().recipes))
@pytest.mark.parametrize("name", ["DeepSeek-V3", "DeepSeek-R1-Distill-Qwen-1.5B", "DeepSeek-V4-Flash"])
def test_every_recipe_sizes_every_tensor(recipe: str, name: str) -> None:
    arch = architecture(name)
    stored = stored_tensors(arch, recipe, Container.GGUF)
    assert all(s.bytes > 0 and s.type in gguf_tables().types for s in stored)
    bits = 8 * total_bytes(arch, recipe, Container.GGUF) / arch.parameters
    assert 1.5 < bits <= 32.1


def test_recipes_are_ordered_by_their_names() -> None:
    sizes = [
        total_bytes(V3, recipe, Container.GGUF)
        for recipe in (
            "IQ1_S",
            "IQ1_M",
            "IQ2_XXS",
            "IQ2_XS",
            "IQ2_S",
            "IQ2_M",
            "Q2_K",
            "IQ3_XXS",
            "Q3_K_S",
            "Q3_K_M",
            "Q3_K_L",
            "IQ4_XS",
            "Q4_K_S",
            "Q4_K_M",
            "Q5_K_S",
            "Q5_K_M",
            "Q6_K",
            "Q8_0",
            "BF16",
            "F32",
        )
    ]
    assert sizes == sorted(sizes)
