"""Formats of safetensors checkpoints: bits of a weight, scales, and what each convention leaves wide."""

from __future__ import annotations

import pytest

from exporter.models.architecture import Architecture
from exporter.models.catalog import catalog
from exporter.models.quantization import Container, checkpoint_bytes, stored_tensors, total_bytes
from exporter.models.roles import Role, Tensor
from exporter.models.safetensors import (
    convention,
    has_convention,
    safetensors_quantizations,
    store_safetensors,
)


def architecture(name: str) -> Architecture:
    return catalog().resolve(f"deepseek-ai/{name}").architecture


V3 = architecture("DeepSeek-V3")
MATRIX = Tensor(Role.FFN_UP, 0, (7168, 2048))


def types_of(arch: Architecture, quantization: str, *wanted: Role) -> set[str]:
    stored = stored_tensors(arch, quantization, Container.SAFETENSORS)
    return {s.type for s in stored if s.tensor.role in wanted}


# Vendor documents of each format: bits per weight of a matrix with 2,048 columns.
@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ("bf16", 16),
        ("fp8", 8 + 32 / 16384),
        ("mxfp8", 8.25),
        ("mxfp4", 4.25),
        ("awq", 4.15625),
        ("gptq", 4.15625),
        ("awq_g64", 4.3125),
        ("awq_g32", 4.625),
        ("gptq_int8", 8.1875),
        ("w8a8", 8 + 32 / 2048),
        ("fp8_channel", 8 + 32 / 2048),
        ("nf4", 4.5),
        ("nf4_double", 4.127),
        ("int8_block", 8 + 32 / 16384),
    ],
)
def test_bits_per_weight(quantization: str, bits: float) -> None:
    stored = store_safetensors(MATRIX, quantization)
    assert 8 * stored.bytes / MATRIX.parameters == pytest.approx(bits, abs=1e-4)


@pytest.mark.parametrize(("quantization", "bits"), [("nvfp4", 4.5), ("w4a16", 4.125), ("fp8_tensor", 8.0)])
def test_bits_per_weight_beside_what_a_tensor_has_once(quantization: str, bits: float) -> None:
    stored = store_safetensors(MATRIX, quantization)
    assert stored.bytes - MATRIX.parameters * bits / 8 in (4, 8, 16)


@pytest.mark.parametrize("quantization", safetensors_quantizations())
def test_embedding_head_norms_and_router_are_never_quantized(quantization: str) -> None:
    wide = convention(quantization).wide.type
    assert types_of(V3, quantization, Role.EMBEDDING, Role.OUTPUT, Role.ROUTER, Role.FFN_NORM) == {wide}
    assert types_of(V3, quantization, Role.ROUTER_BIAS) == {"f32"}


def test_nvidias_first_fp4_checkpoints_leave_attention_wide_and_later_ones_quantize_its_output() -> None:
    for quantization, output in (("nvfp4", "bf16"), ("nvfp4_wo", "fp4")):
        assert types_of(V3, quantization, Role.ATTENTION_OUTPUT) == {output}
        assert types_of(V3, quantization, Role.Q_A, Role.Q_B, Role.KV_A, Role.KV_B) == {"bf16"}
        assert types_of(V3, quantization, Role.EXPERTS_UP, Role.SHARED_UP, Role.FFN_UP) == {"fp4"}


def test_v4_as_published_has_fp4_experts_and_fp8_blocks_with_byte_scales() -> None:
    flash = architecture("DeepSeek-V4-Flash")
    assert types_of(flash, "mxfp4_fp8", Role.EXPERTS_DOWN) == {"fp4"}
    assert types_of(flash, "mxfp4_fp8", Role.OUTPUT_A, Role.SHARED_UP, Role.INDEXER_Q) == {"fp8"}
    assert types_of(flash, "mxfp4_fp8", Role.COMPRESSOR_KV, Role.INDEXER_PROJECTION) == {"bf16"}
    assert types_of(flash, "mxfp4_fp8", Role.SINKS, Role.HYPER_FFN, Role.COMPRESSOR_POSITION) == {"f32"}
    assert types_of(flash, "mxfp4_fp8", Role.ROUTER_HASH) == {"i64"}


def test_experts_alone_are_quantized_by_experts_int8() -> None:
    assert types_of(V3, "experts_int8", Role.EXPERTS_UP) == {"int8"}
    assert types_of(V3, "experts_int8", Role.SHARED_UP, Role.Q_B) == {"bf16"}


def test_quantizers_that_load_with_transformers_leave_draft_layers_out() -> None:
    for quantization, has_drafts in (("fp8", True), ("awq", False), ("nvfp4", True), ("w4a16", False)):
        more = checkpoint_bytes(V3, quantization, Container.SAFETENSORS) - total_bytes(
            V3, quantization, Container.SAFETENSORS
        )
        assert (more > 0) is has_drafts


def test_draft_layers_of_an_nvfp4_checkpoint_stay_wide() -> None:
    stored = stored_tensors(V3, "nvfp4", Container.SAFETENSORS, drafts=True)
    assert {s.type for s in stored} == {"bf16", "f32"}


@pytest.mark.parametrize("name", ["fp8_g64", "awq_g4", "awq_g4096", "awq_g", "int3", "", "AWQ"])
def test_what_no_convention_knows_is_refused(name: str) -> None:
    assert not has_convention(name)
    with pytest.raises(KeyError):
        convention(name)


def test_a_group_of_128_is_what_a_convention_means_without_a_number() -> None:
    assert convention("awq_g128") == convention("awq")


def test_the_forms_of_a_native_checkpoint_follow_its_model() -> None:
    known = catalog()
    expected = {
        ("DeepSeek-V4-Flash", "fp8"): "mxfp4_fp8",
        ("DeepSeek-V4.1-Flash", "mxfp8"): "mxfp4_mxfp8",
        ("DeepSeek-V4-Flash-Base", "fp8"): "fp8",
        ("DeepSeek-V4-Pro", "nvfp4"): "nvfp4_fp8",
        ("DeepSeek-V3.1", "nvfp4"): "nvfp4_wo",
        ("DeepSeek-R1", "nvfp4"): "nvfp4",
        ("DeepSeek-R1-Distill-Qwen-7B", "fp8"): "fp8_tensor",
        ("DeepSeek-R1-Distill-Qwen-7B", "auto"): "bf16",
    }
    for (name, spelling), canonical in expected.items():
        assert known.quantization(known.resolve(f"deepseek-ai/{name}"), spelling) == canonical
