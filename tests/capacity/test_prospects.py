"""What is still to come on a device: loads that go on, required deployments, optional ones that wait."""

from __future__ import annotations

import pytest

from capacity.builders import GIB, declared, footprint, gpu, observation
from exporter.capacity.assessment import Commitment, assess
from exporter.capacity.bounds import Bounds
from exporter.capacity.observation import Declared, Observation


def on_device(seen: Observation) -> Commitment:
    return assess(seen, gpu_margin=0, host_margin=0).devices["GPU-0"]


def one(name: str = "r1", *, weights: int = 40 * GIB, required: bool = True) -> Declared:
    need = footprint(1, weights=weights, estimate=(1 * GIB, 3 * GIB))
    return declared(name, need, devices=(0,), required=required)


def test_a_required_deployment_that_does_not_run_is_all_still_to_come() -> None:
    seen = on_device(observation((gpu(0, used=0, processes={}),), (one(),)))
    assert seen.pending == Bounds(41 * GIB, 43 * GIB)
    assert seen.committed == seen.pending


def test_of_one_that_loads_what_is_missing_is_still_to_come() -> None:
    here = gpu(0, used=10 * GIB, processes={7: 10 * GIB})
    seen = on_device(observation((here,), (one(),), owned={"r1": frozenset({7})}))
    assert seen.pending == Bounds(31 * GIB, 33 * GIB)


def test_one_that_holds_its_weights_has_nothing_to_load() -> None:
    # What its estimates may still take is committed, but it is no load that has not begun.
    here = gpu(0, used=40 * GIB, processes={7: 40 * GIB})
    seen = on_device(observation((here,), (one(),), owned={"r1": frozenset({7})}))
    assert seen.pending == Bounds(0, 0)
    assert seen.committed == Bounds(41 * GIB, 43 * GIB)


def test_of_optional_deployments_that_wait_the_largest_counts_and_is_not_committed() -> None:
    waiting = (one("a", weights=30 * GIB, required=False), one("b", weights=70 * GIB, required=False))
    seen = on_device(observation((gpu(0, used=20 * GIB, processes={}),), waiting))
    assert seen.committed == Bounds(20 * GIB, 20 * GIB)
    assert seen.optional == Bounds(71 * GIB, 73 * GIB)
    assert seen.optional_ratio["high"] == pytest.approx(93 / 99)


def test_an_optional_deployment_that_runs_waits_no_more() -> None:
    here = gpu(0, used=30 * GIB, processes={7: 30 * GIB})
    seen = on_device(
        observation((here,), (one("a", weights=30 * GIB, required=False),), owned={"a": frozenset({7})})
    )
    assert seen.optional is None
    assert seen.optional_ratio == {}
