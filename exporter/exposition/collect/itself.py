"""Samples of the exporter itself."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator

from exporter import __revision__, __version__
from exporter.exposition.collect.sample import Sample
from exporter.exposition.families import itself
from exporter.snapshot import Receiver, Snapshot, Source


def exporter_samples(snapshot: Snapshot) -> Iterator[Sample]:
    """What runs, its sources, the snapshot and the configuration."""
    yield itself.BUILD_INFO, (__version__, __revision__, platform.python_version()), 1
    if snapshot.demo:
        yield itself.DEMO_INFO, (snapshot.demo,), 1
    for source in snapshot.sources:
        yield from _source(source)
    yield itself.WORKERS_STUCK, (), snapshot.workers_stuck
    yield itself.SNAPSHOT_TIME, (), snapshot.taken_at_seconds
    yield itself.SNAPSHOT_DURATION, (), snapshot.duration_seconds
    yield itself.RELOAD_SUCCESSFUL, (), snapshot.reload.successful
    yield itself.RELOAD_TIME, (), snapshot.reload.at_seconds
    yield itself.CLOCK_STEPS, (), snapshot.clock_steps


def receiver_samples(receivers: Iterable[Receiver]) -> Iterator[Sample]:
    """How each Alertmanager took what it was told."""
    for one in receivers:
        yield itself.NOTIFICATIONS_UP, (one.name,), one.up
        yield itself.NOTIFICATIONS, (one.name, "sent"), one.sent
        yield itself.NOTIFICATIONS, (one.name, "failed"), one.failed


def _source(source: Source) -> Iterator[Sample]:
    name = (source.name,)
    yield itself.SOURCE_UP, name, source.up
    yield itself.SOURCE_STATE, (*name, source.state), 1
    yield itself.SOURCE_EXPECTED, name, source.expected
    if source.last_success_seconds is not None:
        yield itself.SOURCE_LAST, name, source.last_success_seconds
    yield itself.SOURCE_DURATION, name, source.duration_seconds
    for reason, times in source.errors.items():
        yield itself.SOURCE_ERRORS, (*name, reason), times
    if source.worker_restarts is not None:
        yield itself.WORKER_RESTARTS, name, source.worker_restarts
