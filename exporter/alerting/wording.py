"""What the daemon's own alerts tell: the templates of a condition, filled in from the judged snapshot."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping

from exporter.alerting.frame import Frame, Sample
from exporter.capacity.terms import Condition, Fact, Fold, Form, Series
from exporter.units import format_bytes

_SHOWN_AT_MOST = 12
"""names in a list; a hundred deployments in a page help nobody"""


def summary(condition: Condition, labels: Mapping[str, str], value: float, host: str, frame: Frame) -> str:
    """The summary of an alert. `labels` are the subject's, `host` is what this host is called."""
    words = {
        "host": host,
        "value": _number(value, condition.value_form),
        **dict.fromkeys(condition.subject.labels, "not known"),
        **labels,
        **{fact.name: _told(fact, condition, labels, frame) for fact in condition.facts},
    }
    return string.Formatter().vformat(condition.summary, (), words)


def fact_windows(facts: Iterable[Fact]) -> Iterator[tuple[Series, float]]:
    """Every counter of whose growth a fact tells, with the window."""
    return ((fact.series, fact.window_seconds) for fact in facts if fact.window_seconds)


def _told(fact: Fact, condition: Condition, labels: Mapping[str, str], frame: Frame) -> str:
    subject = fact.about or condition.subject
    samples = [
        one
        for one in frame.samples(fact.series)
        if all(one.labels.get(name) == labels.get(name) for name in subject.labels)
    ]
    match fact.form:
        case Form.LABEL:
            chosen = [one for one in samples if (one.value == 0 if fact.zero else one.value > 0)]
            return _listed(sorted({one.labels[fact.label] for one in chosen})) or fact.otherwise
        case Form.PAIRS:
            pairs = sorted(f"{one.labels[fact.label]} {one.value:.1%}" for one in samples)
            return _listed(pairs) or fact.otherwise
    value = _valued(fact, samples, condition, labels, frame)
    return fact.otherwise if value is None else _number(value, fact.form)


def _valued(
    fact: Fact,
    samples: list[Sample],
    condition: Condition,
    labels: Mapping[str, str],
    frame: Frame,
) -> float | None:
    if not samples:
        return None
    match fact.form:
        case Form.AGE:
            taken_at = frame.value("deepseek_exporter_snapshot_timestamp_seconds")
            return None if taken_at is None else taken_at - samples[0].value
        case Form.SHARE | Form.COUNT:
            key = tuple(labels.get(name, "") for name in (fact.about or condition.subject).identity)
            window = fact.window_seconds
            grown = frame.history.growth(fact.series, key, frame.now, window, samples[0].value)
            return grown / window if grown is not None and fact.form is Form.SHARE else grown
    if fact.series.fold is Fold.SUM:
        return sum(one.value for one in samples)
    return samples[0].value


def _number(value: float, form: Form) -> str:
    match form:
        case Form.BYTES:
            return format_bytes(round(value))
        case Form.RATIO | Form.SHARE:
            return f"{value:.1%}"
        case Form.AGE:
            return f"{_duration(value)} ago"
        case Form.COUNT:
            return f"{value:.0f}"
        case Form.DECIMAL:
            return f"{value:.2f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN_AT_MOST])
    return f"{shown} and {len(names) - _SHOWN_AT_MOST} more" if len(names) > _SHOWN_AT_MOST else shown
