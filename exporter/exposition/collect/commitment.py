"""Samples of what is committed of a device or of RAM."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.capacity.assessment import Commitment
from exporter.exposition.collect.sample import Sample
from exporter.exposition.families import Family


def commitment_samples(
    of: tuple[Family, Family, Family, Family], labels: tuple[str, ...], commitment: Commitment
) -> Iterator[Sample]:
    """Capacity and what is committed of it, as the four families `of`."""
    whole, committed, headroom, overcommit = of
    yield whole, labels, commitment.capacity
    for bound, size in commitment.committed.items():
        yield committed, (*labels, bound), size
    for bound, size in commitment.headroom.items():
        yield headroom, (*labels, bound), size
    for bound, ratio in commitment.overcommit_ratio.items():
        yield overcommit, (*labels, bound), ratio
