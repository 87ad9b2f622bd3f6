"""Writes samples as the Prometheus text format 0.0.4 and as OpenMetrics 1.0.0, each also gzipped.

prometheus-client does the same at about 20 µs a series and gzips per request; here the unchanging part of
every line is kept between polls and the bytes are made once per snapshot. prometheus-client's parsers are
the oracle in the tests, and its collectors give `process_*` and `python_info`.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from exporter.exposition.collect import Sample
from exporter.exposition.families import FAMILIES, Family, Kind
from exporter.exposition.families.itself import SERIES, SERIES_DROPPED

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
MAX_SERIES_PER_FAMILY = 2000
MAX_LABEL_CHARACTERS = 128
_GZIP_LEVEL = 6
_GZIP_WINDOW = zlib.MAX_WBITS | 16  # zlib's way to say "with a gzip header"


@dataclass(frozen=True, slots=True)
class Exposition:
    """One snapshot's metrics, ready to send."""

    text: bytes
    text_gzip: bytes
    openmetrics: bytes
    openmetrics_gzip: bytes
    series: int


class Renderer:
    """Renders one snapshot after the other; keeps the beginnings of lines that appear again."""

    def __init__(self) -> None:
        self._prefixes: dict[tuple[str, tuple[str, ...]], str] = {}
        self._dropped: Counter[str] = Counter()
        registry = CollectorRegistry()
        self._process = ProcessCollector(registry=None)
        self._platform = list(PlatformCollector(registry=registry).collect())

    def render(self, samples: Iterable[Sample]) -> Exposition:
        """The metrics of one snapshot."""
        grouped = self._group(samples)
        dropped = [((name,), float(count)) for name, count in self._dropped.items()]
        if dropped:
            grouped[SERIES_DROPPED] = self._lines(SERIES_DROPPED, dropped)
        series = 1 + sum(len(lines) for lines in grouped.values())
        grouped[SERIES] = self._lines(SERIES, [((), series)])
        own = self._own_process()
        text = ("".join(_text(grouped)) + "".join(_text(own))).encode()
        openmetrics = ("".join(_openmetrics(grouped)) + "".join(_openmetrics(own)) + "# EOF\n").encode()
        return Exposition(text, _gzip(text), openmetrics, _gzip(openmetrics), series)

    def _group(self, samples: Iterable[Sample]) -> dict[Family, list[str]]:
        """Lines by family, in the order of the table. A value that is not a finite number is not known."""
        values: dict[Family, dict[tuple[str, ...], float]] = {}
        for family, labels, value in samples:
            if not _finite(value):
                continue
            rows = values.setdefault(family, {})
            if len(rows) >= MAX_SERIES_PER_FAMILY and labels not in rows:
                self._dropped[family.name] += 1
                continue
            rows[labels] = value
        seen: dict[tuple[str, tuple[str, ...]], str] = {}
        lines = {
            family: self._lines(family, values[family].items(), seen)
            for family in FAMILIES
            if family in values
        }
        self._prefixes = seen
        return lines

    def _lines(
        self,
        family: Family,
        rows: Iterable[tuple[tuple[str, ...], float]],
        seen: dict[tuple[str, tuple[str, ...]], str] | None = None,
    ) -> list[str]:
        lines = {}  # by prefix: a series must not occur twice, and cleaning can make two labels alike
        for labels, value in rows:
            key = (family.name, labels)
            prefix = self._prefixes.get(key) or _prefix(family.name, zip(family.labels, labels, strict=True))
            if seen is not None:
                seen[key] = prefix
            lines[prefix] = f"{prefix}{_number(value)}\n"
        return list(lines.values())

    def _own_process(self) -> dict[Family, list[str]]:
        """prometheus-client's metrics of this process and interpreter."""
        result = {}
        for metric in (*self._process.collect(), *self._platform):
            kind = Kind(metric.type)
            # The client gives python_info as a gauge named python_info: it has no unit and no `_info` type.
            name = f"{metric.name}_total" if kind is Kind.COUNTER else metric.name
            family = Family(name, kind, (), metric.documentation)
            result[family] = [
                f"{_prefix(sample.name, sample.labels.items())}{_number(sample.value)}\n"
                for sample in metric.samples
                if not sample.name.endswith("_created")
            ]
        return result


def _text(grouped: Mapping[Family, list[str]]) -> Iterable[str]:
    for family, lines in grouped.items():
        kind = Kind.GAUGE if family.kind is Kind.INFO else family.kind
        yield f"# HELP {family.name} {_escape_help(family.help)}\n# TYPE {family.name} {kind}\n"
        yield from lines


def _openmetrics(grouped: Mapping[Family, list[str]]) -> Iterable[str]:
    for family, lines in grouped.items():
        suffix = {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(family.kind, "")
        name = family.name.removesuffix(suffix)
        yield f"# HELP {name} {_escape(family.help)}\n# TYPE {name} {family.kind}\n"
        yield from lines


def _prefix(name: str, labels: Iterable[tuple[str, str]]) -> str:
    """`name{label="value"} `; a label without a value is left out, which Prometheus takes as the same."""
    pairs = [f'{label}="{_escape(clean(value))}"' for label, value in labels if value]
    return f"{name}{{{','.join(pairs)}}} " if pairs else f"{name} "


def clean(value: str) -> str:
    """A label value without control characters and of bounded length."""
    if not value.isprintable():
        value = "".join(character if character.isprintable() else " " for character in value)
    return value[:MAX_LABEL_CHARACTERS]


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _escape_help(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n")


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no double holds, and so no Prometheus
        return False


def _number(value: float) -> str:
    """An integer exactly, else the shortest text that gives the same double again."""
    if isinstance(value, int):
        return str(int(value))
    return str(int(value)) if value.is_integer() and abs(value) < 2**63 else repr(value)


def _gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    return packer.compress(data) + packer.flush()
