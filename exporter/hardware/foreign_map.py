"""How the series of another exporter become devices: a table for each exporter, and nothing else.

The page is written by another program, and read as if by an enemy: values are bounded, names are kept only in
the shape that such names have, and what contradicts itself is left out and counted.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files

from exporter.engines.telemetry.samples import Sample, Samples
from exporter.hardware.gpu import GpuProcess, GpuReading
from exporter.settings.options import (
    ForeignExporter,
    ForeignLabels,
    ForeignMetric,
    ForeignMetrics,
    from_plain,
)

MOST_DEVICES = 128
_MOST_PROCESSES = 4096
_MOST_INDEX = 4095
_MOST_BYTES = 2**44
"""Of one device: 16 TiB, sixteen times the largest that is announced."""
_MOST_WATTS = 20_000.0
_MOST_JOULES = 2.0**63
_CELSIUS = (-60.0, 250.0)
_MOST_ERRORS = 2**53
_PID_MAX = 2**22  # PID_MAX_LIMIT of include/linux/threads.h, 64 bits
_OVERSHOOT = 1.01
"""Ratios are rounded by the exporters: a little more than all is all."""

_UUID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", re.ASCII)
_PCI = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]", re.ASCII)
_PRODUCT = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._()/+-]{0,63}", re.ASCII)
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ForeignMap:
    """One exporter's series by our fields. ``driver_share``: bytes that driver and firmware use of an idle
    device at most, where the exporter counts them as used."""

    exporter: str
    vendor: str
    product: str
    driver_share: int
    labels: ForeignLabels
    metrics: ForeignMetrics

    @property
    def wanted(self) -> frozenset[str]:
        """Names of every series that is read."""
        return frozenset(metric.name for _, metric in self.rows())

    def rows(self) -> Iterator[tuple[str, ForeignMetric]]:
        """(our field, the series that has it)"""
        for one in fields(ForeignMetrics):
            metric = getattr(self.metrics, one.name)
            if metric is not None:
                yield one.name, metric


@dataclass(frozen=True, slots=True)
class ForeignDevice:
    """A device that the page tells of. ``index`` None: the page does not number it. ``reading`` None: all
    that is told of it is too old."""

    uuid: str
    index: int | None
    name: str
    pci_bus_id: str
    driver_version: str
    reading: GpuReading | None


@dataclass(frozen=True, slots=True)
class Page:
    """What one page tells. ``count`` is its own word on how many devices there are, where it has one."""

    devices: tuple[ForeignDevice, ...]
    count: int | None
    errors: Mapping[str, int]
    """reason → how many values, devices or processes it cost"""


@lru_cache(maxsize=1)
def known() -> Mapping[str, ForeignMap]:
    """The exporters whose series are known, by kind."""
    raw = tomllib.loads(files("exporter.hardware.data").joinpath("foreign.toml").read_text("utf-8"))
    return {kind: _from_table(table) for kind, table in raw.items()}


def map_of(entry: ForeignExporter) -> ForeignMap:
    """How the exporter of a configured entry is read; the entry is one that the configuration allows."""
    if entry.kind is not None and entry.kind != "custom":
        return known()[entry.kind]
    return ForeignMap(
        exporter="custom",
        vendor=entry.vendor,
        product=entry.product or entry.vendor,
        driver_share=entry.driver_share,
        labels=entry.labels or ForeignLabels(),
        metrics=entry.metrics or ForeignMetrics(),
    )


def _from_table(table: Mapping[str, object]) -> ForeignMap:
    metrics = table["metrics"]
    assert isinstance(metrics, dict)
    rows = {
        field: {key: value for key, value in row.items() if key != "source"} for field, row in metrics.items()
    }
    return ForeignMap(
        exporter=str(table["exporter"]),
        vendor=str(table["vendor"]),
        product=str(table["product"]),
        driver_share=int(str(table.get("driver_share", 0))),
        labels=from_plain(ForeignLabels, table["labels"]),
        metrics=from_plain(ForeignMetrics, rows),
    )


def read_page(by: ForeignMap, name: str, samples: Samples, *, now: float, max_age: float) -> Page:
    """The devices of a page. Never raises for what stands on it.

    ``name`` is the source's, which names a device that has no identity of its own; ``now`` is Unix time.
    """
    return _Reader(by, name, now, max_age).read(samples)


class _Reader:
    """Reads one page."""

    def __init__(self, by: ForeignMap, name: str, now: float, max_age: float) -> None:
        self._by = by
        self._name = name
        self._now = now
        self._max_age = max_age
        self._errors: Counter[str] = Counter()

    def read(self, samples: Samples) -> Page:
        groups: dict[str, dict[str, list[Sample]]] = {}
        named: dict[str, Mapping[str, str]] = {}
        rows = [
            (field, self._meant(metric, samples)) for field, metric in self._by.rows() if field != "count"
        ]
        keys = _Keys(self._by.labels, self._name, [one for _, found in rows for one in found])
        for field, found in rows:
            for sample in found:
                key = keys.of(sample)
                if key is None:
                    self._errors["unnamed"] += 1
                    continue
                if key not in groups and len(groups) >= MOST_DEVICES:
                    self._errors["too_many"] += 1
                    continue
                groups.setdefault(key, {}).setdefault(field, []).append(sample)
                named[key] = {**named.get(key, {}), **{k: v for k, v in sample.labels.items() if v}}
        devices = tuple(self._device(key, named[key], group) for key, group in groups.items())
        return Page(tuple(self._apart(devices)), self._count(samples), dict(+self._errors))

    def _meant(self, metric: ForeignMetric, samples: Samples) -> list[Sample]:
        return [
            one
            for one in samples.all(metric.name)
            if all(one.labels.get(label, "") == value for label, value in metric.where.items())
        ]

    def _count(self, samples: Samples) -> int | None:
        metric = self._by.metrics.count
        found = self._meant(metric, samples) if metric is not None else []
        value = found[0].value if len(found) == 1 else math.nan
        return int(value) if 0 <= value <= _MOST_INDEX else None

    def _apart(self, devices: Sequence[ForeignDevice]) -> Iterator[ForeignDevice]:
        """The devices, less those whose number another one has: which of them is meant cannot be told."""
        taken: set[int] = set()
        for one in devices:
            if one.index is not None and one.index in taken:
                self._errors["duplicate"] += 1
                continue
            if one.index is not None:
                taken.add(one.index)
            yield one

    def _device(
        self, key: str, labels: Mapping[str, str], group: Mapping[str, list[Sample]]
    ) -> ForeignDevice:
        said = self._by.labels
        fresh = {field: self._fresh(samples) for field, samples in group.items()}
        values = {field: samples for field, samples in fresh.items() if field != "info" and samples}
        told = any(field != "info" for field in group)
        return ForeignDevice(
            uuid=key,
            index=_index(labels, said.index),
            name=_matching(labels, said.name, _PRODUCT) or self._by.product,
            pci_bus_id=_matching(labels, said.pci_bus_id, _PCI),
            driver_version=_matching(labels, said.driver_version, _VERSION),
            reading=self._reading(values) if values or not told else None,
        )

    def _fresh(self, samples: Sequence[Sample]) -> list[Sample]:
        """Those that are not too old; a time to come is a clock that is wrong, and says as little."""
        fresh = [one for one in samples if one.at is None or abs(self._now - one.at) <= self._max_age]
        self._errors["too_old"] += len(samples) - len(fresh)
        return fresh

    def _reading(self, group: Mapping[str, Sequence[Sample]]) -> GpuReading:
        total = self._bytes(group, "memory_total_bytes", _MOST_BYTES) or None
        most = total if total is not None else _MOST_BYTES
        used = self._bytes(group, "memory_used_bytes", most)
        free = self._bytes(group, "memory_free_bytes", most)
        if total is not None:
            used = total - free if used is None and free is not None else used
            free = total - used if used is not None else free  # total = used + free, whatever was rounded
        temperatures = {
            sensor: celsius
            for sensor in ("gpu", "memory", "board")
            if (celsius := self._one(group, f"temperature_{sensor}_celsius", *_CELSIUS)) is not None
        }
        errors = {
            kind: int(count)
            for kind in ("corrected", "uncorrected")
            if (count := self._one(group, f"ecc_{kind}", 0.0, _MOST_ERRORS)) is not None
        }
        return GpuReading(
            memory_total_bytes=total,
            memory_used_bytes=used,
            memory_free_bytes=free,
            power_watts=self._one(group, "power_watts", 0.0, _MOST_WATTS),
            power_limit_watts=self._one(group, "power_limit_watts", 0.0, _MOST_WATTS),
            energy_joules=self._one(group, "energy_joules", 0.0, _MOST_JOULES),
            utilization_ratio=self._ratio(group, "utilization_ratio"),
            memory_bandwidth_utilization_ratio=self._ratio(group, "memory_bandwidth_utilization_ratio"),
            temperature_celsius=temperatures,
            ecc_errors=errors,
            healthy=self._healthy(group),
            processes=self._processes(group, most),
        )

    def _one(
        self, group: Mapping[str, Sequence[Sample]], field: str, least: float, most: float
    ) -> float | None:
        """The value of a field in our unit; None where it is not told, contradictory or impossible."""
        samples = group.get(field, ())
        metric = getattr(self._by.metrics, field)
        if not samples or metric is None:
            return None
        if metric.parts:
            samples = list({tuple(sorted(one.labels.items())): one for one in samples}.values())
            told = (
                [math.fsum(one.value * metric.scale for one in samples)] if _finite(samples) else [math.nan]
            )
        else:
            told = [one.value * metric.scale for one in _newest(samples)]
        if any(one != told[0] for one in told[1:]):
            self._errors["contradiction"] += 1
            return None
        value = told[0]
        if not least <= value <= most:
            self._errors["implausible"] += 1
            return None
        return value

    def _bytes(self, group: Mapping[str, Sequence[Sample]], field: str, most: int) -> int | None:
        value = self._one(group, field, 0.0, float(most))
        return None if value is None else round(value)

    def _ratio(self, group: Mapping[str, Sequence[Sample]], field: str) -> float | None:
        value = self._one(group, field, 0.0, _OVERSHOOT)
        return None if value is None else min(value, 1.0)

    def _healthy(self, group: Mapping[str, Sequence[Sample]]) -> bool | None:
        metric = self._by.metrics.healthy
        told = {one.value for one in _newest(group.get("healthy", ()))}
        if metric is None or not told or not all(map(math.isfinite, told)):
            return None
        return told == {metric.equals}

    def _processes(self, group: Mapping[str, Sequence[Sample]], most: int) -> tuple[GpuProcess, ...] | None:
        """Who holds the device; None when the page does not list processes. A sample without a process id
        says that there is none."""
        metric, label = self._by.metrics.process_bytes, self._by.labels.process
        samples = group.get("process_bytes", ())
        if metric is None or label is None or not samples:
            return None
        held: dict[int, int] = {}
        for sample in samples[:_MOST_PROCESSES]:
            said = sample.labels.get(label, "")
            if not said:
                continue
            size = sample.value * metric.scale
            if not (said.isascii() and said.isdigit() and 0 < int(said[:9]) <= _PID_MAX) or len(said) > 9:
                self._errors["no_process"] += 1
            elif not 0 <= size <= most:
                self._errors["implausible"] += 1
            else:
                held[int(said)] = max(held.get(int(said), 0), round(size))
        return tuple(GpuProcess(pid, size) for pid, size in sorted(held.items()))


class _Keys:
    """What tells devices apart on one page: the uuid, else the number, else the PCI address.

    A PCI address comes last, since both chips of one card can have the same. Where only some series have the
    uuid, the number leads to it.
    """

    def __init__(self, labels: ForeignLabels, name: str, samples: Sequence[Sample]) -> None:
        self._labels = labels
        self._name = name
        self._by_index: dict[int, str] = {}
        self._by_pci: dict[str, str] = {}
        for sample in samples:
            uuid = _matching(sample.labels, labels.uuid, _UUID)
            if uuid:
                index = _index(sample.labels, labels.index)
                if index is not None:
                    self._by_index.setdefault(index, uuid)
                elif pci := _matching(sample.labels, labels.pci_bus_id, _PCI):
                    self._by_pci.setdefault(pci, uuid)

    def of(self, sample: Sample) -> str | None:
        """Whose value a sample is; None when it names no device."""
        if uuid := _matching(sample.labels, self._labels.uuid, _UUID):
            return uuid
        index = _index(sample.labels, self._labels.index)
        if index is not None:
            return self._by_index.get(index, f"{self._name}-{index}")
        pci = _matching(sample.labels, self._labels.pci_bus_id, _PCI)
        return self._by_pci.get(pci, pci) or None


def _finite(samples: Sequence[Sample]) -> bool:
    return all(math.isfinite(one.value) for one in samples)


def _newest(samples: Sequence[Sample]) -> Sequence[Sample]:
    """The latest of several samples of one value, as far as they have a time."""
    latest = max((one.at for one in samples if one.at is not None), default=None)
    return samples if latest is None else [one for one in samples if one.at == latest]


def _index(labels: Mapping[str, str], label: str | None) -> int | None:
    said = labels.get(label, "") if label is not None else ""
    if not (said.isascii() and said.isdigit() and len(said) <= 4):
        return None
    return int(said) if int(said) <= _MOST_INDEX else None


def _matching(labels: Mapping[str, str], label: str | None, shape: re.Pattern[str]) -> str:
    """A label's value in the shape that it should have; "" for any other."""
    said = labels.get(label, "") if label is not None else ""
    return said if shape.fullmatch(said) else ""
