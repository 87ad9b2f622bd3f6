"""Prometheus rules from the table of conditions: the structure of a rule file, as plain dictionaries.

Conditions and thresholds come from `exporter.capacity.conditions`; the language is the Prometheus
documentation's, and no newer than Prometheus 2.42, the first to know `keep_firing_for`.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypedDict

from exporter.alerting.promql import Writer, duration, on, over, scrape_labels, selector_of
from exporter.alerting.records import CAPACITY, GROUPS, Record
from exporter.capacity.conditions import CONDITIONS
from exporter.capacity.terms import (
    HOLD_SECONDS,
    Above,
    AllOf,
    AnyOf,
    Comparison,
    Condition,
    Expression,
    Fact,
    Fold,
    Form,
    Outgrows,
    Steady,
    Subject,
    Unchanged,
    Unless,
    WillExceed,
    Within,
    Witness,
)


class RecordingRule(TypedDict, total=False):
    record: str
    expr: str
    labels: dict[str, str]


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


class RuleGroup(TypedDict, total=False):
    name: str
    interval: str
    rules: list[RecordingRule | AlertingRule]


class RuleFile(TypedDict):
    groups: list[RuleGroup]


@dataclass(frozen=True, slots=True)
class PackOptions:
    """What differs between installations: the scrape jobs (a regular expression) and where links lead."""

    jobs: str = "deepseek.*"
    runbook_base: str = "docs/ALERTS.md"
    dashboard_base: str = "/d/deepseek-capacity-overview"


def rule_file(conditions: Iterable[Condition] = CONDITIONS, options: PackOptions | None = None) -> RuleFile:
    """The whole pack: in each group first what is recorded, then the alerts that read it."""
    chosen, listed = options or PackOptions(), tuple(conditions)
    alerts: dict[str, list[RecordingRule | AlertingRule]] = {}
    for condition in listed:
        alerts.setdefault(group_of(condition), []).extend(rules_of(condition, chosen))
    groups: list[RuleGroup] = []
    for group in GROUPS:
        rules: list[RecordingRule | AlertingRule] = [*map(_recording, group.records)]
        if group is CAPACITY:
            rules += map(_recording, _shared_records(chosen))
        rules += map(_recording, _speaks_records([one for one in listed if group_of(one) == group.name]))
        rules += alerts.pop(group.name, [])
        written: RuleGroup = {"name": f"deepseek-{group.name}"}
        if group.interval_seconds:
            written["interval"] = duration(group.interval_seconds)
        written["rules"] = rules
        groups.append(written)
    return {"groups": groups}


def group_of(condition: Condition) -> str:
    """Name of the group whose records and pace an alert needs."""
    if condition.about_monitoring:
        return "monitoring"
    if condition.subject is Subject.POOL:
        return "fleet"
    if condition.subject is Subject.RESOURCE:
        return "forecast"
    return "trends" if _looks_back(condition.expression) else "capacity"


def _looks_back(node: Expression) -> bool:
    """Whether it looks back for hours, which costs more than the present does and is no haste."""
    return any(
        isinstance(part, WillExceed | Outgrows | Steady | Unchanged) for part, _ in _parts(node, Subject.HOST)
    )


def _recording(record: Record) -> RecordingRule:
    rule: RecordingRule = {"record": record.name, "expr": record.expr}
    if record.labels:
        rule["labels"] = dict(record.labels)
    return rule


def rules_of(condition: Condition, options: PackOptions) -> list[RecordingRule | AlertingRule]:
    """One condition as an alerting rule, after the records that it alone reads: of what rises, and of its
    state where it keeps that through gaps.
    """
    writer = _writer(condition, options)
    rules: list[RecordingRule | AlertingRule] = [
        {"record": name, "expr": expr}
        for node, subject in _parts(condition.expression, condition.subject)
        if isinstance(node, Outgrows)
        for name, expr in writer.rising(node, subject)
    ]
    if condition.held:
        rules.append({"record": _holds(condition), "expr": expression(condition, options)})
    return [*rules, alerting_rule(condition, options)]


def alerting_rule(condition: Condition, options: PackOptions) -> AlertingRule:
    """One condition as a Prometheus alerting rule."""
    return {
        "alert": condition.name,
        "expr": _holds(condition) if condition.held else expression(condition, options),
        "for": duration(condition.for_seconds),
        "keep_firing_for": duration(condition.keep_firing_for_seconds),
        "labels": {"severity": condition.severity.value},
        "annotations": {
            "summary": _sentence(condition, condition.summary),
            "description": _sentence(condition, condition.description),
            "runbook_url": f"{options.runbook_base}#{condition.runbook_anchor}",
            "dashboard_url": _dashboard_url(condition, options),
        },
    }


def expression(condition: Condition, options: PackOptions) -> str:
    """PromQL that is true where the condition is; where the condition keeps its state, through a gap too.

    Present data alone can start it, so a gap never fires. While data are missing, what fires already goes on
    for `HOLD_SECONDS`; the alert's own series is the memory of "fires already". One that is kept firing
    beyond its end must not be revived by a gap, so whether it held at last sight is recorded with its value,
    and the record reads itself. What tells a gap is looked up once for all alerts, and only of what they
    speak of: every device once more for every alert would cost seconds.
    """
    now = _writer(condition, options).of(condition.expression, condition.subject)
    if not condition.held:
        return now
    group = group_of(condition)
    witnesses = _witnesses(condition)
    names = [(one, speaks_record(one, group)) for one in witnesses]
    seen = "".join(f"and {on(one.subject)} last_over_time({name}[{_HOLD}])\n" for one, name in names)
    speaking = " and ".join(
        (f"{on(one.subject)} " if number else "") + name for number, (one, name) in enumerate(names)
    )
    bracketed = f"({speaking})" if len(names) > 1 else speaking
    return (
        f"{now}\nor\n{_holds(condition)}\nand {on(condition.subject)} {_firing(condition)}\n"
        f"{seen}unless {on(witnesses[0].subject)} {bracketed}"
    )


def speaks_record(witness: Witness, group: str) -> str:
    """Name of the record that is there while a witness speaks of a subject that has an alert.

    Each group has its own, made at the same time as what reads it: that of another group could still say that
    a witness speaks which has just fallen silent. It knows an alert from the evaluation on that follows its
    first one, so one that waits for nothing is held through a gap only when it has been there twice.
    """
    chosen = "_".join(value for _, value in witness.series.labels)
    pace = next(one.interval_seconds for one in GROUPS if one.name == group)
    word = "_".join(part for part in (chosen, "speaks") if part) + (duration(pace) if pace else "")
    return f"{witness.subject.value}:{witness.series.family}:{word}"


def _witnesses(condition: Condition) -> list[Witness]:
    """What tells a gap, the most particular one first, since its labels remain: the witnesses, or where there
    are none the one series that is compared.
    """
    if condition.witnesses:
        return sorted(condition.witnesses, key=lambda one: -len(one.subject.identity))
    node = condition.expression
    compared = node.base if isinstance(node, Unless) else node
    if not isinstance(compared, Comparison):
        raise TypeError(f"{condition.name}: needs a witness to keep the state of several series")
    return [Witness(compared.series, condition.subject)]


def _stem(condition: Condition) -> str:
    """What the names of a condition's own records begin with."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", condition.name.removeprefix("DeepSeek")).lower()
    return f"{condition.subject.value}:deepseek_{words}"


def _holds(condition: Condition) -> str:
    """Name of the record of where a condition holds, or held at last sight."""
    return f"{_stem(condition)}:holds"


def _writer(condition: Condition, options: PackOptions) -> Writer:
    return Writer(options.jobs, _shared(), _stem(condition))


@cache
def _shared() -> dict[tuple[Expression, Subject], str]:
    """Comparisons with a threshold that more than one alert about the present makes, each with the name of
    the record that has what is above: the devices are gone through once.
    """
    made = Counter(
        part
        for condition in CONDITIONS
        if group_of(condition) == CAPACITY.name
        for part in dict.fromkeys(_parts(condition.expression, condition.subject))
        if isinstance(part[0], Above)
    )
    return {part: _above(*part) for part, times in made.items() if times > 1}


def _above(node: Expression, subject: Subject) -> str:
    assert isinstance(node, Above)
    word = "_".join((*(value for _, value in node.series.labels), "above"))
    return f"{subject.value}:{node.series.family}:{word}"


def _shared_records(options: PackOptions) -> Iterable[Record]:
    for (node, subject), name in _shared().items():
        yield Record(name, Writer(options.jobs).of(node, subject))


def _parts(node: Expression, subject: Subject) -> Iterator[tuple[Expression, Subject]]:
    """Every expression within one, itself included, with the subject of which it is judged."""
    yield node, subject
    match node:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from _parts(part, subject)
        case Unless(base, exempt):
            yield from _parts(base, subject)
            yield from _parts(exempt, subject)
        case Within(part, wider):
            yield from _parts(part, wider)


def _speaks_records(conditions: Iterable[Condition]) -> Iterable[Record]:
    """What tells whether each witness speaks, of subjects that have an alert: a few of all that there are."""
    told: dict[str, tuple[Witness, list[str]]] = {}
    for condition in conditions:
        for one in _witnesses(condition) if condition.held else ():
            told.setdefault(speaks_record(one, group_of(condition)), (one, []))[1].append(condition.name)
    for name, (witness, alerts) in told.items():
        of = ", ".join((*scrape_labels(witness.subject), *witness.subject.identity))
        theirs = f'group by ({of}) (ALERTS{{alertname=~"{"|".join(dict.fromkeys(alerts))}"}})'
        yield Record(name, f"{theirs}\nand {on(witness.subject)} {selector_of(witness.series)}")


def _firing(condition: Condition) -> str:
    return f'ALERTS{{alertname="{condition.name}", alertstate="firing"}}'


_HOLD = f"{HOLD_SECONDS // 3600}h"


def _sentence(condition: Condition, template: str) -> str:
    """A condition's template in Prometheus' template language."""
    words = {
        "host": "{{ $labels.instance }}",
        "value": f"{{{{ $value {_FORMAT[condition.value_form]} }}}}{_UNIT.get(condition.value_form, '')}",
        **{label: f"{{{{ $labels.{label} }}}}" for label in condition.subject.labels},
        "of_deployment": "{{ with $labels.deployment }} of {{ . }}{{ end }}",
        **{fact.name: _looked_up(fact, condition) for fact in condition.facts},
    }
    return "".join(
        literal + (words[name] if name else "") for literal, name, _, _ in string.Formatter().parse(template)
    )


_FORMAT = {
    Form.BYTES: "| humanize1024",
    Form.NUMBER: "| humanize",
    Form.DECIMAL: '| printf "%.2f"',
    Form.RATIO: "| humanizePercentage",
    Form.AGE: "| humanizeDuration",
    Form.SHARE: "| humanizePercentage",
    Form.COUNT: '| printf "%.0f"',
}
_UNIT = {Form.BYTES: "B", Form.AGE: " ago"}


def _looked_up(fact: Fact, condition: Condition) -> str:
    subject = fact.about or condition.subject
    of_subject = (*scrape_labels(subject), *subject.labels)
    selector = selector_of(fact.series, of_subject)
    values = " ".join(f"$labels.{label}" for label in of_subject)
    found = f"printf `{_query(fact, selector, condition)}` {values} | query"
    if fact.form in (Form.LABEL, Form.PAIRS):
        several = f"{{{{ if $i }}}}, {{{{ end }}}}{{{{ $sample.Labels.{fact.label} }}}}"
        if fact.form is Form.PAIRS:
            several += " {{ $sample.Value | humanizePercentage }}"
        return (
            f'{{{{ range $i, $sample := {found} | sortByLabel "{fact.label}" }}}}{several}'
            f"{{{{ else }}}}{fact.otherwise}{{{{ end }}}}"
        )
    shown = f"{{{{ . | first | value {_FORMAT[fact.form]} }}}}{_UNIT.get(fact.form, '')}"
    return f"{{{{ with {found} }}}}{shown}{{{{ else }}}}{fact.otherwise}{{{{ end }}}}"


def _query(fact: Fact, selector: str, condition: Condition) -> str:
    """PromQL whose first sample, or whose samples, tell the fact."""
    window = duration(fact.window_seconds)
    match fact.form:
        case Form.AGE:
            return f"time() - {selector}"
        case Form.SHARE:
            return f"rate({selector}[{window}])"
        case Form.COUNT:
            return f"increase({selector}[{window}])"
        case Form.PAIRS:
            return f"sum by ({fact.label}) ({selector})"
        case Form.LABEL if fact.zero:
            return f"count by ({fact.label}) ({selector} == 0)"
        case Form.LABEL:
            lately = fact.series.lately_seconds
            chosen = f"max_over_time({selector}[{duration(lately)}])" if lately else selector
            return f"count by ({fact.label}) ({chosen} > 0)"
    value = over(_HOLD if condition.held else "", selector)
    return f"sum({value})" if fact.series.fold is Fold.SUM else value


def _dashboard_url(condition: Condition, options: PackOptions) -> str:
    if not condition.subject.of_one_host:
        return options.dashboard_base
    chosen = "?var-instance={{ $labels.instance | urlquery }}"
    if "gpu" in condition.subject.labels:
        chosen += "&var-gpu={{ $labels.gpu | urlquery }}"
    return options.dashboard_base + chosen
