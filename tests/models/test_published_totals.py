"""Totals of checkpoints against what the hub lists and what the releases say: elements per type, payloads."""

from __future__ import annotations

import pytest

from exporter.models.architecture import Architecture
from exporter.models.catalog import catalog
from exporter.models.quantization import (
    Container,
    checkpoint_bytes,
    elements_by_type,
    file_bytes,
    tensor_count,
    total_bytes,
)
from exporter.models.rows import Model, numbers

NOT_LISTED = "e8m0"
"""The hub's listing leaves out one-byte scales."""


def model(name: str) -> Model:
    return catalog().resolve(f"deepseek-ai/{name}")


def architecture(name: str) -> Architecture:
    return model(name).architecture


def listed(name: str) -> dict[str, int]:
    found = model(name)
    elements = elements_by_type(found.architecture, found.native_quantization, Container.SAFETENSORS)
    return {kind: count for kind, count in elements.items() if kind != NOT_LISTED}


# Totals of the hub's listing (safetensors metadata), draft layers, scales and routing tables included.
@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("deepseek-moe-16b-base", 16_375_728_128),
        ("DeepSeek-V2-Lite", 15_706_484_224),
        ("DeepSeek-V2", 235_741_434_880),
        ("DeepSeek-V3", 684_531_386_000),
        ("DeepSeek-V3.2", 685_396_921_376),
        ("DeepSeek-V4-Flash", 290_944_616_402),
        ("DeepSeek-V4-Pro", 1_598_839_674_782),
        ("DeepSeek-V4-Flash-0731", 304_180_418_494),
        ("DeepSeek-V4-Pro-0813", 1_650_497_936_906),
        ("DeepSeek-V4-Flash-Base", 292_021_347_282),
        ("DeepSeek-V4.1-Flash", 763_205_315_794),
        ("DeepSeek-OCR", 3_336_106_240),
    ],
)
def test_elements_equal_the_hub_listing(name: str, total: int) -> None:
    assert sum(listed(name).values()) == total


@pytest.mark.parametrize(
    ("name", "elements"),
    [
        ("DeepSeek-V3", {"bf16": 3_918_786_560, "fp8": 680_571_043_840, "f32": 41_555_600}),
        (
            "DeepSeek-V4.1-Flash",
            {"bf16": 1_976_441_856, "f32": 42_307_282, "fp8": 204_015_223_296, "fp4": 557_171_343_360},
        ),
    ],
)
def test_elements_per_type_equal_the_hub_listing(name: str, elements: dict[str, int]) -> None:
    assert listed(name) == elements


def test_v3_2_without_scales_is_the_other_total_that_is_listed() -> None:
    arch = architecture("DeepSeek-V3.2")
    assert arch.parameters + arch.draft_parameters == 685_355_329_792


# index.json total_size of the releases; V3 and V4.1 from their listed elements.
@pytest.mark.parametrize(
    ("name", "payload_bytes"),
    [
        ("DeepSeek-V3", 688_574_839_360),
        ("DeepSeek-V3.2", 689_468_986_496),
        ("DeepSeek-V4-Flash", 159_609_485_896),
        ("DeepSeek-V4-Pro", 864_704_792_696),
        ("DeepSeek-V4-Flash-0731", 166_878_536_440),
        ("DeepSeek-V4-Pro-0813", 892_727_580_904),
        ("DeepSeek-V4-Flash-Base", 294_673_469_000),
        ("DeepSeek-V4.1-Flash", 510_286_023_000),
    ],
)
def test_payload_of_the_published_checkpoint(name: str, payload_bytes: int) -> None:
    found = model(name)
    assert checkpoint_bytes(found.architecture, found.native_quantization, Container.SAFETENSORS) == (
        payload_bytes
    )


# Sums of the weight files, or of the repositories (21 to 35 MB of tokenizer and headers among them).
@pytest.mark.parametrize(
    ("name", "files_bytes", "tolerance"),
    [
        ("DeepSeek-V3", 688_586_727_753, 1e-6),
        ("DeepSeek-V4-Flash", 159_630_041_626, 2e-4),
        ("DeepSeek-V4-Pro", 864_739_856_856, 1e-4),
        ("DeepSeek-V4-Flash-Base", 294_692_678_949, 1e-4),
        ("DeepSeek-V4.1-Flash", 510_296_708_312, 1e-5),
        ("DeepSeek-OCR", 6_684_381_812, 3e-3),
    ],
)
def test_files_are_payload_and_headers(name: str, files_bytes: int, tolerance: float) -> None:
    found = model(name)
    size = file_bytes(found.architecture, found.native_quantization, Container.SAFETENSORS)
    assert size == pytest.approx(files_bytes, rel=tolerance)


def test_deepseek_v3_has_91_991_tensors_in_its_files() -> None:
    assert tensor_count(architecture("DeepSeek-V3"), "fp8") == 91_991


# transformers 5.23 skeletons of the same configs, buffers added; active ones as the cards count them.
@pytest.mark.parametrize(
    ("name", "parameters", "active"),
    [
        ("deepseek-llm-7b-base", 6_910_365_696, 6_910_365_696),
        ("deepseek-llm-67b-base", 67_425_001_472, 67_425_001_472),
        ("deepseek-coder-1.3b-base", 1_346_471_936, 1_346_471_936),
        ("deepseek-coder-6.7b-base", 6_740_512_768, 6_740_512_768),
        ("deepseek-coder-33b-base", 33_342_991_360, 33_342_991_360),
        ("deepseek-moe-16b-base", 16_375_728_128, 2_828_650_496),
        ("DeepSeek-V2-Lite", 15_706_484_224, 2_661_150_208),
        ("DeepSeek-V2", 235_741_434_880, 21_375_800_320),
        ("DeepSeek-V3.2", 671_877_944_064, 38_403_822_336),
        ("DeepSeek-V4-Flash", 284_332_240_471, 13_799_632_471),
        ("DeepSeek-V4-Pro", 1_572_997_201_763, 49_779_081_059),
    ],
)
def test_parameters_and_active_parameters(name: str, parameters: int, active: int) -> None:
    arch = architecture(name)
    assert (arch.parameters, arch.active_parameters) == (parameters, active)


def test_resident_totals_leave_draft_layers_out() -> None:
    resident = {
        name: total_bytes(architecture(name), model(name).native_quantization, Container.SAFETENSORS)
        for name in ("DeepSeek-V3", "DeepSeek-V3.2", "DeepSeek-V4-Flash", "DeepSeek-V4-Pro")
    }
    assert resident == {
        "DeepSeek-V3": 673_150_611_808,
        "DeepSeek-V3.2": 674_030_337_216,
        "DeepSeek-V4-Flash": 156_015_698_140,
        "DeepSeek-V4-Pro": 850_748_205_004,
    }


def test_the_n_gram_tables_of_v4_1_are_203_gigabytes() -> None:
    from exporter.models.quantization import stored_tensors
    from exporter.models.roles import Role

    stored = stored_tensors(architecture("DeepSeek-V4.1-Flash"), "mxfp4_mxfp8", Container.SAFETENSORS)
    tables = [s for s in stored if s.tensor.role is Role.ENGRAM_TABLE]
    assert sum(s.tensor.parameters for s in tables) == 196_613_849_600
    assert sum(s.bytes for s in tables) == 202_758_032_400


@pytest.mark.parametrize("name", sorted({m.architecture_name for m in catalog().models}))
def test_every_number_has_a_source_and_a_confidence(name: str) -> None:
    for number in numbers(name):
        assert number.source and number.confidence in ("high", "medium", "low"), number.name


def test_the_source_of_one_number_may_differ_from_the_others() -> None:
    of = {number.name: number for number in numbers("deepseek-vl2-small")}
    assert of["vocabulary"].confidence == "low"
    assert of["latent_attention.heads"].confidence == "medium"
    dspark = {number.name: number for number in numbers("deepseek-v4-flash-dspark")}
    assert "3 DSpark stages" in dspark["draft_layers"].source
