"""Turns a snapshot into samples of the families, in the order of the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from exporter.capacity.alert import Alert
from exporter.capacity.strangers import foreign_bytes
from exporter.exposition.collect.confined import confined_samples
from exporter.exposition.collect.deployments import deployment_samples, tightest
from exporter.exposition.collect.devices import device_samples
from exporter.exposition.collect.host import host_samples
from exporter.exposition.collect.itself import exporter_samples, receiver_samples
from exporter.exposition.collect.network import network_samples
from exporter.exposition.collect.sample import Sample
from exporter.exposition.collect.stores import store_samples
from exporter.exposition.families import capacity, deployments, devices
from exporter.snapshot import Snapshot

__all__ = ["Sample", "alert_samples", "receiver_samples", "samples"]


def samples(snapshot: Snapshot) -> Iterator[Sample]:
    """Every sample of a snapshot; unknown values are left out."""
    for gpu in snapshot.gpus:
        yield from device_samples(gpu, snapshot)
    for vendor, count in snapshot.visible_gpus.items():
        yield devices.GPUS, (vendor,), count
    yield devices.GPUS_EXPECTED, (), snapshot.expected_gpus
    yield from host_samples(snapshot)
    yield from network_samples(snapshot)
    for store in snapshot.stores:
        yield from store_samples(store)
    if any(one.name == "processes" and one.up for one in snapshot.sources):
        yield deployments.DEPLOYMENTS_RUNNING, (), sum(one.running for one in snapshot.assessment.deployments)
    index = {gpu.identity.uuid: str(gpu.identity.number) for gpu in snapshot.gpus}
    for uuid, size in foreign_bytes(snapshot.assessment).items():
        if uuid in index:
            yield capacity.FOREIGN, (index[uuid], uuid), size
    for status in snapshot.assessment.deployments:
        yield from deployment_samples(status, index)
        yield from tightest(status, snapshot.assessment.devices)
    yield from confined_samples(snapshot)
    for name, value in snapshot.thresholds.items():
        yield capacity.THRESHOLD, (name,), value
    yield from exporter_samples(snapshot)
    yield from alert_samples(snapshot.alerts)
    yield from receiver_samples(snapshot.receivers)


def alert_samples(alerts: Iterable[Alert]) -> Iterator[Sample]:
    """The daemon's own alerts, pending and firing."""
    for alert in alerts:
        subject = " ".join(f"{name}={value}" for name, value in alert.subject.items() if name != "uuid")
        yield capacity.ALERT_ACTIVE, (alert.name, alert.severity, subject), 1
