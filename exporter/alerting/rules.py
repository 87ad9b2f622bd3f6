"""Prometheus rules from the table of conditions: the structure of a rule file, as plain dictionaries.

Conditions and thresholds come from `exporter.capacity.conditions`; the language is the Prometheus
documentation's, and no newer than Prometheus 2.42, the first to know `keep_firing_for`.
"""

from __future__ import annotations

import string
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

from exporter.capacity.conditions import CONDITIONS
from exporter.capacity.terms import (
    Above,
    AgedAtMost,
    AllOf,
    AnyOf,
    Condition,
    EqualTo,
    Expression,
    Fact,
    Form,
    FromOutside,
    Grown,
    RateAbove,
    Series,
    Some,
    Subject,
    Unless,
    Witness,
)

# The scraper's labels that name one host; every join stays within them, so one Prometheus serves many hosts.
HOST_LABELS = ("instance", "job")

# An alert that fires keeps its state this long without data. Bounded, because a host taken out of service
# while overcommitted would else page for ever; GpuLost, MonitoringBlind or ExporterDown speak before that.
HOLD = "1h"

# Families whose value is this daemon's clock at its latest snapshot.
_SNAPSHOT_TIME = "deepseek_exporter_snapshot_timestamp_seconds"


class RecordingRule(TypedDict):
    record: str
    expr: str


# PromQL's word `for` is a keyword of Python, hence the functional form.
AlertingRule = TypedDict(
    "AlertingRule",
    {
        "alert": str,
        "expr": str,
        "for": str,
        "keep_firing_for": str,
        "labels": dict[str, str],
        "annotations": dict[str, str],
    },
)


class RuleGroup(TypedDict):
    name: str
    rules: list[RecordingRule] | list[AlertingRule]


class RuleFile(TypedDict):
    groups: list[RuleGroup]


@dataclass(frozen=True, slots=True)
class PackOptions:
    """What differs between installations: the scrape jobs (a regular expression) and where links lead."""

    jobs: str = "deepseek.*"
    runbook_base: str = "docs/ALERTS.md"
    dashboard_base: str = "/d/deepseek-capacity-overview"


# Levels upwards from one deployment or device; boards and capacity reviews read these, alerts do not.
RECORDING_RULES: tuple[tuple[str, str], ...] = (
    (
        "device:deepseek_expected_gpu_memory_bytes:sum",
        "sum by (instance, job, gpu, uuid) (deepseek_expected_gpu_memory_bytes)",
    ),
    (
        "deployment:deepseek_expected_gpu_memory_bytes:sum",
        "sum by (instance, job, deployment) (deepseek_expected_gpu_memory_bytes)",
    ),
    (
        "deployment:deepseek_expected_host_memory_bytes:sum",
        "sum by (instance, job, deployment) (deepseek_expected_host_memory_bytes)",
    ),
    (
        "host:deepseek_gpu_memory_headroom_bytes:min",
        "min by (instance, job, bound) (deepseek_gpu_memory_headroom_bytes)",
    ),
    (
        "host:deepseek_gpu_memory_overcommit_ratio:max",
        "max by (instance, job, bound) (deepseek_gpu_memory_overcommit_ratio)",
    ),
    (
        "fleet:deepseek_gpu_memory_headroom_bytes:min",
        "min by (job, bound) (deepseek_gpu_memory_headroom_bytes)",
    ),
    (
        "fleet:deepseek_host_memory_headroom_bytes:min",
        "min by (job, bound) (deepseek_host_memory_headroom_bytes)",
    ),
)


def rule_file(conditions: Iterable[Condition] = CONDITIONS, options: PackOptions | None = None) -> RuleFile:
    """The whole pack: recording rules, then alerts about capacity and devices, then about the monitoring."""
    chosen = options or PackOptions()
    capacity: list[AlertingRule] = []
    monitoring: list[AlertingRule] = []
    for condition in conditions:
        (monitoring if condition.about_monitoring else capacity).append(alerting_rule(condition, chosen))
    recording: list[RecordingRule] = [{"record": name, "expr": expr} for name, expr in RECORDING_RULES]
    return {
        "groups": [
            {"name": "deepseek-capacity.rules", "rules": recording},
            {"name": "deepseek-capacity.alerts", "rules": capacity},
            {"name": "deepseek-monitoring.alerts", "rules": monitoring},
        ]
    }


def alerting_rule(condition: Condition, options: PackOptions) -> AlertingRule:
    """One condition as a Prometheus alerting rule."""
    return {
        "alert": condition.name,
        "expr": expression(condition, options),
        "for": _duration(condition.for_seconds),
        "keep_firing_for": _duration(condition.keep_firing_for_seconds),
        "labels": {"severity": condition.severity.value},
        "annotations": {
            "summary": _sentence(condition, condition.summary),
            "description": _sentence(condition, condition.description),
            "runbook_url": f"{options.runbook_base}#{condition.runbook_anchor}",
            "dashboard_url": _dashboard_url(condition, options),
        },
    }


def expression(condition: Condition, options: PackOptions) -> str:
    """PromQL that is true where the condition is; where the condition keeps its state, through a gap too."""
    now = _promql(condition.expression, condition.subject, options)
    if condition.witness is not None:
        return f"{now}\nor\n{_while_absent(condition, condition.witness)}"
    if not condition.keeps_state:
        return now
    observed = _observed(condition)
    same = _on(condition.subject)
    # Present data alone can start it, so a gap never fires. What fires already, and was true of the last
    # value, goes on without data; the alert's own series is the memory of "fires already".
    return (
        f"{now}\n"
        "or\n"
        f"{_bracketed(_comparison(observed, HOLD))}\n"
        f"and {same} {_firing(condition)}\n"
        f"unless {same} {_selector(observed.series)}"
    )


def _while_absent(condition: Condition, witness: Witness) -> str:
    """The alert itself while its witness does not speak, for as long as `HOLD`.

    It must have been true at the evaluation before: one that only lingers would be revived.
    """
    if condition.keep_firing_for_seconds:
        raise TypeError(f"{condition.name}: what is kept beyond its end cannot have a witness")
    same = _on(witness.subject)
    selector = _selector(witness.series)
    return (
        f"max without (alertname, alertstate, severity) ({_firing(condition)})\n"
        f"and {same} {_over(HOLD, selector)}\n"
        f"unless {same} {selector}"
    )


def _firing(condition: Condition) -> str:
    return f'ALERTS{{alertname="{condition.name}", alertstate="firing"}}'


def _observed(condition: Condition) -> Above | EqualTo:
    """The comparison that a gap must not undo: the condition, less its exemptions."""
    node = condition.expression
    if isinstance(node, Unless):
        node = node.base
    if isinstance(node, Above | EqualTo):
        return node
    raise TypeError(f"{condition.name}: only a comparison of one series can keep its state through a gap")


def _promql(node: Expression, subject: Subject, options: PackOptions) -> str:
    same = _on(subject)
    match node:
        case FromOutside(promql):
            return string.Template(promql).substitute(jobs=options.jobs)
        case Above() | EqualTo():
            return _comparison(node)
        case Some(series):
            kept = ", ".join((*HOST_LABELS, *subject.identity))
            return f"max by ({kept}) ({_selector(series)}) > 0"
        case RateAbove(series, threshold, window):
            grown = _subject_only(series, f"rate({_selector(series)}[{_duration(window)}])")
            return f"{grown}\n> {_joined()} {_threshold(threshold)}"
        case Grown(series, window):
            return f"{_subject_only(series, f'increase({_selector(series)}[{_duration(window)}])')} > 0"
        case AgedAtMost(series, threshold):
            at = _subject_only(series, _selector(series))
            age = f"{_SNAPSHOT_TIME}\n- on ({', '.join(HOST_LABELS)}) group_right ()\n{at}"
            return f"{_bracketed(age)}\n<= {_joined()} {_threshold(threshold)}"
        case AllOf(parts):
            return f"\nand {same}\n".join(_nested(part, subject, options) for part in parts)
        case AnyOf(parts):
            return "\nor\n".join(_nested(part, subject, options) for part in parts)
        case Unless(base, exempt):
            return f"{_nested(base, subject, options)}\nunless {same}\n{_nested(exempt, subject, options)}"


def _nested(node: Expression, subject: Subject, options: PackOptions) -> str:
    text = _promql(node, subject, options)
    return _bracketed(text) if isinstance(node, AllOf | AnyOf | Unless) else text


def _comparison(node: Above | EqualTo, window: str = "") -> str:
    selector = _over(window, _selector(node.series)) if window else _lately(node.series)
    observed = _subject_only(node.series, selector)
    if isinstance(node, EqualTo):
        return f"{observed} == {node.value}"
    return f"{observed}\n> {_joined()} {_over(window, _threshold(node.threshold))}"


def _bracketed(promql: str) -> str:
    return f"(\n{textwrap.indent(promql, '  ')}\n)"


def _over(window: str, selector: str) -> str:
    return f"last_over_time({selector}[{window}])" if window else selector


def _lately(series: Series, more: Iterable[str] = ()) -> str:
    selector = _selector(series, more)
    if not series.lately_seconds:
        return selector
    return f"max_over_time({selector}[{_duration(series.lately_seconds)}])"


def _subject_only(series: Series, promql: str) -> str:
    # The labels that chose the samples are no part of the subject: `bound` must not split an alert.
    return f"{series.fold} without ({', '.join(series.aside)}) ({promql})" if series.aside else promql


def _selector(series: Series, more: Iterable[str] = ()) -> str:
    matchers = [
        *(f'{name}="{value}"' for name, value in series.labels),
        *(f'{name}=~"{"|".join(values)}"' for name, values in series.choices),
        *(f"{name}=%q" for name in more),
    ]
    return f"{series.family}{{{', '.join(matchers)}}}" if matchers else series.family


def _threshold(name: str) -> str:
    return f'deepseek_threshold{{name="{name}"}}'


def _joined() -> str:
    return f"on ({', '.join(HOST_LABELS)}) group_left ()"


def _on(subject: Subject) -> str:
    return f"on ({', '.join((*HOST_LABELS, *subject.identity))})"


def _duration(seconds: int) -> str:
    return f"{seconds // 60}m" if seconds % 60 == 0 else f"{seconds}s"


def _sentence(condition: Condition, template: str) -> str:
    """A condition's template in Prometheus' template language."""
    words = {
        "host": "{{ $labels.instance }}",
        "value": "{{ $value | humanizePercentage }}",
        **{label: f"{{{{ $labels.{label} }}}}" for label in condition.subject.labels},
        **{fact.name: _looked_up(fact, condition) for fact in condition.facts},
    }
    return "".join(
        literal + (words[name] if name else "") for literal, name, _, _ in string.Formatter().parse(template)
    )


def _looked_up(fact: Fact, condition: Condition) -> str:
    of_subject = (*HOST_LABELS, *condition.subject.labels)
    selector = _selector(fact.series, of_subject)
    values = " ".join(f"$labels.{label}" for label in of_subject)
    window = _duration(fact.window_seconds)
    match fact.form:
        case Form.BYTES:
            query = _over(HOLD if condition.held else "", selector)
            shown = "{{ . | first | value | humanize1024 }}B"
        case Form.NUMBER:
            query = _over(HOLD if condition.held else "", selector)
            shown = "{{ . | first | value | humanize }}"
        case Form.AGE:
            query = f"time() - {selector}"
            shown = "{{ . | first | value | humanizeDuration }} ago"
        case Form.SHARE:
            query = f"rate({selector}[{window}])"
            shown = "{{ . | first | value | humanizePercentage }}"
        case Form.COUNT:
            query = f"increase({selector}[{window}])"
            shown = '{{ . | first | value | printf "%.0f" }}'
        case Form.LABEL:
            query = f"count by ({fact.label}) ({_lately(fact.series, of_subject)} > 0)"
            several = f"{{{{ if $i }}}}, {{{{ end }}}}{{{{ $sample.Labels.{fact.label} }}}}"
            found = f'printf `{query}` {values} | query | sortByLabel "{fact.label}"'
            return (
                f"{{{{ range $i, $sample := {found} }}}}{several}{{{{ else }}}}{fact.otherwise}{{{{ end }}}}"
            )
    return (
        f"{{{{ with printf `{query}` {values} | query }}}}{shown}{{{{ else }}}}{fact.otherwise}{{{{ end }}}}"
    )


def _dashboard_url(condition: Condition, options: PackOptions) -> str:
    if condition.subject is Subject.FLEET:
        return options.dashboard_base
    chosen = "?var-instance={{ $labels.instance | urlquery }}"
    if condition.subject is Subject.DEVICE:
        chosen += "&var-gpu={{ $labels.gpu | urlquery }}"
    return options.dashboard_base + chosen
