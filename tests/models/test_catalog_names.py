"""Which model a name stands for; nothing is guessed."""

from __future__ import annotations

import pytest

from exporter.models.catalog import UnknownModel, UnknownQuantization, catalog, containers
from exporter.models.quantization import Container

KNOWN = catalog()


@pytest.mark.parametrize(
    ("name", "model_id"),
    [
        ("deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-R1"),
        ("DEEPSEEK-AI/deepseek-v3-0324", "deepseek-ai/DeepSeek-V3-0324"),
        (" DeepSeek-V3.1 ", "deepseek-ai/DeepSeek-V3.1"),
        ("DeepSeek-R1-Distill-Qwen-7B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
        ("deepseek-r1:7b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
        ("deepseek-r1:8b", "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B"),
        ("deepseek-r1:671b", "deepseek-ai/DeepSeek-R1"),
        ("deepseek-v3", "deepseek-ai/DeepSeek-V3"),
    ],
)
def test_names_resolve_without_regard_to_case_and_organisation(name: str, model_id: str) -> None:
    assert KNOWN.resolve(name).id == model_id


def test_every_id_and_every_alias_resolves_to_its_own_model() -> None:
    for model in KNOWN.models:
        assert KNOWN.resolve(model.id) is model
        for alias in model.aliases:
            assert KNOWN.resolve(alias, ollama=":" in alias or alias == alias.lower()) is model


def test_deepseek_r1_is_a_small_model_to_ollama_and_ambiguous_elsewhere() -> None:
    assert KNOWN.resolve("deepseek-r1", ollama=True).id == "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B"
    assert KNOWN.resolve("DeepSeek-R1").id == "deepseek-ai/DeepSeek-R1"
    with pytest.raises(UnknownModel, match="may mean deepseek-ai/DeepSeek-R1 or"):
        KNOWN.resolve("deepseek-r1")


def test_an_unknown_name_is_answered_with_the_nearest_known_one() -> None:
    with pytest.raises(UnknownModel, match="nearest known name is deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"):
        KNOWN.resolve("deepseek-ai/DeepSeek-R1-Distil-Qwen-7B")


def test_a_hostile_name_is_shortened_and_made_printable() -> None:
    with pytest.raises(UnknownModel) as caught:
        KNOWN.resolve("x\n\x1b[31m" + "y" * 10_000)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [("fp8", "fp8"), ("FP8", "fp8"), ("q4_k_m", "Q4_K_M"), ("Q4_K_M", "Q4_K_M"), ("q4-k-m", "Q4_K_M"),
     ("bf16", "bf16"), ("bfloat16", "bf16"), ("BF16", "bf16"), ("half", "f16"), (None, "fp8")],
)  # fmt: skip
def test_spellings_of_a_quantization_become_one_name(spelling: str | None, canonical: str) -> None:
    assert KNOWN.quantization(KNOWN.resolve("DeepSeek-R1"), spelling) == canonical


def test_the_published_quantization_stands_for_an_unsaid_one() -> None:
    assert KNOWN.quantization(KNOWN.resolve("deepseek-r1:7b"), None) == "bf16"


@pytest.mark.parametrize(("model", "name"), [("DeepSeek-R1", "q9_z"), ("deepseek-r1:7b", "int3")])
def test_a_quantization_that_the_model_does_not_have_is_refused_with_those_it_has(
    model: str, name: str
) -> None:
    with pytest.raises(UnknownQuantization, match=r"known: .*Q4_K_M"):
        KNOWN.quantization(KNOWN.resolve(model), name)


def test_a_tag_of_the_ollama_library_tells_its_quantization_and_a_hub_id_does_not() -> None:
    assert KNOWN.tag_quantization("deepseek-r1:671b") == "Q4_K_M"
    assert KNOWN.tag_quantization("deepseek-ai/DeepSeek-R1") is None


def test_16_bit_floats_exist_in_both_containers() -> None:
    assert containers("bf16") == (Container.SAFETENSORS, Container.GGUF)
    assert containers("fp8") == (Container.SAFETENSORS,)
    assert containers("Q4_K_M") == (Container.GGUF,)


def test_the_catalogue_is_read_once() -> None:
    assert catalog() is KNOWN


def test_every_entry_names_its_source() -> None:
    assert all(model.source for model in KNOWN.models)
