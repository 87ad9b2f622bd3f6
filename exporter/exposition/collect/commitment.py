"""Samples of what is committed of a device or of RAM."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from exporter.capacity.assessment import Commitment
from exporter.exposition.collect.sample import Sample
from exporter.exposition.families import Family, capacity


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


def devices_together(commitments: Collection[Commitment]) -> Iterator[Sample]:
    """All devices of the host that gave a reading, and the fullest of them: what rules read of many hosts."""
    if not commitments:
        return
    yield capacity.DEVICES_CAPACITY, (), sum(one.capacity for one in commitments)
    for bound in ("low", "high"):
        yield capacity.DEVICES_COMMITTED, (bound,), sum(getattr(one.committed, bound) for one in commitments)
        yield capacity.DEVICES_HEADROOM, (bound,), min(getattr(one.headroom, bound) for one in commitments)
        ratios = [one.overcommit_ratio[bound] for one in commitments if one.overcommit_ratio]
        if ratios:
            yield capacity.DEVICES_OVERCOMMIT, (bound,), max(ratios)
