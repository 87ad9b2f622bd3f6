"""Facts in words: sizes, ages, places, and foreign names that do no harm."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.views import words


@given(st.text(max_size=200), st.integers(2, 80))
def test_a_foreign_name_is_one_visible_line_of_bounded_length(text: str, most: int) -> None:
    line = words.shown(text, most)
    assert len(line) <= most
    hidden = {one for one in line if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}
    assert hidden <= {"\u200d"}
    line.encode()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("DeepSeek-R1", "DeepSeek-R1"),
        ("深度求索 👩‍🔬", "深度求索 👩‍🔬"),
        ("a\x1b[31mb", "a�[31mb"),
        ("user\u202egnp.exe", "user�gnp.exe"),
        ("two\nlines", "two lines"),
        ("\ud800", "�"),
        ("x" * 70, "x" * 63 + "…"),
    ],
)
def test_what_cannot_be_seen_is_shown(text: str, line: str) -> None:
    assert words.shown(text) == line


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (111 * 2**30, 111 * 2**30, "111.0 GiB"),
        (111 * 2**30, 113 * 2**30, "111.0–113.0 GiB"),
        (700 * 2**30, 2**41, "700.0 GiB to 2.0 TiB"),
        (-(2**30), 2**30, "-1.0 GiB to 1.0 GiB"),
    ],
)
def test_both_ends_of_a_size(low: int, high: int, text: str) -> None:
    assert words.between(low, high) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (119.9, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 d"), (1e6, "11 d")],
)
def test_durations_are_said_in_the_unit_that_people_would_use(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("indices", "text"), [([], ""), ([3], "3"), ([0, 1], "0, 1"), ([4, 0, 2, 1, 6, 7, 8], "0–2, 4, 6–8")]
)
def test_neighbouring_devices_are_joined(indices: list[int], text: str) -> None:
    assert words.ranges(indices) == text


def test_abbreviations_keep_their_capitals() -> None:
    assert words.lowered("Room for 4") == "room for 4"
    assert words.lowered("KV cache") == "KV cache"
