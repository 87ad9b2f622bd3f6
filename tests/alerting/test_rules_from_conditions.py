"""Prometheus rules as they are made from the table, and as they are committed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.alerting.rules import AlertingRule, PackOptions, alerting_rule, expression, rule_file
from exporter.capacity.conditions import CONDITIONS, THRESHOLDS
from exporter.capacity.terms import Condition, Severity, Threshold
from exporter.exposition.families import FAMILIES, Kind

Rule = Mapping[str, Any]

ROOT = Path(__file__).parents[2]
RULES = ROOT / "rules" / "deepseek.rules.yml"
RUNBOOK = (ROOT / "docs" / "ALERTS.md").read_text(encoding="utf-8")
BY_NAME = {condition.name: condition for condition in CONDITIONS}
FAMILY_NAMES = {family.name for family in FAMILIES}
COUNTERS = {family.name for family in FAMILIES if family.kind is Kind.COUNTER}
ALL: list[Rule] = [item for group in rule_file()["groups"] for item in group["rules"]]
ALERTS = [item for item in ALL if "alert" in item]
RECORDED = {item["record"]: item for item in ALL if "record" in item}

RECORD_NAME = re.compile(
    r"(?:placement|place|device|deployment|service|host|pool|fleet|resource|store)"
    r":deepseek_\w+"
    r":(?:sum|min|max|count|low|n_minus_1|max10m|max1d|count15d|deriv14d|r2_14d"
    r"|holds|(?:low_|high_)?(?:above|speaks(?:2m)?)|rising|offset\d+[mh]|limit)"
)
SERIES_NAME = re.compile(r"(?<![\w:])(?:\w+:)?deepseek_\w+(?::\w+)?(?![\w:])")
# The exporter is scraped every 15 s in the example, and some people halve that: 30 s.
SCRAPE_SECONDS = 30
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

each_condition = pytest.mark.parametrize(
    "condition", CONDITIONS, ids=lambda one: f"{one.name}-{one.severity.value}"
)
each_rule = pytest.mark.parametrize("item", ALL, ids=lambda one: one.get("alert") or one["record"])
each_alert = pytest.mark.parametrize(
    "item", ALERTS, ids=lambda one: f"{one['alert']}-{one['labels']['severity']}"
)


def generated(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "rules" / "generate.py"), "--output", "-", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def rule(name: str, options: PackOptions | None = None) -> AlertingRule:
    """The rule of an alert, the last one where it has several severities."""
    return alerting_rule(BY_NAME[name], options or PackOptions())


def judged(item: Rule) -> str:
    """The expression of an alert, or of the record that is all it reads."""
    expr: str = item["expr"]
    return judged(RECORDED[expr]) if expr in RECORDED else expr


def whole(name: str) -> str:
    return expression(BY_NAME[name], PackOptions())


def test_the_committed_file_is_the_generated_one() -> None:
    assert RULES.read_text(encoding="utf-8") == generated(), "run: python rules/generate.py"


def test_yaml_says_what_the_pack_says() -> None:
    assert yaml.safe_load(generated()) == rule_file()


def test_every_condition_becomes_one_alert() -> None:
    made = sorted((item["alert"], item["labels"]["severity"]) for item in ALERTS)
    assert made == sorted((condition.name, condition.severity.value) for condition in CONDITIONS)
    assert len(set(made)) == len(made)


@each_rule
def test_every_series_in_a_rule_is_exported_or_recorded(item: Rule) -> None:
    text = " ".join((item["expr"], *item.get("annotations", {}).values()))
    assert set(SERIES_NAME.findall(text)) <= FAMILY_NAMES | set(RECORDED)


def test_every_record_is_named_level_metric_operation() -> None:
    assert len(RECORDED) > 15
    assert [name for name in sorted(RECORDED) if not RECORD_NAME.fullmatch(name)] == []


def test_records_of_one_name_differ_by_a_label() -> None:
    made = [(item["record"], *sorted(item.get("labels", {}).items())) for item in ALL if "record" in item]
    assert len(set(made)) == len(made)


@each_rule
def test_only_counters_have_a_rate(item: Rule) -> None:
    for name in re.findall(r"\b(?:rate|increase|irate)\(\s*([\w:]+)", item["expr"]):
        assert name in COUNTERS
        assert name.endswith("_total")


def test_some_rules_have_a_rate() -> None:
    assert sum("increase(" in item["expr"] or "rate(" in item["expr"] for item in ALL) >= 3


@each_rule
def test_absence_is_asked_of_what_has_labels(item: Rule) -> None:
    for selector in re.findall(r"\babsent(?:_over_time)?\(([^)]*)\)", item["expr"]):
        assert re.fullmatch(r"\w+\{.+\}(?:\[\w+\])?", selector)


@each_alert
def test_no_alert_depends_on_a_rank(item: Rule) -> None:
    # Whoever leaves the first k resolves, without being any better.
    assert not re.search(r"\b(?:topk|bottomk|limitk|sort)\b", item["expr"])


@each_rule
def test_windows_hold_four_scrapes(item: Rule) -> None:
    # One that is missed, and the edges of the window, must leave two samples.
    for number, unit in re.findall(r"\[(\d+)([smhd])(?::\w+)?\]", item["expr"]):
        assert int(number) * SECONDS[unit] >= 4 * SCRAPE_SECONDS


@each_rule
def test_no_host_is_written_into_a_rule(item: Rule) -> None:
    assert not re.search(r"\binstance\s*(?:=|!=|=~|!~)", item["expr"])
    jobs = set(re.findall(r"\bjob\s*(?:=~|=|!=|!~)\s*\"([^\"]*)\"", item["expr"]))
    assert jobs <= {PackOptions().jobs}


@each_rule
def test_every_comparison_of_two_series_says_what_they_share(item: Rule) -> None:
    # Without on(), a label more on one side, such as `bound`, makes the comparison silently empty.
    for operator, right in re.findall(r"(?<![=!<>])(==|<=|>=|<|>)\s*(\S+)", item["expr"]):
        if right.startswith("deepseek_exporter_snapshot_timestamp_seconds{"):
            assert operator == "=="  # one series with its own past
        else:
            assert re.fullmatch(r"on|time\(\)|-?[\d.]+\)*", right), right


@each_rule
def test_joins_stay_within_one_host_or_one_job(item: Rule) -> None:
    for labels in re.findall(r"\bon \(([^)]*)\)", item["expr"]):
        names = labels.split(", ")
        assert "job" in names
        assert "instance" in names or "pool" in names


@each_alert
def test_labels_in_annotations_survive_the_expression(item: Rule) -> None:
    told = set(re.findall(r"\$labels\.(\w+)", " ".join(item["annotations"].values())))
    (subject,) = {condition.subject for condition in CONDITIONS if condition.name == item["alert"]}
    of_scrape = {"instance", "job"} if subject.of_one_host else {"job"}
    assert told <= of_scrape | set(subject.labels)
    folded = {
        label
        for group in re.findall(r"\bwithout \(([^)]*)\)", judged(item).split("\nor\n")[0])
        for label in group.split(", ")
    }
    assert not told & folded


@each_alert
def test_what_alerts_was_not_grouped_down_to_fewer_labels(item: Rule) -> None:
    # `by` may stand on the right of `and` and `unless` only, where labels do not matter.
    first = judged(item).lstrip("( \n")
    assert not re.match(r"\w+ by\b", first)


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
        if seconds >= 7200 and seconds % 3600 == 0:
            return f"{seconds // 3600} h"
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
    assert '> on (instance, job) group_left () deepseek_threshold{name="vram_overcommit_ratio"}' in whole(
        "DeepSeekVramOvercommitLikely"
    )


def test_what_two_alerts_compare_is_compared_once() -> None:
    # Else the devices of all hosts would be gone through for each of them.
    above = "device:deepseek_gpu_memory_overcommit_ratio:low_above"
    assert 'deepseek_threshold{name="vram_overcommit_ratio"}' in RECORDED[above]["expr"]
    for name in ("DeepSeekVramOvercommitted", "DeepSeekVramRolloutOverlap"):
        assert whole(name).startswith(above)
        assert '{bound="low"}' not in whole(name)


def test_what_tells_a_gap_is_looked_up_once_in_each_group() -> None:
    # The witnesses are one sample a device; an alert reads only what is left of them where something stands.
    for item in ALL:
        if "speaks" not in item.get("record", ""):
            held = item["expr"].split("\nor\n")[-1] if ":holds" in item["expr"] else ""
            assert all(":" in name for name in SERIES_NAME.findall(held)), item
    for group in rule_file()["groups"]:
        rules: list[Rule] = [*group["rules"]]
        speaks = [item["expr"].split("\nand ")[1] for item in rules if "speaks" in item.get("record", "")]
        assert len(set(speaks)) == len(speaks)


def test_state_is_kept_only_where_the_condition_says_so() -> None:
    condition = BY_NAME["DeepSeekVramOvercommitted"]
    assert "ALERTS{" in expression(condition, PackOptions())
    assert "ALERTS{" not in expression(replace(condition, keeps_state=False), PackOptions())


def test_what_has_a_witness_goes_on_only_while_that_is_silent() -> None:
    assert whole("DeepSeekForeignVram").endswith(
        "and on (instance, job, uuid) last_over_time(device:deepseek_gpu_memory_total_bytes:speaks[1h])\n"
        "unless on (instance, job, uuid) device:deepseek_gpu_memory_total_bytes:speaks"
    )


def test_what_has_two_witnesses_goes_on_while_either_is_silent() -> None:
    assert whole("DeepSeekVramBelowExpected").endswith(
        "and on (instance, job, uuid) last_over_time(device:deepseek_gpu_memory_total_bytes:speaks[1h])\n"
        "and on (instance, job) last_over_time(host:deepseek_deployments_running:speaks[1h])\n"
        "unless on (instance, job, uuid) (device:deepseek_gpu_memory_total_bytes:speaks"
        " and on (instance, job) host:deepseek_deployments_running:speaks)"
    )


def test_what_compares_several_series_needs_a_witness_to_keep_its_state() -> None:
    condition = replace(BY_NAME["DeepSeekKvCacheSaturated"], witnesses=())
    with pytest.raises(TypeError, match="DeepSeekKvCacheSaturated"):
        expression(condition, PackOptions())


def test_every_alert_that_a_gap_must_not_end_remembers_its_value() -> None:
    # What ALERTS has is 1: a held page must go on telling the figure that it had.
    for condition in CONDITIONS:
        kept = alerting_rule(condition, PackOptions())["expr"].endswith(":holds")
        assert kept == condition.held, condition.name


def test_groups_are_the_five_that_the_documentation_tells() -> None:
    groups = {group["name"]: group.get("interval", "") for group in rule_file()["groups"]}
    assert groups == {
        "deepseek-capacity": "",
        "deepseek-fleet": "",
        "deepseek-trends": "2m",
        "deepseek-forecast": "5m",
        "deepseek-monitoring": "",
    }


@pytest.mark.parametrize(
    ("alert", "group"),
    [
        ("DeepSeekGpuErrors", "capacity"),
        ("DeepSeekVramAboveExpected", "capacity"),
        ("DeepSeekCapacityNMinusOne", "fleet"),
        ("DeepSeekVramGrowthWillExhaust", "trends"),
        ("DeepSeekIdleWaste", "trends"),
        ("DeepSeekModelStoreFull", "trends"),
        ("DeepSeekCapacityExhaustion", "forecast"),
        ("DeepSeekMonitoringBlind", "monitoring"),
        ("DeepSeekNotificationsFailing", "monitoring"),
    ],
)
def test_alerts_are_grouped_by_what_they_need(alert: str, group: str) -> None:
    holders = [
        one["name"]
        for one in rule_file()["groups"]
        if any(item.get("alert") == alert for item in one["rules"])
    ]
    assert holders == [f"deepseek-{group}"]


def test_a_record_is_made_before_it_is_read_in_its_group() -> None:
    for group in rule_file()["groups"]:
        rules: list[Rule] = [*group["rules"]]
        made_here = [item["record"] for item in rules if "record" in item]
        known: set[str] = set()
        for item in rules:
            # A record that reads itself reads what it was before.
            read = set(SERIES_NAME.findall(item["expr"])) - {item.get("record")}
            assert not (read & set(made_here)) - known
            known |= {item["record"]} if "record" in item else set()


def test_a_long_window_reads_what_is_recorded_seldom() -> None:
    # A thousand hosts of eight devices cost seconds otherwise (benchmarks/rule_evaluation.py).
    for item in ALERTS:
        for name, hours in re.findall(r"([\w:]+)(?:\{[^}]*\})?\[(\d+)h\]", item["expr"]):
            assert int(hours) <= 1 or name in RECORDED


def test_what_only_prometheus_sees_cannot_keep_its_state() -> None:
    condition = replace(BY_NAME["DeepSeekExporterDown"], keeps_state=True)
    with pytest.raises(TypeError, match="DeepSeekExporterDown"):
        expression(condition, PackOptions())
