"""Two generations of one deployment: told from two deployments, and only for as long as a roll-out takes."""

from __future__ import annotations

import pytest

from capacity.builders import GIB, declared, footprint, gpu, observation
from exporter.capacity.assessment import Assessment, Commitment, assess
from exporter.capacity.observation import Observation, Running

NOW = 1_767_225_600.0
HOUR = 3600.0


def running(started: float | None, *, model: str = "deepseek-ai/DeepSeek-R1", served: str = "r1") -> Running:
    return Running("vllm", model=model, model_known=True, served_model=served, started_seconds=started)


def two(old: Running, new: Running, *, on: tuple[int, int] = (0, 0), weights: int = 60 * GIB) -> Observation:
    """Two deployments of one rank each, that hold their weights."""
    need = footprint(1, weights=weights)
    gpus = tuple(
        gpu(
            index,
            used=sum(weights for at in on if at == index),
            processes={100 + number: weights for number, at in enumerate(on) if at == index},
        )
        for index in sorted(set(on))
    )
    seen = observation(
        gpus,
        (declared("old", need, devices=(on[0],)), declared("new", need, devices=(on[1],))),
        owned={"old": frozenset({100}), "new": frozenset({101})},
    )
    return Observation(
        seen.gpus, None, seen.declared, seen.owned, {}, {"old": old, "new": new}, taken_at_seconds=NOW
    )


def judged(seen: Observation) -> Assessment:
    return assess(seen, gpu_margin=0, host_margin=0, rollout_seconds=HOUR)


def on_device(seen: Observation, index: int = 0) -> Commitment:
    return judged(seen).devices[f"GPU-{index}"]


def test_the_older_generation_is_on_its_way_out() -> None:
    one = on_device(two(running(NOW - 86400), running(NOW - 120)))
    assert one.overcommit_ratio["low"] == pytest.approx(120 / 99)
    assert one.outgoing == 60 * GIB
    assert one.settled_ratio == pytest.approx(60 / 99)


def test_two_that_are_meant_to_stay_are_no_roll_out() -> None:
    one = on_device(two(running(NOW - 86400), running(NOW - HOUR - 1)))
    assert one.outgoing is None
    assert one.settled_ratio is None


@pytest.mark.parametrize(
    "other",
    [
        running(NOW - 120, model="deepseek-ai/DeepSeek-V3"),
        running(NOW - 120, served="r1-canary"),
        running(None),
    ],
    ids=["another model", "another name", "start not known"],
)
def test_what_is_not_the_same_deployment_is_no_generation_of_it(other: Running) -> None:
    assert on_device(two(running(NOW - 86400), other)).outgoing is None


def test_generations_on_devices_of_their_own_do_not_overlap() -> None:
    seen = judged(two(running(NOW - 86400), running(NOW - 120), on=(0, 1)))
    assert [one.outgoing for one in seen.devices.values()] == [None, None]


def test_an_overlap_that_is_too_large_without_the_old_one_too_is_a_shortage() -> None:
    one = on_device(two(running(NOW - 86400), running(NOW - 120), weights=100 * GIB))
    assert one.settled_ratio == pytest.approx(100 / 99)
