"""The header of a safetensors file and the index of a sharded checkpoint.

Layout: safetensors 0.8 (tensor.rs): a length of eight bytes, JSON, data without gaps. Its checks are repeated
here: a file that the engines' loader refuses is refused.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from math import prod

from exporter.models.checkpoint.files import Source
from exporter.models.checkpoint.parsed import ParsedFile
from exporter.models.checkpoint.tensors import HeaderError, Limits, Problem

DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits of one element (safetensors 0.8 tensor.rs, enum Dtype)."""

_LENGTH = struct.Struct("<Q")
_KEYS = frozenset({"dtype", "shape", "data_offsets"})
_LFS = b"version https://git-lfs"


def read_safetensors(source: Source, limits: Limits) -> ParsedFile:
    """The header of one safetensors file. Raises HeaderError."""
    if source.size_bytes < _LENGTH.size:
        raise HeaderError(Problem.TRUNCATED, "shorter than the eight bytes that begin a safetensors file")
    start = source.read_at(0, min(source.size_bytes, len(_LFS) + 1))
    if start.startswith(_LFS):
        raise HeaderError(
            Problem.NOT_A_CHECKPOINT, "a Git LFS pointer: the weights themselves were not downloaded"
        )
    (length,) = _LENGTH.unpack_from(start)
    if start[_LENGTH.size : _LENGTH.size + 1] not in (b"{", b""):
        raise HeaderError(Problem.NOT_A_CHECKPOINT, "not a safetensors file: no header begins there")
    if length > limits.header_bytes:
        raise HeaderError(
            Problem.HEADER_TOO_LARGE, f"claims a header of {length} bytes; at most {limits.header_bytes}"
        )
    data_start = _LENGTH.size + length
    if data_start > source.size_bytes:
        raise HeaderError(Problem.TRUNCATED, "the file ends inside its header")
    parsed = ParsedFile(header_bytes=data_start)
    entries = _entries(source.read_at(_LENGTH.size, length), limits)
    end = _add_tensors(parsed, entries, data_start, source.size_bytes)
    if end != source.size_bytes:
        raise HeaderError(
            Problem.SIZE_MISMATCH, f"{source.size_bytes - end} bytes behind the last tensor belong to none"
        )
    return parsed


def read_index(source: Source, limits: Limits) -> dict[str, str]:
    """``weight_map`` of a model.safetensors.index.json: tensor name to file name. Raises HeaderError."""
    if source.size_bytes > limits.index_bytes:
        raise HeaderError(Problem.HEADER_TOO_LARGE, f"the index is larger than {limits.index_bytes} bytes")
    index = parse_json(source.read_at(0, source.size_bytes))
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict):
        raise HeaderError(Problem.NOT_A_CHECKPOINT, "the index has no weight_map")
    if len(weights) > limits.tensors:
        raise HeaderError(
            Problem.TOO_MANY_TENSORS, f"lists {len(weights)} tensors; at most {limits.tensors} are read"
        )
    files = set()
    for name in weights.values():
        if not isinstance(name, str):
            raise HeaderError(Problem.BAD_VALUE, "the index names a file by something that is not a string")
        files.add(name)
    if len(files) > limits.files:
        raise HeaderError(
            Problem.TOO_MANY_TENSORS, f"lists {len(files)} files; at most {limits.files} are read"
        )
    if any(not name or "/" in name or "\0" in name or name in (".", "..") for name in files):
        raise HeaderError(Problem.OUTSIDE_ROOTS, "the index names a file that is not in its own folder")
    return weights


def check_index(weights: dict[str, str], files: Sequence[str], parsed: Sequence[ParsedFile]) -> None:
    """Every tensor of the index must stand in the file it names, and every tensor must be in the index."""
    for file, part in zip(files, parsed, strict=True):
        for name in part.names:
            if weights.get(name) != file:
                raise HeaderError(
                    Problem.SPLIT_MISMATCH, "a shard holds a tensor that the index does not place there"
                )
    if sum(len(part.names) for part in parsed) != len(weights):
        raise HeaderError(Problem.SPLIT_MISMATCH, "the index lists tensors that no shard holds")


def parse_json(data: bytes) -> object:
    """JSON from a file that others wrote. Raises HeaderError, also for keys that occur twice."""
    try:
        text = data.decode("utf-8")
        found: object = json.loads(text)
        if text.count(":") != _colons(found):
            # More colons than the result explains: they stand in strings, or a key was given twice.
            found = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, HeaderError):
            raise
        if isinstance(error, RecursionError):
            raise HeaderError(Problem.NESTED_TOO_DEEP, "JSON that is nested too deep") from None
        raise HeaderError(Problem.BAD_VALUE, "not valid JSON") from None
    return found


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise HeaderError(Problem.DUPLICATE_NAME, "a JSON key occurs twice")
    return found


def _colons(value: object) -> int:
    """Colons that the JSON of a value must have, one for each key of its two upper levels."""
    if not isinstance(value, dict):
        return 0
    return len(value) + sum(len(inner) for inner in value.values() if isinstance(inner, dict))


def _entries(header: bytes, limits: Limits) -> dict[str, object]:
    entries = parse_json(header)
    if not isinstance(entries, dict):
        raise HeaderError(Problem.NOT_A_CHECKPOINT, "the header is not a JSON object")
    metadata = entries.pop("__metadata__", None)
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    ):
        raise HeaderError(Problem.BAD_VALUE, "__metadata__ is not a table of strings")
    if len(entries) > limits.tensors:
        raise HeaderError(
            Problem.TOO_MANY_TENSORS, f"lists {len(entries)} tensors; at most {limits.tensors} are read"
        )
    return entries


def _add_tensors(parsed: ParsedFile, entries: dict[str, object], data_start: int, file_bytes: int) -> int:
    """Fill the columns in the file's order; the end of the last tensor's data."""
    sizes: dict[tuple[str, tuple[int, ...]], tuple[int, int]] = {}
    placed: list[tuple[int, int, str, int]] = []
    for name, entry in entries.items():
        if not isinstance(entry, dict) or entry.keys() != _KEYS:
            raise HeaderError(
                Problem.BAD_VALUE, "a tensor's entry does not have dtype, shape and data_offsets"
            )
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        try:
            kind, size = sizes[dtype, tuple(shape)]
        except (KeyError, TypeError):
            kind, size = _kind(parsed, dtype, shape)
            sizes[dtype, tuple(shape)] = kind, size
        if not isinstance(offsets, list) or len(offsets) != 2 or type(offsets[0]) is not int:
            raise HeaderError(Problem.BAD_VALUE, "data_offsets is not a pair of whole numbers")
        begin, end = offsets
        if type(end) is not int or end - begin != size:
            raise HeaderError(
                Problem.SIZE_MISMATCH, "a tensor's room differs from what its dtype and shape need"
            )
        placed.append((begin, end, name, kind))
    placed.sort()
    reached = 0
    for begin, end, name, kind in placed:
        if begin != reached:
            if begin < reached:
                raise HeaderError(Problem.OVERLAPPING_TENSORS, "the data of two tensors overlaps")
            raise HeaderError(Problem.SIZE_MISMATCH, "a gap between the data of two tensors")
        reached = end
        parsed.names.append(name)
        parsed.kind.append(kind)
        parsed.offsets.append(data_start + begin)
    if data_start + reached > file_bytes:
        missing = data_start + reached - file_bytes
        raise HeaderError(
            Problem.OFFSET_OUTSIDE_FILE,
            f"the tensors need {missing} bytes more than the file has: an incomplete download?",
        )
    return data_start + reached


def _kind(parsed: ParsedFile, dtype: object, shape: object) -> tuple[int, int]:
    bits = DTYPE_BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None or not isinstance(dtype, str):
        raise HeaderError(Problem.BAD_TYPE, "a tensor of a dtype that safetensors does not have")
    if not isinstance(shape, list) or any(type(length) is not int or length < 0 for length in shape):
        raise HeaderError(Problem.BAD_SHAPE, "a shape is not a list of whole numbers")
    if len(shape) > 64 or any(length > 1 << 62 for length in shape):
        raise HeaderError(Problem.BAD_SHAPE, "a tensor claims an impossible shape")
    size, rest = divmod(prod(shape) * bits, 8)
    if rest:
        raise HeaderError(Problem.BAD_SHAPE, "a tensor does not end on a whole byte")
    return parsed.number(dtype, tuple(shape), size), size
