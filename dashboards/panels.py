"""The few kinds of panel that the boards are made of, as Grafana stores them: classic (v1) JSON, schema 39.

Facts: Grafana's documentation of the dashboard JSON model; Grafana 10 to 13 read this schema.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"

YES_NO = {"type": "value", "options": {"0": {"text": "no", "index": 0}, "1": {"text": "yes", "index": 1}}}

RATIO_STEPS = ((None, GREEN), (0.97, ORANGE), (1.0, RED))
HEADROOM_STEPS = ((None, RED), (0.0, ORANGE), (4.0 * 2**30, GREEN))
NONE_WANTED = ((None, GREEN), (1.0, RED))


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query; `legend` names its lines, `column` its column in a table."""

    expr: str
    legend: str = ""
    column: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """What differs between panels; `steps` are thresholds as (lower end, colour), the first has none."""

    kind: str
    title: str
    description: str
    unit: str
    width: int
    height: int
    queries: tuple[Query, ...]
    steps: tuple[tuple[float | None, str], ...] = ((None, GREEN),)
    decimals: int | None = None
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


def stat(
    title: str,
    description: str,
    unit: str,
    expr: str,
    steps: tuple[tuple[float | None, str], ...],
    decimals: int | None = None,
    absent: str = "no data",
) -> Panel:
    """One number for all chosen hosts. `absent` is shown where there is none; a gap is never a zero."""
    return Panel(
        kind="stat",
        title=title,
        description=description,
        unit=unit,
        width=3,
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
        overrides=(override("byType", "number", noValue=absent),),
    )


def bars(title: str, description: str, unit: str, query: Query) -> Panel:
    """One bar per host."""
    return Panel(
        kind="bargauge",
        title=title,
        description=description,
        unit=unit,
        width=6,
        height=7,
        queries=(query,),
        steps=HEADROOM_STEPS,
        decimals=1,
        options={
            "displayMode": "gradient",
            "orientation": "horizontal",
            "valueMode": "color",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    )


def lines(
    title: str, description: str, unit: str, queries: tuple[Query, ...], limits: str, width: int = 12
) -> Panel:
    """Lines over time; those whose name begins with `limits` are drawn dashed, and left out of the legend."""
    return Panel(
        kind="timeseries",
        title=title,
        description=description,
        unit=unit,
        width=width,
        height=9,
        queries=queries,
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
            "axisSoftMin": 0,
        },
        overrides=(
            override(
                "byRegexp",
                f"^{limits}.*",
                color={"mode": "fixed", "fixedColor": RED},
                **{
                    "custom.lineStyle": {"fill": "dash", "dash": [8, 6]},
                    "custom.hideFrom": {"legend": True, "tooltip": False, "viz": False},
                },
            ),
        )
        if limits
        else (),
    )


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
    decimals: int = 1,
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
        transformations.append({"id": "sortBy", "options": {"fields": {}, "sort": [{"field": sort}]}})
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
    )


def override(matcher: str, what: str, **properties: object) -> dict[str, object]:
    """Field properties for what a matcher finds."""
    return {
        "matcher": {"id": matcher, "options": what},
        "properties": [{"id": name, "value": value} for name, value in properties.items()],
    }


def coloured(column: str, steps: tuple[tuple[float | None, str], ...], **more: object) -> dict[str, object]:
    """A table's column whose text takes the colour of its threshold."""
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


def wide(column: str, width: int) -> dict[str, object]:
    return override("byName", column, **{"custom.width": width})


def placed(panels: Iterable[Panel]) -> list[dict[str, object]]:
    """Panels from left to right, a new line where the next does not fit; ids count from 1."""
    grid: list[dict[str, object]] = []
    x = y = line_height = 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > 24:
            x, y, line_height = 0, y + line_height, 0
        grid.append(panel.json(number, x, y))
        x += panel.width
        line_height = max(line_height, panel.height)
    return grid


def variable(name: str, label: str, query: str) -> dict[str, object]:
    """A choice of label values, of which any number may be chosen."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": f"variable-{name}"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
