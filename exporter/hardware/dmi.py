"""Memory modules by the firmware's own table, which only root may read (SMBIOS 3.7, section 7.18: type 17).

The table is whatever a firmware's vendor wrote: structures that run over its end, or make no sense, end the
reading, and numbers that no module has are not believed. Texts (makers, serial numbers) are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MOST_BYTES = 2**20
_MEMORY_DEVICE, _END_OF_TABLE = 17, 127
_HEADER_BYTES = 4
_LEAST_BYTES = 0x17
"""of a structure that tells a speed (SMBIOS 2.3)"""
_UNKNOWN_WORD = 0xFFFF
_EXTENDED_SIZE = 0x7FFF
_NO_MEMORY_TYPES = frozenset({0x1F})
"""logical devices of non-volatile modules"""
_WIDTHS_BITS = frozenset({8, 16, 32, 64, 128})
_MOST_MODULES = 1024
_MOST_MEGATRANSFERS = 20_000


@dataclass(frozen=True, slots=True)
class Module:
    """One module that is plugged in. ``megatransfers`` a second: as configured, else as rated."""

    width_bits: int
    megatransfers: int | None


def parse_modules(table: bytes) -> tuple[Module, ...]:
    """The memory modules of an SMBIOS structure table, as far as it makes sense."""
    found = []
    for structure in _structures(table):
        module = _module(structure)
        if module is not None:
            found.append(module)
            if len(found) == _MOST_MODULES:
                break
    return tuple(found)


def _structures(table: bytes) -> Iterator[bytes]:
    """The formatted part of each structure; the strings behind it are skipped."""
    at = 0
    while at + _HEADER_BYTES <= len(table):
        kind, length = table[at], table[at + 1]
        if length < _HEADER_BYTES or at + length > len(table):
            return
        strings_end = table.find(b"\0\0", at + length)
        if kind == _END_OF_TABLE or strings_end < 0:
            return
        if kind == _MEMORY_DEVICE:
            yield table[at : at + length]
        at = strings_end + 2


def _module(structure: bytes) -> Module | None:
    """None for an empty slot, and for what is no working memory."""
    if len(structure) < _LEAST_BYTES or structure[0x12] in _NO_MEMORY_TYPES:
        return None
    size = _word(structure, 0x0C)
    if size == _EXTENDED_SIZE:
        size = _double_word(structure, 0x1C) & 0x7FFFFFFF
    width = _word(structure, 0x0A)
    if size in (0, _UNKNOWN_WORD) or width not in _WIDTHS_BITS:
        return None
    return Module(width, _speed(structure, 0x20, 0x58) or _speed(structure, 0x15, 0x54))


def _speed(structure: bytes, at: int, extended_at: int) -> int | None:
    speed = _word(structure, at)
    if speed == _UNKNOWN_WORD:
        speed = _double_word(structure, extended_at) & 0x7FFFFFFF
    return speed if 0 < speed <= _MOST_MEGATRANSFERS else None


def _word(structure: bytes, at: int) -> int:
    """0 where the structure is of an older version and ends before it."""
    return int.from_bytes(structure[at : at + 2], "little") if at + 2 <= len(structure) else 0


def _double_word(structure: bytes, at: int) -> int:
    return int.from_bytes(structure[at : at + 4], "little") if at + 4 <= len(structure) else 0
