"""Conditions in Prometheus' language, no newer than Prometheus 2.42; every join stays within one host."""

from __future__ import annotations

import string
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from exporter.alerting.records import HOST_LABELS
from exporter.capacity.terms import (
    Above,
    AboveSeries,
    AgedAtLeast,
    AgedAtMost,
    AllOf,
    AnyOf,
    AtMost,
    Below,
    Comparison,
    EqualTo,
    Expression,
    FromOutside,
    Grown,
    Outgrows,
    Positive,
    RateAbove,
    Series,
    Some,
    Steady,
    Subject,
    Unchanged,
    Unless,
    WillExceed,
    Within,
)

# Families whose value is this daemon's clock at its latest snapshot.
_SNAPSHOT_TIME = "deepseek_exporter_snapshot_timestamp_seconds"


# A look back finds what was told within this time before: an exporter that was restarted an hour ago, or six,
# would else make a condition flicker now.
_LOOK_BACK = "15m"


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes expressions as PromQL. `jobs` is the pattern of the scrape jobs.

    `shared`: comparisons that several conditions make, with the record that has the outcome. `stem`: what the
    names of records begin with that one condition alone reads.
    """

    jobs: str
    shared: Mapping[tuple[Expression, Subject], str] = field(default_factory=dict)
    stem: str = ""

    def of(self, node: Expression, subject: Subject) -> str:
        """The expression, true where the condition is."""
        if (name := self.shared.get((node, subject))) is not None:
            return name
        match node:
            case FromOutside(promql):
                return string.Template(promql).substitute(jobs=self.jobs)
            case Above() | Positive() | AtMost() | Below() | AboveSeries() | EqualTo():
                return self._comparison(node, subject)
            case AllOf(parts):
                return self._all(parts, subject)
            case AnyOf(parts):
                return "\nor\n".join(self._nested(part, subject) for part in parts)
            case Unless(base, exempt):
                both = self._nested(base, subject), self._nested(exempt, subject)
                return f"{both[0]}\nunless {on(subject)}\n{both[1]}"
            case Within(part, wider):
                return self.of(part, wider)
        return self._leaf(node, subject)

    def _leaf(self, node: Expression, subject: Subject) -> str:
        match node:
            case Some(series):
                kept = ", ".join((*HOST_LABELS, *subject.identity))
                return f"max by ({kept}) ({self._value(series)}) > 0"
            case RateAbove(series, threshold, window):
                grown = subject_only(series, f"rate({selector_of(series)}[{duration(window)}])")
                return f"{grown}\n> {_joined()} {self._threshold(threshold)}"
            case Grown(series, window):
                grown = subject_only(series, f"increase({selector_of(series)}[{duration(window)}])")
                return f"{grown} > 0"
            case AgedAtMost(series, threshold):
                return f"{self._age(series)}\n<= {_joined()} {self._threshold(threshold)}"
            case AgedAtLeast(series, threshold):
                return f"{self._age(series)}\n> {_joined()} {self._threshold(threshold)}"
            case WillExceed():
                return self._will_exceed(node, subject)
            case Outgrows():
                return self._outgrows(node, subject)
            case Steady(series, window):
                name, over = selector_of(series), duration(window)
                # It must be there now too: what is not told any more is not known to be as it was.
                return f"changes({name}[{over}]) == 0\nand {name}\nand {name} offset {over}"
            case Unchanged(series, ago):
                now = subject_only(series, selector_of(series))
                return f"{now}\n== {on(subject)} group_left () {_before(series, ago, subject)}"
        raise TypeError(f"no PromQL for {type(node).__name__}")

    def _all(self, parts: tuple[Expression, ...], subject: Subject) -> str:
        text = self._nested(parts[0], subject)
        for part in parts[1:]:
            wider = part.subject if isinstance(part, Within) else subject
            text += f"\nand {on(wider)}\n{self._nested(part, wider)}"
        return text

    def _nested(self, node: Expression, subject: Subject) -> str:
        if isinstance(node, Within):
            return self._nested(node.part, node.subject)
        text = self.of(node, subject)
        return (
            _bracketed(text)
            if isinstance(node, AllOf | AnyOf | Unless | WillExceed | Outgrows | Steady | Unchanged)
            else text
        )

    def _comparison(self, node: Comparison, subject: Subject) -> str:
        observed = subject_only(node.series, self._value(node.series))
        match node:
            case EqualTo(_, value):
                return f"{observed} == {value}"
            case Positive():
                return f"{observed} > 0"
            case Above(_, threshold):
                return f"{observed}\n> {_joined()} {self._threshold(threshold)}"
            case AtMost(_, threshold):
                return f"{observed}\n<= {_joined()} {self._threshold(threshold)}"
            case Below(_, threshold, negative):
                limit = self._threshold(threshold)
                return f"{observed}\n< {_joined()} {f'(-{limit})' if negative else limit}"
            case AboveSeries(_, limit_series):
                limit = subject_only(limit_series, self._value(limit_series))
                return f"{observed}\n> {on(subject)} group_left () {limit}"

    def _will_exceed(self, node: WillExceed, subject: Subject) -> str:
        name, limit = selector_of(node.series), selector_of(node.limit)
        same = on(subject)
        lines = [
            f"predict_linear({name}[{duration(window)}], {node.ahead_seconds})"
            f"\n> {same} group_left () {limit}"
            for window in node.windows_seconds
        ]
        rise = f"{name} - {name} offset {duration(node.windows_seconds[0])}"
        lines.append(f"({rise} > {_joined()} {self._threshold(node.least_growth)})")
        return f"\nand {same}\n".join(lines)

    def _outgrows(self, node: Outgrows, subject: Subject) -> str:
        now, same = f"{self.stem}:rising", on(subject)
        bounds = [
            *((f"{self.stem}:{_ago(ago)}", ago) for ago in node.since_seconds),
            (now, 0),
        ]
        ends = []
        for (before, first), (after, last) in pairwise(bounds):
            grown = f"({after} - {'' if last else f'{same} group_left () '}{before})"
            pace = f"{node.ahead_seconds} * {grown} / {first - last}"
            ends.append(f"{now} + {same} group_left () {pace}\n> {same} group_left () {self.stem}:limit")
        return f"\nand {same}\n".join(ends)

    def rising(self, node: Outgrows, subject: Subject) -> Iterator[tuple[str, str]]:
        """Records, name and expression, of what has risen, what it was before, and its limit.

        What has not risen, nearly all, is looked at no further: each look at every device of a thousand hosts
        costs tens of milliseconds.
        """
        same, now = on(subject), subject_only(node.series, selector_of(node.series))
        first = _before(node.series, node.since_seconds[0], subject)
        least = _bracketed(f"{first}\n+ {_joined()} {self._threshold(node.least_growth)}")
        yield f"{self.stem}:rising", f"{now}\n> {same} group_left ()\n{least}"
        only = f"and {same} {self.stem}:rising"
        for ago in node.since_seconds:
            yield f"{self.stem}:{_ago(ago)}", f"{_before(node.series, ago, subject)}\n{only}"
        yield f"{self.stem}:limit", f"{subject_only(node.limit, selector_of(node.limit))}\n{only}"

    def _value(self, series: Series) -> str:
        value = selector_of(series)
        if series.lately_seconds:
            value = f"max_over_time({value}[{duration(series.lately_seconds)}])"
        return f"abs({value})" if series.absolute else value

    def _threshold(self, name: str) -> str:
        return f'deepseek_threshold{{name="{name}"}}'

    def _age(self, series: Series) -> str:
        at = subject_only(series, selector_of(series))
        return _bracketed(f"{_SNAPSHOT_TIME}\n- on ({', '.join(HOST_LABELS)}) group_right ()\n{at}")


def _bracketed(promql: str) -> str:
    return f"(\n{textwrap.indent(promql, '  ')}\n)"


def over(window: str, selector: str) -> str:
    """The last value within a window; without one, the present value."""
    return f"last_over_time({selector}[{window}])" if window else selector


def subject_only(series: Series, promql: str) -> str:
    """A value folded to its subject."""
    # The labels that chose the samples are no part of the subject: `bound` must not split an alert.
    folded = series.aside and not series.recorded
    return f"{series.fold} without ({', '.join(series.aside)}) ({promql})" if folded else promql


def selector_of(series: Series, more: Iterable[str] = ()) -> str:
    """The samples of a series; `more` labels get a value when the text is printed (`%q`)."""
    if series.recorded:
        return series.recorded
    matchers = [
        *(f'{name}="{value}"' for name, value in series.labels),
        *(f'{name}=~"{"|".join(values)}"' for name, values in series.choices),
        *(f"{name}=%q" for name in more),
    ]
    return f"{series.family}{{{', '.join(matchers)}}}" if matchers else series.family


def _before(series: Series, seconds_ago: int, subject: Subject) -> str:
    """What a series was a time ago, of each subject once, whatever it was called by then."""
    value = f"last_over_time({selector_of(series)}[{_LOOK_BACK}] offset {duration(seconds_ago)})"
    return f"{series.fold} by ({', '.join((*scrape_labels(subject), *subject.identity))}) ({value})"


def _ago(seconds: int) -> str:
    return f"offset{duration(seconds)}"


def _joined() -> str:
    return f"on ({', '.join(HOST_LABELS)}) group_left ()"


def on(subject: Subject) -> str:
    """Matches by what tells two subjects apart."""
    return f"on ({', '.join((*scrape_labels(subject), *subject.identity))})"


def scrape_labels(subject: Subject) -> tuple[str, ...]:
    """The scraper's labels that a subject has: those of one host, or the job of all."""
    return HOST_LABELS if subject.of_one_host else ("job",)


def duration(seconds: int) -> str:
    """`90s`, `15m`, `6h`; an hour is `60m`."""
    if seconds >= 7200 and seconds % 3600 == 0:
        return f"{seconds // 3600}h"
    return f"{seconds // 60}m" if seconds % 60 == 0 else f"{seconds}s"
