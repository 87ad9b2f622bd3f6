"""Strict reading of sysfs: a value is whole and plausible or absent with a reason, and nothing raises."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.hardware.sysfs import MAX_BYTES_OF_MEMORY, Folder, parse_integer, parse_pairs

ABSURD = [
    (b"", "empty"),
    (b"\n", "empty"),
    (b"\0\0\0\0", "empty"),
    (b"-1\n", "malformed"),
    (b"%d\n" % 2**63, "malformed"),
    (b"18446744073709551615\n", "malformed"),
    (b"9" * 4000, "malformed"),
    (b"0x1000\n", "malformed"),
    (b"1e6\n", "malformed"),
    (b"4096 4096\n", "malformed"),
    (b"\xff\xfe12", "malformed"),
    ("１２３".encode(), "malformed"),
    (b"Query currently inaccessible\n", "malformed"),
]


@pytest.mark.parametrize(("content", "reason"), ABSURD)
def test_what_is_no_size_is_absent_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "size").write_bytes(content)
    folder = Folder(str(tmp_path), {})
    assert folder.integer("size") is None
    assert folder.errors == {"size": reason}


def test_a_file_that_is_not_there_is_absent_without_a_word(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path), {})
    assert folder.integer("size") is None
    assert folder.text("sub/folder/size") is None
    assert folder.errors == {}


def test_an_error_of_the_file_system_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "size").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    folder = Folder(str(tmp_path), {})
    assert folder.text("size") is None
    assert folder.text("loop") is None
    assert folder.errors == {"size": "eisdir", "loop": "eloop"}


@given(st.integers(-(2**70), 2**70))
def test_an_integer_is_read_as_it_was_written(number: int) -> None:
    digits = len(str(abs(number)))
    assert parse_integer(f" {number}\n") == (number if digits <= 20 else None)


@given(st.text())
def test_text_is_an_integer_or_none(text: str) -> None:
    value = parse_integer(text)
    assert value is None or int(text.strip()) == value


@given(st.text())
def test_pairs_of_any_text_are_names_and_small_numbers(text: str) -> None:
    for name, number in parse_pairs(text).items():
        assert name in text
        assert 0 <= number < 10**20


def test_pairs_stand_with_a_colon_or_without() -> None:
    assert parse_pairs("ue: 2\nce: 17\nde: x\n") == {"ue": 2, "ce": 17}
    assert parse_pairs("simd_count 304\nname\nhive_id -4\n") == {"simd_count": 304}


@given(st.binary(max_size=64))
def test_any_bytes_are_a_plausible_number_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzzed"
    root.mkdir(exist_ok=True)
    (root / "size").write_bytes(content)
    folder = Folder(str(root), {})
    value = folder.integer("size")
    assert (value is None) == (folder.errors.get("size") in ("empty", "malformed"))
    assert value is None or 0 <= value <= MAX_BYTES_OF_MEMORY
