"""What one poll learned, whole and immutable: the only thing that metrics, pages and commands read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from exporter import __version__
from exporter.capacity.alert import Alert
from exporter.capacity.assessment import Assessment, DeploymentStatus
from exporter.capacity.observation import Declared, Running
from exporter.footprint.result import Footprint
from exporter.hardware.gpu import Gpu, GpuReading
from exporter.hardware.host import HostReading
from exporter.hardware.network import NetworkReading
from exporter.storage.facts import Store


@dataclass(frozen=True, slots=True)
class Source:
    """One thing that is polled. `expected`: whether this host should have it, so that silence is a fault."""

    name: str
    state: str
    """"up", or why not"""
    expected: bool
    last_success_seconds: float | None
    duration_seconds: float
    errors: Mapping[str, int] = field(default_factory=dict)
    worker_restarts: int | None = None

    @property
    def up(self) -> bool:
        return self.state == "up"


@dataclass(frozen=True, slots=True)
class Reload:
    """The last attempt to read the configuration."""

    successful: bool
    at_seconds: float
    """Unix time of the last success"""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Receiver:
    """One Alertmanager that the daemon tells of its alerts. `up`: whether it took the last push."""

    name: str
    up: bool
    sent: int
    failed: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, at one time. Times are Unix seconds."""

    taken_at_seconds: float
    duration_seconds: float
    gpus: tuple[Gpu, ...]
    visible_gpus: Mapping[str, int]
    expected_gpus: int
    driver_version: str
    host: HostReading | None
    assessment: Assessment
    sources: tuple[Source, ...]
    thresholds: Mapping[str, float]
    pool: str
    reload: Reload
    workers_stuck: int
    clock_steps: int
    alerts: tuple[Alert, ...] = ()
    """what the daemon's own evaluation of the conditions says, pending and firing"""
    receivers: tuple[Receiver, ...] = ()
    network: NetworkReading | None = None
    stores: tuple[Store, ...] = ()
    """disks where checkpoints lie"""
    demo: str = ""
    """name of the recorded host that is played; empty: this host is real"""


SCHEMA = 1
"""Version of the JSON form; raised when a key changes meaning or goes."""


_PRIVATE = {
    (DeploymentStatus, "pids"),
    (GpuReading, "processes"),
    (Declared, "programs"),
    (Declared, "unit"),
    (Running, "unit"),
    (Reload, "problem"),
    (Footprint, "explanations"),
}
"""What the control socket's owner may know and an HTTP client need not: process ids, unit and program names,
what stands in a configuration file. Explanations are no secret; they are long, and `footprint` gives them."""


def to_plain(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as JSON data: sizes in bytes, times in Unix seconds, unknown values null."""
    return _document(snapshot, frozenset())


def to_public(snapshot: Snapshot) -> dict[str, Any]:
    """The same without what only the daemon's owner should see: what HTTP gives."""
    return _document(snapshot, _PRIVATE)


def _document(snapshot: Snapshot, hidden: Set[tuple[type, str]]) -> dict[str, Any]:
    plain: dict[str, Any] = {"schema": SCHEMA, "version": __version__, **_plain(snapshot, hidden)}
    for uuid, commitment in snapshot.assessment.devices.items():
        plain["assessment"]["devices"][uuid]["headroom"] = _plain(commitment.headroom, hidden)
    if snapshot.assessment.host is not None:
        plain["assessment"]["host"]["headroom"] = _plain(snapshot.assessment.host.headroom, hidden)
    return plain


def _plain(value: Any, hidden: Set[tuple[type, str]]) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        return {
            f.name: _plain(getattr(value, f.name), hidden)
            for f in dataclasses.fields(value)
            if (kind, f.name) not in hidden
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(item, hidden) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, hidden) for item in value]
    return value
