"""From the text of one argument to a bounded value of a known kind. Nothing else of an argument survives.

Every reader raises ValueError without repeating what it was given. Number forms: vLLM 0.33
engine/arg_utils.py (human_readable_int), SGLang 0.5.23 arg_groups/argparse_actions.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TypeVar

Value = int | float | str | bool | tuple[str, ...]
Reader = Callable[[str], Value]
Number = TypeVar("Number", int, float)

LONGEST_TEXT = 4096
_LONGEST_JSON = 65536

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(?:[eE][+-]?[0-9]{1,3})?", re.ASCII
)
_HUMAN = re.compile(r"([+-]?[0-9]{1,18}(?:\.[0-9]{1,9})?)([kKmMgGtT]?)", re.ASCII)
_HUMAN_UNITS = {"": 1} | {
    letter: factor
    for power, unit in enumerate("kmgt", start=1)
    for letter, factor in ((unit, 1000**power), (unit.upper(), 1024**power))
}
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_.:%*\[\]-]{1,253}", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_USERINFO = re.compile(r"[^/:@\s]*:[^/@\s]*@")
_SECRET = re.compile(
    r"(?:^|[\s=:\"'/])(?:sk-|hf_[A-Za-z]|gh[pousr]_|github_pat_|xox[abprs]-|AKIA[0-9A-Z]{12}|eyJ[A-Za-z0-9_-]{10}"
    r"|glpat-|nvapi-|bearer\s)",
    re.IGNORECASE,
)
"""Beginnings that keys and tokens of the usual services have: a text that holds one is not a setting."""


def integer(low: int, high: int = 2**31 - 1) -> Reader:
    """A whole number from `low` to `high`."""

    def read(text: str) -> int:
        if not _INTEGER.fullmatch(text.strip()):
            raise ValueError("not a whole number")
        return _within(int(text), low, high)

    return read


def human_integer(low: int, high: int = 2**50) -> Reader:
    """A whole number, or one with k (1000), K (1024), m, M, g, G, t or T: `25.6k` is 25,600."""

    def read(text: str) -> int:
        match = _HUMAN.fullmatch(text.strip())
        if match is None:
            raise ValueError("not a whole number, with k, K, m, M, g or G behind it or not")
        count = Fraction(match[1]) * _HUMAN_UNITS[match[2]]
        if count.denominator != 1:
            raise ValueError("not a whole number")
        return _within(int(count), low, high)

    return read


def number(low: float, high: float) -> Reader:
    """A number from `low` to `high`."""

    def read(text: str) -> float:
        if not _NUMBER.fullmatch(text.strip()):
            raise ValueError("not a number")
        return _within(float(text), low, high)

    return read


def gigabytes(text: str) -> float | int:
    """A size in the engine's gigabytes; a whole one stays whole."""
    size = number(0, 1 << 20)(text)
    assert isinstance(size, float)
    return int(size) if size.is_integer() else size


def fraction(text: str) -> float:
    """A part of memory: above 0, at most 1."""
    part = number(0, 1)(text)
    assert isinstance(part, float)
    if part == 0:
        raise ValueError("must be above 0")
    return part


def boolean(text: str) -> bool:
    """on/off, true/false, yes/no, 1/0, enabled/disabled."""
    word = text.strip().lower()
    if word in ("1", "true", "on", "yes", "enabled", "y", "t"):
        return True
    if word in ("0", "false", "off", "no", "disabled", "n", "f"):
        return False
    raise ValueError("neither true nor false")


def word(text: str) -> str:
    """One identifier: a type, a method."""
    found = text.strip()
    if not _WORD.fullmatch(found) or _SECRET.search(found):
        raise ValueError("not a name")
    return found


def or_nothing(read: Reader) -> Reader:
    """What `read` makes of the text, and "" of what it refuses: for settings that decide nothing of memory,
    so that a strange one costs no expectation.
    """

    def lenient(text: str) -> Value:
        try:
            return read(text)
        except ValueError:
            return ""

    return lenient


def one_of(*words: str) -> Reader:
    """One of these words, in any case."""

    def read(text: str) -> str:
        found = text.strip().lower()
        if found not in words:
            raise ValueError(f"not one of {', '.join(words)}")
        return found

    return read


def layers(text: str) -> int | str:
    """llama.cpp's number of layers: a number, `all` or `auto`."""
    found = text.strip().lower()
    if found in ("all", "auto"):
        return found
    count = integer(-(2**31), 2**31 - 1)(text)
    assert isinstance(count, int)
    return count


def text_of(text: str) -> str:
    """Printable text without line breaks, without credentials: names, paths, patterns."""
    found = without_credentials(text.strip())
    if not found or len(found) > LONGEST_TEXT or not found.isprintable() or _SECRET.search(found):
        raise ValueError("not a name")
    return found


def model(text: str) -> str:
    """A hub id, path, file or URL, as stated; credentials and the query of a URL are removed."""
    found = text_of(text)
    if "$" in found or "\n" in found:
        raise ValueError("holds a variable that is not known here")
    return found


def numbers(text: str) -> str:
    """Numbers with commas or slashes between them: parts per GPU."""
    found = text.strip()
    if len(found) > LONGEST_TEXT or not re.fullmatch(
        r"[0-9.]{1,12}(?:[,/][0-9.]{1,12}){0,255}", found, re.ASCII
    ):
        raise ValueError("not a list of numbers")
    return found


def addresses(text: str) -> str:
    """host:port with commas between them."""
    parts = [without_credentials(part.strip()) for part in text.split(",")]
    if len(parts) > 256 or not all(
        re.fullmatch(r"[A-Za-z0-9_.:%\[\]-]{1,260}", part, re.ASCII) for part in parts
    ):
        raise ValueError("not a list of addresses")
    return ",".join(parts)


def host(text: str) -> str:
    """A host name, an address, or the path of a socket."""
    found = without_credentials(text.strip())
    if found.startswith("/") and found.isprintable() and len(found) <= LONGEST_TEXT:
        return found
    if "," in found:
        found = found.partition(",")[0].strip()
    if not _HOST.fullmatch(found) or _SECRET.search(found):
        raise ValueError("not a host name")
    return found


port = integer(0, 65535)
size = integer(1, 65536)
"""A degree of parallelism."""
tokens = integer(1, 2**40)


def length(text: str) -> int | str:
    """Tokens of one sequence in human form; `auto` and -1 stay words: the engine takes what fits."""
    if text.strip().lower() in ("auto", "-1"):
        return "auto"
    count = human_integer(1, 2**40)(text)
    assert isinstance(count, int)
    return count


def without_credentials(text: str) -> str:
    """The text without user, password, query and fragment of a URL.

    A password may hold what a URL forbids: everything up to the last @ goes when it looks like one.
    """
    scheme, marker, rest = text.partition("://")
    if not marker:
        match = _USERINFO.match(text)
        return text if match is None else text[match.end() :]
    before, sign, behind = rest.rpartition("@")
    if sign and (":" in before or "/" not in before):
        rest = behind
    return f"{scheme}://{re.split('[?#]', rest, maxsplit=1)[0]}"


def json_parts(text: str, parts: Mapping[str, tuple[str, Reader]]) -> dict[str, Value]:
    """The listed keys of a JSON object, each through its reader, by the field that each stands for.

    Raises ValueError when it is no object. A key that is not listed, or whose value cannot be read, is
    dropped.
    """
    if len(text) > _LONGEST_JSON:
        raise ValueError("too long")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    found: dict[str, Value] = {}
    for key, (field, read) in parts.items():
        value = document.get(key)
        if isinstance(value, str | int | float) and value is not None:
            try:
                found[field] = read(json.dumps(value) if isinstance(value, bool) else str(value))
            except ValueError:
                continue
    return found


def _within(found: Number, low: float, high: float) -> Number:
    if not low <= found <= high:
        raise ValueError(
            f"must be from {low:g} to {high:g}" if high < 2**31 - 1 else f"must be at least {low:g}"
        )
    return found
