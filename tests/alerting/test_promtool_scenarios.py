"""Prometheus' own tool on the shipped rules and configurations, and on rules broken on purpose."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from debian_tools import run

from exporter.capacity.conditions import CONDITIONS

RULES = Path(__file__).parents[2] / "rules"
SCENARIOS = sorted((RULES / "tests").glob("*_test.yml"))
ALWAYS_FIRING = {"DeepSeekWatchdog"}
NAMES = {condition.name for condition in CONDITIONS}

# alert, what its rule (white space folded) loses, what takes its place, the scenarios that must notice
MUTATIONS = (
    ("DeepSeekVramOvercommitted", 'bound="low"', 'bound="high"', "vram_overcommitted"),
    ("DeepSeekVramOvercommitted", 'alertstate="firing"', 'alertstate="x"', "vram_overcommitted"),
    (
        "DeepSeekVramOvercommitted",
        'and on (instance, job, uuid) ALERTS{alertname="DeepSeekVramOvercommitted", alertstate="firing"}',
        "",
        "vram_overcommitted",
    ),
    (
        "DeepSeekVramOvercommitted",
        "(instance, job, uuid)",
        "(instance, job, gpu, uuid)",
        "vram_overcommitted",
    ),
    ("DeepSeekVramOvercommitted", "unless on (instance, job, uuid)", "or", "vram_overcommitted"),
    ("DeepSeekVramOvercommitted", "[1h]", "[10h]", "vram_overcommitted"),
    ("DeepSeekVramOvercommitted", "[1h]", "[5m]", "vram_overcommitted"),
    (
        "DeepSeekVramOvercommitted",
        'on (instance, job) group_left () deepseek_threshold{name="vram_overcommit_ratio"}',
        "1",
        "vram_overcommitted",
    ),
    ("DeepSeekVramOvercommitted", ") > on", ") >= on", "vram_overcommitted"),
    ("DeepSeekVramOvercommitted", "for: 2m", "for: 30s", "vram_overcommitted"),
    ("DeepSeekVramOvercommitted", "keep_firing_for: 10m", "keep_firing_for: 1m", "vram_overcommitted"),
    ("DeepSeekVramOvercommitted", "severity: critical", "severity: warning", "vram_overcommitted"),
    ("DeepSeekHostMemoryOvercommitted", 'bound="low"', 'bound="high"', "host_memory_overcommitted"),
    ("DeepSeekHostMemoryOvercommitted", 'alertstate="firing"', 'alertstate="x"', "host_memory_overcommitted"),
    ("DeepSeekHostMemoryOvercommitted", "for: 5m", "for: 1m", "host_memory_overcommitted"),
    (
        "DeepSeekHostMemoryOvercommitted",
        "keep_firing_for: 10m",
        "keep_firing_for: 0m",
        "host_memory_overcommitted",
    ),
    ("DeepSeekVramOvercommitLikely", 'bound="high"', 'bound="low"', "vram_overcommit_likely"),
    ("DeepSeekVramOvercommitLikely", ") > on", ") >= on", "vram_overcommit_likely"),
    ("DeepSeekVramOvercommitLikely", 'alertstate="firing"', 'alertstate="x"', "vram_overcommit_likely"),
    ("DeepSeekVramOvercommitLikely", "for: 10m", "for: 8m", "vram_overcommit_likely"),
    ("DeepSeekVramOvercommitLikely", "keep_firing_for: 10m", "keep_firing_for: 1m", "vram_overcommit_likely"),
    ("DeepSeekVramOvercommitLikely", "severity: warning", "severity: critical", "vram_overcommit_likely"),
    (
        "DeepSeekVramOvercommitLikely",
        'on (instance, job) group_left () deepseek_threshold{name="vram_overcommit_ratio"}',
        "1",
        "vram_overcommit_likely",
    ),
    ("DeepSeekForeignVram", "sum without", "max without", "foreign_vram"),
    ("DeepSeekForeignVram", "other|unattributed", "other", "foreign_vram"),
    ("DeepSeekForeignVram", "other|unattributed", "other|deployment", "foreign_vram"),
    ("DeepSeekForeignVram", "deepseek_expected_gpu_memory_bytes", "x", "foreign_vram"),
    ("DeepSeekForeignVram", 'holder_kind="deployment"', 'holder_kind="x"', "foreign_vram"),
    (
        "DeepSeekForeignVram",
        "and on (instance, job, uuid) ( max by (instance, job, uuid)",
        "and on (instance, job) ( max by (instance, job)",
        "foreign_vram",
    ),
    (
        "DeepSeekForeignVram",
        'on (instance, job) group_left () deepseek_threshold{name="foreign_vram_bytes"}',
        "1073741824",
        "foreign_vram",
    ),
    ("DeepSeekForeignVram", 'alertstate="firing"', 'alertstate="x"', "foreign_vram"),
    ("DeepSeekForeignVram", 'alertstate="firing"', 'alertstate="pending"', "foreign_vram"),
    (
        "DeepSeekForeignVram",
        "unless on (instance, job, uuid) deepseek_gpu_memory_total_bytes",
        "",
        "foreign_vram",
    ),
    (
        "DeepSeekForeignVram",
        "and on (instance, job, uuid) last_over_time(deepseek_gpu_memory_total_bytes[1h])",
        "",
        "foreign_vram",
    ),
    ("DeepSeekForeignVram", "alertname, alertstate, severity", "alertname", "foreign_vram"),
    ("DeepSeekForeignVram", "for: 10m", "for: 8m", "foreign_vram"),
    ("DeepSeekHostMemoryPressure", 'scope="full"', 'scope="some"', "host_memory_pressure"),
    ("DeepSeekHostMemoryPressure", "[5m]", "[1m]", "host_memory_pressure"),
    ("DeepSeekHostMemoryPressure", "rate(", "increase(", "host_memory_pressure"),
    (
        "DeepSeekHostMemoryPressure",
        'on (instance, job) group_left () deepseek_threshold{name="host_swap_used_bytes"}',
        "0",
        "host_memory_pressure",
    ),
    ("DeepSeekHostMemoryPressure", "warm|", "warm|declared_only|", "host_memory_pressure"),
    ("DeepSeekHostMemoryPressure", "loading|warm|", "loading|", "host_memory_pressure"),
    ("DeepSeekHostMemoryPressure", "[15m]", "[5m]", "host_memory_pressure"),
    ("DeepSeekHostMemoryPressure", "[15m]", "[1h]", "host_memory_pressure"),
    (
        "DeepSeekHostMemoryPressure",
        "increase(deepseek_host_oom_kills_total[15m])",
        "deepseek_host_oom_kills_total",
        "host_memory_pressure",
    ),
    ("DeepSeekHostMemoryPressure", 'alertstate="firing"', 'alertstate="x"', "host_memory_pressure"),
    (
        "DeepSeekHostMemoryPressure",
        "unless on (instance, job) deepseek_host_memory_total_bytes",
        "",
        "host_memory_pressure",
    ),
    ("DeepSeekHostMemoryPressure", "for: 5m", "for: 1m", "host_memory_pressure"),
    ("DeepSeekHostMemoryPressure", "severity: critical", "severity: warning", "host_memory_pressure"),
    ("DeepSeekGpuErrors", 'kind="uncorrected"', 'kind=~".+"', "gpu_errors"),
    (
        "DeepSeekGpuErrors",
        'increase(deepseek_gpu_ecc_errors_total{kind="uncorrected"}[10m])',
        'deepseek_gpu_ecc_errors_total{kind="uncorrected"}',
        "gpu_errors",
    ),
    ("DeepSeekGpuErrors", "|79|", "|", "gpu_errors"),
    ("DeepSeekGpuErrors", "48|63", "31|48|63", "gpu_errors"),
    ("DeepSeekGpuErrors", "max without (xid) (", "(", "gpu_errors"),
    (
        "DeepSeekGpuErrors",
        'on (instance, job) group_left () deepseek_threshold{name="gpu_error_recent_seconds"}',
        "1e9",
        "gpu_errors",
    ),
    ("DeepSeekGpuErrors", "keep_firing_for: 60m", "keep_firing_for: 30m", "gpu_errors"),
    ("DeepSeekGpuErrors", "keep_firing_for: 60m", "keep_firing_for: 90m", "gpu_errors"),
    ("DeepSeekGpuErrors", "for: 0m", "for: 5m", "gpu_errors"),
    ("DeepSeekPowerLimited", "hw_slowdown|", "sw_power_cap|hw_slowdown|", "power_limited"),
    ("DeepSeekPowerLimited", "sw_thermal_slowdown|", "", "power_limited"),
    ("DeepSeekPowerLimited", "{reason=~", "{reason!~", "power_limited"),
    ("DeepSeekPowerLimited", "[2m]", "[30s]", "power_limited"),
    ("DeepSeekPowerLimited", "[2m]", "[10m]", "power_limited"),
    (
        "DeepSeekPowerLimited",
        'on (instance, job) group_left () deepseek_threshold{name="active_utilization_ratio"}',
        "0",
        "power_limited",
    ),
    (
        "DeepSeekPowerLimited",
        "and on (instance, job, uuid) max_over_time",
        "and on (instance, job) max_over_time",
        "power_limited",
    ),
    ("DeepSeekPowerLimited", 'alertstate="firing"', 'alertstate="x"', "power_limited"),
    ("DeepSeekPowerLimited", "for: 10m", "for: 5m", "power_limited"),
    ("DeepSeekFootprintUnknown", 'state="unknown"', 'state="warm"', "footprint_unknown"),
    ("DeepSeekFootprintUnknown", "for: 15m", "for: 8m", "footprint_unknown"),
    ("DeepSeekFootprintUnknown", 'alertstate="firing"', 'alertstate="x"', "footprint_unknown"),
    (
        "DeepSeekFootprintUnknown",
        "unless on (instance, job) deepseek_exporter_snapshot_timestamp_seconds",
        "",
        "footprint_unknown",
    ),
    (
        "DeepSeekFootprintUnknown",
        "unless on (instance, job) deepseek_exporter_snapshot_timestamp_seconds",
        "unless on (instance, job, deployment) deepseek_deployment_state",
        "footprint_unknown",
    ),
    ("DeepSeekGpuLost", 'state="released"', 'state="x"', "gpu_lost"),
    (
        "DeepSeekGpuLost",
        'max without (state) (deepseek_gpu_state{state="released"}) == 1',
        "deepseek_gpu_state",
        "gpu_lost",
    ),
    ("DeepSeekGpuLost", 'alertstate="firing"', 'alertstate="x"', "gpu_lost"),
    ("DeepSeekMonitoringBlind", "source_expected == 1", "source_expected >= 0", "monitoring_blind"),
    ("DeepSeekMonitoringBlind", "source_up == 1", "source_up >= 0", "monitoring_blind"),
    (
        "DeepSeekMonitoringBlind",
        'on (instance, job) group_left () deepseek_threshold{name="source_stale_seconds"}',
        "1e9",
        "monitoring_blind",
    ),
    (
        "DeepSeekMonitoringBlind",
        'on (instance, job) group_left () deepseek_threshold{name="source_stale_seconds"}',
        "30",
        "monitoring_blind",
    ),
    (
        "DeepSeekMonitoringBlind",
        "deepseek_exporter_snapshot_timestamp_seconds - on (instance, job) group_right ()",
        "time() -",
        "monitoring_blind",
    ),
    ("DeepSeekMonitoringBlind", "offset 10m", "offset 5h", "monitoring_blind"),
    ("DeepSeekMonitoringBlind", "offset 10m", "offset 3m", "monitoring_blind"),
    ("DeepSeekExporterDown", 'up{job=~"deepseek.*"} == 0', "up == 0", "exporter"),
    ("DeepSeekExporterDown", "for: 5m", "for: 0m", "exporter"),
    ("DeepSeekExporterAbsent", 'up{job=~"deepseek.*"}', 'up{job=~"deepseek.*"} == 1', "exporter"),
    ("DeepSeekConfigReloadFailed", "== 0", "== 1", "exporter"),
    ("DeepSeekWatchdog", "vector(1)", "vector(1) > 1", "exporter"),
)


def checked_alerts() -> list[tuple[str, bool]]:
    """(alert, whether it is expected to fire) of every check in the scenarios."""
    checks: list[tuple[str, bool]] = []
    for file in SCENARIOS:
        for scenario in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
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
    words = yaml.safe_load((RULES / "tests" / "annotations_test.yml").read_text(encoding="utf-8"))
    tested = {check["alertname"] for scenario in words["tests"] for check in scenario["alert_rule_test"]}
    assert tested == NAMES


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_every_scenario_says_why_it_exists(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    scenarios = [number for number, line in enumerate(lines) if line.startswith("  - name:")]
    assert scenarios
    assert all(lines[number - 1].startswith("  # ") for number in scenarios)


@pytest.mark.parametrize(
    ("alert", "old", "new", "noticed_by"), MUTATIONS, ids=[f"{m[0]}-{n}" for n, m in enumerate(MUTATIONS)]
)
def test_a_broken_rule_is_noticed(alert: str, old: str, new: str, noticed_by: str, tmp_path: Path) -> None:
    pack = yaml.safe_load((RULES / "deepseek.rules.yml").read_text(encoding="utf-8"))
    rule = next(rule for group in pack["groups"] for rule in group["rules"] if rule.get("alert") == alert)
    rule["expr"] = " ".join(rule["expr"].split())
    text = yaml.safe_dump(rule, width=10_000)
    assert old in text
    rule.update(yaml.safe_load(text.replace(old, new)))
    (tmp_path / "deepseek.rules.yml").write_text(yaml.safe_dump(pack), encoding="utf-8")
    (tmp_path / "tests").mkdir()
    file = shutil.copy(RULES / "tests" / f"{noticed_by}_test.yml", tmp_path / "tests")
    tested = run("promtool", "test", "rules", file)
    assert tested.returncode == 1, tested.stdout
    # Not merely a rule that cannot be read.
    assert "got:" in tested.stdout
