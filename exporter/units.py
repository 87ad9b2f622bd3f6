"""Sizes and token counts as people write them, and back.

GB is 10^9 and GiB is 2^30 (IEC 80000-13); ``32k`` is 32,000 tokens and ``32K`` is 32,768, as the command
contract says.
"""

from __future__ import annotations

import re
from fractions import Fraction

KIB = 2**10
MIB = 2**20
GIB = 2**30
TIB = 2**40

_BYTES_PER_UNIT = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
    "tib": TIB,
}
_TOKENS_PER_UNIT = {"": 1, "k": 1000, "K": 1024, "m": 10**6, "M": 2**20}
_QUANTITY = re.compile(r"([0-9]{1,24}(?:\.[0-9]{1,12})?)\s*([A-Za-z]{0,3})", re.ASCII)


def parse_bytes(text: str | int) -> int:
    """Bytes of ``80GB``, ``79.6GiB``, ``512MiB`` or a plain number of bytes; fractions of a byte are dropped.

    Raises ValueError, saying what is accepted, for anything else: also for ``80G``, which may mean either.
    """
    number, unit = _split(
        text, "a size", "a number of bytes, or one with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB"
    )
    factor = _BYTES_PER_UNIT.get(unit.lower())
    if factor is None:
        raise ValueError(
            f"unknown unit {unit!r} of a size: write B, kB, MB, GB, TB (powers of 1000) "
            "or KiB, MiB, GiB, TiB (powers of 1024)"
        )
    return int(number * factor)


def parse_bytes_per_second(text: str | int) -> int:
    """Bytes a second of ``460GB/s``, ``460.8 GB/s`` or a plain number. Raises ValueError as `parse_bytes`."""
    return parse_bytes(text.strip().removesuffix("/s") if isinstance(text, str) else text)


def parse_tokens(text: str | int) -> int:
    """Tokens of ``8192``, ``32k`` (32,000), ``32K`` (32,768), ``1m`` (1,000,000) or ``1M`` (1,048,576).

    Raises ValueError, saying what is accepted, for anything else, and for a count that is not whole.
    """
    accepted = "a whole number, or one with k (1,000), K (1,024), m (1,000,000) or M (1,048,576)"
    number, unit = _split(text, "a number of tokens", accepted)
    factor = _TOKENS_PER_UNIT.get(unit)
    if factor is None:
        raise ValueError(f"unknown unit {unit!r} of a number of tokens: write {accepted}")
    tokens = number * factor
    if tokens.denominator != 1:
        raise ValueError(f"a number of tokens must be whole: write {accepted}")
    return int(tokens)


def format_bytes(size_bytes: int) -> str:
    """``79.5 GiB``: the largest binary unit that leaves at least 1, one decimal; bytes are exact."""
    magnitude = abs(size_bytes)
    for factor, unit in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        # 1,023.96 MiB would print as "1024.0 MiB": what rounds up to the next unit is written in it.
        if magnitude >= factor or (unit != "KiB" and round(magnitude * 1024 / factor, 1) >= 1024):
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def _split(text: str | int, what: str, accepted: str) -> tuple[Fraction, str]:
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise ValueError(f"not {what}: write {accepted}")
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"not {what}: write {accepted}")
    return Fraction(match[1]), match[2]
