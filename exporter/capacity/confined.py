"""Deployments that may not use all RAM of their host: the limit of a control group, the NUMA nodes they are
bound to. What is promised there is held against what that place gives, as for the host.

A place is shared: what all deployments within it claim counts, and what others hold in it. Page cache is paid
for by the group, and lies on the node, of whoever read it first; so weights that are mapped and seen to lie
elsewhere do not count at the low end, on which pages are decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from exporter.capacity import ram
from exporter.capacity.assessment import Assessment, Commitment
from exporter.capacity.bounds import ZERO, Bounds
from exporter.capacity.observation import Declared, Observation
from exporter.engines.confinement import Group, LimitState
from exporter.engines.process import ProcessMemory
from exporter.hardware.host import HostReading, NumaNode

Kind = Literal["cgroup", "numa"]


@dataclass(frozen=True, slots=True)
class Confined:
    """One place that a deployment may not leave, the tightest of its kind.

    ``used_bytes``: what is in use there now, page cache that can be dropped aside.
    """

    kind: Kind
    commitment: Commitment
    used_bytes: int
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Limit:
    """Whether the cgroup of a deployment has a limit below the host's memory, or why that is not known; and
    what the kernel says of the innermost one that has: a counter must not change to another group's.
    """

    state: str
    pressure_some_seconds: float | None = None
    pressure_full_seconds: float | None = None
    oom_kills: int | None = None


@dataclass(frozen=True, slots=True)
class _Member:
    """A deployment that runs, and what it holds."""

    declared: Declared
    memory: ProcessMemory

    @property
    def claim(self) -> Bounds:
        return ram.claim(self.declared, self.memory)

    @property
    def mapped(self) -> int:
        """Weights in page cache that are there now."""
        footprint = self.declared.footprint
        return min(self.memory.file, footprint.host.mapped_bytes) if footprint is not None else 0


def confined(
    observation: Observation, assessment: Assessment, *, host_margin: int
) -> dict[str, tuple[Confined, ...]]:
    """Deployment → the places that confine it; one that may use the whole host is absent."""
    members = {
        one.name: _Member(one, assessment.host_held[one.name])
        for one in observation.declared
        if one.name in assessment.host_held and one.name in observation.confinement
    }
    groups = _by_group(members, observation)
    found: dict[str, tuple[Confined, ...]] = {}
    for name in members:
        places = (
            _tightest(name, groups, observation),
            _on_nodes(name, members, observation, host_margin),
        )
        if here := tuple(place for place in places if place is not None):
            found[name] = here
    return found


def limits(observation: Observation) -> dict[str, Limit]:
    """Deployment → its cgroup, of those that were looked at."""
    found = {}
    for name, confinement in observation.confinement.items():
        groups = _limited(name, observation)
        if not groups:
            known = confinement.state in (LimitState.LIMITED, LimitState.UNLIMITED)
            found[name] = Limit("unlimited" if known else str(confinement.state))
            continue
        one = groups[0]
        found[name] = Limit("limited", one.pressure_some_seconds, one.pressure_full_seconds, one.oom_kills)
    return found


def binding(name: str, observation: Observation) -> frozenset[int] | None:
    """The nodes with RAM that a deployment is bound to; None where it may use all, or nobody knows."""
    confinement = observation.confinement.get(name)
    if observation.host is None or confinement is None or confinement.nodes is None:
        return None
    nodes = {number for number, node in observation.host.numa.items() if node.total_bytes}
    bound = confinement.nodes & nodes
    return bound if bound and bound < nodes else None


def _by_group(
    members: Mapping[str, _Member], observation: Observation
) -> dict[str, tuple[Group, tuple[_Member, ...]]]:
    """Path → its group with the deployments that lie within it."""
    found: dict[str, tuple[Group, tuple[_Member, ...]]] = {}
    for name, member in members.items():
        for group in observation.confinement[name].groups:
            found[group.path] = (group, (*found.get(group.path, (group, ()))[1], member))
    return found


def _limited(name: str, observation: Observation) -> tuple[Group, ...]:
    """The groups around a deployment, the innermost first; a limit above the host's memory is none."""
    groups = observation.confinement[name].groups
    host = observation.host
    return tuple(one for one in groups if host is None or one.limit_bytes < host.memory_total_bytes)


def _tightest(
    name: str, groups: Mapping[str, tuple[Group, tuple[_Member, ...]]], observation: Observation
) -> Confined | None:
    """Of the groups around a deployment the one with the least headroom."""
    judged = [_in_group(*groups[group.path]) for group in _limited(name, observation)]
    return min(judged, key=lambda one: one.commitment.headroom.low, default=None)


def _in_group(group: Group, members: tuple[_Member, ...]) -> Confined:
    in_use = max(0, group.used_bytes - group.droppable_bytes)
    # Huge pages have a controller of their own (admin-guide/cgroup-v2.rst, HugeTLB).
    ours = sum(one.memory.pinned - one.memory.hugepages for one in members)
    mapped = sum(one.mapped for one in members)
    elsewhere = max(0, mapped - group.mapped_bytes) if group.mapped_bytes is not None else 0
    return Confined(
        "cgroup",
        Commitment(group.limit_bytes, _committed(members, max(0, in_use - ours), elsewhere)),
        in_use,
    )


def _on_nodes(
    name: str, members: Mapping[str, _Member], observation: Observation, host_margin: int
) -> Confined | None:
    bound = binding(name, observation)
    if bound is None or observation.host is None:
        return None
    here, there = _split(observation.host, bound)
    in_use = _in_use(here)
    if in_use is None:
        return None
    within = tuple(
        member
        for other, member in members.items()
        if (nodes := binding(other, observation)) is not None and nodes <= bound
    )
    total = sum(node.total_bytes for node in here)
    margin = host_margin * len(here) // (len(here) + len(there))
    others = max(0, in_use - sum(one.memory.pinned for one in within))
    elsewhere = sum(node.droppable_bytes or 0 for node in there)
    return Confined(
        "numa",
        Commitment(total - margin, _committed(within, others, elsewhere)),
        in_use,
        nodes=tuple(sorted(bound)),
    )


def _committed(members: Iterable[_Member], others: int, elsewhere: int) -> Bounds:
    """Claims and what others hold; ``elsewhere``: page cache that may be weights which do not lie here."""
    total = ZERO
    mapped = 0
    for one in members:
        total += one.claim
        mapped += 0 if one.memory.locked_file else one.mapped
    return Bounds(total.low - min(total.low, elsewhere, mapped) + others, total.high + others)


def _split(host: HostReading, bound: frozenset[int]) -> tuple[list[NumaNode], list[NumaNode]]:
    nodes = {number: node for number, node in host.numa.items() if node.total_bytes}
    inside = [node for number, node in nodes.items() if number in bound]
    return inside, [node for number, node in nodes.items() if number not in bound]


def _in_use(nodes: Iterable[NumaNode]) -> int | None:
    """What cannot be had on these nodes; None where the kernel does not say what can be dropped."""
    total = 0
    for node in nodes:
        if node.available_bytes is None:
            return None
        total += max(0, node.total_bytes - node.available_bytes)
    return total
