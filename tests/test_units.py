"""Sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.units import GIB, MIB, TIB, format_bytes, parse_bytes, parse_tokens


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("80GB", 80_000_000_000),
        ("79.6GiB", 85_469_849_190),
        ("512MiB", 512 * MIB),
        ("1 TiB", TIB),
        ("24564 mib", 24_564 * MIB),
        ("1024", 1024),
        (4096, 4096),
        ("0", 0),
    ],
)
def test_sizes_read_as_the_command_contract_writes_them(text: str | int, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1", "80G", "80 GB RAM", "1e9", "0x10", "١GB", "nan", True, "9" * 30]
)
def test_a_size_that_is_not_one_is_refused_with_what_is_accepted(text: str | int) -> None:
    with pytest.raises(ValueError, match="GiB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("32k", 32_000), ("32K", 32_768), ("8192", 8192), (16, 16), ("1m", 10**6), ("1.5K", 1536)],
)
def test_tokens_read_small_k_as_a_thousand_and_large_k_as_1024(text: str | int, tokens: int) -> None:
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize("text", ["32kb", "k", "-4", "1.5", "many", False])
def test_tokens_that_are_not_a_whole_number_are_refused(text: str | int) -> None:
    with pytest.raises(ValueError, match="K"):
        parse_tokens(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (85_399_000_000, "79.5 GiB"),
        (GIB, "1.0 GiB"),
        (GIB - 1, "1.0 GiB"),
        (0, "0 B"),
        (1023, "1023 B"),
        (-3 * GIB, "-3.0 GiB"),
        (1400 * GIB, "1.4 TiB"),
    ],
)
def test_people_see_binary_units(size_bytes: int, text: str) -> None:
    assert format_bytes(size_bytes) == text


@given(st.integers(min_value=0, max_value=2**50))
def test_what_is_printed_reads_back_within_its_last_digit(size_bytes: int) -> None:
    text = format_bytes(size_bytes)
    unit_bytes = parse_bytes("1" + text.split()[1])
    assert abs(parse_bytes(text) - size_bytes) <= unit_bytes * 0.05 + 1
