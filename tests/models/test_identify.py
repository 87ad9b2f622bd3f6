"""Names of repositories, files, folders and tags: which model and quantization they tell, by which rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.models.catalog import Model, UnknownModel, catalog, is_sized
from exporter.models.gguf import gguf_tables
from exporter.models.identify import identify
from exporter.models.names import MAX_NAME, canonical_quantization
from exporter.models.safetensors import safetensors_quantizations

KNOWN = catalog()
REVISION = "56d4cbbb4d29f4355bab4b9a39ccb717a14ad5ad"


@pytest.mark.parametrize(
    ("name", "short_id", "quantization"),
    [
        ("deepseek-ai/DeepSeek-R1", "DeepSeek-R1", None),
        ("deepseek-r1-awq", "DeepSeek-R1", "awq"),
        ("cognitivecomputations/DeepSeek-R1-AWQ", "DeepSeek-R1", "awq"),
        ("QuixiAI/DeepSeek-V3-0324-AWQ", "DeepSeek-V3-0324", "awq"),
        ("unsloth/DeepSeek-R1-GGUF", "DeepSeek-R1", None),
        ("unsloth/DeepSeek-R1-GGUF:Q4_K_M", "DeepSeek-R1", "Q4_K_M"),
        ("hf.co/unsloth/DeepSeek-R1-Distill-Qwen-7B-GGUF:Q8_0", "DeepSeek-R1-Distill-Qwen-7B", "Q8_0"),
        ("unsloth/DeepSeek-R1-BF16", "DeepSeek-R1", "bf16"),
        ("unsloth/DeepSeek-R1-Distill-Llama-8B-bnb-4bit", "DeepSeek-R1-Distill-Llama-8B", "nf4_double"),
        ("nvidia/DeepSeek-R1-FP4", "DeepSeek-R1", "nvfp4"),
        ("nvidia/DeepSeek-R1-0528-FP4-v2", "DeepSeek-R1-0528", "nvfp4_wo"),
        ("nvidia/DeepSeek-V3.1-NVFP4", "DeepSeek-V3.1", "nvfp4_wo"),
        ("nvidia/DeepSeek-V4-Flash-NVFP4", "DeepSeek-V4-Flash", "nvfp4_fp8"),
        ("RedHatAI/DeepSeek-R1-Distill-Qwen-32B-quantized.w4a16", "DeepSeek-R1-Distill-Qwen-32B", "w4a16"),
        (
            "RedHatAI/DeepSeek-R1-Distill-Llama-70B-FP8-dynamic",
            "DeepSeek-R1-Distill-Llama-70B",
            "fp8_channel",
        ),
        ("someone/DeepSeek-R1-W4A16-G64", "DeepSeek-R1", "w4a16_g64"),
        ("jart25/DeepSeek-R1-Distill-Qwen-32B-Gptq-Int4", "DeepSeek-R1-Distill-Qwen-32B", "gptq"),
        ("meituan/DeepSeek-R1-Block-INT8", "DeepSeek-R1", "int8_block"),
        ("/models/DeepSeek-R1", "DeepSeek-R1", None),
        ("/models/deepseek-r1/", "DeepSeek-R1", None),
        ("./DeepSeek-V4-Flash-0731-MXFP4_MOE.gguf", "DeepSeek-V4-Flash-0731", "MXFP4_MOE"),
        ("DeepSeek-R1-Q4_K_M-00001-of-00009.gguf", "DeepSeek-R1", "Q4_K_M"),
        ("/m/DeepSeek-R1-UD-Q2_K_XL-00001-of-00005.gguf", "DeepSeek-R1", "UD-Q2_K_XL"),
        ("/m/DeepSeek-R1-GGUF/Q4_K_M/model-00001-of-00009.gguf", "DeepSeek-R1", "Q4_K_M"),
        ("deepseek-ai_DeepSeek-R1-0528-Q4_K_M.gguf", "DeepSeek-R1-0528", "Q4_K_M"),
        ("deepseek-llm-7b-chat.Q4_0.gguf", "deepseek-llm-7b-chat", "Q4_0"),
        ("DeepSeek-V2-Lite-Chat.i1-Q4_K_M.gguf", "DeepSeek-V2-Lite-Chat", "Q4_K_M"),
        ("DeepSeek-V3-0324-IQ4_K_R4-00001-of-00010.gguf", "DeepSeek-V3-0324", "IQ4_K_R4"),
        (f"/hub/models--deepseek-ai--DeepSeek-R1/snapshots/{REVISION}", "DeepSeek-R1", None),
        (
            f"/hub/models--unsloth--DeepSeek-R1-GGUF/snapshots/{REVISION}/DeepSeek-R1-Q2_K-00001-of-00005.gguf",
            "DeepSeek-R1",
            "Q2_K",
        ),
        ("deepseek-r1:7b", "DeepSeek-R1-Distill-Qwen-7B", "Q4_K_M"),
        ("deepseek-r1:7b-qwen-distill-q8_0", "DeepSeek-R1-Distill-Qwen-7B", "Q8_0"),
        ("deepseek-r1:70b-llama-distill-fp16", "DeepSeek-R1-Distill-Llama-70B", "f16"),
        ("deepseek-r1:latest", "DeepSeek-R1-0528-Qwen3-8B", "Q4_K_M"),
        ("registry.ollama.ai/library/deepseek-v2:236b", "DeepSeek-V2-Chat", "Q4_0"),
        ("deepseek-flash", "DeepSeek-V4.1-Flash", None),
        ("/models/deepseek-coder-v2-lite-q4_k_m.gguf", "DeepSeek-Coder-V2-Lite-Base", "Q4_K_M"),
        ("/models/deepseek-v3.2-int4", "DeepSeek-V3.2", "int4"),
        ("DeepSeek-R1-GGUF-IQ4_K__IQ3_K.gguf", "DeepSeek-R1", "IQ4_K__IQ3_K"),
    ],
)
def test_names_that_a_rule_knows(name: str, short_id: str, quantization: str | None) -> None:
    found = identify(name)
    assert found.model is not None
    assert (found.model.short_id, found.quantization) == (short_id, quantization)
    assert found.how


@pytest.mark.parametrize(
    "name",
    [
        "",
        "mistralai/Mistral-7B",
        "huihui-ai/DeepSeek-R1-Distill-Qwen-7B-abliterated",
        "DeepSeek-R1-foo",
        "my-DeepSeek-R1",
        "DeepSeek-R2",
        "acme/finetune-of-DeepSeek-R1",
        "/models/model.gguf",
        "/models/DeepSeek-R1/adapter/other.gguf",
        "someone/deepseek-r1:7b",
        "x" * 100_000,
    ],
)
def test_anything_else_is_unknown(name: str) -> None:
    assert identify(name).model is None


def test_a_quantization_is_told_even_where_the_model_is_not() -> None:
    found = identify("models/ggml-model-Q4_K_M.gguf")
    assert (found.model, found.quantization) == (None, "Q4_K_M")


def test_a_small_model_of_ollama_is_not_the_one_of_the_card() -> None:
    with pytest.raises(UnknownModel, match="write the full id"):
        identify("deepseek-r1")
    ollama = identify("deepseek-r1", ollama=True).model
    assert ollama is not None and ollama.short_id == "DeepSeek-R1-0528-Qwen3-8B"


def test_to_ollama_too_a_repository_or_file_is_what_its_name_says() -> None:
    for name in ("hf.co/unsloth/DeepSeek-R1-GGUF:Q4_K_M", "/srv/DeepSeek-R1-256x20B-Q4_K_M.gguf"):
        found = identify(name, ollama=True)
        assert found.model is not None
        assert (found.model.short_id, found.quantization) == ("DeepSeek-R1", "Q4_K_M")


def test_only_to_ollama_does_a_bare_name_tell_a_quantization() -> None:
    assert identify("deepseek-v3").quantization is None
    assert identify("deepseek-v3", ollama=True).quantization == "Q4_K_M"


def test_a_name_that_is_known_without_sizes_says_so() -> None:
    for name in ("UD-Q2_K_XL", "IQ4_K_R4", "compressed_tensors", "unsloth_bnb_4bit"):
        assert canonical_quantization(name) is not None and not is_sized(name)
    for name in ("Q4_K_M", "awq_g64", "fp8", "bf16"):
        assert is_sized(name)


ONE_EACH = [model for model in KNOWN.models if "/" in model.id]
SUFFIXES = ["AWQ", "GPTQ", "BF16", "W4A16", "bnb-4bit", "GGUF", "W8A8", "GPTQ-Int4", "awq-g64"]


@given(st.sampled_from(ONE_EACH), st.sampled_from(SUFFIXES), st.sampled_from(["unsloth", "acme", "x.y-z_1"]))
def test_every_model_is_known_by_every_suffix_of_every_uploader(
    model: Model, suffix: str, organisation: str
) -> None:
    found = identify(f"{organisation}/{model.short_id}-{suffix}")
    assert found.model is not None and found.model.short_id == model.short_id


@given(st.sampled_from(ONE_EACH), st.sampled_from(sorted(gguf_tables().recipes)), st.integers(1, 99))
def test_every_model_is_known_by_its_split_files(model: Model, recipe: str, parts: int) -> None:
    found = identify(f"/srv/{model.short_id}-{recipe}-00001-of-{parts:05}.gguf")
    assert found.model is not None and found.model.short_id == model.short_id
    assert found.quantization is not None and found.quantization.upper() == recipe


@given(st.text(max_size=2 * MAX_NAME))
def test_no_name_ever_fails_otherwise_than_by_being_ambiguous(name: str) -> None:
    try:
        found = identify(name)
    except UnknownModel:
        return
    assert found.quantization is None or canonical_quantization(found.quantization) is not None


@given(st.sampled_from(ONE_EACH), st.from_regex(r"[a-z]{3,12}", fullmatch=True))
def test_a_word_that_no_rule_knows_makes_the_name_unknown(model: Model, word: str) -> None:
    found = identify(f"acme/{model.short_id}-{word}")
    known_again = found.model is not None and (
        canonical_quantization(word) is not None or f"{model.short_id}-{word}".lower() in _short_names()
    )
    assert found.model is None or known_again or word in ("gguf", "imat", "imatrix", "merged", "safetensors")


def _short_names() -> set[str]:
    return {alias.lower() for model in KNOWN.models for alias in model.aliases}


@pytest.mark.parametrize("name", [*safetensors_quantizations(), *gguf_tables().recipes])
def test_canonical_names_are_their_own_spelling(name: str) -> None:
    canonical = canonical_quantization(name)
    assert canonical is not None and canonical.lower() == name.lower()
