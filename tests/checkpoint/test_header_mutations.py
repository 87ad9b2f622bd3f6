"""Whatever bytes a header has: a result or a HeaderError, soon, and without much memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable

import pytest
from checkpoint_files import (
    I32,
    U32,
    GgufTensor,
    SafeTensor,
    gguf_bytes,
    numbers,
    safetensors_bytes,
    scalar,
    string,
    strings,
)
from header_sources import parse_gguf, parse_safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.models.checkpoint.config import filtered
from exporter.models.checkpoint.parsed import ParsedFile
from exporter.models.checkpoint.safetensors import parse_json
from exporter.models.checkpoint.tensors import HeaderError

GGUF, GGUF_LENGTH = gguf_bytes(
    [
        string("general.architecture", "deepseek2"),
        scalar("deepseek2.block_count", U32, 61),
        numbers("deepseek2.attention.head_count_kv", I32, [1, 2, 3]),
        strings("tokenizer.ggml.tokens", ["a", "bb", "ccc"]),
    ],
    [
        GgufTensor("token_embd.weight", (256, 4), 12, 576),
        GgufTensor("blk.0.attn_norm.weight", (64,), 0, 256),
        GgufTensor("blk.0.ffn_up_exps.weight", (256, 2, 3), 144, 6 * 140),
    ],
)
SAFETENSORS, SAFETENSORS_LENGTH = safetensors_bytes(
    [SafeTensor("model.embed_tokens.weight", (4, 8), "BF16"), SafeTensor("b", (3,), "F8_E4M3")],
    {"format": "pt"},
)
SECONDS, BYTES = 2.0, 64 << 20


def survives(parse: Callable[[bytes, int], ParsedFile], data: bytes, length: int) -> None:
    started = time.perf_counter()
    try:
        parsed = parse(data, max(length, len(data)))
    except HeaderError as error:
        assert error.kind and error.message
    else:
        sizes = [parsed.kinds[kind][2] for kind in parsed.kind]
        ends = [offset + size for offset, size in zip(parsed.offsets, sizes, strict=True)]
        assert all(size >= 0 for size in sizes)
        assert max(ends, default=0) <= max(length, len(data))
        assert sum(sizes) <= max(length, len(data))
    assert time.perf_counter() - started < SECONDS


def flipped(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    found = bytearray(data)
    for place, value in changes:
        found[place % len(found)] = value
    return bytes(found)


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8)


@given(CHANGES)
@settings(max_examples=600, deadline=None)
def test_flipped_bytes_of_a_gguf(changes: list[tuple[int, int]]) -> None:
    survives(parse_gguf, flipped(GGUF, changes), GGUF_LENGTH)


@given(CHANGES)
@settings(max_examples=600, deadline=None)
def test_flipped_bytes_of_a_safetensors_file(changes: list[tuple[int, int]]) -> None:
    survives(parse_safetensors, flipped(SAFETENSORS, changes), SAFETENSORS_LENGTH)


def test_every_single_byte_of_a_gguf_at_its_extremes() -> None:
    for place in range(len(GGUF)):
        for value in (0x00, 0x01, 0x7F, 0x80, 0xFF):
            survives(parse_gguf, flipped(GGUF, [(place, value)]), GGUF_LENGTH)


def test_every_eight_bytes_of_a_gguf_as_a_huge_number() -> None:
    for place in range(len(GGUF) - 8):
        for value in (1 << 63, (1 << 64) - 1, 1 << 60, 1 << 32, GGUF_LENGTH):
            survives(parse_gguf, GGUF[:place] + struct.pack("<Q", value) + GGUF[place + 8 :], GGUF_LENGTH)


@pytest.mark.parametrize("cut", range(0, len(GGUF), 7))
def test_gguf_cut_anywhere_is_refused(cut: int) -> None:
    with pytest.raises(HeaderError):
        parse_gguf(GGUF[:cut])


@pytest.mark.parametrize("cut", range(0, len(SAFETENSORS), 5))
def test_safetensors_file_cut_anywhere_is_refused(cut: int) -> None:
    with pytest.raises(HeaderError):
        parse_safetensors(SAFETENSORS[:cut])


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_bytes_at_all(data: bytes) -> None:
    survives(parse_gguf, data, len(data))
    survives(parse_gguf, b"GGUF\x03\0\0\0" + data, len(data) + 8)
    survives(parse_safetensors, data, len(data))
    survives(parse_safetensors, struct.pack("<Q", len(data)) + data, len(data) + 8)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_configuration_is_filtered_or_refused(config: dict[str, object]) -> None:
    try:
        kept = filtered(config)
    except HeaderError:
        return
    assert kept.keys() <= config.keys()
    assert "text" not in kept or not isinstance(kept["text"], str)


@given(st.binary(max_size=200))
def test_any_bytes_as_json(data: bytes) -> None:
    try:
        parse_json(data)
    except HeaderError as error:
        assert error.message


def test_lies_take_no_memory() -> None:
    tracemalloc.start()
    try:
        for place in range(0, len(GGUF) - 8, 3):
            survives(parse_gguf, GGUF[:place] + b"\xff" * 8 + GGUF[place + 8 :], 1 << 40)
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()
