"""What `make demo` gives to Prometheus and Alertmanager: the shipped files with other durations.

That the whole way works is `make demo-check`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "demo"))

import parts
from pager import Pager


def without_durations(text: str) -> str:
    return re.sub(r"^( +(?:for|keep_firing_for|interval)): .*$", r"\1", text, flags=re.MULTILINE)


def test_the_rules_are_the_shipped_ones_with_seconds_for_minutes(tmp_path: Path) -> None:
    shipped = parts.RULES.read_text()
    short = parts.short_rules(shipped)
    assert without_durations(short) == without_durations(shipped)
    waits = {
        rule["alert"]: rule["for"]
        for group in yaml.safe_load(short)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert {alert for alert, wait in waits.items() if not wait.endswith("s")} == {
        "DeepSeekCapacityExhaustion"
    }
    assert waits["DeepSeekCapacityExhaustion"] == "6m"
    assert waits["DeepSeekVramOvercommitted"] == "2s"
    (tmp_path / "rules.yml").write_text(short)
    assert subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yml"], check=False).returncode == 0


def test_the_routes_are_the_shipped_ones_with_the_pager_as_receiver(tmp_path: Path) -> None:
    short = yaml.safe_load(parts.short_routes(parts.ROUTES.read_text(), "http://127.0.0.1:9"))
    shipped = yaml.safe_load(parts.ROUTES.read_text())
    assert short["inhibit_rules"] == shipped["inhibit_rules"]
    urls = [hook["url"] for one in short["receivers"] for hook in one.get("webhook_configs", ())]
    assert {url.rpartition("/")[0] for url in urls} == {"http://127.0.0.1:9"}
    (tmp_path / "routes.yml").write_text(yaml.safe_dump(short))
    assert subprocess.run(["amtool", "check-config", tmp_path / "routes.yml"], check=False).returncode == 0


def test_every_curve_of_the_board_has_its_queries_without_variables() -> None:
    board = json.loads(parts.BOARD.read_text())
    curves = dict(parts.board_curves(board))
    assert set(curves) == {panel["title"] for panel in board["panels"] if panel["type"] == "timeseries"}
    assert all("$" not in query for queries in curves.values() for query in queries)
    for queries in curves.values():
        link = urllib.parse.urlsplit(parts.graph_link("http://127.0.0.1:9090", queries))
        asked = urllib.parse.parse_qs(link.query)
        assert [asked[f"g{number}.expr"] for number in range(len(queries))] == [[one] for one in queries]


def test_rules_that_look_otherwise_are_an_error_and_not_left_as_they_are() -> None:
    with pytest.raises(ValueError, match="any more"):
        parts.short_rules("groups: []\n")


def test_a_missing_program_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(parts.Missing, match="apt-get install prometheus prometheus-alertmanager"):
        parts.check_programs()


def test_the_pager_shows_pages_and_tickets_and_not_the_dead_mans_switch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pager = Pager(0)
    alert = {
        "status": "firing",
        "annotations": {"summary": "GPU 3 is lost", "description": "Why. First action: look."},
    }
    for receiver, name in (("page", "DeepSeekGpuLost"), ("alive", "DeepSeekWatchdog")):
        labels = {"alertname": name, "instance": "<host>"}
        pager.take(receiver, {"status": "firing", "groupLabels": labels, "alerts": [alert, alert]})
    printed = capsys.readouterr().out
    assert "PAGE    FIRING    DeepSeekGpuLost  on <host>" in printed
    assert "GPU 3 is lost, and 1 more" in printed
    assert "→ look." in printed
    assert "DeepSeekWatchdog" not in printed + pager.page()
    assert "&lt;host&gt;" in pager.page()
    assert pager.got("DeepSeekGpuLost", firing=True)
    assert not pager.got("DeepSeekGpuLost", firing=False)
    pager.close()
