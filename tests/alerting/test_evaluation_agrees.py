"""The daemon's own evaluation against the Prometheus rules: every promtool scenario, played to the daemon.

promtool holds the rules to these scenarios (test_promtool_scenarios.py); here the other evaluator of the same
table is held to them, host by host, at the same times.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from promtool_scenarios import Labels, Scenario, labels_of, scenarios, seconds

from exporter.alerting.evaluation import Evaluation, Links, is_judged_here
from exporter.alerting.frame import Reading
from exporter.capacity.alert import Alert
from exporter.capacity.conditions import CONDITIONS

RULES = Path(__file__).parents[2] / "rules"
JUDGED = {one.name for one in CONDITIONS if is_judged_here(one)}
START_SECONDS = 1_767_225_600.0
STANDSTILL = "snapshot"
"""The source that another machine alone can see to be blind: a snapshot that stands still."""


class Replay:
    """What the daemons of all hosts of a scenario said at each evaluation."""

    def __init__(self, scenario: Scenario, until: float) -> None:
        hosts = sorted(
            {
                (track.labels["instance"], track.labels["job"])
                for track in scenario.tracks
                if "instance" in track.labels
            }
        )
        daemons = {host: Evaluation(Links(host[0], "docs/ALERTS.md")) for host in hosts}
        self.at: dict[float, dict[tuple[str, str], tuple[Alert, ...]]] = {}
        step = 0
        while (time := step * scenario.evaluation_interval) <= until:
            self.at[time] = {
                host: daemon.evaluate(readings(scenario, host, time), time, START_SECONDS + time).alerts
                for host, daemon in daemons.items()
            }
            step += 1


def readings(scenario: Scenario, host: tuple[str, str], time: float) -> list[Reading]:
    """The samples of one host, without the scraper's labels."""
    found: list[Reading] = []
    for track in scenario.tracks:
        if (track.labels.get("instance"), track.labels.get("job")) != host:
            continue
        value = track.at(time, scenario.interval)
        if value is not None:
            names = tuple(name for name in track.labels if name not in ("instance", "job"))
            found.append((track.name, names, tuple(track.labels[name] for name in names), value))
    return found


def firing(replay: Replay, time: float, name: str | None, *, pending: bool) -> list[Labels]:
    """Labels of the alerts that stand at a time, as ALERTS would have them."""
    return [
        {
            "instance": host[0],
            "job": host[1],
            **alert.subject,
            "severity": alert.severity,
            "alertname": alert.name,
        }
        for host, alerts in replay.at[time].items()
        for alert in alerts
        if (alert.firing or pending) and name in (None, alert.name)
    ]


def expected_of(check: dict[str, Any]) -> tuple[str, list[Labels]] | None:
    """(alert, labels) of a check that speaks of one alert of the daemon's own; None for any other."""
    if "alertname" in check:
        name = check["alertname"]
        wanted = [{**one["exp_labels"], "alertname": name} for one in check["exp_alerts"]]
        return (name, wanted) if name in JUDGED else None
    match = re.search(r'ALERTS\{alertname="(\w+)"', check["expr"])
    if match is None or match[1] not in JUDGED or "over_time" in check["expr"]:
        return None
    wanted = [labels_of(sample["labels"]) for sample in check["exp_samples"]]
    return None if any(one.get("source") == STANDSTILL for one in wanted) else (match[1], wanted)


def agreeing(scenario: Scenario) -> list[tuple[float, bool, str, list[Labels]]]:
    """(time, whether pending counts, alert, expected labels) of the checks that can be compared."""
    found = []
    for check in scenario.checks:
        expected = expected_of(check)
        if expected is not None:
            fires_only = "alertname" in check or 'alertstate="firing"' in check["expr"]
            pending = not fires_only
            found.append((seconds(check["eval_time"]), pending, *expected))
    return found


COMPARED = [one for one in scenarios(RULES / "tests") if agreeing(one)]


@pytest.mark.parametrize("scenario", COMPARED, ids=lambda one: one.id)
def test_the_daemon_says_what_prometheus_says(scenario: Scenario) -> None:
    checks = agreeing(scenario)
    replay = Replay(scenario, max(time for time, *_ in checks))
    for time, pending, name, expected in checks:
        found = firing(replay, time, name, pending=pending)
        problem = f"{name} at {time:.0f} s: {found} instead of {expected}"
        assert len(found) == len(expected), problem
        for wanted in expected:
            shown = {key: value for key, value in wanted.items() if key not in ("alertstate", "__name__")}
            assert any(shown.items() <= labels.items() for labels in found), problem


def test_every_alert_of_the_daemon_is_compared_both_ways() -> None:
    seen: dict[str, set[bool]] = defaultdict(set)
    for scenario in COMPARED:
        for _, _, name, expected in agreeing(scenario):
            seen[name].add(bool(expected))
    assert {name for name, ways in seen.items() if ways == {True, False}} == JUDGED
