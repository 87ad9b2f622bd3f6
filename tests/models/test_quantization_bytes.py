"""Bytes of checkpoints: hub listings for safetensors, real files and llama-quantize's own rules for GGUF."""

from __future__ import annotations

import pytest

from exporter.models.architecture import Architecture, Role, Tensor
from exporter.models.catalog import catalog
from exporter.models.gguf import gguf_tables, row_bytes, tensor_type, type_bytes
from exporter.models.quantization import (
    Container,
    checkpoint_bytes,
    elements_by_type,
    fp8_scales,
    store_safetensors,
    stored_tensors,
    total_bytes,
)


def architecture(name: str) -> Architecture:
    return catalog().resolve(name).architecture


V3 = architecture("deepseek-ai/DeepSeek-V3")


def test_deepseek_v3_elements_per_type_equal_the_hub_listing() -> None:
    assert elements_by_type(V3, "fp8", Container.SAFETENSORS) == {
        "bf16": 3_918_786_560,
        "fp8": 680_571_043_840,
        "f32": 41_555_600,
    }


def test_deepseek_v3_checkpoint_is_the_published_files_without_their_headers() -> None:
    headers = 688_586_727_753 - checkpoint_bytes(V3, "fp8", Container.SAFETENSORS)
    assert headers == 11_888_393


def test_an_fp8_shard_counts_its_own_partial_blocks() -> None:
    assert fp8_scales(Tensor(Role.KV_A, 0, (576, 7168))) == 5 * 56
    assert store_safetensors(Tensor(Role.KV_A, 0, (576, 7168)), "fp8").bytes == 576 * 7168 + 4 * 5 * 56


@pytest.mark.parametrize("role", [Role.EMBEDDING, Role.OUTPUT, Role.ROUTER, Role.DRAFT_PROJECTION])
def test_fp8_checkpoints_keep_some_matrices_at_16_bits(role: Role) -> None:
    assert store_safetensors(Tensor(role, None, (256, 128)), "fp8").type == "bf16"


def test_the_routers_correction_bias_is_always_f32() -> None:
    for quantization in ("fp8", "bf16"):
        assert store_safetensors(Tensor(Role.ROUTER_BIAS, 3, (256,)), quantization).bytes == 1024


# Tensor bytes of llama-quant.cpp's rules run over every tensor, computed independently of this package.
GGUF_TENSOR_BYTES = {
    "deepseek-ai/DeepSeek-V3": {
        "BF16": 1_342_267_742_208,
        "Q8_0": 713_281_210_368,
        "Q6_K": 550_916_951_552,
        "Q5_K_M": 475_423_236_096,
        "Q4_K_M": 404_488_847_360,
        "Q4_0": 378_060_636_160,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": {"Q4_K_M": 1_111_370_240, "Q8_0": 1_888_581_632},
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": {
        "BF16": 15_231_899_648,
        "Q8_0": 8_092_571_648,
        "Q5_K_M": 5_438_877_696,
        "Q4_K_M": 4_677_120_000,
        "Q4_0": 4_425_437_184,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": {"Q4_K_M": 8_982_142_976},
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": {"Q4_K_M": 19_845_357_568, "Q6_K": 26_880_176_128},
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": {"Q4_K_M": 4_912_898_048},
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B": {
        "BF16": 141_110_050_816,
        "Q8_0": 74_967_187_456,
        "Q5_K_M": 49_941_954_560,
        "Q4_K_M": 42_512_531_456,
    },
    "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B": {"Q4_K_M": 5_021_827_072},
}


@pytest.mark.parametrize(
    ("model", "recipe", "size_bytes"),
    [(m, recipe, size) for m, recipes in GGUF_TENSOR_BYTES.items() for recipe, size in recipes.items()],
)
def test_gguf_tensor_bytes_follow_the_quantizers_rules(model: str, recipe: str, size_bytes: int) -> None:
    assert total_bytes(architecture(model), recipe, Container.GGUF) == size_bytes


# Ollama library blobs: tensors plus header and vocabulary.
@pytest.mark.parametrize(
    ("model", "file_bytes"),
    [
        ("deepseek-ai/DeepSeek-R1", 404_430_188_519),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1_117_320_512),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 4_683_073_184),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", 8_988_109_952),
    ],
)
def test_q4_k_m_files_of_the_ollama_library_agree(model: str, file_bytes: int) -> None:
    metadata_bytes = 6_000_000
    tensors = total_bytes(architecture(model), "Q4_K_M", Container.GGUF)
    assert tensors + metadata_bytes == pytest.approx(file_bytes, rel=0.001)


@pytest.mark.parametrize(
    ("name", "bits_per_weight"),
    [("F32", 32), ("BF16", 16), ("Q8_0", 8.5), ("Q6_K", 6.5625), ("Q5_K", 5.5), ("Q5_1", 6), ("Q5_0", 5.5),
     ("Q4_K", 4.5), ("Q4_1", 5), ("Q4_0", 4.5), ("IQ4_NL", 4.5)],
)  # fmt: skip
def test_block_types_have_the_width_of_their_structs(name: str, bits_per_weight: float) -> None:
    block = gguf_tables().types[name]
    assert block.block_bytes * 8 / block.block_elements == bits_per_weight


def types_of(model: str, recipe: str, role: Role) -> dict[int | None, str]:
    stored = stored_tensors(architecture(model), recipe, Container.GGUF)
    return {s.tensor.layer: s.type for s in stored if s.tensor.role is role}


def test_q4_k_m_gives_more_bits_to_first_last_and_every_third_layer() -> None:
    types = types_of("deepseek-ai/DeepSeek-V3", "Q4_K_M", Role.EXPERTS_DOWN)
    more = [layer for layer, kind in types.items() if kind == "Q6_K"]
    assert more == [3, 4, 5, 6, *range(9, 52, 3), *range(53, 61)]
    assert set(types.values()) == {"Q4_K", "Q6_K"}


def test_rows_that_hold_no_whole_block_fall_back_to_a_smaller_one() -> None:
    assert set(types_of("deepseek-ai/DeepSeek-V3", "Q4_K_M", Role.K_B).values()) == {"Q5_0"}
    assert set(types_of("deepseek-ai/DeepSeek-V3", "Q4_K_M", Role.V_B).values()) == {"Q4_K"}


def test_norms_biases_and_router_stay_f32_in_a_gguf() -> None:
    for recipe in ("Q4_K_M", "BF16"):
        for role in (Role.ATTENTION_NORM, Role.ROUTER, Role.ROUTER_BIAS):
            assert set(types_of("deepseek-ai/DeepSeek-V3", recipe, role).values()) == {"F32"}


def test_a_70b_gives_its_value_projection_one_more_bit() -> None:
    types = types_of("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "Q4_K_M", Role.V)
    assert set(types.values()) == {"Q5_K", "Q6_K"}


def test_a_width_that_fits_no_block_at_all_becomes_16_bit() -> None:
    odd = Tensor(Role.FFN_UP, 0, (64, 100))
    assert tensor_type(odd, "Q4_K_M", V3) == "F16"
    assert type_bytes("F16", odd) == 2 * 64 * 100


def test_a_row_is_whole_blocks() -> None:
    assert row_bytes("Q8_0", 576) == 612
    with pytest.raises(ValueError, match="multiple"):
        row_bytes("Q8_0", 100)


def test_an_unknown_quantization_is_not_answered() -> None:
    with pytest.raises(KeyError):
        total_bytes(V3, "int3", Container.SAFETENSORS)
    with pytest.raises(KeyError):
        total_bytes(V3, "Q3_X", Container.GGUF)
