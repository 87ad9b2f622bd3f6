"""The wanted samples of a Prometheus text page that anybody may have written.

Prometheus documentation, "Exposition formats", text version 0.0.4; an exemplar of OpenMetrics is read past.
Only lines of wanted names are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice

from exporter.engines.telemetry import values
from exporter.engines.telemetry.client import Unanswered
from exporter.engines.telemetry.types import Reason

LINE_LIMIT_BYTES = 16384
SAMPLES_LIMIT = 4096
_LABELS_LIMIT = 256
_LABEL_VALUE_LIMIT = 1024
_LOOKED_AT = 64
"""How many lines decide whether a page without wanted samples is a metrics page at all."""

_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*", re.ASCII)
_OPEN = re.compile(r"[ \t]*\{")
_CLOSE = re.compile(r"[ \t]*\}")
_LABEL = re.compile(
    r'[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t]*(,|(?=\}))', re.ASCII
)
_TAIL = re.compile(
    r"[ \t]*(?P<value>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?Inf|NaN)"
    r"(?:[ \t]+(?P<time>-?[0-9.]+))?[ \t]*(?:#.*)?",
    re.ASCII | re.IGNORECASE,
)
_TIME = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{0,9})?", re.ASCII)
_MILLISECONDS_ABOVE = 1e11
"""A timestamp above this is in milliseconds, as the text format has them (1973 and later); OpenMetrics has
seconds (until the year 5138)."""
_ESCAPE = re.compile(r'\\([\\"n])')
_UNESCAPED = {"\\": "\\", '"': '"', "n": "\n"}


@dataclass(frozen=True, slots=True)
class Sample:
    """A line of the page. The value may be NaN or infinite; ``at`` is its Unix time in seconds, where the
    line has one."""

    name: str
    labels: Mapping[str, str]
    value: float
    at: float | None = None


class Samples:
    """The wanted samples of one page, by name."""

    def __init__(self, found: Collection[Sample]) -> None:
        self._by_name: dict[str, list[Sample]] = {}
        for sample in found:
            self._by_name.setdefault(sample.name, []).append(sample)

    def all(self, *aliases: str) -> list[Sample]:
        """The samples of the first of these names that is there."""
        return next((self._by_name[alias] for alias in aliases if alias in self._by_name), [])

    def count(self, *aliases: str) -> int | None:
        """The sum over the first name that is there, as a whole number; None without a usable value."""
        return values.total([values.count(sample.value) for sample in self.all(*aliases)])

    def largest_ratio(self, *aliases: str) -> float | None:
        return max(
            (found for sample in self.all(*aliases) if (found := values.ratio(sample.value)) is not None),
            default=None,
        )

    def labels(self, *aliases: str) -> Mapping[str, str]:
        """The labels of the first sample (an info metric)."""
        found = self.all(*aliases)
        return found[0].labels if found else {}


def read_samples(page: bytes, wanted: Collection[str], *, whole: bool = False) -> Samples:
    """The samples of these names. A malformed line costs itself.

    ``whole``: a page with more wanted lines than are read is refused, instead of read in part. Raises
    Unanswered when the page is no metrics page, or none of the wanted lines can be read.
    """
    prefixes = tuple(name.encode() for name in wanted)
    found: list[Sample] = []
    malformed = False
    lines = (line for line in page.split(b"\n") if line.startswith(prefixes))
    for line in islice(lines, SAMPLES_LIMIT):
        sample = _sample(line)
        if sample is None:
            malformed = True
        elif sample.name in wanted:
            found.append(sample)
    if whole and next(lines, None) is not None:
        raise Unanswered(Reason.TOO_LARGE)
    if not found and (malformed or not _looks_like_metrics(page)):
        raise Unanswered(Reason.NONSENSE)
    return Samples(found)


def _looks_like_metrics(page: bytes) -> bool:
    lines = [line.strip() for line in page[: 8 * LINE_LIMIT_BYTES].split(b"\n", _LOOKED_AT)[:_LOOKED_AT]]
    filled = [line for line in lines if line]
    return not filled or any(
        line.startswith((b"# HELP ", b"# TYPE ", b"# EOF")) or _sample(line) is not None for line in filled
    )


def _sample(line: bytes) -> Sample | None:
    """The sample of a line; None when it is none."""
    if len(line) > LINE_LIMIT_BYTES:
        return None
    try:
        text = line.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError:
        return None
    name = _NAME.match(text)
    if name is None:
        return None
    labels: dict[str, str] = {}
    position = name.end()
    if brace := _OPEN.match(text, position):
        position = brace.end()
        while label := _LABEL.match(text, position):
            labels[label[1]] = _ESCAPE.sub(lambda found: _UNESCAPED[found[1]], label[2])
            position = label.end()
            if len(labels) > _LABELS_LIMIT or len(label[2]) > _LABEL_VALUE_LIMIT:
                return None
        close = _CLOSE.match(text, position)
        if close is None:
            return None
        position = close.end()
    elif text[position : position + 1] not in (" ", "\t"):
        return None
    tail = _TAIL.fullmatch(text, position)
    return Sample(name[0], labels, float(tail["value"]), _time(tail["time"])) if tail is not None else None


def _time(said: str | None) -> float | None:
    if said is None or not _TIME.fullmatch(said):
        return None
    number = float(said)
    return number / 1000 if abs(number) > _MILLISECONDS_ABOVE else number
