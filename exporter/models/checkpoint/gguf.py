"""The header of a GGUF file: metadata, tensor list, where the data begins. Versions 2 and 3, little endian.

Layout: llama.cpp ggml/include/gguf.h and ggml/src/gguf.cpp (b11434), whose own checks are repeated here, with
limits added. Token lists are walked over, never kept: a header of megabytes takes one buffer.
"""

from __future__ import annotations

import struct
from itertools import repeat

from exporter.models.checkpoint.files import Source
from exporter.models.checkpoint.ggml_types import GGML_TYPES
from exporter.models.checkpoint.parsed import ParsedFile
from exporter.models.checkpoint.tensors import HeaderError, Limits, MetadataValue, Problem

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MOST_DIMENSIONS = 4  # GGML_MAX_DIMS
_BUFFER_BYTES = 1 << 20
_LEAST_TENSOR_BYTES = 8 + 4 + 4 + 8  # no name, no dimensions, type, offset
_LEAST_KEY_BYTES = 8 + 4 + 1
_SHOWN_CHARACTERS = 128

_STRING, _ARRAY = 8, 9
_BOOL = 7
_SCALARS: dict[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_TENSOR_TAIL = struct.Struct("<IQ")

ALLOWED = frozenset(
    {
        "general.alignment",
        "general.architecture",
        "general.basename",
        "general.file_type",
        "general.finetune",
        "general.name",
        "general.quantization_version",
        "general.size_label",
        "general.type",
        "general.version",
        "split.count",
        "split.no",
        "split.tensors.count",
        "tokenizer.ggml.model",
        "tokenizer.ggml.pre",
    }
)
"""Keys that are kept, beside ``ALLOWED_OF_ARCHITECTURE``. Everything else in a file is walked over."""

ALLOWED_OF_ARCHITECTURE = frozenset(
    {
        "attention.compress_ratios",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.indexer.head_count",
        "attention.indexer.key_length",
        "attention.indexer.top_k",
        "attention.key_length",
        "attention.key_length_mla",
        "attention.kv_lora_rank",
        "attention.output_group_count",
        "attention.output_lora_rank",
        "attention.q_lora_rank",
        "attention.shared_kv_layers",
        "attention.sliding_window",
        "attention.value_length",
        "attention.value_length_mla",
        "block_count",
        "context_length",
        "embedding_length",
        "expert_count",
        "expert_feed_forward_length",
        "expert_gating_func",
        "expert_group_count",
        "expert_group_used_count",
        "expert_shared_count",
        "expert_used_count",
        "feed_forward_length",
        "hash_layer_count",
        "hyper_connection.count",
        "leading_dense_block_count",
        "nextn_predict_layers",
        "rope.dimension_count",
        "vocab_size",
    }
)
"""Keys that are kept when they follow ``<architecture>.`` (llama.cpp src/llama-arch.cpp LLM_KV_NAMES)."""

COUNTED_ARRAYS = frozenset({"tokenizer.ggml.tokens", "tokenizer.ggml.merges"})
"""Arrays of which only the length is kept, as ``<key>.count``."""


def read_gguf(source: Source, limits: Limits) -> ParsedFile:
    """The header of one GGUF file (one part, when it is split). Raises HeaderError."""
    cursor = _Cursor(source, limits)
    tensor_count, key_count = _preamble(cursor, limits)
    metadata = _metadata(cursor, key_count, limits)
    alignment = _alignment(metadata, limits)
    parsed = ParsedFile(metadata=metadata)
    raw = _tensor_list(cursor, tensor_count, limits)
    end = cursor.position
    parsed.header_bytes = end + -end % alignment if raw else min(end + -end % alignment, source.size_bytes)
    _place_tensors(parsed, raw, alignment, source.size_bytes)
    return parsed


class _Cursor:
    """Reads forward through one buffer; refuses to pass the end of the file or the header budget."""

    __slots__ = ("_base", "_buffer", "_limits", "_offset", "_source")

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._base = 0
        self._offset = 0
        self._buffer = b""

    @property
    def position(self) -> int:
        return self._base + self._offset

    @property
    def remaining(self) -> int:
        return self._source.size_bytes - self.position

    def take(self, length: int) -> bytes:
        start = self._need(length)
        self._offset = start + length
        return self._buffer[start : self._offset]

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        start = self._need(layout.size)
        self._offset = start + layout.size
        return layout.unpack_from(self._buffer, start)

    def u32(self) -> int:
        return self.unpack(_U32)[0]

    def u64(self) -> int:
        return self.unpack(_U64)[0]

    def string(self) -> bytes:
        length = self.u64()
        if length > self._limits.string_bytes:
            raise HeaderError(Problem.STRING_TOO_LONG, f"a string claims {length} bytes")
        return self.take(length)

    def skip(self, length: int) -> None:
        self._check(length)
        self._offset += length

    def skip_strings(self, count: int) -> None:
        """Walk over strings: the hot loop of a vocabulary, so a length field is read and nothing else."""
        if count > self.remaining // _U64.size:
            raise HeaderError(Problem.TRUNCATED, "a list claims more strings than the file can hold")
        get = _U64.unpack_from
        left = count
        while left:
            start = offset = self._need(_U64.size)
            buffer = self._buffer
            done = left
            try:
                for done in range(left):  # noqa: B007 -- how many were walked when the buffer ends
                    offset += 8 + get(buffer, offset)[0]
                done = left
            except (struct.error, OverflowError):
                pass
            if offset - len(buffer) > self._limits.string_bytes:
                # Only the last string walked can reach out of the buffer.
                raise HeaderError(Problem.STRING_TOO_LONG, "a string of a list is too long")
            self.skip(offset - start)
            left -= done

    def _need(self, length: int) -> int:
        if self._offset + length > len(self._buffer):
            self._check(length)
            self._refill(length)
        return self._offset

    def _refill(self, length: int = 0) -> None:
        self._base += self._offset
        self._offset = 0
        wanted = min(max(length, _BUFFER_BYTES), max(self._source.size_bytes - self._base, 0))
        self._buffer = self._source.read_at(self._base, wanted)

    def _check(self, length: int) -> None:
        if length > self.remaining:
            raise HeaderError(Problem.TRUNCATED, "the file ends inside its header")
        if self.position + length > self._limits.header_bytes:
            raise HeaderError(
                Problem.HEADER_TOO_LARGE, f"the header is longer than {self._limits.header_bytes} bytes"
            )


def _preamble(cursor: _Cursor, limits: Limits) -> tuple[int, int]:
    magic = cursor.take(min(cursor.remaining, len(MAGIC)))
    if magic == b"vers":
        raise HeaderError(
            Problem.NOT_A_CHECKPOINT, "a Git LFS pointer: the weights themselves were not downloaded"
        )
    if magic != MAGIC:
        raise HeaderError(Problem.NOT_A_CHECKPOINT, "not a GGUF file: it does not begin with GGUF")
    version = cursor.u32()
    if version not in _VERSIONS:
        if version & 0xFFFF == 0 and version >> 24:
            raise HeaderError(
                Problem.BIG_ENDIAN, "a big-endian GGUF: this host's engines cannot load it; convert it"
            )
        raise HeaderError(
            Problem.UNSUPPORTED_VERSION, f"GGUF version {version}; versions 2 and 3 can be read"
        )
    tensor_count, key_count = cursor.u64(), cursor.u64()
    if tensor_count > limits.tensors:
        raise HeaderError(
            Problem.TOO_MANY_TENSORS, f"claims {tensor_count} tensors; at most {limits.tensors} are read"
        )
    if key_count > limits.keys:
        raise HeaderError(
            Problem.TOO_MANY_KEYS, f"claims {key_count} metadata keys; at most {limits.keys} are read"
        )
    if tensor_count * _LEAST_TENSOR_BYTES + key_count * _LEAST_KEY_BYTES > cursor.remaining:
        raise HeaderError(Problem.TRUNCATED, "claims more tensors and keys than the file can hold")
    return tensor_count, key_count


def _metadata(cursor: _Cursor, count: int, limits: Limits) -> dict[str, MetadataValue]:
    kept: dict[str, MetadataValue] = {}
    seen: set[bytes] = set()
    for _ in repeat(None, count):
        raw = cursor.string()
        if raw in seen:
            raise HeaderError(Problem.DUPLICATE_NAME, "a metadata key occurs twice")
        seen.add(raw)
        kind = cursor.u32()
        key = raw.decode("utf-8", "replace") if len(raw) <= _SHOWN_CHARACTERS else ""
        wanted = _is_allowed(key, kept)
        if kind == _ARRAY:
            value, length = _array(cursor, wanted, limits)
            if key in COUNTED_ARRAYS:
                kept[f"{key}.count"] = length
            elif value is not None:
                kept[key] = value
            continue
        scalar = _scalar(cursor, kind)
        if wanted:
            kept[key] = scalar
    return kept


def _is_allowed(key: str, kept: dict[str, MetadataValue]) -> bool:
    if key in ALLOWED:
        return True
    prefix, _, rest = key.partition(".")
    architecture = kept.get("general.architecture", prefix)
    return rest in ALLOWED_OF_ARCHITECTURE and prefix == architecture


def _scalar(cursor: _Cursor, kind: int) -> MetadataValue:
    if kind == _STRING:
        return shown(cursor.string())
    layout = _SCALARS.get(kind)
    if layout is None:
        raise HeaderError(Problem.BAD_VALUE, f"metadata of unknown type {kind}")
    return cursor.unpack(layout)[0]


def _array(cursor: _Cursor, wanted: bool, limits: Limits) -> tuple[tuple[int, ...] | None, int]:
    kind, length = cursor.u32(), cursor.u64()
    if kind == _STRING:
        cursor.skip_strings(length)
        return None, length
    if kind == _ARRAY:
        raise HeaderError(Problem.NESTED_TOO_DEEP, "a list of lists in the metadata")
    layout = _SCALARS.get(kind)
    if layout is None:
        raise HeaderError(Problem.BAD_VALUE, f"a metadata list of unknown type {kind}")
    if length > cursor.remaining // layout.size:
        raise HeaderError(Problem.TRUNCATED, "a list claims more values than the file can hold")
    if not wanted or length > limits.kept_array:
        cursor.skip(length * layout.size)
        return None, length
    return tuple(cursor.unpack(layout)[0] for _ in range(length)), length


def _alignment(metadata: dict[str, MetadataValue], limits: Limits) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or isinstance(alignment, bool):
        raise HeaderError(Problem.BAD_ALIGNMENT, "general.alignment is not a whole number")
    if alignment < 1 or alignment & (alignment - 1) or alignment > limits.alignment_bytes:
        raise HeaderError(Problem.BAD_ALIGNMENT, f"alignment {alignment} is not a power of two in bounds")
    return alignment


_RawTensor = tuple[str, tuple[int, ...], int, int]
"""Name, dimensions as stored (fastest first), type number, offset from the start of the data."""


def _tensor_list(cursor: _Cursor, count: int, limits: Limits) -> list[_RawTensor]:
    raw: list[_RawTensor] = []
    names: set[bytes] = set()
    layouts = {length: struct.Struct(f"<{length}Q") for length in range(_MOST_DIMENSIONS + 1)}
    for _ in repeat(None, count):
        name = cursor.string()
        if name in names:
            raise HeaderError(Problem.DUPLICATE_NAME, "two tensors have the same name")
        names.add(name)
        layout = layouts.get(cursor.u32())
        if layout is None:
            raise HeaderError(Problem.BAD_SHAPE, f"a tensor of more than {_MOST_DIMENSIONS} dimensions")
        dimensions = cursor.unpack(layout)
        elements = 1
        for length in dimensions:
            elements *= length
        if elements > limits.elements or any(length > limits.elements for length in dimensions):
            raise HeaderError(Problem.BAD_SHAPE, "a tensor claims an impossible number of elements")
        number, offset = cursor.unpack(_TENSOR_TAIL)
        raw.append((name.decode("utf-8", "replace"), dimensions, number, offset))
    return raw


def _place_tensors(parsed: ParsedFile, raw: list[_RawTensor], alignment: int, file_bytes: int) -> None:
    order = sorted(range(len(raw)), key=lambda number: raw[number][3])
    data_bytes = file_bytes - parsed.header_bytes
    sizes: dict[int, int] = {}
    measured = 0
    for place, number in enumerate(order):
        _, dimensions, kind, offset = raw[number]
        if offset % alignment:
            raise HeaderError(Problem.BAD_ALIGNMENT, "a tensor does not begin on the file's alignment")
        is_last = place + 1 == len(order)
        end = data_bytes if is_last else raw[order[place + 1]][3]
        size = _tensor_bytes(kind, dimensions)
        if size is None:
            # A type of another fork or version: its room is its size, but for less than one alignment.
            size = max(end - offset, 0)
            measured += 1
        if offset + size > end and not is_last:
            raise HeaderError(Problem.OVERLAPPING_TENSORS, "the data of two tensors overlaps")
        if is_last and offset + size > data_bytes:
            raise HeaderError(
                Problem.OFFSET_OUTSIDE_FILE,
                f"the tensors need {offset + size - data_bytes} bytes more than the file has: "
                "an incomplete download?",
            )
        sizes[number] = size
    for number, (name, dimensions, kind, offset) in enumerate(raw):
        known = GGML_TYPES.get(kind)
        type_name = known.name if known is not None else f"type_{kind}"
        parsed.add(name, type_name, dimensions[::-1], sizes[number], parsed.header_bytes + offset)
    if measured:
        parsed.notes.append(
            f"{measured} tensors are of types whose size is not known here: taken from their room in the file"
        )


def _tensor_bytes(kind: int, dimensions: tuple[int, ...]) -> int | None:
    known = GGML_TYPES.get(kind)
    if known is None:
        return None
    row, rows = (dimensions[0] if dimensions else 1), 1
    for length in dimensions[1:]:
        rows *= length
    blocks, rest = divmod(row, known.block_elements)
    if rest:
        raise HeaderError(
            Problem.BAD_SHAPE, f"a row of {row} elements is not a multiple of the {known.name} block"
        )
    if known.row_bytes is None:
        return None
    return rows * (blocks * known.block_bytes + known.row_bytes)


def shown(raw: bytes) -> str:
    """Text of a file as it may be shown: short and printable."""
    text = raw[: 4 * _SHOWN_CHARACTERS].decode("utf-8", "replace")[:_SHOWN_CHARACTERS]
    return "".join(character if character.isprintable() else "?" for character in text)
