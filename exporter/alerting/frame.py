"""The samples of one snapshot as conditions look at them: by family, folded to subjects, with their past."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

from exporter.alerting.history import History
from exporter.capacity.terms import Fold, Series, Subject

Reading = tuple[str, tuple[str, ...], tuple[str, ...], float]
"""A sample: family, names of its labels, their values, value."""

Key = tuple[str, ...]
"""The subject's identity: the values of its identity labels."""

_FOLDS: dict[Fold, Callable[[list[float]], float]] = {Fold.MAX: max, Fold.MIN: min, Fold.SUM: sum}


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a family."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A subject for which something holds, or was observed."""

    labels: Mapping[str, str]
    value: float


class Frame:
    """One snapshot's samples of the families that conditions name."""

    def __init__(self, readings: Iterable[Reading], families: Set[str], history: History, now: float) -> None:
        self.now = now
        self.history = history
        self._samples: dict[str, list[Sample]] = {}
        self._folded: dict[tuple[Series, Subject], dict[Key, Hit]] = {}
        for family, names, values, value in readings:
            if family in families and math.isfinite(value):
                labels = dict(zip(names, values, strict=True))
                self._samples.setdefault(family, []).append(Sample(labels, value))

    def samples(self, series: Series) -> list[Sample]:
        """The samples that a series chooses."""
        return [one for one in self._samples.get(series.family, ()) if _is_chosen(one, series)]

    def folded(self, series: Series, subject: Subject) -> dict[Key, Hit]:
        """The series as it is now: one value a subject."""
        known = self._folded.get((series, subject))
        if known is None:
            known = self._folded[series, subject] = self._fold(series, subject)
        return known

    def lately(self, series: Series, subject: Subject) -> dict[Key, Hit]:
        """The same, with the greatest value within `lately_seconds` where the series asks for that."""
        now = self.folded(series, subject)
        if not series.lately_seconds:
            return now
        return {
            key: Hit(hit.labels, self.history.peak(series, key, self.now, series.lately_seconds, hit.value))
            for key, hit in now.items()
        }

    def threshold(self, name: str) -> float | None:
        """The threshold in force; None when it is not known."""
        for one in self._samples.get("deepseek_threshold", ()):
            if one.labels["name"] == name:
                return one.value
        return None

    def value(self, family: str) -> float | None:
        """The one value of a family without labels."""
        found = self._samples.get(family)
        return found[0].value if found else None

    def _fold(self, series: Series, subject: Subject) -> dict[Key, Hit]:
        values: dict[Key, list[float]] = {}
        labels: dict[Key, Mapping[str, str]] = {}
        for one in self.samples(series):
            key = tuple(one.labels.get(name, "") for name in subject.identity)
            values.setdefault(key, []).append(abs(one.value) if series.absolute else one.value)
            labels.setdefault(key, {name: one.labels[name] for name in subject.labels if name in one.labels})
        fold = _FOLDS[series.fold]
        return {key: Hit(labels[key], float(fold(found))) for key, found in values.items()}


def _is_chosen(sample: Sample, series: Series) -> bool:
    labels = sample.labels
    return all(labels.get(name) == value for name, value in series.labels) and all(
        labels.get(name) in values for name, values in series.choices
    )
