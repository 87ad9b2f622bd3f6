"""Samples of RAM as one deployment has it."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.exposition.collect.commitment import commitment_samples
from exporter.exposition.collect.sample import Sample
from exporter.exposition.families import confined
from exporter.snapshot import Snapshot

_PLACE_FAMILIES = (
    confined.CONFINED_CAPACITY,
    confined.CONFINED_COMMITTED,
    confined.CONFINED_HEADROOM,
    confined.CONFINED_OVERCOMMIT,
)


def confined_samples(snapshot: Snapshot) -> Iterator[Sample]:
    """Where each deployment must stay and what that place gives, its own pages, and its bound of tokens."""
    judged = snapshot.assessment
    for name, limit in judged.limits.items():
        yield confined.LIMIT_STATE, (name, limit.state), 1
        stalled = (("some", limit.pressure_some_seconds), ("full", limit.pressure_full_seconds))
        for scope, seconds in stalled:
            if seconds is not None:
                yield confined.CONFINED_PRESSURE, (name, scope), seconds
        if limit.oom_kills is not None:
            yield confined.CONFINED_OOM_KILLS, (name,), limit.oom_kills
    for name, places in judged.confined.items():
        for place in places:
            if place.nodes:
                yield confined.NUMA_NODES, (name, ",".join(map(str, place.nodes))), 1
            yield from commitment_samples(_PLACE_FAMILIES, (name, place.kind), place.commitment)
            yield confined.CONFINED_USED, (name, place.kind), place.used_bytes
    for name, memory in judged.host_held.items():
        yield confined.LOCKED, (name,), memory.locked
        if memory.swapped is not None:
            yield confined.SWAPPED, (name,), memory.swapped
        if memory.major_faults is not None:
            yield confined.MAJOR_FAULTS, (name,), memory.major_faults
    for name, bound in judged.decode.items():
        yield confined.TOKEN_READS, (name,), bound.read_bytes_per_token
        yield confined.TOKENS_PER_SECOND, (name, "high", bound.basis), bound.tokens_per_second
