"""The daemon's own evaluation: which conditions hold, since when, and which alerts that makes.

The same table as the Prometheus rules, for hosts whose Prometheus has no rules or is down. What needs many
hosts or many days (`exporter.capacity.conditions.forecasts`), and what only another machine can see, is left
to Prometheus. Missing data never starts an alert and never ends one about capacity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from exporter.alerting.frame import Frame, Hit, Key, Reading
from exporter.alerting.history import History
from exporter.alerting.judge import judge, named, windows
from exporter.alerting.wording import fact_windows, summary
from exporter.capacity.alert import Alert
from exporter.capacity.conditions import CONDITIONS
from exporter.capacity.terms import HOLD_SECONDS, Condition, Series, Severity, Subject, Unless

_VERSION = 1
_ALWAYS = {
    "deepseek_threshold",
    "deepseek_exporter_snapshot_timestamp_seconds",
}


@dataclass(slots=True)
class _Standing:
    """One condition that holds, or lately held, for one subject; `…_seconds` is Unix time, else monotonic."""

    labels: dict[str, str]
    active_since: float
    active_since_seconds: float
    firing_since_seconds: float | None = None
    false_since: float | None = None
    """when it ceased to hold; None while it holds"""
    true_at_last_sight: bool = True
    """whether it held when its data were last there"""
    last_sight: float = float("-inf")
    held: bool = False
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one evaluation gave: the alerts that stand, and those that were firing and have just ended."""

    alerts: tuple[Alert, ...] = ()
    ended: tuple[Alert, ...] = ()
    changed: bool = False
    """whether an alert began, began to fire or ended: what is worth writing down"""


@dataclass(frozen=True, slots=True)
class Links:
    """Where annotations lead, and what this host is called in them."""

    host: str
    runbook_base: str


class Evaluation:
    """Judges one snapshot after the other; keeps what must outlive one.

    ``time_scale`` shortens every waiting and keeping time, so that a rehearsal need not last for minutes.
    """

    def __init__(
        self, links: Links, conditions: Iterable[Condition] = CONDITIONS, *, time_scale: float = 1.0
    ) -> None:
        self.links = links
        self._time_scale = time_scale
        self._conditions = tuple(one for one in conditions if is_judged_here(one))
        self._standing: dict[tuple[str, Severity, Key], _Standing] = {}
        asked: dict[Series, dict[Subject, set[float]]] = {}
        for condition in self._conditions:
            for series, window in (*windows(condition.expression), *fact_windows(condition.facts)):
                asked.setdefault(series, {}).setdefault(condition.subject, set()).add(window)
        self._asked = {series: tuple(subjects) for series, subjects in asked.items()}
        self._history = History(
            {series: tuple(set().union(*subjects.values())) for series, subjects in asked.items()}
        )
        self._families = frozenset(_families(self._conditions))

    def evaluate(self, readings: Iterable[Reading], now: float, now_seconds: float) -> Judgement:
        """Judge the samples of one snapshot. `now` is monotonic, `now_seconds` Unix time."""
        frame = Frame(readings, self._families, self._history, now)
        alerts: list[Alert] = []
        ended: list[Alert] = []
        changed = False
        for condition in self._conditions:
            hits = judge(condition.expression, condition.subject, frame)
            changed |= self._stand(condition, hits, frame, now_seconds)
            changed |= self._fall(condition, hits, frame, ended)
        self._remember(frame)
        for condition in self._conditions:
            for standing in self._of(condition).values():
                alerts.append(self._alert(condition, standing))
        alerts.sort(key=_weight)
        return Judgement(tuple(alerts), tuple(ended), changed or bool(ended))

    def _stand(self, condition: Condition, hits: Mapping[Key, Hit], frame: Frame, now_seconds: float) -> bool:
        """What holds now begins, goes on, or begins to fire; whether anything changed."""
        changed, now = False, frame.now
        for key, hit in hits.items():
            at = (condition.name, condition.severity, key)
            one = self._standing.get(at)
            if one is None:
                one = self._standing[at] = _Standing(dict(hit.labels), now, now_seconds)
                changed = True
            one.labels.update(hit.labels)
            if not _is_missing(condition, one.labels, key, frame):
                one.last_sight = now
            one.false_since, one.true_at_last_sight, one.held = None, True, False
            if (
                one.firing_since_seconds is None
                and now - one.active_since >= condition.for_seconds * self._time_scale
            ):
                one.firing_since_seconds = now_seconds
                changed = True
        return changed

    def _fall(self, condition: Condition, hits: Mapping[Key, Hit], frame: Frame, ended: list[Alert]) -> bool:
        """What does not hold now is kept through a gap or for its time, or ends; whether anything changed."""
        changed = False
        for key, one in self._of(condition).items():
            if key in hits:
                one.summary = summary(condition, one.labels, hits[key].value, self.links.host, frame)
                continue
            missing = _is_missing(condition, one.labels, key, frame)
            if not missing:
                one.last_sight, one.true_at_last_sight = frame.now, False
            firing = one.firing_since_seconds is not None
            one.held = (
                firing and missing and one.true_at_last_sight and frame.now - one.last_sight <= HOLD_SECONDS
            )
            if one.held:
                one.false_since = None
                continue
            if one.false_since is None:
                one.false_since = frame.now
            kept = condition.keep_firing_for_seconds * self._time_scale
            if not firing or frame.now - one.false_since >= kept:
                del self._standing[condition.name, condition.severity, key]
                changed = True
                if firing:
                    ended.append(self._alert(condition, one))
        return changed

    def _of(self, condition: Condition) -> dict[Key, _Standing]:
        """What stands of one condition."""
        name, severity = condition.name, condition.severity
        return {at[2]: one for at, one in self._standing.items() if at[:2] == (name, severity)}

    def _remember(self, frame: Frame) -> None:
        for series, subjects in self._asked.items():
            for subject in subjects:
                for key, hit in frame.folded(series, subject).items():
                    self._history.add(series, key, frame.now, hit.value)
        self._history.forget(frame.now)

    def _alert(self, condition: Condition, standing: _Standing) -> Alert:
        return Alert(
            name=condition.name,
            severity=condition.severity.value,
            subject=dict(standing.labels),
            firing=standing.firing_since_seconds is not None,
            active_since_seconds=standing.active_since_seconds,
            firing_since_seconds=standing.firing_since_seconds,
            held=standing.held,
            summary=standing.summary,
            description=condition.description,
            runbook_url=f"{self.links.runbook_base}#{condition.runbook_anchor}",
        )

    def standing(self, now: float, now_seconds: float) -> dict[str, Any]:
        """What stands, as JSON data for `restore`: a restart must not begin every alert's time anew."""
        rows = [
            {
                "alert": name,
                "severity": severity.value,
                "key": list(key),
                "labels": one.labels,
                "active_since": one.active_since_seconds,
                "firing_since": one.firing_since_seconds,
                "false_seconds_ago": None if one.false_since is None else now - one.false_since,
                "sight_seconds_ago": min(now - one.last_sight, 2 * HOLD_SECONDS),
                "true_at_last_sight": one.true_at_last_sight,
                "summary": one.summary,
            }
            for (name, severity, key), one in self._standing.items()
        ]
        return {"version": _VERSION, "saved_at": now_seconds, "alerts": rows}

    def restore(self, saved: Mapping[str, Any], now: float, now_seconds: float) -> None:
        """Take up what an earlier daemon left; what is older than `HOLD_SECONDS`, or of no condition any
        more, is forgotten. Raises KeyError, TypeError, ValueError or AttributeError when it is no such data.
        """
        if saved["version"] != _VERSION:
            raise ValueError(f"version {saved['version']!r}")
        away = now_seconds - float(saved["saved_at"])
        if not 0 <= away <= HOLD_SECONDS:
            return
        known = {(one.name, one.severity): one for one in self._conditions}
        restored: dict[tuple[str, Severity, Key], _Standing] = {}
        for row in saved["alerts"]:
            at = (str(row["alert"]), Severity(row["severity"]))
            condition = known.get(at)
            if condition is None:
                continue
            firing_since, false_ago = row["firing_since"], row["false_seconds_ago"]
            one = _Standing(
                labels={str(name): str(value) for name, value in row["labels"].items()},
                active_since=now - (now_seconds - float(row["active_since"])),
                active_since_seconds=float(row["active_since"]),
                firing_since_seconds=None if firing_since is None else float(firing_since),
                false_since=None if false_ago is None else now - away - float(false_ago),
                true_at_last_sight=bool(row["true_at_last_sight"]),
                last_sight=now - away - float(row["sight_seconds_ago"]),
                summary=str(row["summary"]),
            )
            restored[(*at, tuple(str(part) for part in row["key"]))] = one
        self._standing = restored


def is_judged_here(condition: Condition) -> bool:
    """Whether the daemon can judge it by its own snapshots: it names a series that they have."""
    return condition.subject.of_one_host and any(True for _ in named(condition.expression))


def _is_missing(condition: Condition, labels: Mapping[str, str], key: Key, frame: Frame) -> bool:
    """Whether the data that would end an alert are not there now."""
    if not condition.held:
        return False
    if condition.witnesses:
        return any(
            tuple(labels.get(name, "") for name in one.subject.identity)
            not in frame.folded(one.series, one.subject)
            for one in condition.witnesses
        )
    node = condition.expression
    compared = next(iter(named(node.base if isinstance(node, Unless) else node)))
    return key not in frame.folded(compared, condition.subject)


def _families(conditions: Iterable[Condition]) -> Iterable[str]:
    yield from _ALWAYS
    for condition in conditions:
        yield from (one.family for one in named(condition.expression))
        yield from (one.series.family for one in condition.facts)
        yield from (one.series.family for one in condition.witnesses)


def _weight(alert: Alert) -> tuple[bool, int, float, str]:
    """Firing before pending, critical before warning, the oldest first."""
    severities = [one.value for one in Severity]
    return not alert.firing, severities.index(alert.severity), alert.active_since_seconds, alert.name
