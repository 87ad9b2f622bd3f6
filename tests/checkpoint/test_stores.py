"""Where checkpoints lie: split files, shards, a Hugging Face cache, an Ollama store, a plain folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from checkpoint_files import (
    I32,
    U16,
    GgufTensor,
    SafeTensor,
    gguf_bytes,
    scalar,
    string,
    write_gguf,
    write_safetensors,
    write_sharded,
)

from exporter.models.checkpoint.reader import CheckpointReader
from exporter.models.checkpoint.tensors import Format, Header, HeaderError, Problem

KEYS = [string("general.architecture", "llama")]
TENSOR = GgufTensor("x", (64,), 0, 256)


def read(path: Path) -> Header:
    return CheckpointReader().read(path)


def problem(path: Path) -> Problem:
    with pytest.raises(HeaderError) as caught:
        read(path)
    return caught.value.kind


def write_split(
    folder: Path, parts: int, *, total: int | None = None, numbers: list[int] | None = None
) -> list[Path]:
    found = []
    for number in range(parts):
        keys = [
            scalar("split.no", U16, (numbers or list(range(parts)))[number]),
            scalar("split.count", U16, parts),
            scalar("split.tensors.count", I32, parts if total is None else total),
        ]
        path = folder / f"DeepSeek-R1-Q4_K_M-{number + 1:05d}-of-{parts:05d}.gguf"
        tensor = TENSOR._replace(name=f"blk.{number}.attn_norm.weight")
        found.append(write_gguf(path, [*KEYS, *keys] if number == 0 else keys, [tensor]))
    return found


def test_split_gguf_is_read_from_any_of_its_parts_and_from_its_folder(tmp_path: Path) -> None:
    paths = write_split(tmp_path, 3)
    for path in (*paths, tmp_path):
        header = read(path)
        assert [tensor.name for tensor in header.tensors] == [f"blk.{n}.attn_norm.weight" for n in range(3)]
        assert [tensor.file for tensor in header.tensors] == [0, 1, 2]
        assert header.metadata["general.architecture"] == "llama"
        assert header.file_bytes == sum(one.stat().st_size for one in paths)


def test_split_gguf_with_a_part_missing_says_which(tmp_path: Path) -> None:
    paths = write_split(tmp_path, 3)
    paths[1].unlink()
    with pytest.raises(HeaderError, match="file 2 of 3 is not there") as caught:
        read(paths[0])
    assert caught.value.kind is Problem.MISSING_FILE


def test_split_gguf_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    assert problem(write_split(tmp_path / "a", 3, total=4)[0]) is Problem.SPLIT_MISMATCH
    assert problem(write_split(tmp_path / "b", 3, numbers=[0, 2, 1])[0]) is Problem.SPLIT_MISMATCH
    alone = write_split(tmp_path / "c", 2)[0].rename(tmp_path / "c" / "alone.gguf")
    assert problem(alone) is Problem.SPLIT_MISMATCH
    assert problem(write_gguf(tmp_path / "x-00002-of-00001.gguf", KEYS, [TENSOR])) is Problem.SPLIT_MISMATCH


def test_tensor_in_two_parts_is_refused(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        write_safetensors(tmp_path / name, [SafeTensor("x", (2,), "F32")])
    assert problem(tmp_path) is Problem.DUPLICATE_NAME


def test_folder_with_two_models_is_ambiguous_and_a_projector_is_none(tmp_path: Path) -> None:
    write_gguf(tmp_path / "DeepSeek-Q4_K_M.gguf", KEYS, [TENSOR])
    write_gguf(tmp_path / "mmproj-F16.gguf", KEYS, [TENSOR])
    assert read(tmp_path).files[0].name == "DeepSeek-Q4_K_M.gguf"
    write_gguf(tmp_path / "DeepSeek-Q8_0.gguf", KEYS, [TENSOR])
    assert problem(tmp_path) is Problem.AMBIGUOUS


def test_folder_without_weights_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    assert problem(tmp_path) is Problem.NOT_A_CHECKPOINT


def test_config_alone_is_a_checkpoint_without_tensors(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 64}))
    for path in (tmp_path, tmp_path / "config.json"):
        header = read(path)
        assert header.format is Format.CONFIG
        assert (header.config, header.tensors) == ({"model_type": "llama", "hidden_size": 64}, ())


def test_config_passes_numbers_and_named_strings_only(tmp_path: Path) -> None:
    config = {
        "model_type": "deepseek_v3",
        "architectures": ["DeepseekV3ForCausalLM"],
        "_name_or_path": "/home/somebody/secret",
        "auto_map": {"AutoModel": "secret.Model"},
        "transformers_version": "secret",
        "torch_dtype": "bfloat16",
        "q_lora_rank": None,
        "rope_scaling": {"type": "yarn", "factor": 40.0, "comment": "secret"},
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
        "compress_ratios": [0, 4, 128],
        "mixed": [1, "secret"],
        "bad key secret": 1,
        "infinite": 1e999,
        "huge": 1 << 80,
        "vision_config": {"layers": 27, "model_name": "secret"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = read(tmp_path).config
    assert found == {
        "model_type": "deepseek_v3",
        "architectures": ["DeepseekV3ForCausalLM"],
        "auto_map": {},
        "torch_dtype": "bfloat16",
        "q_lora_rank": None,
        "rope_scaling": {"type": "yarn", "factor": 40.0},
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
        "compress_ratios": [0, 4, 128],
        "vision_config": {"layers": 27},
    }


def test_hostile_configurations_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    for text, kind in (
        ("[" * 100_000, Problem.NESTED_TOO_DEEP),
        ('{"a":' * 20 + "1" + "}" * 20, Problem.NESTED_TOO_DEEP),
        ("[1]", Problem.BAD_VALUE),
        ("{", Problem.BAD_VALUE),
        ('{"a":1,"a":2}', Problem.DUPLICATE_NAME),
        (json.dumps({"a": [0] * 100_000}), Problem.TOO_MANY_KEYS),
        (json.dumps({"a": 1}) + " " * (5 << 20), Problem.HEADER_TOO_LARGE),
    ):
        config.write_text(text)
        assert problem(config) is kind, text[:20]


def test_modelopt_quantization_beside_the_weights_is_merged(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", [SafeTensor("x", (2,), "F32")])
    (tmp_path / "config.json").write_text('{"model_type": "deepseek_v3"}')
    (tmp_path / "hf_quant_config.json").write_text(
        '{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}'
    )
    assert read(tmp_path).config["quantization_config"] == {
        "quant_method": "modelopt",
        "quant_algo": "NVFP4",
        "group_size": 16,
    }


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (
            lambda index: index["weight_map"].update(y="model-00001-of-000002.safetensors"),
            Problem.SPLIT_MISMATCH,
        ),
        (lambda index: index["weight_map"].pop("x0"), Problem.SPLIT_MISMATCH),
        (
            lambda index: index["weight_map"].update(x0="model-00002-of-000002.safetensors"),
            Problem.SPLIT_MISMATCH,
        ),
        (lambda index: index["weight_map"].update(x0="../model.safetensors"), Problem.OUTSIDE_ROOTS),
        (lambda index: index["weight_map"].update(x0="/etc/passwd"), Problem.OUTSIDE_ROOTS),
        (lambda index: index["weight_map"].update(x0=".."), Problem.OUTSIDE_ROOTS),
        (lambda index: index["weight_map"].update(x0=3), Problem.BAD_VALUE),
        (lambda index: index["weight_map"].update(x0="gone.safetensors"), Problem.MISSING_FILE),
        (lambda index: index.pop("weight_map"), Problem.NOT_A_CHECKPOINT),
    ],
)
def test_index_that_lies_is_refused(tmp_path: Path, change: object, kind: Problem) -> None:
    write_sharded(tmp_path, [SafeTensor(f"x{number}", (2,), "F32") for number in range(4)], 2)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)  # type: ignore[operator]
    path.write_text(json.dumps(index))
    assert problem(tmp_path) is kind


def hub_cache(tmp_path: Path, revisions: Mapping[str, int]) -> Path:
    repository = tmp_path / "models--deepseek-ai--DeepSeek-R1"
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    for revision, tensors in revisions.items():
        snapshot = repository / "snapshots" / revision
        snapshot.mkdir(parents=True)
        blob = repository / "blobs" / hashlib.sha256(revision.encode()).hexdigest()
        write_safetensors(blob, [SafeTensor(f"x{number}", (2,), "F32") for number in range(tensors)])
        (snapshot / "model.safetensors").symlink_to(f"../../blobs/{blob.name}")
    return repository


def test_hub_cache_is_read_through_its_links(tmp_path: Path) -> None:
    repository = hub_cache(tmp_path, {"aaaa": 1, "bbbb": 2})
    (repository / "refs" / "main").write_text("bbbb\n")
    assert len(read(repository).tensors) == 2
    assert len(read(repository / "snapshots" / "aaaa").tensors) == 1
    assert len(read(repository / "snapshots" / "aaaa" / "model.safetensors").tensors) == 1
    blob = next((repository / "blobs").iterdir())
    assert read(blob).format is Format.SAFETENSORS


def test_subfolder_of_a_hub_snapshot_is_read_through_its_links(tmp_path: Path) -> None:
    repository = hub_cache(tmp_path, {"aaaa": 1})
    folder = repository / "snapshots" / "aaaa" / "UD-Q2_K_XL"
    folder.mkdir()
    for path in write_split(repository / "blobs", 2):
        (folder / path.name).symlink_to(f"../../../blobs/{path.name}")
    assert len(read(folder).tensors) == 2
    assert len(read(next(folder.iterdir())).tensors) == 2


def test_one_shard_stands_for_its_checkpoint(tmp_path: Path) -> None:
    write_sharded(tmp_path, [SafeTensor(f"x{number}", (2,), "F32") for number in range(4)], 2)
    assert len(read(tmp_path / "model-00002-of-000002.safetensors").tensors) == 4


def test_hub_cache_without_reference_needs_a_single_snapshot(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert len(read(hub_cache(tmp_path / "one", {"aaaa": 3})).tensors) == 3
    assert problem(hub_cache(tmp_path / "two", {"aaaa": 3, "bbbb": 1})) is Problem.AMBIGUOUS


@pytest.mark.parametrize("revision", ["../../..", "", ".", "a/b", "x" * 200])
def test_reference_of_a_hub_cache_cannot_lead_away(tmp_path: Path, revision: str) -> None:
    repository = hub_cache(tmp_path, {"aaaa": 1})
    (repository / "refs" / "main").write_text(revision)
    assert problem(repository) is Problem.BAD_VALUE


def ollama_store(tmp_path: Path, name: str, layers: list[tuple[str, bytes, int | None]]) -> Path:
    store = tmp_path / "models"
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    listed = []
    for kind, data, length in layers:
        digest = hashlib.sha256(data).hexdigest()
        blob = store / "blobs" / f"sha256-{digest}"
        with blob.open("wb") as file:
            file.write(data)
            if length is not None:
                file.truncate(length)
        listed.append(
            {
                "mediaType": f"application/vnd.ollama.image.{kind}",
                "digest": f"sha256:{digest}",
                "size": len(data),
            }
        )
    manifest = store / "manifests" / name
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": listed}))
    return store


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("deepseek-r1:7b", "registry.ollama.ai/library/deepseek-r1/7b"),
        ("deepseek-r1", "registry.ollama.ai/library/deepseek-r1/latest"),
        ("someone/deepseek-r1:7b", "registry.ollama.ai/someone/deepseek-r1/7b"),
        ("hf.co/unsloth/DeepSeek-R1-GGUF:Q4_K_M", "hf.co/unsloth/DeepSeek-R1-GGUF/Q4_K_M"),
    ],
)
def test_ollama_names_lead_to_their_blob(tmp_path: Path, name: str, place: str) -> None:
    settings = b'{"num_ctx": 8192, "stop": ["secret"], "temperature": 0.6, "num_gpu": 20}'
    store = ollama_store(
        tmp_path,
        place,
        [("model", *gguf_bytes(KEYS, [TENSOR])), ("params", settings, None), ("license", b"x", None)],
    )
    header = CheckpointReader().read_ollama(name, store)
    assert header.format is Format.GGUF
    assert [tensor.name for tensor in header.tensors] == ["x"]
    assert header.settings == {"num_ctx": 8192, "num_gpu": 20}


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "a/../b", "..", "", "x" * 200, "a b", "a:b:c", "/etc"]
)
def test_ollama_names_cannot_lead_out_of_the_store(tmp_path: Path, name: str) -> None:
    store = ollama_store(tmp_path, "registry.ollama.ai/library/x/latest", [])
    with pytest.raises(HeaderError) as caught:
        CheckpointReader().read_ollama(name, store)
    assert caught.value.kind is Problem.NOT_FOUND


def test_manifest_without_a_model_is_named_as_such(tmp_path: Path) -> None:
    store = ollama_store(tmp_path, "registry.ollama.ai/library/x/latest", [("license", b"x", None)])
    with pytest.raises(HeaderError) as caught:
        CheckpointReader().read_ollama("x", store)
    assert caught.value.kind is Problem.NOT_A_CHECKPOINT


def test_digest_of_a_manifest_cannot_be_a_path(tmp_path: Path) -> None:
    store = ollama_store(tmp_path, "registry.ollama.ai/library/x/latest", [])
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../../etc/passwd"}
    (store / "manifests/registry.ollama.ai/library/x/latest").write_text(json.dumps({"layers": [layer]}))
    with pytest.raises(HeaderError) as caught:
        CheckpointReader().read_ollama("x", store)
    assert caught.value.kind is Problem.BAD_VALUE
