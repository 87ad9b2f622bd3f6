"""Who holds a device whose exporter lists no processes: the deployments that are placed on it and run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capacity.builders import GIB, declared, footprint, gpu, observation
from exporter.capacity.assessment import assess
from exporter.capacity.attribution import device_holdings, is_by_placement
from exporter.hardware.gpu import Gpu, GpuState


def foreign(one: Gpu) -> Gpu:
    return replace(one, identity=replace(one.identity, source="gaudi"))


UNLISTED = foreign(gpu(0, used=60 * GIB))


def held(one: Gpu, placed: dict[str, int]) -> dict[str, int]:
    return {h.holder: h.size_bytes for h in device_holdings(one, {}, placed) or ()}


def test_the_only_deployment_has_all_of_it() -> None:
    assert held(UNLISTED, {"r1": 50 * GIB}) == {"r1": 60 * GIB, "other": 0, "unattributed": 0}


def test_several_share_it_as_they_should_hold_it() -> None:
    assert held(UNLISTED, {"b": 10 * GIB, "a": 20 * GIB}) == {
        "a": 40 * GIB,
        "b": 20 * GIB,
        "other": 0,
        "unattributed": 0,
    }


def test_several_share_it_equally_where_one_s_need_is_not_known() -> None:
    assert held(UNLISTED, {"a": 20 * GIB, "b": 0})["a"] == 30 * GIB


def test_without_one_it_is_nobody_s() -> None:
    assert held(UNLISTED, {}) == {"other": 0, "unattributed": 60 * GIB}


def test_a_driver_of_our_own_that_cannot_list_processes_is_a_fault_and_no_placement() -> None:
    assert held(gpu(0, used=60 * GIB), {"r1": 50 * GIB}) == {"other": 0, "unattributed": 60 * GIB}


def test_where_processes_are_listed_they_decide() -> None:
    listed = foreign(gpu(0, used=60 * GIB, processes={7: 60 * GIB}))
    assert held(listed, {"r1": 50 * GIB}) == {"other": 60 * GIB, "unattributed": 0}


@pytest.mark.parametrize("state", [GpuState.SOURCE_DOWN, GpuState.LOST])
def test_of_a_device_that_is_not_read_nothing_is_held(state: GpuState) -> None:
    silent = foreign(gpu(0, state=state))
    assert is_by_placement(silent)
    assert device_holdings(silent, {}, {"r1": GIB}) is None


@given(
    st.integers(0, 2**44),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 2**40), min_size=1, max_size=8),
)
def test_holders_always_sum_to_what_is_used(used: int, placed: dict[str, int]) -> None:
    one = foreign(gpu(0, used=used, total=2**45))
    assert sum(held(one, placed).values()) == used
    assert all(size >= 0 for size in held(one, placed).values())


def test_a_deployment_that_is_placed_and_runs_is_warm_and_leaves_nothing_foreign() -> None:
    deployment = declared("r1", footprint(1, weights=50 * GIB), devices=(0,))
    judged = assess(
        observation((UNLISTED,), (deployment,), owned={"r1": frozenset({7})}), gpu_margin=0, host_margin=0
    )
    (status,) = judged.deployments
    assert status.state == "warm"
    assert status.deviation == {}  # its exporter does not say what of it is the deployment's
    commitment = judged.devices["GPU-0"]
    assert commitment.committed.low == 60 * GIB


def test_one_that_is_placed_and_does_not_run_gets_nothing() -> None:
    deployment = declared("r1", footprint(1, weights=50 * GIB), devices=(0,))
    judged = assess(observation((UNLISTED,), (deployment,)), gpu_margin=0, host_margin=0)
    assert {h.holder: h.size_bytes for h in judged.held["GPU-0"]} == {"other": 0, "unattributed": 60 * GIB}
