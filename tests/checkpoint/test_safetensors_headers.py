"""Safetensors headers: what the format's own library accepts is read exactly, the rest refused by name."""

from __future__ import annotations

import json
import struct

import pytest
from checkpoint_files import DTYPE_BITS, SafeTensor, safetensors_bytes
from header_sources import parse_safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.models.checkpoint.tensors import HeaderError, Problem

NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40).filter(
    lambda name: name != "__metadata__"
)


@st.composite
def tensors(draw: st.DrawFn) -> list[SafeTensor]:
    found = []
    for name in draw(st.lists(NAMES, unique=True, max_size=12)):
        dtype = draw(st.sampled_from(sorted(DTYPE_BITS)))
        shape = draw(st.lists(st.integers(0, 9), max_size=4))
        if DTYPE_BITS[dtype] % 8:
            shape.append(8)
        found.append(SafeTensor(name, tuple(shape), dtype))
    return found


@given(tensors(), st.none() | st.dictionaries(NAMES, NAMES, max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_valid_file_is_read_back(some: list[SafeTensor], metadata: dict[str, str] | None) -> None:
    header, length = safetensors_bytes(some, metadata)
    parsed = parse_safetensors(header, length)
    found = {
        name: (parsed.kinds[kind], offset)
        for name, kind, offset in zip(parsed.names, parsed.kind, parsed.offsets, strict=True)
    }
    offset = len(header)
    for tensor in some:
        assert found[tensor.name] == ((tensor.dtype, tensor.shape, tensor.size_bytes), offset)
        offset += tensor.size_bytes
    assert len(found) == len(some)
    assert parsed.header_bytes + sum(kind[2] for kind, _ in found.values()) == length


def raw(header: str | bytes, data_bytes: int = 0, length: int | None = None) -> bytes:
    encoded = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + bytes(data_bytes)


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def header(**entries: object) -> str:
    return json.dumps(entries)


NESTED = "[" * 200_000


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", Problem.TRUNCATED),
        (b"1234567", Problem.TRUNCATED),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", Problem.NOT_A_CHECKPOINT),
        (b"#!/bin/sh\necho this is not a checkpoint\n", Problem.NOT_A_CHECKPOINT),
        (raw("{}", length=2**60), Problem.HEADER_TOO_LARGE),
        (raw("{}", length=100), Problem.TRUNCATED),
        (raw("[]"), Problem.NOT_A_CHECKPOINT),
        (raw("{"), Problem.BAD_VALUE),
        (raw(b"{\xff}"), Problem.BAD_VALUE),
        (raw('{"a":' + NESTED), Problem.NESTED_TOO_DEEP),
        (raw(header(a=entry("F17")), 8), Problem.BAD_TYPE),
        (raw(header(a=entry(["F32"])), 8), Problem.BAD_TYPE),
        (raw(header(a=entry(shape=[-2])), 8), Problem.BAD_SHAPE),
        (raw(header(a=entry(shape=[2.0])), 8), Problem.BAD_SHAPE),
        (raw(header(a=entry(shape=[True, 2])), 8), Problem.BAD_SHAPE),
        (raw(header(a=entry(shape="22")), 8), Problem.BAD_SHAPE),
        (raw(header(a=entry(shape=[1 << 70])), 8), Problem.BAD_SHAPE),
        (raw(header(a=entry("F4", [3], [0, 1])), 1), Problem.BAD_SHAPE),
        (raw(header(a=entry(offsets=[0, 9])), 9), Problem.SIZE_MISMATCH),
        (raw(header(a=entry(offsets=[8, 0])), 8), Problem.SIZE_MISMATCH),
        (raw(header(a=entry(offsets=[0, "8"])), 8), Problem.SIZE_MISMATCH),
        (raw(header(a=entry(offsets=[0])), 8), Problem.BAD_VALUE),
        (raw(header(a=entry(offsets=None)), 8), Problem.BAD_VALUE),
        (raw(header(a={"dtype": "F32"}), 8), Problem.BAD_VALUE),
        (raw(header(a=3), 8), Problem.BAD_VALUE),
        (raw(header(a={**entry(), "more": 1}), 8), Problem.BAD_VALUE),
        (raw(header(__metadata__={"a": 1})), Problem.BAD_VALUE),
        (raw(header(a=entry(), b=entry(offsets=[4, 12])), 12), Problem.OVERLAPPING_TENSORS),
        (raw(header(a=entry(), b=entry(offsets=[9, 17])), 17), Problem.SIZE_MISMATCH),
        (raw(header(a=entry()), 7), Problem.OFFSET_OUTSIDE_FILE),
        (raw(header(a=entry()), 9), Problem.SIZE_MISMATCH),
        (raw(header(a=entry(shape=[1 << 40], offsets=[0, 1 << 42])), 8), Problem.OFFSET_OUTSIDE_FILE),
    ],
)
def test_lies_are_refused_by_name(data: bytes, problem: Problem) -> None:
    with pytest.raises(HeaderError) as caught:
        parse_safetensors(data)
    assert caught.value.kind is problem


A = '"dtype":"F32","shape":[2],"data_offsets":[0,8]'


@pytest.mark.parametrize(
    "text",
    [
        f'{{"a":{{{A}}},"a":{{{A}}}}}',
        f'{{"a":{{"dtype":"F16",{A}}}}}',
        f'{{"a":1,"a":{{{A}}}}}',
        f'{{"a":{{{A}}},"\\u0061":{{{A}}}}}',
        f'{{"__metadata__":{{"x":"1","x":"2"}},"a":{{{A}}}}}',
        f'{{"__metadata__":{{}},"__metadata__":{{}},"a":{{{A}}}}}',
    ],
)
def test_key_given_twice_is_refused(text: str) -> None:
    with pytest.raises(HeaderError) as caught:
        parse_safetensors(raw(text, 8))
    assert caught.value.kind is Problem.DUPLICATE_NAME


def test_colons_in_names_are_no_second_key() -> None:
    assert parse_safetensors(raw(f'{{"a:b:c":{{{A}}}}}', 8)).names == ["a:b:c"]
