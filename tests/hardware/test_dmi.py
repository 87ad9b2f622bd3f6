"""The firmware's table of memory modules (SMBIOS 3.7 section 7.18), built here byte by byte."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from smbios import empty_slot, memory_module, table

from exporter.hardware.dmi import Module, parse_modules


def test_modules_are_those_that_are_plugged_in() -> None:
    made = table(memory_module(4800), empty_slot(), memory_module(4800))
    assert parse_modules(made) == (Module(64, 4800), Module(64, 4800))


def test_the_configured_speed_wins_over_the_rated_one() -> None:
    """A DDR5-5600 module behind a processor that runs it at 4800."""
    assert parse_modules(table(memory_module(5600, configured=4800))) == (Module(64, 4800),)
    assert parse_modules(table(memory_module(5600, configured=0))) == (Module(64, 5600),)


def test_a_module_of_128_gib_says_its_size_elsewhere() -> None:
    assert parse_modules(table(memory_module(4800, size_word=0x7FFF, extended_mib=131_072))) == (
        Module(64, 4800),
    )
    assert parse_modules(table(memory_module(4800, size_word=0x7FFF, extended_mib=0))) == ()


def test_a_table_of_an_old_version_ends_before_the_configured_speed() -> None:
    assert parse_modules(table(memory_module(2933, size_word=16_384)[:0x1B])) == (Module(64, 2933),)


def test_a_speed_beyond_a_word_says_so_elsewhere() -> None:
    made = bytearray(memory_module(0xFFFF, configured=0xFFFF))
    struct.pack_into("<II", made, 0x54, 66_000, 12_800)
    assert parse_modules(table(bytes(made))) == (Module(64, 12_800),)


def test_what_is_no_working_memory_is_none() -> None:
    persistent = bytearray(memory_module(3200))
    persistent[0x12] = 0x1F
    unknown_width = memory_module(3200, width=0xFFFF)
    unknown_speed = memory_module(0, configured=0)
    assert parse_modules(table(bytes(persistent), unknown_width)) == ()
    assert parse_modules(table(unknown_speed)) == (Module(64, None),)


def test_a_structure_that_runs_over_the_end_ends_the_reading() -> None:
    whole = table(memory_module(4800), memory_module(4800))
    assert parse_modules(whole[: len(whole) - 60]) == (Module(64, 4800),)
    assert parse_modules(b"\x11\x02\x00\x00" + whole) == ()  # a length below that of its own header


@given(st.binary(max_size=4096))
def test_whatever_it_is_given_it_gives_only_modules_that_there_can_be(data: bytes) -> None:
    for module in parse_modules(data):
        assert module.width_bits in (8, 16, 32, 64, 128)
        assert module.megatransfers is None or 0 < module.megatransfers <= 20_000


@given(st.lists(st.integers(1, 20_000), max_size=8), st.binary(max_size=64))
def test_what_was_written_is_read(speeds: list[int], tail: bytes) -> None:
    made = table(*(memory_module(speed, configured=0) for speed in speeds)) + tail
    assert [one.megatransfers for one in parse_modules(made)] == speeds
