"""Samples of the network: interfaces, and the links between the nodes of a deployment."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.capacity.assessment import DeploymentStatus
from exporter.capacity.links import LinkStatus
from exporter.exposition.collect.sample import Sample
from exporter.exposition.families import network
from exporter.hardware.network import Interface
from exporter.snapshot import Snapshot


def network_samples(snapshot: Snapshot) -> Iterator[Sample]:
    """Every interface, then every deployment."""
    if snapshot.network is not None:
        links = [one.link for one in snapshot.assessment.deployments if one.link is not None]
        # Else an alert on a full link would end with the interface that it is about.
        if all(link.read for link in links):
            yield network.NETWORK_INTERFACES, (), len(snapshot.network.interfaces)
        for one in snapshot.network.interfaces:
            yield from _interface(one)
    for status in snapshot.assessment.deployments:
        yield from _deployment(status)


def _interface(one: Interface) -> Iterator[Sample]:
    for direction, count in one.bytes_total.items():
        yield network.NETWORK_BYTES, (one.name, direction), count
    if one.speed_bytes_per_second is not None:
        yield network.NETWORK_SPEED, (one.name,), one.speed_bytes_per_second
    if one.up is not None:
        yield network.NETWORK_UP, (one.name,), one.up
    for direction in one.bytes_total:
        if (ratio := one.usage_ratio(direction)) is not None:
            yield network.NETWORK_USAGE, (one.name, direction), ratio


def _deployment(status: DeploymentStatus) -> Iterator[Sample]:
    name = (status.declared.name,)
    if status.active is not None:
        yield network.ACTIVE, name, status.active
    expected = status.running_as.network if status.running_as is not None else None
    if expected is None:
        return
    for kind, traffic in expected.kinds.items():
        yield network.EXPECTED_NETWORK, (*name, kind, "low"), traffic.low_bytes
        yield network.EXPECTED_NETWORK, (*name, kind, "high"), traffic.high_bytes
    if status.link is not None:
        yield from _link(name, status.link)


def _link(name: tuple[str], link: LinkStatus) -> Iterator[Sample]:
    for interface in link.interfaces:
        yield network.LINK_INFO, (*name, interface, link.basis), 1
    if link.speed_bytes is not None:
        yield network.LINK_SPEED, name, link.speed_bytes
    for direction, ratio in link.usage_ratio.items():
        yield network.LINK_USAGE, (*name, direction), ratio
    for bound, tokens in (("low", link.ceiling_low_tokens), ("high", link.ceiling_high_tokens)):
        if tokens is not None:
            yield network.LINK_CEILING, (*name, bound), tokens
    if link.needed_tokens is not None:
        yield network.LINK_NEEDED, name, link.needed_tokens
