"""Every board as a file: importable, readable, and true to the metrics that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from board_files import BOARDS, DASHBOARDS, FOREIGN, TARGETS, Target, metrics_in, panels
from synthetic_fleet import moment
from synthetic_history import coarse, recorded

from exporter.alerting.rules import rule_file
from exporter.capacity.conditions import CONDITIONS, THRESHOLDS
from exporter.cli.rules import shipped
from exporter.exposition.families import FAMILIES

LABELS = {family.name: set(family.labels) for family in FAMILIES}
RECORDS = {rule["record"] for group in rule_file()["groups"] for rule in group["rules"] if "record" in rule}

DOCUMENT = (DASHBOARDS.parent / "docs" / "GRAFANA.md").read_text(encoding="utf-8")
UNITS = {
    *("bytes", "percentunit", "short", "none", "watt", "celsius", "s", "reqps", "cps", "kwatth", "locale"),
    *("string", "suffix: d", "suffix: J"),
}

each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
each_name = pytest.mark.parametrize("name", BOARDS)


def targets(board: str) -> list[Target]:
    return [target for target in TARGETS if target.board == board]


def variables(board: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def selectors(expr: str) -> list[tuple[str, str]]:
    """Each metric of a query with its matchers as text."""
    return re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", expr)


def test_the_committed_files_are_the_generated_ones(tmp_path: Path) -> None:
    command = [sys.executable, str(DASHBOARDS / "generate.py"), "--directory", str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)
    made = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    committed = {file.name: file.read_text(encoding="utf-8") for file in DASHBOARDS.glob("*.json")}
    assert committed == made, "run: python dashboards/generate.py"


def test_every_board_is_installed_with_the_rules() -> None:
    assert {f"dashboards/{name}.json" for name in BOARDS} <= set(shipped())


@each_board
def test_the_docs_show_it(board: dict[str, Any]) -> None:
    docs = DASHBOARDS.parent / "docs"
    title = board["title"].removeprefix("DeepSeek ")
    [section] = re.findall(rf"^## {title}\n(.*?)(?=^## )", DOCUMENT, re.MULTILINE | re.DOTALL | re.IGNORECASE)
    [picture] = re.findall(r"\]\((images/\S+\.png)\)", section)
    assert 20_000 < (docs / picture).stat().st_size < 300_000


def test_uids_and_titles_are_unique() -> None:
    for what in ("uid", "title"):
        assert len({board[what] for board in BOARDS.values()}) == len(BOARDS)


def test_the_provisioning_example_names_a_folder_of_files() -> None:
    example = yaml.safe_load((DASHBOARDS / "provisioning.example.yml").read_text(encoding="utf-8"))
    [provider] = example["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/")


def test_the_example_of_a_data_source_knows_how_often_the_example_of_prometheus_scrapes() -> None:
    source = yaml.safe_load((DASHBOARDS / "datasource.example.yml").read_text(encoding="utf-8"))
    prometheus = yaml.safe_load((DASHBOARDS.parent / "rules/prometheus.example.yml").read_text("utf-8"))
    [one] = source["datasources"]
    assert one["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]


class TestBoard:
    @each_board
    def test_it_can_be_imported_beside_others(self, board: dict[str, Any]) -> None:
        assert board["id"] is None
        assert board["schemaVersion"] == 39
        assert "__inputs" not in board
        assert re.fullmatch(r"[a-z-]{1,40}", board["uid"]), "Grafana takes no more than 40 characters"

    def test_its_uid_is_its_file_name(self) -> None:
        assert {name: board["uid"] for name, board in BOARDS.items()} == {
            name: f"deepseek-{name}" for name in BOARDS
        }

    @each_board
    def test_it_says_what_it_is_for_and_is_found_by_its_tag(self, board: dict[str, Any]) -> None:
        assert len(board["description"]) > 40
        assert "deepseek" in board["tags"]

    @each_board
    def test_its_crosshair_is_shared_and_its_times_are_the_reader_s(self, board: dict[str, Any]) -> None:
        assert board["graphTooltip"] == 1
        assert board["timezone"] == "browser"

    @each_board
    def test_its_links_keep_time_and_choices(self, board: dict[str, Any]) -> None:
        [link] = board["links"]
        assert link["includeVars"]
        assert link["keepTime"]
        assert set(link["tags"]) <= set(board["tags"])

    @each_board
    def test_panel_ids_and_titles_are_unique(self, board: dict[str, Any]) -> None:
        for what in ("id", "title"):
            assert len({panel[what] for panel in board["panels"]}) == len(board["panels"])

    @each_board
    def test_panels_lie_on_the_grid_without_overlap(self, board: dict[str, Any]) -> None:
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not taken & cells
            taken |= cells


class TestVariables:
    @each_board
    def test_the_data_source_and_the_job_can_be_chosen(self, board: dict[str, Any]) -> None:
        assert variables(board)["datasource"]["query"] == "prometheus"
        assert "job" in variables(board)

    @each_board
    def test_they_take_any_number_of_values(self, board: dict[str, Any]) -> None:
        for name, variable in variables(board).items():
            if variable["type"] == "query":
                assert variable["multi"]
                assert variable["includeAll"]
                # A host without a pool has no such label, and `.+` would leave it out of "all".
                assert variable["allValue"] == (".*" if name == "pool" else ".+")
                assert variable["refresh"] == 2, "choices must follow the time range"
                assert metrics_in(variable["definition"]) <= set(LABELS)

    @each_board
    def test_each_is_used_and_none_is_missing(self, board: dict[str, Any]) -> None:
        texts = [target["expr"] for panel in panels(board) for target in panel["targets"]]
        texts += [variable.get("definition", "") for variable in variables(board).values()]
        used = set(re.findall(r"\$([a-z]\w*)", " ".join(texts)))
        assert used == set(variables(board)) - {"datasource"}

    @each_name
    def test_their_values_are_matched_as_patterns(self, name: str) -> None:
        for target in targets(name):
            assert not re.search(r'[^~]"\$[a-z]', target.expr)


class TestPanel:
    @each_board
    def test_it_explains_itself(self, board: dict[str, Any]) -> None:
        for panel in panels(board):
            assert len(panel["description"]) > 30

    @each_board
    def test_its_units_are_known(self, board: dict[str, Any]) -> None:
        for panel in panels(board):
            config = panel["fieldConfig"]
            units = [config["defaults"]["unit"]]
            units += [p["value"] for o in config["overrides"] for p in o["properties"] if p["id"] == "unit"]
            assert set(units) <= UNITS

    @each_board
    def test_its_thresholds_are_no_setting_of_an_operator(self, board: dict[str, Any]) -> None:
        """Zero, one of what is wanted or not, a whole: what can be set comes from `deepseek_threshold`."""
        for panel in panels(board):
            config = panel["fieldConfig"]
            places = [config["defaults"]["thresholds"]]
            places += [
                p["value"] for o in config["overrides"] for p in o["properties"] if p["id"] == "thresholds"
            ]
            for place in places:
                values = [step["value"] for step in place["steps"]]
                assert values[0] is None
                assert set(values[1:]) <= {0.0, 1.0}

    @each_board
    def test_it_asks_the_chosen_data_source(self, board: dict[str, Any]) -> None:
        for panel in panels(board):
            for place in (panel, *panel["targets"]):
                assert place["datasource"] == {"type": "prometheus", "uid": "${datasource}"}

    @each_board
    def test_its_links_lead_to_boards_and_keep_the_time(self, board: dict[str, Any]) -> None:
        for panel in panels(board):
            headings = set(re.findall(r'"([^"]+)"', str(panel["transformations"]).replace("'", '"')))
            for one in panel["fieldConfig"]["overrides"]:
                for link in (p["value"] for p in one["properties"] if p["id"] == "links"):
                    [uid, query] = link[0]["url"].removeprefix("/d/").split("?")
                    [there] = [board for board in BOARDS.values() if board["uid"] == uid]
                    assert "${__url_time_range}" in query
                    assert set(re.findall(r"var-(\w+)=", query)) <= set(variables(there))
                    assert set(re.findall(r"\$\{(\w+):queryparam\}", query)) <= set(variables(there))
                    assert set(re.findall(r'__data\.fields\["([^"]+)"\]', query)) <= headings


class TestQuery:
    @each_name
    def test_it_parses(self, name: str) -> None:
        for target in targets(name):
            promql_parser.parse(target.filled())

    @each_name
    def test_its_metrics_exist(self, name: str) -> None:
        for target in targets(name):
            for metric, matchers in selectors(target.expr):
                if ":" in metric:
                    assert metric in RECORDS, target
                elif metric not in FOREIGN:
                    asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
                    assert asked - {"instance", "job"} <= LABELS[metric], target

    @each_name
    def test_its_thresholds_and_alerts_exist(self, name: str) -> None:
        for target in targets(name):
            limits = {one.name for one in THRESHOLDS}
            assert set(re.findall(r'\bname="(\w+)"', target.expr)) <= limits
            assert set(re.findall(r'alertname="(\w+)"', target.expr)) <= {one.name for one in CONDITIONS}

    @each_name
    def test_it_follows_the_choices_of_its_board(self, name: str) -> None:
        for target in targets(name):
            # A pool is judged by all its devices, and a deployment wherever it runs.
            everywhere = target.panel in ("Decisions", "Another $deployment")
            for metric, matchers in selectors(target.expr):
                if 'alertname="DeepSeekWatchdog"' in matchers:
                    continue
                assert "$job" in matchers or metric == "ALERTS", target
                if not metric.startswith("pool:") and not everywhere:
                    assert "$instance" in matchers, target

    @each_name
    def test_every_metric_has_matchers(self, name: str) -> None:
        for target in targets(name):
            assert metrics_in(target.expr) <= {metric for metric, _ in selectors(target.expr)}, target

    @each_name
    def test_counters_are_read_as_rates_unless_they_are_shown_as_counts(self, name: str) -> None:
        for target in targets(name):
            for counter in re.findall(r"deepseek_\w+_total\b", target.expr):
                counted = re.search(rf"(?:rate|increase)\({counter}", target.expr)
                assert counted or counter == "deepseek_gpu_xid_errors_total", target


def test_the_made_up_fleet_has_only_series_that_the_exporter_makes() -> None:
    now = list(moment(at=1_800_000_000, back=60))
    for name, labels, _ in (*now, *recorded(now), *coarse(at=1_790_000_000, back=10_000_000)):
        if ":" in name:
            assert name in RECORDS, name
        elif name not in FOREIGN:
            assert set(labels) - {"instance", "job"} <= LABELS[name], name
