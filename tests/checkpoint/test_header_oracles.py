"""Our reader against the formats' own libraries, on the same files."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy
import pytest
import safetensors
from checkpoint_files import SafeTensor, gguf_keys, gguf_tensors, write_gguf, write_safetensors

from exporter.models.checkpoint.ggml_types import FILE_TYPES, GGML_TYPES
from exporter.models.checkpoint.reader import CheckpointReader
from exporter.models.checkpoint.safetensors import DTYPE_BITS
from exporter.models.rows import architectures


def test_gguf_py_reads_the_same_tensors(tmp_path: Path) -> None:
    architecture = architectures()["deepseek-v2-lite"]
    path = write_gguf(
        tmp_path / "m.gguf", gguf_keys(architecture, "x", 15), gguf_tensors(architecture, "Q4_K_M")
    )
    theirs = gguf.GGUFReader(path)
    ours = CheckpointReader().read(path)
    assert [(t.name, t.type, t.shape, t.size_bytes, t.offset_bytes) for t in ours.tensors] == [
        (t.name, t.tensor_type.name, tuple(map(int, reversed(t.shape))), int(t.n_bytes), int(t.data_offset))
        for t in theirs.tensors
    ]
    assert ours.header_bytes == theirs.data_offset


def test_gguf_py_writes_what_we_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(28)
    writer.add_name("DeepSeek R1 Distill Qwen 7B")
    writer.add_file_type(15)
    writer.add_token_list(["a", "b", "c"])
    writer.add_tensor("token_embd.weight", numpy.zeros((16, 64), dtype=numpy.float32))
    writer.add_tensor("blk.0.attn_q.weight", numpy.zeros((4, 64), dtype=numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = CheckpointReader().read(path)
    assert header.metadata == {
        "general.architecture": "qwen2",
        "qwen2.block_count": 28,
        "general.name": "DeepSeek R1 Distill Qwen 7B",
        "general.file_type": 15,
        "tokenizer.ggml.tokens.count": 3,
    }
    assert [(t.name, t.type, t.shape, t.size_bytes) for t in header.tensors] == [
        ("token_embd.weight", "F32", (16, 64), 4096),
        ("blk.0.attn_q.weight", "F16", (4, 64), 512),
    ]
    assert header.file_bytes == header.header_bytes + header.tensor_bytes


def test_types_are_those_of_gguf_py() -> None:
    for number, size in gguf.constants.GGML_QUANT_SIZES.items():
        ours = GGML_TYPES[int(number)]
        if number.name == "Q8_1":  # gguf-py has the old block of two floats; ggml-common.h has two halves
            size = (32, 36)
        assert (ours.name, ours.block_elements, ours.block_bytes) == (number.name, *size)
    for file_type in gguf.constants.LlamaFileType:
        name = file_type.name.removeprefix("MOSTLY_").removeprefix("ALL_")
        assert file_type.name == "GUESSED" or FILE_TYPES[file_type.value] == name


def test_safetensors_reads_the_same_tensors(tmp_path: Path) -> None:
    some = [
        SafeTensor(f"t{number}", (number + 1, 8), dtype)
        for number, dtype in enumerate(
            ("BF16", "F32", "F8_E4M3", "F8_E5M2", "I8", "U8", "I64", "F4", "F8_E8M0")
        )
    ]
    path = write_safetensors(tmp_path / "m.safetensors", some)
    ours = CheckpointReader().read(path)
    with safetensors.safe_open(path, framework="numpy") as theirs:
        found = {
            name: (theirs.get_slice(name).get_dtype(), tuple(theirs.get_slice(name).get_shape()))
            for name in theirs.keys()  # noqa: SIM118 -- not a dict
        }
    assert {tensor.name: (tensor.type, tensor.shape) for tensor in ours.tensors} == found


@pytest.mark.parametrize("dtype", sorted(DTYPE_BITS))
def test_safetensors_knows_every_dtype(tmp_path: Path, dtype: str) -> None:
    path = write_safetensors(tmp_path / "m.safetensors", [])
    import json
    import struct

    size = 8 * DTYPE_BITS[dtype] // 8
    raw = json.dumps({"t": {"dtype": dtype, "shape": [8], "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(size))
    assert CheckpointReader().read(path).tensor_bytes == size
    with safetensors.safe_open(path, framework="numpy") as theirs:
        assert theirs.get_slice("t").get_dtype() == dtype
