"""The promtool scenarios as data: which series had which values when, and what was to fire."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

LOOKBACK_SECONDS = 300.0
"""Prometheus takes a sample for present for five minutes, unless a staleness marker follows."""

Labels = dict[str, str]

_SERIES = re.compile(r"^(\w+(?::\w+)*)(?:\{(.*)\})?$", re.DOTALL)
_LABEL = re.compile(r'(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"')
_STEP = re.compile(r"^(-?[\d.e+]+?|_|stale)(?:([+-][\d.e]+))?(?:x(\d+))?$")
_TIME = re.compile(r"(\d+)(ms|[smhd])")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """`1h30m` as promtool writes it."""
    found = _TIME.findall(str(text))
    assert found or text in (0, "0"), text
    return sum(int(number) * _UNITS[unit] for number, unit in found)


@dataclass
class Track:
    """One series: a value, None (no sample) or "stale" at each interval."""

    name: str
    labels: Labels
    values: list[float | str | None]

    def at(self, time: float, interval: float) -> float | None:
        """What a query at this time would find."""
        last = int(time // interval)
        for back in range(last, -1, -1):
            if time - back * interval > LOOKBACK_SECONDS:
                return None
            if back < len(self.values) and (found := self.values[back]) is not None:
                return None if found == "stale" else float(found)
        return None


@dataclass
class Scenario:
    """One test of a scenario file."""

    file: str
    name: str
    interval: float
    evaluation_interval: float
    tracks: list[Track]
    checks: list[dict[str, Any]] = field(default_factory=list)
    """`promql_expr_test` and `alert_rule_test` entries"""

    @property
    def id(self) -> str:
        return f"{self.file}: {self.name}"


def scenarios(folder: Path) -> Iterator[Scenario]:
    """Every scenario of the folder."""
    for file in sorted(folder.glob("*_test.yml")):
        # Every scalar as text: YAML would take `0x40`, forty zeros to promtool, for 64.
        content = yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader)
        for test in content["tests"]:
            yield Scenario(
                file.stem.removesuffix("_test"),
                test["name"],
                seconds(test["interval"]),
                seconds(content["evaluation_interval"]),
                [_track(one) for one in test.get("input_series", ())],
                [*test.get("promql_expr_test", ()), *test.get("alert_rule_test", ())],
            )


def labels_of(text: str) -> Labels:
    """The labels of `NAME{…}` or `{…}`."""
    return {name: value.encode().decode("unicode_escape") for name, value in _LABEL.findall(text)}


def _track(row: dict[str, Any]) -> Track:
    match = _SERIES.match(row["series"].strip())
    assert match is not None, row["series"]
    values: list[float | str | None] = []
    for step in str(row["values"]).split():
        values += _expanded(step)
    return Track(match[1], labels_of(match[2] or ""), values)


def _expanded(step: str) -> list[float | str | None]:
    """`1+2x3` is 1 3 5 7, `5x2` is 5 5 5, `_x3` three times nothing, `stale` a marker."""
    match = _STEP.match(step)
    assert match is not None, step
    first, rise, times = match[1], match[2], match[3]
    if first == "_":
        return [None] * int(times or 1)
    if first == "stale":
        return ["stale"]
    count = int(times or 0) + 1
    return [float(first) + number * float(rise or 0) for number in range(count)]
