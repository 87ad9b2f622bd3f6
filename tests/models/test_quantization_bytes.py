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
    "deepseek-ai/deepseek-llm-7b-base": {
        "BF16": 13_821_231_104,
        "Q8_0": 7_342_997_504,
        "Q6_K": 5_669_453_824,
        "Q5_K_M": 4_922_441_728,
        "Q4_K_M": 4_219_371_520,
        "Q4_K_S": 4_021_370_880,
        "Q4_0": 3_996_073_984,
        "Q3_K_M": 3_457_204_224,
        "Q2_K": 2_714_435_584,
    },
    "deepseek-ai/deepseek-llm-67b-base": {
        "BF16": 134_853_132_288,
        "Q8_0": 71_643_660_288,
        "Q6_K": 55_314_546_688,
        "Q5_K_M": 47_649_456_128,
        "Q4_K_M": 40_435_253_248,
        "Q4_K_S": 38_400_393_216,
        "Q4_0": 38_148_210_688,
        "Q3_K_M": 32_647_905_280,
        "Q2_K": 25_116_868_608,
    },
    "deepseek-ai/deepseek-coder-1.3b-base": {
        "BF16": 2_693_144_576,
        "Q8_0": 1_430_921_216,
        "Q6_K": 1_170_366_464,
        "Q5_K_M": 1_000_669_184,
        "Q4_K_M": 872_284_160,
        "Q4_K_S": 812_793_856,
        "Q4_0": 774_766_592,
        "Q3_K_M": 702_963_712,
        "Q2_K": 558_546_944,
    },
    "deepseek-ai/deepseek-coder-6.7b-base": {
        "BF16": 13_481_558_016,
        "Q8_0": 7_162_576_896,
        "Q6_K": 5_530_173_440,
        "Q5_K_M": 4_783_996_928,
        "Q4_K_M": 4_081_713_152,
        "Q4_K_S": 3_857_448_960,
        "Q4_0": 3_826_515_968,
        "Q3_K_M": 3_298_574_336,
        "Q2_K": 2_533_326_848,
    },
    "deepseek-ai/deepseek-coder-33b-base": {
        "BF16": 66_687_774_720,
        "Q8_0": 35_429_560_320,
        "Q6_K": 27_354_521_600,
        "Q5_K_M": 23_534_579_712,
        "Q4_K_M": 19_939_340_288,
        "Q4_K_S": 18_942_214_144,
        "Q4_0": 18_818_121_728,
        "Q3_K_M": 16_090_812_416,
        "Q2_K": 12_354_564_096,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": {
        "BF16": 3_554_465_792,
        "Q8_0": 1_888_581_632,
        "Q6_K": 1_458_228_224,
        "Q5_K_M": 1_279_543_808,
        "Q4_K_M": 1_111_370_240,
        "Q4_K_S": 1_065_634_304,
        "Q4_0": 1_060_276_736,
        "Q3_K_M": 918_505_472,
        "Q2_K": 746_929_664,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": {
        "BF16": 15_231_899_648,
        "Q8_0": 8_092_571_648,
        "Q6_K": 6_248_245_248,
        "Q5_K_M": 5_438_877_696,
        "Q4_K_M": 4_677_120_000,
        "Q4_K_S": 4_451_815_424,
        "Q4_0": 4_425_437_184,
        "Q3_K_M": 3_802_437_632,
        "Q2_K": 3_009_986_560,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": {
        "BF16": 29_541_748_736,
        "Q8_0": 15_695_630_336,
        "Q6_K": 12_118_716_416,
        "Q5_K_M": 10_502_905_856,
        "Q4_K_M": 8_982_142_976,
        "Q4_K_S": 8_567_463_936,
        "Q4_0": 8_511_758_336,
        "Q3_K_M": 7_333_236_736,
        "Q2_K": 5_764_530_176,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": {
        "BF16": 65_529_991_168,
        "Q8_0": 34_814_906_368,
        "Q6_K": 26_880_176_128,
        "Q5_K_M": 23_256_178_688,
        "Q4_K_M": 19_845_357_568,
        "Q4_K_S": 18_778_431_488,
        "Q4_0": 18_634_252_288,
        "Q3_K_M": 15_929_069_568,
        "Q2_K": 12_307_120_128,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": {
        "BF16": 16_061_054_976,
        "Q8_0": 8_532_934_656,
        "Q6_K": 6_588_170_240,
        "Q5_K_M": 5_725_151_232,
        "Q4_K_M": 4_912_898_048,
        "Q4_K_S": 4_684_832_768,
        "Q4_0": 4_653_375_488,
        "Q3_K_M": 4_011_081_728,
        "Q2_K": 3_171_295_232,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B": {
        "BF16": 141_110_050_816,
        "Q8_0": 74_967_187_456,
        "Q6_K": 57_880_281_088,
        "Q5_K_M": 49_941_954_560,
        "Q4_K_M": 42_512_531_456,
        "Q4_K_S": 40_339_357_696,
        "Q4_0": 39_961_870_336,
        "Q3_K_M": 34_259_632_128,
        "Q2_K": 26_367_246_336,
    },
    "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B": {
        "BF16": 16_382_087_168,
        "Q8_0": 8_703_561_728,
        "Q6_K": 6_719_942_656,
        "Q5_K_M": 5_845_155_840,
        "Q4_K_M": 5_021_827_072,
        "Q4_K_S": 4_796_055_552,
        "Q4_0": 4_768_792_576,
        "Q3_K_M": 4_118_204_416,
        "Q2_K": 3_275_776_000,
    },
    "deepseek-ai/DeepSeek-V2-Lite": {
        "BF16": 31_420_037_120,
        "Q8_0": 16_698_521_600,
        "Q6_K": 14_069_832_704,
        "Q5_K_M": 11_849_086_976,
        "Q4_K_M": 10_363_959_296,
        "Q4_K_S": 9_533_151_232,
        "Q4_0": 8_901_113_856,
        "Q3_K_M": 8_126_370_816,
        "Q2_K": 6_433_103_872,
    },
    "deepseek-ai/DeepSeek-V2": {
        "BF16": 471_581_020_160,
        "Q8_0": 250_619_432_960,
        "Q6_K": 193_659_586_560,
        "Q5_K_M": 167_251_210_240,
        "Q4_K_M": 142_512_844_800,
        "Q4_K_S": 133_934_714_880,
        "Q4_0": 132_908_421_120,
        "Q3_K_M": 112_728_340_480,
        "Q2_K": 86_060_605_440,
    },
    "deepseek-ai/DeepSeek-V3": {
        "BF16": 1_342_267_742_208,
        "Q8_0": 713_281_210_368,
        "Q6_K": 550_916_951_552,
        "Q5_K_M": 475_423_236_096,
        "Q4_K_M": 404_488_847_360,
        "Q4_K_S": 380_060_532_736,
        "Q4_0": 378_060_636_160,
        "Q3_K_M": 319_261_053_440,
        "Q2_K": 244_142_971_904,
    },
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
     ("Q4_K", 4.5), ("Q4_1", 5), ("Q4_0", 4.5), ("Q3_K", 3.4375), ("Q2_K", 2.625), ("IQ4_NL", 4.5),
     ("IQ4_XS", 4.25), ("IQ3_S", 3.4375), ("IQ3_XXS", 3.0625), ("IQ2_S", 2.5625), ("IQ2_XS", 2.3125),
     ("IQ2_XXS", 2.0625), ("IQ1_M", 1.75), ("IQ1_S", 1.5625), ("TQ1_0", 1.6875), ("TQ2_0", 2.0625),
     ("MXFP4", 4.25), ("NVFP4", 4.5), ("Q1_0", 1.125), ("Q2_0", 2.25)],
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
