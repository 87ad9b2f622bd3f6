"""GGUF headers: what is valid is read exactly, what is not is refused by name."""

from __future__ import annotations

import struct
import time
from dataclasses import replace

import pytest
from checkpoint_files import (
    ARRAY,
    BOOL,
    F32,
    I32,
    SCALAR_LAYOUTS,
    STRING,
    U8,
    U32,
    GgufTensor,
    gguf_bytes,
    numbers,
    scalar,
    string,
    strings,
    tensor_entry,
    text,
)
from header_sources import parse_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.models.checkpoint.ggml_types import GGML_TYPES
from exporter.models.checkpoint.tensors import LIMITS, HeaderError, Problem
from exporter.models.gguf import gguf_tables

SIZED = sorted(number for number, one in GGML_TYPES.items() if one.row_bytes == 0)
NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)


@st.composite
def tensors(draw: st.DrawFn) -> list[GgufTensor]:
    found = []
    for name in draw(st.lists(NAMES, unique=True, max_size=12)):
        number = draw(st.sampled_from(SIZED))
        kind = GGML_TYPES[number]
        blocks = draw(st.integers(1, 5))
        outer = draw(st.lists(st.integers(1, 7), max_size=3))
        size = blocks * kind.block_bytes
        for length in outer:
            size *= length
        found.append(GgufTensor(name, (blocks * kind.block_elements, *outer), number, size))
    return found


@st.composite
def keys(draw: st.DrawFn) -> list[bytes]:
    found = []
    for name in draw(st.lists(NAMES, unique=True, max_size=8)):
        kind = draw(st.sampled_from([*SCALAR_LAYOUTS, STRING, ARRAY]))
        if kind == STRING:
            found.append(string(name, draw(st.binary(max_size=50))))
        elif kind == ARRAY:
            if draw(st.booleans()):
                found.append(strings(name, draw(st.lists(NAMES, max_size=20))))
            else:
                found.append(numbers(name, I32, draw(st.lists(st.integers(-9, 9), max_size=20))))
        else:
            found.append(scalar(name, kind, 1))
    return found


@given(keys(), tensors(), st.sampled_from([2, 3]), st.sampled_from([1, 8, 32, 64, 4096]))
@settings(max_examples=200, deadline=None)
def test_any_valid_file_is_read_back(
    some_keys: list[bytes], some: list[GgufTensor], version: int, alignment: int
) -> None:
    all_keys = [*some_keys, scalar("general.alignment", U32, alignment)]
    header, length = gguf_bytes(all_keys, some, version=version, alignment=alignment)
    parsed = parse_gguf(header, length)
    kinds = [parsed.kinds[number] for number in parsed.kind]
    assert parsed.names == [tensor.name for tensor in some]
    assert [kind[0] for kind in kinds] == [GGML_TYPES[tensor.number].name for tensor in some]
    assert [kind[1] for kind in kinds] == [tensor.dimensions[::-1] for tensor in some]
    assert [kind[2] for kind in kinds] == [tensor.size_bytes for tensor in some]
    assert not some or parsed.header_bytes == len(header)
    padding = sum(-tensor.size_bytes % alignment for tensor in some)
    assert parsed.header_bytes + sum(kind[2] for kind in kinds) + padding == length


def test_only_allowed_metadata_is_kept() -> None:
    keys = [
        string("general.architecture", "qwen2"),
        string("general.name", "DeepSeek R1\x1b[31m Distill"),
        string("general.author", "somebody"),
        string("tokenizer.chat_template", "secret" * 1000),
        scalar("qwen2.block_count", U32, 28),
        scalar("llama.block_count", U32, 99),
        scalar("qwen2.attention.layer_norm_rms_epsilon", F32, 1e-6),
        numbers("qwen2.attention.head_count_kv", I32, [4, 4, 8]),
        strings("tokenizer.ggml.tokens", [f"t{i}" for i in range(300)]),
        strings("tokenizer.ggml.merges", ["a b"]),
        numbers("tokenizer.ggml.token_type", I32, [1] * 300),
    ]
    header, length = gguf_bytes(keys, [])
    assert parse_gguf(header, length).metadata == {
        "general.architecture": "qwen2",
        "general.name": "DeepSeek R1?[31m Distill",
        "qwen2.block_count": 28,
        "qwen2.attention.head_count_kv": (4, 4, 8),
        "tokenizer.ggml.tokens.count": 300,
        "tokenizer.ggml.merges.count": 1,
    }


def test_vocabulary_longer_than_any_buffer_is_walked_over() -> None:
    tokens = [f"{number:0{number % 300}d}" for number in range(30_000)]
    keys = [strings("tokenizer.ggml.tokens", tokens), string("general.architecture", "llama")]
    header, length = gguf_bytes(keys, [GgufTensor("x", (4,), 0, 16)])
    assert len(header) > 4 << 20
    parsed = parse_gguf(header, length)
    assert parsed.metadata == {"tokenizer.ggml.tokens.count": 30_000, "general.architecture": "llama"}
    assert parsed.names == ["x"]


def test_types_agree_with_the_recipes() -> None:
    by_name = {one.name: one for one in GGML_TYPES.values()}
    for name, block in gguf_tables().types.items():
        known = by_name[name]
        assert (known.block_elements, known.block_bytes) == (block.block_elements, block.block_bytes), name


def test_interleaved_types_have_the_bytes_of_their_base() -> None:
    by_name = {one.name: one for one in GGML_TYPES.values()}
    pairs = [
        (one, by_name[name.rpartition("_")[0]])
        for name, one in by_name.items()
        # Q8_K_R8 drops the sums that Q8_K keeps for the dot product.
        if name.endswith(("_R4", "_R8", "_R16")) and name != "Q8_K_R8" and one.row_bytes == 0
    ]
    assert len(pairs) > 15
    for one, base in pairs:
        assert one.block_bytes * base.block_elements == base.block_bytes * one.block_elements, one.name


def test_unknown_type_is_sized_by_its_room() -> None:
    some = [GgufTensor("a", (100,), 9999, 640), GgufTensor("b", (8,), 0, 32), GgufTensor("c", (7,), 8888, 64)]
    header, length = gguf_bytes([], some)
    parsed = parse_gguf(header, length)
    found = [parsed.kinds[number] for number in parsed.kind]
    assert found == [("type_9999", (100,), 640), ("F32", (8,), 32), ("type_8888", (7,), 64)]
    assert parsed.notes and parsed.notes[0].startswith("2 tensors")


def test_row_scales_of_the_fork_are_counted() -> None:
    # IQ4_KS: 136 bytes per 256 elements and 4 bytes per row (ik_llama.cpp ggml.c).
    header, length = gguf_bytes([], [GgufTensor("a", (512, 3), 144, 3 * (2 * 136 + 4))])
    assert parse_gguf(header, length).kinds == [("IQ4_KS", (3, 512), 828)]


def refused(data: bytes, length: int | None = None) -> Problem:
    with pytest.raises(HeaderError) as caught:
        parse_gguf(data, length)
    return caught.value.kind


def preamble(tensor_count: int, key_count: int, version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, tensor_count, key_count)


ROOM = bytes(4096)
"""Room for whatever a preamble announces."""


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", Problem.NOT_A_CHECKPOINT),
        (b"GGU", Problem.NOT_A_CHECKPOINT),
        (b"ggml" + ROOM, Problem.NOT_A_CHECKPOINT),
        (b"GGUF", Problem.TRUNCATED),
        (preamble(0, 0)[:-1], Problem.TRUNCATED),
        (preamble(0, 0, version=1) + ROOM, Problem.UNSUPPORTED_VERSION),
        (preamble(0, 0, version=4) + ROOM, Problem.UNSUPPORTED_VERSION),
        (struct.pack(">4sIQQ", b"GGUF", 3, 1, 1) + ROOM, Problem.BIG_ENDIAN),
        (preamble(2**60, 0) + ROOM, Problem.TOO_MANY_TENSORS),
        (preamble(2**64 - 1, 0) + ROOM, Problem.TOO_MANY_TENSORS),
        (preamble(1_000_000, 0) + ROOM, Problem.TRUNCATED),
        (preamble(0, 2**60) + ROOM, Problem.TOO_MANY_KEYS),
        (preamble(0, 60_000) + ROOM, Problem.TRUNCATED),
        (preamble(0, 1) + struct.pack("<Q", 2**60) + ROOM, Problem.STRING_TOO_LONG),
        (preamble(0, 1) + struct.pack("<Q", 100_000) + ROOM, Problem.TRUNCATED),
        (preamble(0, 1) + text("k") + struct.pack("<I", 13) + ROOM, Problem.BAD_VALUE),
        (preamble(0, 1) + text("k") + struct.pack("<IIQ", ARRAY, 13, 1) + ROOM, Problem.BAD_VALUE),
        (preamble(0, 1) + text("k") + struct.pack("<IIQ", ARRAY, ARRAY, 1) + ROOM, Problem.NESTED_TOO_DEEP),
        (preamble(0, 1) + text("k") + struct.pack("<IIQ", ARRAY, U8, 2**63) + ROOM, Problem.TRUNCATED),
        (preamble(0, 1) + text("k") + struct.pack("<IIQ", ARRAY, STRING, 2**61) + ROOM, Problem.TRUNCATED),
        (
            preamble(0, 1) + text("k") + struct.pack("<IIQQ", ARRAY, STRING, 2, 2**64 - 1) + ROOM,
            Problem.STRING_TOO_LONG,
        ),
        (
            preamble(0, 1) + text("k") + struct.pack("<IIQQ", ARRAY, STRING, 2, 5000) + ROOM,
            Problem.TRUNCATED,
        ),
        (preamble(0, 2) + scalar("k", U32, 1) * 2 + ROOM, Problem.DUPLICATE_NAME),
        (preamble(2, 0) + tensor_entry("t", [8], 0, 0) * 2 + ROOM, Problem.DUPLICATE_NAME),
        (preamble(1, 0) + tensor_entry("t", [1] * 5, 0, 0) + ROOM, Problem.BAD_SHAPE),
        (preamble(1, 0) + tensor_entry("t", [2**40, 2**40], 0, 0) + ROOM, Problem.BAD_SHAPE),
        (preamble(1, 0) + tensor_entry("t", [0, 2**63], 0, 0) + ROOM, Problem.BAD_SHAPE),
        (preamble(1, 0) + tensor_entry("t", [255], 12, 0) + ROOM, Problem.BAD_SHAPE),
        (preamble(1, 0) + tensor_entry("t", [8], 0, 7) + ROOM, Problem.BAD_ALIGNMENT),
        (preamble(1, 0) + tensor_entry("t", [8], 0, 2**62) + ROOM, Problem.OFFSET_OUTSIDE_FILE),
        (preamble(1, 0) + tensor_entry("t", [2**30], 0, 0) + ROOM, Problem.OFFSET_OUTSIDE_FILE),
        (
            preamble(2, 0) + tensor_entry("t", [64], 0, 0) + tensor_entry("u", [64], 0, 32) + ROOM,
            Problem.OVERLAPPING_TENSORS,
        ),
        (preamble(0, 1) + scalar("general.alignment", U32, 0), Problem.BAD_ALIGNMENT),
        (preamble(0, 1) + scalar("general.alignment", U32, 48), Problem.BAD_ALIGNMENT),
        (preamble(0, 1) + scalar("general.alignment", U32, 1 << 30), Problem.BAD_ALIGNMENT),
        (preamble(0, 1) + scalar("general.alignment", BOOL, 1), Problem.BAD_ALIGNMENT),
        (preamble(0, 1) + string("general.alignment", "32"), Problem.BAD_ALIGNMENT),
    ],
)
def test_lies_are_refused_by_name(data: bytes, problem: Problem) -> None:
    assert refused(data) is problem


def test_file_cut_inside_its_data_says_how_much_is_missing() -> None:
    header, length = gguf_bytes([], [GgufTensor("a", (64,), 0, 256), GgufTensor("b", (64,), 0, 256)])
    with pytest.raises(HeaderError, match="300 bytes more than the file has") as caught:
        parse_gguf(header, length - 300)
    assert caught.value.kind is Problem.OFFSET_OUTSIDE_FILE


def test_header_of_any_length_is_refused_beyond_the_budget() -> None:
    limits = replace(LIMITS, header_bytes=1000)
    header, length = gguf_bytes([strings("tokenizer.ggml.tokens", ["x"] * 500)], [])
    with pytest.raises(HeaderError) as caught:
        parse_gguf(header, length, limits)
    assert caught.value.kind is Problem.HEADER_TOO_LARGE


def test_many_empty_strings_cost_no_more_than_their_bytes() -> None:
    data = preamble(0, 1) + text("k") + struct.pack("<IIQ", ARRAY, STRING, 1_000_000) + bytes(8_000_000)
    started = time.perf_counter()
    assert parse_gguf(data).metadata == {}
    assert time.perf_counter() - started < 2


def test_messages_never_repeat_content() -> None:
    canary = "CANARY-4711"
    cases = [
        preamble(0, 2) + scalar(canary, U32, 1) * 2 + ROOM,
        preamble(2, 0) + tensor_entry(canary, [8], 0, 0) * 2 + ROOM,
        preamble(1, 0) + tensor_entry(canary, [8], 0, 7) + ROOM,
        preamble(0, 1) + string("general.alignment", canary) + ROOM,
        canary.encode(),
    ]
    for data in cases:
        with pytest.raises(HeaderError) as caught:
            parse_gguf(data)
        assert canary not in str(caught.value)
