"""Prometheus' own tool on the shipped rules and configurations, and on rules broken on purpose."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from debian_tools import run

from exporter.capacity.conditions import CONDITIONS

RULES = Path(__file__).parents[2] / "rules"
SCENARIOS = sorted((RULES / "tests").glob("*_test.yml"))
ALWAYS_FIRING = {"DeepSeekWatchdog"}
NAMES = {condition.name for condition in CONDITIONS}
IN_TWO_SEVERITIES = "DeepSeekCapacityExhaustion"

Rule = dict[str, Any]
Pack = dict[str, list[dict[str, Any]]]

MUTATIONS = [
    (name, old, new, scenarios)
    for name, noticed_by in yaml.safe_load(
        (Path(__file__).parent / "mutations.yml").read_text(encoding="utf-8")
    ).items()
    for scenarios, changes in noticed_by.items()
    for old, new in changes
]


class Loader(yaml.SafeLoader):
    """Reads `0x20`, promtool's word for zeros in a row, as that word and as no number in hexadecimal."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:int"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"-?\d+$"), list("-0123456789"))


@cache
def loaded(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), Loader)
    return content


def pack() -> Pack:
    """The committed rules, to be broken at will."""
    return deepcopy(loaded(RULES / "deepseek.rules.yml"))


def checked_alerts() -> list[tuple[str, bool]]:
    """(alert, whether it is expected to fire) of every check in the scenarios."""
    checks: list[tuple[str, bool]] = []
    for file in SCENARIOS:
        for scenario in loaded(file)["tests"]:
            for check in scenario.get("promql_expr_test", ()):
                for name in re.findall(r'alertname="(\w+)"', check["expr"]):
                    checks.append((name, bool(check["exp_samples"])))
                for sample in check["exp_samples"]:
                    for name in re.findall(r'alertname="(\w+)"', sample["labels"]):
                        checks.append((name, True))
            for check in scenario.get("alert_rule_test", ()):
                checks.append((check["alertname"], bool(check["exp_alerts"])))
    return checks


def test_rules_are_clean() -> None:
    checked = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES / "deepseek.rules.yml")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_scenarios_hold(file: Path) -> None:
    tested = run("promtool", "test", "rules", file)
    assert tested.returncode == 0, tested.stdout


def test_the_prometheus_example_is_valid() -> None:
    checked = run("promtool", "check", "config", RULES / "prometheus.example.yml")
    assert checked.returncode == 0, checked.stdout
    assert "deepseek.rules.yml" in checked.stdout


def test_scenarios_speak_only_of_alerts_that_exist() -> None:
    # promtool passes a scenario about a misspelt alert that is expected to be silent.
    assert {name for name, _ in checked_alerts()} <= NAMES


def test_every_alert_is_seen_firing() -> None:
    assert {name for name, fires in checked_alerts() if fires} == NAMES


def test_every_alert_is_seen_silent() -> None:
    assert {name for name, fires in checked_alerts() if not fires} == NAMES - ALWAYS_FIRING


def test_every_alert_has_its_words_tested() -> None:
    tested = {
        check["alertname"]
        for file in SCENARIOS
        if file.stem.startswith("annotations")
        for scenario in loaded(file)["tests"]
        for check in scenario["alert_rule_test"]
    }
    assert tested == NAMES


def test_alerts_of_two_severities_are_seen_firing_in_both() -> None:
    of_name: dict[str, set[str]] = {}
    for condition in CONDITIONS:
        of_name.setdefault(condition.name, set()).add(condition.severity.value)
    assert {name for name, severities in of_name.items() if len(severities) > 1} == {IN_TWO_SEVERITIES}
    seen = {
        severity
        for scenario in loaded(RULES / "tests" / "capacity_exhaustion_test.yml")["tests"]
        for check in scenario["promql_expr_test"]
        for sample in check["exp_samples"]
        if f'alertname="{IN_TWO_SEVERITIES}", alertstate="firing"' in sample["labels"]
        for severity in re.findall(r'severity="(\w+)"', sample["labels"])
    }
    assert seen == of_name[IN_TWO_SEVERITIES]


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_every_scenario_says_why_it_exists(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    scenarios = [number for number, line in enumerate(lines) if line.startswith("  - name:")]
    assert scenarios
    assert all(lines[number - 1].startswith("  # ") for number in scenarios)


def rules_of(whole: Pack) -> list[Rule]:
    return [rule for group in whole["groups"] for rule in group["rules"]]


def name_of(rule: Rule) -> str:
    name: str = rule.get("alert") or rule["record"]
    return name


def called(name: str, whole: Pack) -> list[Rule]:
    """The rule of that name, or of that name and a label behind it, and the record that is all it reads."""
    found = next(
        rule
        for rule in rules_of(whole)
        if name in (name_of(rule), *(f"{name_of(rule)} {value}" for value in rule.get("labels", {}).values()))
    )
    return [found, *(rule for rule in rules_of(whole) if rule.get("record") == found["expr"])]


def only(whole: Pack, scenarios: str, *mutated: Rule) -> Pack:
    """The alerts that the scenarios name, with the records that these read: the rest only takes time."""
    wanted = [rule for rule in rules_of(whole) if rule in mutated or name_of(rule) in scenarios]
    for rule in wanted:
        text = rule["expr"] + str(rule.get("annotations", ""))
        wanted += [
            one for one in rules_of(whole) if "record" in one and one["record"] in text and one not in wanted
        ]
    groups = [
        {**group, "rules": [one for one in group["rules"] if one in wanted]} for group in whole["groups"]
    ]
    return {"groups": [group for group in groups if group["rules"]]}


def complaint(rules: Pack, file: Path, folder: Path) -> str:
    """What promtool says of the first scenario in the file that does not hold with these rules; '': all do.

    One after the other, because most of what is broken is noticed by the first ones. Words about a rule that
    cannot be worked out count only where no scenario says what it got instead.
    """
    (folder / "deepseek.rules.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    (folder / "tests").mkdir()
    whole, said = loaded(file), ""
    for scenario in whole["tests"]:
        one = folder / "tests" / "one_test.yml"
        one.write_text(yaml.safe_dump({**whole, "tests": [scenario]}), encoding="utf-8")
        tested = run("promtool", "test", "rules", one)
        if tested.returncode:
            said = str(tested.stdout)
        if "got:" in said:
            break
    return said


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_scenarios_hold_without_rules_that_they_do_not_name(file: Path, tmp_path: Path) -> None:
    # Else a mutation below would be noticed because a rule is missing.
    assert not complaint(only(pack(), file.read_text(encoding="utf-8")), file, tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "noticed_by"), MUTATIONS, ids=[f"{m[0]}-{n}" for n, m in enumerate(MUTATIONS)]
)
def test_a_broken_rule_is_noticed(name: str, old: str, new: str, noticed_by: str, tmp_path: Path) -> None:
    file = RULES / "tests" / f"{noticed_by}_test.yml"
    whole = pack()
    broken = called(name, whole)
    rules = only(whole, file.read_text(encoding="utf-8"), *broken)
    for rule in broken:
        rule["expr"] = " ".join(rule["expr"].split())
    text = yaml.safe_dump(broken, width=10_000)
    assert old in text
    for rule, changed in zip(broken, yaml.safe_load(text.replace(old, new)), strict=True):
        rule.update(changed)
    # "got:" means that a scenario failed, not merely that a rule cannot be read.
    assert "got:" in complaint(rules, file, tmp_path)
