"""Header bytes as the parsers see them, without a file system or a child between."""

from __future__ import annotations

import os

from exporter.models.checkpoint.files import Source, identity
from exporter.models.checkpoint.gguf import read_gguf
from exporter.models.checkpoint.parsed import ParsedFile
from exporter.models.checkpoint.safetensors import read_safetensors
from exporter.models.checkpoint.tensors import LIMITS, Limits


def _read(data: bytes, length: int | None, safetensors: bool, limits: Limits) -> ParsedFile:
    fd = os.memfd_create("header")
    try:
        os.write(fd, data)
        os.ftruncate(fd, len(data) if length is None else length)
        source = Source(fd, identity(os.fstat(fd)))
        return read_safetensors(source, limits) if safetensors else read_gguf(source, limits)
    finally:
        os.close(fd)


def parse_gguf(data: bytes, length: int | None = None, limits: Limits = LIMITS) -> ParsedFile:
    """``length``: of the file, when it is longer than its header."""
    return _read(data, length, False, limits)


def parse_safetensors(data: bytes, length: int | None = None, limits: Limits = LIMITS) -> ParsedFile:
    return _read(data, length, True, limits)
