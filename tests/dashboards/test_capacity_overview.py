"""The board for whoever is on call, and what alerts expect of it."""

from __future__ import annotations

import re

from board_files import BOARDS, panels

from exporter.alerting.rules import PackOptions, alerting_rule
from exporter.capacity.conditions import CONDITIONS

BOARD = BOARDS["capacity-overview"]


def test_it_opens_on_what_the_person_on_call_wants() -> None:
    assert BOARD["time"] == {"from": "now-6h", "to": "now"}
    assert BOARD["refresh"] == "30s"


def test_alerts_link_to_it_and_to_its_variables() -> None:
    variables = {variable["name"] for variable in BOARD["templating"]["list"]}
    for condition in CONDITIONS:
        link = alerting_rule(condition, PackOptions())["annotations"]["dashboard_url"]
        assert link.split("?")[0] == f"/d/{BOARD['uid']}"
        assert set(re.findall(r"var-(\w+)=", link)) <= variables


def test_panels_that_alerts_send_people_to_exist() -> None:
    titles = {panel["title"] for panel in panels(BOARD)}
    for condition in CONDITIONS:
        assert set(re.findall(r"panel '([^']+)'", condition.description)) <= titles
