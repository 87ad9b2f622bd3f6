"""What one poll learned, whole and immutable: the only thing that metrics, pages and commands read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.capacity.alert import Alert
from exporter.capacity.assessment import Assessment
from exporter.hardware.gpu import Gpu
from exporter.hardware.host import HostReading


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
    demo: str = ""
    """name of the recorded host that is played; empty: this host is real"""


SCHEMA = 1
"""Version of the JSON form; raised when a key changes meaning or goes."""


def to_plain(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as JSON data: sizes in bytes, times in Unix seconds, unknown values null."""
    plain: dict[str, Any] = {"schema": SCHEMA, **_plain(snapshot)}
    for uuid, commitment in snapshot.assessment.devices.items():
        plain["assessment"]["devices"][uuid]["headroom"] = _plain(commitment.headroom)
    if snapshot.assessment.host is not None:
        plain["assessment"]["host"]["headroom"] = _plain(snapshot.assessment.host.headroom)
    return plain


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
