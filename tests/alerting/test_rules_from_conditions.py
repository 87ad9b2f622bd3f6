"""Prometheus rules as they are made from the table, and as they are committed."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from exporter.alerting.rules import AlertingRule, PackOptions, alerting_rule, expression, rule_file
from exporter.capacity.conditions import CONDITIONS, THRESHOLDS
from exporter.capacity.terms import Condition, Severity, Threshold
from exporter.exposition.families import FAMILIES

ROOT = Path(__file__).parents[2]
RULES = ROOT / "rules" / "deepseek.rules.yml"
RUNBOOK = (ROOT / "docs" / "ALERTS.md").read_text(encoding="utf-8")
BY_NAME = {condition.name: condition for condition in CONDITIONS}

each_condition = pytest.mark.parametrize("condition", CONDITIONS, ids=lambda one: one.name)


def generated(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "rules" / "generate.py"), "--output", "-", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def rule(name: str, options: PackOptions | None = None) -> AlertingRule:
    return alerting_rule(BY_NAME[name], options or PackOptions())


def test_the_committed_file_is_the_generated_one() -> None:
    assert RULES.read_text(encoding="utf-8") == generated(), "run: python rules/generate.py"


def test_yaml_says_what_the_pack_says() -> None:
    assert yaml.safe_load(generated()) == rule_file()


def rules_with(key: str) -> list[str]:
    """The names of recording or alerting rules, as the committed file has them."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [item[key] for group in groups for item in group["rules"] if key in item]


def test_every_condition_becomes_one_alert() -> None:
    assert sorted(rules_with("alert")) == sorted(BY_NAME)


def test_every_metric_in_the_rules_exists() -> None:
    known = {family.name for family in FAMILIES}
    named = set(re.findall(r"(?<![:\w])deepseek_\w+(?!:)", RULES.read_text(encoding="utf-8")))
    assert len(named) > 15
    assert named <= known


def test_recording_rules_are_named_level_metric_operation() -> None:
    records = rules_with("record")
    assert records
    for record in records:
        assert re.fullmatch(r"(device|deployment|host|fleet):deepseek_\w+:(sum|min|max)", record)


@each_condition
def test_annotations_are_complete(condition: Condition) -> None:
    annotations = alerting_rule(condition, PackOptions())["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert all(annotations.values())


@each_condition
def test_the_runbook_has_a_heading_for_the_link(condition: Condition) -> None:
    headings = {heading.strip().lower() for heading in re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE)}
    page, anchor = alerting_rule(condition, PackOptions())["annotations"]["runbook_url"].split("#")
    assert (ROOT / page).is_file()
    assert anchor in headings


@each_condition
def test_the_runbook_tells_severity_and_times(condition: Condition) -> None:
    def minutes(seconds: int) -> str:
        return f"{seconds // 60} min" if seconds else "–"

    without_wait = "always" if condition.severity is Severity.NONE else "at once"
    waits = minutes(condition.for_seconds) if condition.for_seconds else without_wait
    link = f"[{condition.name}](#{condition.runbook_anchor})"
    row = f"| {link} | {condition.severity} | {waits} | {minutes(condition.keep_firing_for_seconds)} |"
    assert row in RUNBOOK


@pytest.mark.parametrize("threshold", THRESHOLDS, ids=lambda one: one.name)
def test_the_runbook_tells_thresholds_and_defaults(threshold: Threshold) -> None:
    gibibytes = f"{threshold.default / 2**30:g} GiB"
    shown = gibibytes if threshold.unit == "bytes" else f"{threshold.default:g}"
    assert f"| `{threshold.name}` | {shown} |" in RUNBOOK


def test_an_installations_own_links_and_jobs() -> None:
    options = PackOptions(
        jobs="inference", runbook_base="https://wiki/x", dashboard_base="https://grafana/d/y"
    )
    down = rule("DeepSeekExporterDown", options)
    assert down["expr"] == 'up{job=~"inference"} == 0'
    assert down["annotations"]["runbook_url"] == "https://wiki/x#deepseekexporterdown"
    assert down["annotations"]["dashboard_url"].startswith("https://grafana/d/y?var-instance=")


def test_the_generator_takes_the_same_options() -> None:
    assert 'absent(up{job=~"inference"})' in generated("--jobs", "inference")


def test_a_level_is_compared_with_the_threshold_of_its_own_host() -> None:
    assert (
        '> on (instance, job) group_left () deepseek_threshold{name="vram_overcommit_ratio"}'
        in rule("DeepSeekVramOvercommitted")["expr"]
    )


def test_state_is_kept_only_where_the_condition_says_so() -> None:
    condition = BY_NAME["DeepSeekVramOvercommitted"]
    assert "ALERTS{" in expression(condition, PackOptions())
    assert "ALERTS{" not in expression(replace(condition, keeps_state=False), PackOptions())


def test_what_has_a_witness_goes_on_only_while_that_is_silent() -> None:
    assert rule("DeepSeekForeignVram")["expr"].endswith(
        "and on (instance, job, uuid) last_over_time(deepseek_gpu_memory_total_bytes[1h])\n"
        "unless on (instance, job, uuid) deepseek_gpu_memory_total_bytes"
    )


def test_what_lingers_cannot_have_a_witness() -> None:
    condition = replace(BY_NAME["DeepSeekForeignVram"], keep_firing_for_seconds=60)
    with pytest.raises(TypeError, match="DeepSeekForeignVram"):
        expression(condition, PackOptions())


def test_alerts_are_grouped_by_what_they_are_about() -> None:
    groups = {
        group["name"]: {item.get("alert") for item in group["rules"]} for group in rule_file()["groups"]
    }
    assert {"DeepSeekGpuErrors", "DeepSeekVramOvercommitted"} <= groups["deepseek-capacity.alerts"]
    assert {"DeepSeekMonitoringBlind", "DeepSeekWatchdog"} <= groups["deepseek-monitoring.alerts"]


def test_what_only_prometheus_sees_cannot_keep_its_state() -> None:
    condition = replace(BY_NAME["DeepSeekExporterDown"], keeps_state=True)
    with pytest.raises(TypeError, match="DeepSeekExporterDown"):
        expression(condition, PackOptions())
