"""Versions of engines, compared: rules of allocation changed with releases (policies/ says which)."""

from __future__ import annotations

import re

_NUMBERS = re.compile(r"[vbr]?(\d{1,6}(?:\.\d{1,6}){0,3})", re.ASCII | re.IGNORECASE)


def version_tuple(text: str | None) -> tuple[int, ...] | None:
    """``v0.5.0.post1`` is (0, 5, 0), llama.cpp's build ``b5140`` is (5140,); None where nothing is to be
    read.
    """
    if text is None:
        return None
    found = _NUMBERS.match(text.strip())
    return tuple(int(part) for part in found.group(1).split(".")) if found else None


def before(version: str | None, limit: tuple[int, ...]) -> bool:
    """Whether a stated version is older than ``limit``. One that was not stated is the current one."""
    parts = version_tuple(version)
    return parts is not None and parts < limit
