"""What a checkpoint's headers said: tensors with their bytes, sizes of the files, and allowed metadata.

One form for safetensors and GGUF, so that what is built on it need not know which it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

MetadataValue = int | float | bool | str | tuple[int, ...]
"""A metadata value that is let through."""
ConfigValue = int | float | bool | str | None | list["ConfigValue"] | dict[str, "ConfigValue"]
"""A config.json after the reader's filter (see ``config.py``)."""


class Problem(StrEnum):
    """Why headers could not be read: the stable name that goes into JSON answers."""

    NOT_FOUND = "not_found"
    NOT_PERMITTED = "not_permitted"
    NOT_A_FILE = "not_a_file"
    OUTSIDE_ROOTS = "outside_roots"
    NOT_A_CHECKPOINT = "not_a_checkpoint"
    AMBIGUOUS = "ambiguous"
    MISSING_FILE = "missing_file"
    UNSUPPORTED_VERSION = "unsupported_version"
    BIG_ENDIAN = "big_endian"
    TRUNCATED = "truncated"
    TOO_MANY_TENSORS = "too_many_tensors"
    TOO_MANY_KEYS = "too_many_keys"
    STRING_TOO_LONG = "string_too_long"
    HEADER_TOO_LARGE = "header_too_large"
    NESTED_TOO_DEEP = "nested_too_deep"
    DUPLICATE_NAME = "duplicate_name"
    BAD_VALUE = "bad_value"
    BAD_TYPE = "bad_type"
    BAD_SHAPE = "bad_shape"
    BAD_ALIGNMENT = "bad_alignment"
    OFFSET_OUTSIDE_FILE = "offset_outside_file"
    OVERLAPPING_TENSORS = "overlapping_tensors"
    SIZE_MISMATCH = "size_mismatch"
    SPLIT_MISMATCH = "split_mismatch"
    CHANGED = "changed_while_read"
    TIME = "out_of_time"
    MEMORY = "out_of_memory"
    READER = "reader_failed"


class HeaderError(ValueError):
    """The checkpoint's headers cannot be read. ``kind`` is stable; the message never repeats file content."""

    def __init__(self, kind: Problem, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Format(StrEnum):
    """The container of the weights; ``CONFIG`` is a config.json without any."""

    GGUF = "gguf"
    SAFETENSORS = "safetensors"
    CONFIG = "config"


class FileIdentity(NamedTuple):
    """What tells a file from every other and from its own earlier content."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int


class StoredFile(NamedTuple):
    """A file of the checkpoint, by its place in ``Header.files``; ``name`` is the last part of its path.

    ``header_bytes`` is what stands before the tensor data: length field, header, metadata, alignment.
    """

    name: str
    size_bytes: int
    header_bytes: int
    identity: FileIdentity


class StoredEntry(NamedTuple):
    """A tensor as a header lists it. A named tuple, since a checkpoint has up to a hundred thousand.

    ``shape`` is in the order of PyTorch (rows before columns) for both containers; ``offset_bytes`` counts
    from the start of file number ``file``.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    size_bytes: int
    offset_bytes: int
    file: int


@dataclass(frozen=True, eq=False)
class Header:
    """The headers of all files of one checkpoint; equal only to itself, so that what follows from it can be
    kept beside it.

    ``metadata``: allow-listed keys of a GGUF (``gguf.ALLOWED``), with ``tokenizer.ggml.tokens.count`` and
    ``….merges.count`` for the arrays that were skipped. ``config``: the filtered config.json beside the
    weights. ``settings``: numbers of an Ollama model's parameters. ``notes``: what a reader of the answer
    should know.
    """

    format: Format
    files: tuple[StoredFile, ...]
    tensors: tuple[StoredEntry, ...]
    metadata: Mapping[str, MetadataValue] = field(default_factory=lambda: MappingProxyType({}))
    config: Mapping[str, ConfigValue] = field(default_factory=lambda: MappingProxyType({}))
    settings: Mapping[str, int | float | bool] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()

    @cached_property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors, without headers and padding."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @cached_property
    def file_bytes(self) -> int:
        """Bytes of all files of weights."""
        return sum(file.size_bytes for file in self.files)

    @cached_property
    def header_bytes(self) -> int:
        """Bytes of all files before their tensor data."""
        return sum(file.header_bytes for file in self.files)

    @cached_property
    def bytes_by_type(self) -> Mapping[str, int]:
        """Tensor bytes per element type, the largest first."""
        sums: dict[str, int] = {}
        for tensor in self.tensors:
            sums[tensor.type] = sums.get(tensor.type, 0) + tensor.size_bytes
        return MappingProxyType(dict(sorted(sums.items(), key=lambda item: -item[1])))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a header may claim before it is refused; the largest real ones are an order of magnitude below.

    The largest known: 96,085 tensors (DeepSeek-V4.1-Flash), 11.9 MB of headers (DeepSeek-V3, 163 files).
    safetensors itself refuses headers above 100 MB (safetensors 0.8 tensor.rs, MAX_HEADER_SIZE).
    """

    tensors: int = 1 << 20
    keys: int = 1 << 16
    string_bytes: int = 1 << 20
    dimensions: int = 8
    header_bytes: int = 100_000_000
    alignment_bytes: int = 1 << 20
    files: int = 4096
    folder_entries: int = 16384
    config_bytes: int = 4 << 20
    index_bytes: int = 64 << 20
    kept_array: int = 4096
    elements: int = 1 << 62


LIMITS = Limits()
