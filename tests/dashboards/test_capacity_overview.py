"""The board as a file: importable, readable, and true to the metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic_fleet import moment

from exporter.alerting.rules import PackOptions, alerting_rule
from exporter.capacity.conditions import CONDITIONS, THRESHOLDS
from exporter.exposition.families import FAMILIES

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
BOARD: dict[str, Any] = json.loads((DASHBOARDS / "capacity-overview.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = BOARD["panels"]
LABELS = {family.name: set(family.labels) for family in FAMILIES}
PROMETHEUS_OWN = {"up", "ALERTS"}

each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


def expressions() -> Iterator[str]:
    for panel in PANELS:
        for target in panel["targets"]:
            yield target["expr"]


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\bdeepseek_\w+", text))


def test_the_committed_file_is_the_generated_one(tmp_path: Path) -> None:
    command = [sys.executable, str(DASHBOARDS / "generate.py"), "--directory", str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)
    made = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    committed = {file.name: file.read_text(encoding="utf-8") for file in DASHBOARDS.glob("*.json")}
    assert committed == made, "run: python dashboards/generate.py"


def test_it_can_be_imported_beside_others() -> None:
    assert BOARD["uid"] == "deepseek-capacity-overview"
    assert BOARD["id"] is None
    assert BOARD["schemaVersion"] >= 39
    assert "__inputs" not in BOARD


def test_it_opens_on_what_the_person_on_call_wants() -> None:
    assert BOARD["time"] == {"from": "now-6h", "to": "now"}
    assert BOARD["graphTooltip"] == 1
    assert BOARD["timezone"] == "browser"


def test_alerts_link_to_it_and_to_its_variables() -> None:
    variables = {variable["name"] for variable in BOARD["templating"]["list"]}
    for condition in CONDITIONS:
        link = alerting_rule(condition, PackOptions())["annotations"]["dashboard_url"]
        assert link.split("?")[0] == f"/d/{BOARD['uid']}"
        assert set(re.findall(r"var-(\w+)=", link)) <= variables


def test_panel_ids_and_titles_are_unique() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)


def test_panels_lie_on_the_grid_without_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells
        taken |= cells


@each_panel
def test_a_panel_explains_itself(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 30
    assert panel["fieldConfig"]["defaults"]["unit"]


@each_panel
def test_a_panel_asks_the_chosen_data_source(panel: dict[str, Any]) -> None:
    for place in (panel, *panel["targets"]):
        assert place["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@each_panel
def test_a_query_follows_the_chosen_hosts(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        selectors = re.findall(r"\{[^}]*\}", target["expr"])
        assert selectors
        for selector in selectors:
            assert "$instance" in selector or 'alertname="DeepSeekWatchdog"' in selector


@pytest.mark.parametrize("name", ["job", "instance", "gpu"])
def test_variables_take_any_number_of_values(name: str) -> None:
    [variable] = [one for one in BOARD["templating"]["list"] if one["name"] == name]
    assert variable["multi"]
    assert variable["includeAll"]
    assert variable["allValue"] == ".+"
    assert variable["refresh"] == 2, "choices must follow the time range"
    assert metrics_in(variable["definition"]) <= set(LABELS)


def test_values_of_variables_are_matched_as_patterns() -> None:
    for expr in expressions():
        assert '="$' not in expr


def test_every_metric_exists() -> None:
    assert metrics_in(" ".join(expressions())) <= set(LABELS)


def test_thresholds_and_alerts_that_it_names_exist() -> None:
    text = " ".join(expressions())
    assert set(re.findall(r'\bname="(\w+)"', text)) <= {one.name for one in THRESHOLDS}
    assert set(re.findall(r'alertname="(\w+)"', text)) <= {one.name for one in CONDITIONS}


def test_panels_that_alerts_send_people_to_exist() -> None:
    titles = {panel["title"] for panel in PANELS}
    for condition in CONDITIONS:
        assert set(re.findall(r"panel '([^']+)'", condition.description)) <= titles


def test_the_made_up_fleet_has_only_series_that_the_exporter_makes() -> None:
    for name, labels, _ in moment(at=1_800_000_000, back=0):
        if name not in PROMETHEUS_OWN:
            assert set(labels) - {"instance", "job"} <= LABELS[name], name


def test_the_provisioning_example_names_a_folder_of_files() -> None:
    example = yaml.safe_load((DASHBOARDS / "provisioning.example.yml").read_text(encoding="utf-8"))
    [provider] = example["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/")
