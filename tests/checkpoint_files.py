"""Writes checkpoints: GGUF and safetensors files of any shape, sparse, so that 700 GB take no disk.

Layouts are written from the specifications (gguf.h, safetensors' README), not with our reader's tables.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

from exporter.models.architecture import (
    Architecture,
    CompressedAttention,
    GroupedQueryAttention,
    LatentAttention,
    Role,
)
from exporter.models.gguf import GgufLayout
from exporter.models.quantization import Container, stored_tensors

Shape = tuple[int, ...]

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
SCALAR_LAYOUTS = {
    U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q",
    F64: "d",
}  # fmt: skip

GGML_NUMBERS = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11,
    "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ2_XXS": 16, "IQ2_XS": 17, "IQ3_XXS": 18, "IQ1_S": 19,
    "IQ4_NL": 20, "IQ3_S": 21, "IQ2_S": 22, "IQ4_XS": 23, "I32": 26, "I64": 27, "IQ1_M": 29, "BF16": 30,
    "MXFP4": 39,
}  # fmt: skip
DTYPE_BITS = {
    "F4": 4, "F6_E2M3": 6, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "BOOL": 8,
    "I16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "F64": 64,
}  # fmt: skip


class GgufTensor(NamedTuple):
    """``dimensions`` as GGUF stores them, the fastest first; ``size_bytes`` of the data."""

    name: str
    dimensions: Shape
    number: int
    size_bytes: int


class SafeTensor(NamedTuple):
    name: str
    shape: Shape
    dtype: str

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) * DTYPE_BITS[self.dtype] // 8


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def scalar(key: str, kind: int, value: float) -> bytes:
    return text(key) + struct.pack(f"<I{SCALAR_LAYOUTS[kind]}", kind, value)


def string(key: str, value: str | bytes) -> bytes:
    return text(key) + struct.pack("<I", STRING) + text(value)


def strings(key: str, values: Iterable[str]) -> bytes:
    raw = [text(value) for value in values]
    return text(key) + struct.pack("<IIQ", ARRAY, STRING, len(raw)) + b"".join(raw)


def numbers(key: str, kind: int, values: Sequence[float]) -> bytes:
    packed = struct.pack(f"<{len(values)}{SCALAR_LAYOUTS[kind]}", *values)
    return text(key) + struct.pack("<IIQ", ARRAY, kind, len(values)) + packed


def tensor_entry(name: str | bytes, dimensions: Sequence[int], number: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, number, offset)


def gguf_bytes(
    keys: Sequence[bytes], tensors: Sequence[GgufTensor], *, version: int = 3, alignment: int = 32
) -> tuple[bytes, int]:
    """The header of a GGUF, padded, and the length of the whole file."""
    entries, offset = [], 0
    for tensor in tensors:
        entries.append(tensor_entry(tensor.name, tensor.dimensions, tensor.number, offset))
        offset += tensor.size_bytes
        offset += -offset % alignment
    header = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(keys))
    header += b"".join(keys) + b"".join(entries)
    header += bytes(-len(header) % alignment)
    return header, len(header) + offset


def write_gguf(
    path: Path, keys: Sequence[bytes], tensors: Sequence[GgufTensor], *, version: int = 3, alignment: int = 32
) -> Path:
    header, length = gguf_bytes(keys, tensors, version=version, alignment=alignment)
    return write_sparse(path, header, length)


def write_sparse(path: Path, header: bytes, length: int) -> Path:
    with path.open("wb") as file:
        file.write(header)
        file.truncate(length)
    return path


def gguf_tensors(
    architecture: Architecture, quantization: str, layout: GgufLayout = GgufLayout.SPLIT
) -> list[GgufTensor]:
    """The tensors that llama.cpp's converter writes for an architecture."""
    found = []
    for stored in stored_tensors(architecture, quantization, Container.GGUF, layout=layout):
        tensor, kind = stored.tensor, stored.type
        prefix = "" if tensor.layer is None else f"blk.{tensor.layer}."
        name = f"{prefix}{tensor.role}"
        if not name.endswith(".bias"):
            name += ".bias" if tensor.role in (Role.ROUTER_BIAS, Role.ROUTER_IMAGE_BIAS) else ".weight"
        stack = (tensor.count,) if tensor.count > 1 else ()
        number = GGML_NUMBERS[kind.upper()]
        found.append(GgufTensor(name, (*reversed(tensor.shape), *stack), number, stored.bytes))
    return found


def gguf_keys(
    architecture: Architecture, name: str, file_type: int | None, *, split: bool = True
) -> list[bytes]:
    """The metadata that llama.cpp's converter writes for an architecture, with a vocabulary of real size."""
    kind = architecture.gguf_architecture

    def number(key: str, value: int) -> bytes:
        return scalar(f"{kind}.{key}", U32, value)

    keys = [
        string("general.architecture", kind),
        string("general.name", name),
        number("block_count", architecture.layers),
        number("context_length", architecture.context_tokens),
        number("embedding_length", architecture.hidden),
        number("feed_forward_length", architecture.intermediate),
    ]
    if file_type is not None:
        keys.append(scalar("general.file_type", U32, file_type))
    keys += [number(key, value) for key, value in _attention_numbers(architecture, split).items()]
    if isinstance(architecture.attention, CompressedAttention):
        ratios = architecture.attention.compress_ratios
        keys.append(numbers(f"{kind}.attention.compress_ratios", I32, ratios))
    e = architecture.experts
    if e is not None:
        keys += [
            number("expert_count", e.routed),
            number("expert_used_count", e.active),
            number("expert_shared_count", e.shared),
            number("expert_feed_forward_length", e.intermediate),
            number("leading_dense_block_count", e.dense_layers),
        ]
        if e.hash_layers:
            keys.append(number("hash_layer_count", e.hash_layers))
    if architecture.hyper_connections:
        keys.append(number("hyper_connection.count", architecture.hyper_connections))
    keys.append(strings("tokenizer.ggml.tokens", (f"t{i:x}" for i in range(architecture.vocabulary))))
    return keys


def _attention_numbers(architecture: Architecture, split: bool) -> Mapping[str, int]:
    a = architecture.attention
    found = {"attention.head_count": a.heads}
    if isinstance(a, GroupedQueryAttention):
        found["attention.head_count_kv"] = a.kv_heads
        if a.heads * a.head_dim != architecture.hidden:
            found["attention.key_length"] = a.head_dim
        return found
    indexer = a.indexer
    if isinstance(a, LatentAttention):
        key = a.nope_head_dim + a.rope_head_dim
        found |= {
            "rope.dimension_count": a.rope_head_dim,
            "attention.kv_lora_rank": a.kv_lora_rank,
            "attention.head_count_kv": 1 if split else a.heads,
            "attention.key_length": a.cache_row_elements if split else key,
            "attention.value_length": a.kv_lora_rank if split else a.value_head_dim,
        }
        if a.q_lora_rank:
            found["attention.q_lora_rank"] = a.q_lora_rank
        if split:
            found |= {"attention.key_length_mla": key, "attention.value_length_mla": a.value_head_dim}
    else:
        found |= {
            "rope.dimension_count": a.rope_head_dim,
            "attention.key_length": a.head_dim,
            "attention.q_lora_rank": a.q_lora_rank,
            "attention.output_lora_rank": a.o_lora_rank,
            "attention.output_group_count": a.o_groups,
            "attention.sliding_window": a.window,
        }
    if indexer is not None:
        found |= {
            "attention.indexer.head_count": indexer.heads,
            "attention.indexer.key_length": indexer.head_dim,
            "attention.indexer.top_k": indexer.top_k,
        }
    return found


def safetensors_bytes(
    tensors: Sequence[SafeTensor], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, int]:
    """The header of a safetensors file and the length of the whole."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.size_bytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw, 8 + len(raw) + offset


def write_safetensors(
    path: Path, tensors: Sequence[SafeTensor], metadata: Mapping[str, str] | None = None
) -> Path:
    return write_sparse(path, *safetensors_bytes(tensors, metadata))


def write_sharded(folder: Path, tensors: Sequence[SafeTensor], shards: int) -> Path:
    """A folder of shards with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    weight_map = {}
    each = -(-len(tensors) // shards)
    for shard in range(shards):
        name = f"model-{shard + 1:05d}-of-{shards:06d}.safetensors"
        part = tensors[shard * each : (shard + 1) * each]
        write_safetensors(folder / name, part, {"format": "pt"})
        weight_map |= {tensor.name: name for tensor in part}
    total = sum(tensor.size_bytes for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return folder


def deepseek_v3_tensors(architecture: Architecture) -> Iterator[SafeTensor]:
    """Every tensor of DeepSeek-V3's repository, as its index names them: FP8 blocks with scales, the draft
    layer with its copies of embedding and head.
    """
    a, e = architecture.attention, architecture.experts
    assert isinstance(a, LatentAttention) and e is not None
    hidden, vocabulary = architecture.hidden, architecture.vocabulary
    yield SafeTensor("model.embed_tokens.weight", (vocabulary, hidden), "BF16")
    yield SafeTensor("model.norm.weight", (hidden,), "BF16")
    yield SafeTensor("lm_head.weight", (vocabulary, hidden), "BF16")
    for layer in range(architecture.layers + architecture.draft_layers):
        block = f"model.layers.{layer}"
        for norm, width in (
            ("input_layernorm", hidden),
            ("post_attention_layernorm", hidden),
            ("self_attn.q_a_layernorm", a.q_lora_rank),
            ("self_attn.kv_a_layernorm", a.kv_lora_rank),
        ):
            yield SafeTensor(f"{block}.{norm}.weight", (width,), "BF16")
        yield from _fp8(f"{block}.self_attn.q_a_proj", a.q_lora_rank, hidden)
        q_rows = a.heads * (a.nope_head_dim + a.rope_head_dim)
        yield from _fp8(f"{block}.self_attn.q_b_proj", q_rows, a.q_lora_rank)
        yield from _fp8(f"{block}.self_attn.kv_a_proj_with_mqa", a.cache_row_elements, hidden)
        kv_rows = a.heads * (a.nope_head_dim + a.value_head_dim)
        yield from _fp8(f"{block}.self_attn.kv_b_proj", kv_rows, a.kv_lora_rank)
        yield from _fp8(f"{block}.self_attn.o_proj", hidden, a.heads * a.value_head_dim)
        if layer < e.dense_layers:
            yield from _gated(f"{block}.mlp", architecture.intermediate, hidden)
            continue
        yield SafeTensor(f"{block}.mlp.gate.weight", (e.routed, hidden), "BF16")
        yield SafeTensor(f"{block}.mlp.gate.e_score_correction_bias", (e.routed,), "F32")
        yield from _gated(f"{block}.mlp.shared_experts", e.shared * e.intermediate, hidden)
        for expert in range(e.routed):
            yield from _gated(f"{block}.mlp.experts.{expert}", e.intermediate, hidden)
    for layer in range(architecture.layers, architecture.layers + architecture.draft_layers):
        block = f"model.layers.{layer}"
        for norm in ("enorm", "hnorm", "shared_head.norm"):
            yield SafeTensor(f"{block}.{norm}.weight", (hidden,), "BF16")
        yield SafeTensor(f"{block}.eh_proj.weight", (hidden, 2 * hidden), "BF16")
        yield SafeTensor(f"{block}.embed_tokens.weight", (vocabulary, hidden), "BF16")
        yield SafeTensor(f"{block}.shared_head.head.weight", (vocabulary, hidden), "BF16")


def _fp8(name: str, rows: int, columns: int) -> Iterator[SafeTensor]:
    yield SafeTensor(f"{name}.weight", (rows, columns), "F8_E4M3")
    yield SafeTensor(f"{name}.weight_scale_inv", (-(-rows // 128), -(-columns // 128)), "F32")


def _gated(name: str, width: int, hidden: int) -> Iterator[SafeTensor]:
    yield from _fp8(f"{name}.gate_proj", width, hidden)
    yield from _fp8(f"{name}.up_proj", width, hidden)
    yield from _fp8(f"{name}.down_proj", hidden, width)
