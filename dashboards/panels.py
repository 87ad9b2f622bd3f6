"""The few kinds of panel that the boards are made of, as Grafana stores them: classic (v1) JSON, schema 39.

Facts: Grafana's documentation of the dashboard JSON model; Grafana 10 to 13 read this schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

GREEN, ORANGE, RED, BLUE, PLAIN = "green", "orange", "red", "blue", "text"

Steps: TypeAlias = tuple[tuple[float | None, str], ...]

# Only what no setting can change stands in a board: a whole, nothing left, none wanted. Limits that an
# operator chooses are read from `deepseek_threshold`, as a line or as a verdict.
UNCOLOURED: Steps = ((None, PLAIN),)
WHOLE_STEPS: Steps = ((None, GREEN), (1.0, RED))
LEFT_STEPS: Steps = ((None, RED), (0.0, GREEN))
NONE_WANTED: Steps = ((None, GREEN), (1.0, RED))
ALL_WANTED: Steps = ((None, RED), (1.0, GREEN))


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query; `legend` names its lines, `column` its column in a table."""

    expr: str
    legend: str = ""
    column: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """What differs between panels.

    `steps` are thresholds as (lower end, colour), the first has no end. `interval` is the shortest step
    between points, `least` where an axis begins; `repeat` names the variable that the panel is drawn for,
    value by value.
    """

    kind: str
    title: str
    description: str
    unit: str
    width: int
    height: int
    queries: tuple[Query, ...]
    steps: Steps = UNCOLOURED
    decimals: int | None = None
    least: float | None = None
    interval: str = ""
    repeat: str = ""
    options: dict[str, object] = field(default_factory=dict)
    custom: dict[str, object] = field(default_factory=dict)
    overrides: tuple[dict[str, object], ...] = ()
    transformations: tuple[dict[str, object], ...] = ()

    def json(self, number: int, x: int, y: int) -> dict[str, object]:
        """The panel as Grafana stores it, at a place on the grid of 24 columns."""
        defaults: dict[str, object] = {
            "unit": self.unit,
            "thresholds": {
                "mode": "absolute",
                "steps": [{"value": value, "color": colour} for value, colour in self.steps],
            },
            "custom": self.custom,
            "color": {"mode": "palette-classic" if self.kind == "timeseries" else "thresholds"},
        }
        if self.decimals is not None:
            defaults["decimals"] = self.decimals
        if self.least is not None:
            defaults["min"] = self.least
        sometimes: dict[str, object] = {"interval": self.interval} if self.interval else {}
        if self.repeat:
            sometimes |= {"repeat": self.repeat, "repeatDirection": "v"}
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [self._target(index, query) for index, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": defaults, "overrides": list(self.overrides)},
            "options": self.options,
            "transformations": list(self.transformations),
            **sometimes,
        }

    def _target(self, index: int, query: Query) -> dict[str, object]:
        now = self.kind != "timeseries"
        return {
            "refId": ref(index),
            "datasource": DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "instant": now,
            "range": not now,
            "format": "table" if self.kind == "table" else "time_series",
        }


def ref(index: int) -> str:
    """Grafana's letter of a query."""
    return chr(ord("A") + index)


@dataclass(frozen=True, slots=True)
class Row:
    """A heading; what follows begins below it."""

    title: str

    def json(self, number: int, y: int) -> dict[str, object]:
        place = {"x": 0, "y": y, "w": 24, "h": 1}
        return {
            "id": number,
            "type": "row",
            "title": self.title,
            "collapsed": False,
            "gridPos": place,
            "panels": [],
        }


def stat(
    title: str,
    description: str,
    unit: str,
    expr: str,
    steps: Steps = UNCOLOURED,
    decimals: int | None = None,
    absent: str = "no data",
    width: int = 3,
    mappings: Iterable[dict[str, object]] = (),
) -> Panel:
    """One number for all that is chosen. `absent` is shown where there is none; a gap is never a zero."""
    shown: dict[str, object] = {"noValue": absent}
    if mappings:
        shown["mappings"] = list(mappings)
    return Panel(
        kind="stat",
        title=title,
        description=description,
        unit=unit,
        width=width,
        height=4,
        queries=(Query(expr),),
        steps=steps,
        decimals=decimals,
        options={
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "center",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
        overrides=(override("byType", "number", **shown),),
    )


def bars(title: str, description: str, unit: str, query: Query, steps: Steps = LEFT_STEPS) -> Panel:
    """One bar per host, from zero: what is below shows as a red number with no bar."""
    return Panel(
        kind="bargauge",
        title=title,
        description=description,
        unit=unit,
        width=6,
        height=7,
        queries=(query,),
        steps=steps,
        decimals=1,
        least=0,
        options={
            "displayMode": "basic",
            "orientation": "horizontal",
            "valueMode": "color",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    )


def lines(
    title: str,
    description: str,
    unit: str,
    queries: tuple[Query, ...],
    limits: str = "",
    width: int = 12,
    height: int = 9,
    interval: str = "",
    legend: bool = False,
    from_zero: bool = True,
    custom: dict[str, object] | None = None,
    overrides: tuple[dict[str, object], ...] = (),
) -> Panel:
    """Lines over time; those whose name begins with `limits` are drawn red and dashed.

    They are left out of the legend unless `legend` is true: a limit per device would fill it.
    """
    return Panel(
        kind="timeseries",
        title=title,
        description=description,
        unit=unit,
        width=width,
        height=height,
        queries=queries,
        interval=interval,
        options={
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        custom={
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 0,
            "showPoints": "never",
            "spanNulls": False,
            **({"axisSoftMin": 0} if from_zero else {}),
            **(custom or {}),
        },
        overrides=(*overrides, *((_limit(limits, legend),) if limits else ())),
    )


def stacked(
    title: str,
    description: str,
    unit: str,
    queries: tuple[Query, ...],
    line: str = "",
    limits: str = "",
    width: int = 12,
    interval: str = "",
    style: str = "line",
    colours: Mapping[str, str] | None = None,
) -> Panel:
    """Parts on top of each other; `line` is drawn over them unstacked, `limits` dashed."""
    fixed = (
        override("byName", name, color={"mode": "fixed", "fixedColor": colour})
        for name, colour in (colours or {}).items()
    )
    over = override(
        "byRegexp",
        f"^{line}.*",
        color={"mode": "fixed", "fixedColor": PLAIN},
        **{**_UNSTACKED, "custom.lineWidth": 2},
    )
    area = {"fillOpacity": 80, "lineWidth": 0} if style == "bars" else {"fillOpacity": 45}
    return lines(
        title,
        description,
        unit,
        queries,
        limits,
        width=width,
        interval=interval,
        legend=True,
        custom={"stacking": {"mode": "normal", "group": "A"}, "drawStyle": style, **area},
        overrides=(*fixed, *((over,) if line else ())),
    )


_UNSTACKED: dict[str, object] = {"custom.stacking": {"mode": "none", "group": "B"}, "custom.fillOpacity": 0}


def _limit(prefix: str, legend: bool) -> dict[str, object]:
    properties: dict[str, object] = {
        **_UNSTACKED,
        "custom.lineWidth": 1,
        "custom.drawStyle": "line",
        "custom.lineStyle": {"fill": "dash", "dash": [8, 6]},
    }
    if not legend:
        properties["custom.hideFrom"] = {"legend": True, "tooltip": False, "viz": False}
    return override("byRegexp", f"^{prefix}.*", color={"mode": "fixed", "fixedColor": RED}, **properties)


def table(
    title: str,
    description: str,
    unit: str,
    queries: tuple[Query, ...],
    labels: dict[str, str],
    hidden: Iterable[str] = (),
    height: int = 8,
    width: int = 24,
    overrides: tuple[dict[str, object], ...] = (),
    sort: str = "",
    falling: bool = False,
    decimals: int = 1,
    repeat: str = "",
) -> Panel:
    """Rows of what the queries' labels share; `labels` are the first columns, with their headings."""
    names = {f"Value #{ref(index)}": query.column for index, query in enumerate(queries)}
    shown = {key: name for key, name in names.items() if name}
    order = [*labels, *shown]
    # Grafana calls the value of a lone query "Value", of several "Value #A" and so on.
    left_out = ["Time", "__name__", "Value", *hidden, *(key for key in names if key not in shown)]
    transformations: list[dict[str, object]] = [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": dict.fromkeys(left_out, True),
                "indexByName": {key: index for index, key in enumerate(order)},
                "renameByName": {**labels, **shown},
            },
        },
    ]
    if sort:
        transformations.append(
            {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": sort, "desc": falling}]}}
        )
    return Panel(
        kind="table",
        title=title,
        description=description,
        unit=unit,
        width=width,
        height=height,
        queries=queries,
        options={"showHeader": True, "cellHeight": "sm"},
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True, "minWidth": 70},
        # A label that looks like a number, such as a device's index, is no amount.
        overrides=(*(override("byName", heading, unit="string") for heading in labels.values()), *overrides),
        transformations=tuple(transformations),
        decimals=decimals,
        repeat=repeat,
    )


def override(matcher: str, what: str, **properties: object) -> dict[str, object]:
    """Field properties for what a matcher finds."""
    return {
        "matcher": {"id": matcher, "options": what},
        "properties": [{"id": name, "value": value} for name, value in properties.items()],
    }


def coloured(column: str, steps: Steps = UNCOLOURED, **more: object) -> dict[str, object]:
    """A table's column whose text takes the colour of its threshold, or of its mapping."""
    return override(
        "byName",
        column,
        thresholds={"mode": "absolute", "steps": [{"value": value, "color": c} for value, c in steps]},
        **{"custom.cellOptions": {"type": "color-text"}, **more},
    )


def words(**colours: str) -> dict[str, object]:
    """A mapping that colours the values it names."""
    return {
        "type": "value",
        "options": {word: {"color": colour, "index": i} for i, (word, colour) in enumerate(colours.items())},
    }


def said(*answers: tuple[str, str]) -> dict[str, object]:
    """A mapping that says 0, 1, 2 … in words, each with its colour."""
    return {
        "type": "value",
        "options": {
            str(number): {"text": text, "color": colour, "index": number}
            for number, (text, colour) in enumerate(answers)
        },
    }


YES_WANTED = said(("no", RED), ("yes", GREEN))
NO_WANTED = said(("no", GREEN), ("yes", RED))


def wide(column: str, width: int) -> dict[str, object]:
    return override("byName", column, **{"custom.width": width})


def placed(panels: Iterable[Panel | Row]) -> list[dict[str, object]]:
    """Panels from left to right, a new line where the next does not fit; ids count from 1."""
    grid: list[dict[str, object]] = []
    x = y = line_height = 0
    for number, panel in enumerate(panels, start=1):
        width, height = (24, 1) if isinstance(panel, Row) else (panel.width, panel.height)
        if x + width > 24:
            x, y, line_height = 0, y + line_height, 0
        grid.append(panel.json(number, y) if isinstance(panel, Row) else panel.json(number, x, y))
        x += width
        line_height = max(line_height, height)
    return grid
