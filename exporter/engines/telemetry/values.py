"""Values out of answers that anybody may have written: typed, bounded, or not there at all."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

from exporter.engines.telemetry.client import Unanswered
from exporter.engines.telemetry.types import Reason

LONGEST_NAME = 128
LARGEST_COUNT = 2**60
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}", re.ASCII)
_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_FILE_TYPE = re.compile(r"[A-Z][A-Z0-9_]{1,15}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HUB_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_OVERSHOOT = 1.01
"""Ratios are rounded by the engines: a little more than all is all."""

Json = Mapping[str, object]


def parsed(body: bytes) -> object:
    """The JSON value of a body. Raises Unanswered for anything else, NaN and bottomless nesting included."""
    try:
        found: object = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Unanswered(Reason.NONSENSE) from None
    return found


def fields(value: object) -> Json:
    """An object's fields; none where it is no object."""
    return value if isinstance(value, dict) else {}


def items(value: object, most: int = 4096) -> Sequence[Json]:
    """The objects of a list, at most `most` of them."""
    return [entry for entry in value[:most] if isinstance(entry, dict)] if isinstance(value, list) else ()


def count(value: object) -> int | None:
    """A whole number, not negative: from a number, or from the text of one (labels)."""
    number = _number(value)
    return round(number) if number is not None and 0 <= number <= LARGEST_COUNT else None


def size(value: object) -> int | None:
    """A count that is not zero."""
    return count(value) or None


def ratio(value: object) -> float | None:
    number = _number(value)
    return min(float(number), 1.0) if number is not None and 0 <= number <= _OVERSHOOT else None


def gib(value: object) -> int | None:
    """Bytes of a number of GiB, as SGLang prints memory (sglang/srt/utils: bytes / (1 << 30))."""
    number = _number(value)
    return round(number * 2**30) if number is not None and 0 < number < 2**24 else None


def flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def name(value: object) -> str | None:
    """The name or path of a model: printable, short. A path into the hub's cache becomes the id it holds."""
    if not isinstance(value, str):
        return None
    if cached := _HUB_CACHE.search(value[:4096]):
        value = f"{cached[1]}/{cached[2]}"
    found = value.strip()
    return found if found and len(found) <= LONGEST_NAME and found.isprintable() else None


def version(value: object) -> str | None:
    return value if isinstance(value, str) and _VERSION.fullmatch(value) else None


def word(value: object) -> str | None:
    """A lower-case word, such as a dtype."""
    found = value.lower() if isinstance(value, str) else ""
    return found if _WORD.fullmatch(found) else None


def dtype(value: object) -> str | None:
    """The dtype of a cache; `auto` says nothing."""
    found = word(value)
    return found if found != "auto" else None


def file_type(value: object) -> str | None:
    """A GGUF file type by its name, such as Q4_K_M."""
    return value if isinstance(value, str) and _FILE_TYPE.fullmatch(value) else None


def digest(value: object) -> str | None:
    return value if isinstance(value, str) and _DIGEST.fullmatch(value) else None


def total(values: Sequence[int | None]) -> int | None:
    """The sum of what is there; None when nothing is."""
    there = [value for value in values if value is not None]
    return sum(there) if there else None


def _number(value: object) -> int | float | None:
    if isinstance(value, str):
        if len(value) > 32 or not _NUMBER.fullmatch(value):
            return None
        value = int(value) if value.isdigit() else float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def _refuse(constant: str) -> None:
    raise ValueError("not a JSON value")
