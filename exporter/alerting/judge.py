"""Whether the expression of a condition holds now, and for whom, in the terms that the rules have too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from exporter.alerting.frame import Frame, Hit, Key
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

Hits = dict[Key, Hit]

_SNAPSHOT_TIME = "deepseek_exporter_snapshot_timestamp_seconds"


def judge(node: Expression, subject: Subject, frame: Frame) -> Hits:
    """The subjects of which the expression is true. What only Prometheus can see is true of none."""
    match node:
        case FromOutside():
            return {}
        case AllOf(parts):
            hits = judge(parts[0], subject, frame)
            for part in parts[1:]:
                hits = _narrowed(hits, part, subject, frame)
            return hits
        case AnyOf(parts):
            found: Hits = {}
            for part in parts:
                found = judge(part, subject, frame) | found
            return found
        case Unless(base, exempt):
            exempted = judge(exempt, subject, frame)
            return {key: hit for key, hit in judge(base, subject, frame).items() if key not in exempted}
        case Within(part, wider):
            return judge(part, wider, frame)
        case Above() | Positive() | AtMost() | Below() | AboveSeries() | EqualTo():
            return _compared(node, subject, frame)
    return _of_the_past(node, subject, frame)


def _narrowed(hits: Hits, part: Expression, subject: Subject, frame: Frame) -> Hits:
    """Those hits of which another part is true as well, be it of a wider subject."""
    wider = part.subject if isinstance(part, Within) else subject
    others = judge(part, wider, frame)
    at = [subject.identity.index(name) for name in wider.identity]
    return {key: hit for key, hit in hits.items() if tuple(key[place] for place in at) in others}


def _compared(node: Comparison, subject: Subject, frame: Frame) -> Hits:
    values = frame.lately(node.series, subject)
    match node:
        case EqualTo(_, wanted):
            return _where(values, lambda value: value == wanted)
        case Positive():
            return _where(values, lambda value: value > 0)
        case AboveSeries(_, limit_series):
            limits = frame.lately(limit_series, subject)
            return {
                key: hit for key, hit in values.items() if key in limits and hit.value > limits[key].value
            }
        case Above(_, name) | AtMost(_, name) | Below(_, name):
            limit = frame.threshold(name)
            if limit is None:
                return {}
            if isinstance(node, Above):
                return _where(values, lambda value: value > limit)
            if isinstance(node, AtMost):
                return _where(values, lambda value: value <= limit)
            floor = -limit if node.negative else limit
            return _where(values, lambda value: value < floor)


def _of_the_past(node: Expression, subject: Subject, frame: Frame) -> Hits:
    history, now = frame.history, frame.now
    match node:
        case Some(series):
            return _where(frame.lately(series, subject), lambda value: value > 0)
        case Grown(series, window):
            values = frame.folded(series, subject)
            grown = {key: history.growth(series, key, now, window, hit.value) for key, hit in values.items()}
            return {key: Hit(values[key].labels, by) for key, by in grown.items() if by}
        case RateAbove(series, name, window):
            limit = frame.threshold(name)
            values = frame.folded(series, subject)
            grown = {key: history.growth(series, key, now, window, hit.value) for key, hit in values.items()}
            rates = {key: by / window for key, by in grown.items() if by is not None}
            return {
                key: Hit(values[key].labels, rate)
                for key, rate in rates.items()
                if limit is not None and rate > limit
            }
        case AgedAtMost(series, name) | AgedAtLeast(series, name):
            limit, taken_at = frame.threshold(name), frame.value(_SNAPSHOT_TIME)
            if limit is None or taken_at is None:
                return {}
            ages = {
                key: Hit(hit.labels, taken_at - hit.value)
                for key, hit in frame.folded(series, subject).items()
            }
            old = isinstance(node, AgedAtLeast)
            return _where(ages, lambda age: age > limit if old else age <= limit)
        case WillExceed():
            return dict(_will_exceed(node, subject, frame))
        case Outgrows():
            return dict(_outgrows(node, subject, frame))
        case Steady(series, window):
            return {
                key: hit
                for key, hit in frame.folded(series, subject).items()
                if history.is_steady(series, key, now, window, hit.value)
            }
        case Unchanged(series, ago):
            return {
                key: hit
                for key, hit in frame.folded(series, subject).items()
                if history.at_beginning(series, key, now, ago) == hit.value
            }
    raise TypeError(f"no judgement of {type(node).__name__}")


def _will_exceed(node: WillExceed, subject: Subject, frame: Frame) -> Iterator[tuple[Key, Hit]]:
    history, now, series = frame.history, frame.now, node.series
    least, limits = frame.threshold(node.least_growth), frame.folded(node.limit, subject)
    for key, hit in frame.folded(series, subject).items():
        before = history.at_beginning(series, key, now, node.windows_seconds[0])
        if least is None or before is None or key not in limits or hit.value - before <= least:
            continue
        ends = [history.line(series, key, now, window, node.ahead_seconds) for window in node.windows_seconds]
        if ends[0] is not None and all(end is not None and end > limits[key].value for end in ends):
            yield key, Hit(hit.labels, ends[0])


def _outgrows(node: Outgrows, subject: Subject, frame: Frame) -> Iterator[tuple[Key, Hit]]:
    history, now, series = frame.history, frame.now, node.series
    least, limits = frame.threshold(node.least_growth), frame.folded(node.limit, subject)
    for key, hit in frame.folded(series, subject).items():
        known = [history.at_beginning(series, key, now, ago) for ago in node.since_seconds]
        before = [value for value in known if value is not None]
        if least is None or len(before) < len(known) or key not in limits or hit.value - before[0] <= least:
            continue
        spans = pairwise((*node.since_seconds, 0))
        paces = [
            (after - value) / (first - last)
            for (first, last), (value, after) in zip(spans, pairwise((*before, hit.value)), strict=True)
        ]
        ends = [hit.value + pace * node.ahead_seconds for pace in paces]
        if all(end > limits[key].value for end in ends):
            yield key, Hit(hit.labels, ends[0])


def _where(values: Hits, holds: Callable[[float], bool]) -> Hits:
    return {key: hit for key, hit in values.items() if holds(hit.value)}


def windows(node: Expression) -> Iterator[tuple[Series, float]]:
    """Every series of whose past the expression asks, with the window."""
    match node:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from windows(part)
        case Unless(base, exempt):
            yield from windows(base)
            yield from windows(exempt)
        case Within(part):
            yield from windows(part)
        case RateAbove(series, _, window) | Grown(series, window) | Steady(series, window):
            yield series, window
        case Unchanged(series, ago):
            yield series, ago
        case WillExceed(series):
            yield from ((series, window) for window in node.windows_seconds)
        case Outgrows(series):
            yield from ((series, ago) for ago in node.since_seconds)
    yield from ((one, one.lately_seconds) for one in _named_here(node) if one.lately_seconds)


def named(node: Expression) -> Iterator[Series]:
    """Every series that the expression names."""
    match node:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from named(part)
        case Unless(base, exempt):
            yield from named(base)
            yield from named(exempt)
        case Within(part):
            yield from named(part)
    yield from _named_here(node)


def _named_here(node: Expression) -> Iterator[Series]:
    if isinstance(node, AboveSeries | WillExceed | Outgrows):
        yield node.limit
    if not isinstance(node, AllOf | AnyOf | Unless | Within | FromOutside):
        yield node.series
