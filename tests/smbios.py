"""SMBIOS tables of memory modules as a firmware writes them (DSP0134 3.7, section 7.18)."""

from __future__ import annotations

import struct

_LENGTH = 0x5C


def memory_module(
    speed: int,
    *,
    configured: int | None = None,
    width: int = 64,
    size_word: int = 0x7FFF,
    extended_mib: int = 65_536,
) -> bytes:
    """The formatted part of one type 17 structure; speeds in MT/s."""
    made = bytearray(_LENGTH)
    struct.pack_into("<BBH", made, 0, 17, _LENGTH, 0x1100)
    struct.pack_into("<HHH", made, 0x08, width + 16 if width < 0xFFF0 else width, width, size_word)
    made[0x12] = 0x22  # DDR5
    struct.pack_into("<H", made, 0x15, speed)
    struct.pack_into("<I", made, 0x1C, extended_mib)
    struct.pack_into("<H", made, 0x20, speed if configured is None else configured)
    return bytes(made)


def empty_slot() -> bytes:
    return memory_module(0, width=0, size_word=0)


def table(*modules: bytes) -> bytes:
    """A whole table: firmware information first, then the modules, each with its strings, then the end."""
    firmware = struct.pack("<BBH", 0, 24, 0) + bytes(20)
    parts = [firmware + b"A vendor\x002.1\x00\x00"]
    for module in modules:
        whole = bytes([module[0], len(module)]) + module[2:]
        parts.append(whole + b"P0 CHANNEL A\x00SERIAL-SECRET\x00\x00")
    return b"".join(parts) + struct.pack("<BBH", 127, 4, 0) + b"\x00\x00"
