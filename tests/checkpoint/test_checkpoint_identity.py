"""From a header to architecture, model and quantization: by its numbers, then by its name, never by guess."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint_files import (
    U32,
    SafeTensor,
    deepseek_v3_tensors,
    gguf_keys,
    gguf_tensors,
    scalar,
    string,
    write_gguf,
    write_safetensors,
    write_sharded,
)

from exporter.models.architecture import LatentAttention
from exporter.models.catalog import catalog
from exporter.models.checkpoint.identity import CheckpointIdentity, identify_checkpoint
from exporter.models.checkpoint.reader import CheckpointReader
from exporter.models.gguf import GgufLayout
from exporter.models.rows import architectures

IN_GGUF = {name: one for name, one in architectures().items() if one.gguf_architecture}


def identity(path: Path, *names: str) -> CheckpointIdentity:
    return identify_checkpoint(CheckpointReader().read(path), names)


@pytest.mark.parametrize("name", IN_GGUF)
def test_gguf_has_the_architecture_of_its_numbers(tmp_path: Path, name: str) -> None:
    architecture = IN_GGUF[name]
    path = tmp_path / "x.gguf"
    write_gguf(path, gguf_keys(architecture, "unnamed", 15), gguf_tensors(architecture, "Q4_K_M"))
    found = identity(path)
    assert found.architecture is not None
    assert found.model is None
    assert found.quantization == "Q4_K_M"
    assert found.architecture.attention == architecture.attention
    assert found.architecture.experts == architecture.experts
    assert found.architecture.parameters == architecture.parameters
    assert found.architecture.context_tokens == architecture.context_tokens


def test_name_decides_among_models_of_one_architecture(tmp_path: Path) -> None:
    architecture = catalog().resolve("deepseek-ai/DeepSeek-R1").architecture
    tensors = gguf_tensors(architecture, "Q4_K_M")
    path = write_gguf(tmp_path / "model.gguf", gguf_keys(architecture, "DeepSeek R1 0528", 15), tensors)
    by_metadata, by_path = identity(path), identity(path, "/models/DeepSeek-V3-0324-Q4_K_M.gguf")
    assert by_metadata.model is catalog().resolve("deepseek-ai/DeepSeek-R1-0528")
    assert by_path.model is catalog().resolve("deepseek-ai/DeepSeek-V3-0324")


def test_name_of_another_architecture_is_not_believed(tmp_path: Path) -> None:
    small = architectures()["r1-distill-qwen-1.5b"]
    path = write_gguf(tmp_path / "m.gguf", gguf_keys(small, "DeepSeek R1", 15), gguf_tensors(small, "Q4_K_M"))
    found = identity(path, "/models/DeepSeek-R1-Q4_K_M.gguf")
    assert found.architecture is not None and found.architecture.name == "r1-distill-qwen-1.5b"
    assert found.model is None


def test_numbers_that_no_model_has_are_an_architecture_of_their_own(tmp_path: Path) -> None:
    own = replace(architectures()["r1-distill-llama-8b"], layers=33)
    path = write_gguf(tmp_path / "m.gguf", gguf_keys(own, "Acme 9B", 15), gguf_tensors(own, "Q4_K_M"))
    found = identity(path)
    assert found.architecture is not None
    assert (found.architecture.layers, found.architecture.parameters) == (33, own.parameters)
    assert found.model is None


@pytest.mark.parametrize("layout", [GgufLayout.SPLIT, GgufLayout.JOINT])
def test_old_layout_of_latent_attention_is_told_from_the_new(tmp_path: Path, layout: GgufLayout) -> None:
    architecture = architectures()["deepseek-v2-lite"]
    keys = gguf_keys(architecture, "x", 15, split=layout is GgufLayout.SPLIT)
    found = identity(write_gguf(tmp_path / "m.gguf", keys, gguf_tensors(architecture, "Q4_K_M", layout)))
    assert found.layout is layout
    assert found.architecture is not None
    assert isinstance(found.architecture.attention, LatentAttention)
    assert found.architecture.attention == architecture.attention
    assert not any("recipe" in note for note in found.notes)


def test_types_that_are_not_the_recipe_are_noted(tmp_path: Path) -> None:
    architecture = architectures()["r1-distill-qwen-1.5b"]
    keys = gguf_keys(architecture, "x", 10)
    found = identity(write_gguf(tmp_path / "m.gguf", keys, gguf_tensors(architecture, "Q8_0")))
    assert found.quantization == "Q2_K"
    assert any(note.startswith("named Q2_K, but its tensors hold") for note in found.notes)


def test_file_without_a_type_is_called_by_its_largest(tmp_path: Path) -> None:
    architecture = architectures()["r1-distill-qwen-1.5b"]
    path = write_gguf(
        tmp_path / "m.gguf", gguf_keys(architecture, "x", None), gguf_tensors(architecture, "Q8_0")
    )
    assert identity(path).quantization == "Q8_0"


@pytest.mark.parametrize(
    "broken",
    [
        scalar("llama.block_count", U32, 1 << 31),
        scalar("llama.block_count", U32, 7),
        string("llama.embedding_length", "4096"),
    ],
)
def test_numbers_that_cannot_be_are_no_architecture(tmp_path: Path, broken: bytes) -> None:
    architecture = architectures()["r1-distill-llama-8b"]
    key = broken[8:].split(b"_", 1)[0]
    keys = [one for one in gguf_keys(architecture, "x", 15) if key not in one[:40]]
    path = write_gguf(tmp_path / "m.gguf", [*keys, broken], gguf_tensors(architecture, "Q4_K_M"))
    found = identity(path)
    assert found.architecture is None
    assert any("could not be told" in note for note in found.notes)


def test_other_kinds_of_model_are_read_but_not_named(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", [string("general.architecture", "gemma9")], [])
    found = identity(path)
    assert (found.architecture, found.model) == (None, None)


V3_CONFIG = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "vocab_size": 129280,
    "max_position_embeddings": 163840,
    "num_attention_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "topk_method": "noaux_tc",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
}


def test_folder_of_deepseek_v3(tmp_path: Path) -> None:
    architecture = catalog().resolve("deepseek-ai/DeepSeek-V3").architecture
    write_sharded(tmp_path, list(deepseek_v3_tensors(architecture)), 163)
    (tmp_path / "config.json").write_text(json.dumps(V3_CONFIG))
    found = identity(tmp_path, "/models/DeepSeek-R1")
    assert found.model is catalog().resolve("deepseek-ai/DeepSeek-R1")
    assert found.architecture is not None and found.architecture.layers == 61
    assert found.quantization == "fp8"


def test_config_without_weights_is_enough(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(V3_CONFIG))
    found = identity(tmp_path / "config.json", "/models/DeepSeek-V3")
    assert found.model is catalog().resolve("deepseek-ai/DeepSeek-V3")
    assert found.quantization == "fp8"


def test_config_that_contradicts_its_files_is_not_believed(tmp_path: Path) -> None:
    tensors = [SafeTensor(f"model.layers.{n}.input_layernorm.weight", (7168,), "BF16") for n in range(12)]
    write_safetensors(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text(json.dumps(V3_CONFIG))
    found = identity(tmp_path, "/models/DeepSeek-V3")
    assert found.architecture is None
    assert any("disagree in the number of layers" in note for note in found.notes)


@pytest.mark.parametrize(
    ("dtype", "quantization"), [("BF16", "bf16"), ("F16", "f16"), ("F8_E4M3", "fp8"), ("I8", None)]
)
def test_folder_without_configuration_is_called_by_its_dtype(
    tmp_path: Path, dtype: str, quantization: str | None
) -> None:
    tensors = [SafeTensor("model.layers.0.mlp.experts.0.up_proj.weight", (64, 64), dtype)]
    path = write_safetensors(tmp_path / "model.safetensors", tensors)
    found = identity(path)
    assert (found.architecture, found.quantization) == (None, quantization)
