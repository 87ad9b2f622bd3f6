"""The committed boards, read back as Grafana reads them, and its variables put into their queries."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARDS = Path(__file__).parents[1] / "dashboards"
BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))
}

# What a Prometheus and a client library expose of themselves.
FOREIGN = frozenset(
    {"up", "ALERTS", "scrape_duration_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total"}
)
METRIC = re.compile(r"(?<![\w:])(?:[a-z]+:)?deepseek_\w+(?::\w+)?")
SECONDS = {"m": 60, "h": 3600, "d": 86400}
POINTS = 700
"""About the width of half a board; Grafana asks for one point a pixel."""


@dataclass(frozen=True, slots=True)
class Target:
    """One query with what decides how Grafana sends it."""

    board: str
    panel: str
    ref: str
    expr: str
    instant: bool
    range_seconds: int
    step_seconds: int

    def __str__(self) -> str:
        return f"{self.board}, {self.panel}, {self.ref}"

    def filled(self, chosen: Mapping[str, str] | None = None) -> str:
        return filled(self.expr, self.range_seconds, self.step_seconds, chosen)


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every panel that shows something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def _targets() -> Iterator[Target]:
    for name, board in BOARDS.items():
        length = seconds(board["time"]["from"].removeprefix("now-"))
        for panel in panels(board):
            step = max(60, length // POINTS, seconds(panel.get("interval", "1m")))
            for target in panel["targets"]:
                yield Target(
                    name, panel["title"], target["refId"], target["expr"], target["instant"], length, step
                )


def seconds(duration: str) -> int:
    return int(duration[:-1]) * SECONDS[duration[-1]]


def filled(expr: str, length: int, step: int, chosen: Mapping[str, str] | None = None) -> str:
    """The query as Grafana sends it: everything chosen, unless something is."""
    values = {
        # Four scrapes of a minute at the least.
        "$__rate_interval": f"{max(240, step + 60)}s",
        "$__interval": f"{step}s",
        "$__range_s": str(length),
        "$__range": f"{length}s",
        "$price_per_kwh": "0.15",
        "$pool": ".*",
        **{f"${name}": ".+" for name in ("job", "instance", "gpu", "deployment")},
        **{f"${name}": value for name, value in (chosen or {}).items()},
    }
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(name, values[name])
    return expr


def metrics_in(text: str) -> set[str]:
    return set(METRIC.findall(text))


TARGETS = tuple(_targets())
