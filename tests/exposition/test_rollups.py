"""What the daemon adds up so that rules need not: each figure against the samples that it is made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from fixed_snapshot import FULL, READING, UUIDS
from hypothesis import given
from hypothesis import strategies as st

from exporter.capacity.assessment import Bounds, Commitment
from exporter.capacity.conditions.devices import SLOWDOWNS
from exporter.exposition.collect import samples
from exporter.exposition.families import Family, capacity, deployments, devices
from exporter.snapshot import Snapshot
from exporter.units import GIB

SIZES = st.integers(0, 2 * 10**11)
COMMITMENTS = st.lists(
    st.builds(
        lambda whole, low, more, pending: Commitment(whole, Bounds(low, low + more), Bounds(0, pending)),
        st.integers(1, 2 * 10**11),
        SIZES,
        SIZES,
        SIZES,
    ),
    min_size=1,
    max_size=2,
)


def shown(snapshot: Snapshot, family: Family) -> dict[tuple[str, ...], float]:
    return {labels: float(value) for of, labels, value in samples(snapshot) if of is family}


def of_devices(commitments: Mapping[str, Commitment]) -> Snapshot:
    return replace(FULL, assessment=replace(FULL.assessment, devices=dict(commitments)))


def by_bound(found: Mapping[tuple[str, ...], float]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = defaultdict(list)
    for labels, value in found.items():
        values[labels[-1]].append(value)
    return values


@given(COMMITMENTS)
def test_the_host_has_what_its_devices_have(commitments: list[Commitment]) -> None:
    snapshot = of_devices(dict(zip(UUIDS, commitments, strict=False)))
    whole = shown(snapshot, capacity.CAPACITY)
    assert shown(snapshot, capacity.DEVICES_CAPACITY) == {(): sum(whole.values())}
    for fold, together, one_by_one in (
        (sum, capacity.DEVICES_COMMITTED, capacity.COMMITTED),
        (min, capacity.DEVICES_HEADROOM, capacity.HEADROOM),
        (max, capacity.DEVICES_OVERCOMMIT, capacity.OVERCOMMIT),
    ):
        each = by_bound(shown(snapshot, one_by_one))
        assert shown(snapshot, together) == {(bound,): fold(values) for bound, values in each.items()}


def test_a_host_of_whose_devices_nothing_is_known_says_nothing_of_them() -> None:
    snapshot = of_devices({})
    for family in (
        capacity.DEVICES_CAPACITY,
        capacity.DEVICES_COMMITTED,
        capacity.DEVICES_HEADROOM,
        capacity.DEVICES_OVERCOMMIT,
        deployments.TIGHTEST_HEADROOM,
    ):
        assert shown(snapshot, family) == {}


def test_devices_that_can_give_nothing_have_no_ratio() -> None:
    snapshot = of_devices({UUIDS[0]: Commitment(0, Bounds(1, 1))})
    assert shown(snapshot, capacity.DEVICES_OVERCOMMIT) == {}
    assert shown(snapshot, capacity.DEVICES_HEADROOM) == {("low",): -1, ("high",): -1}


def test_a_deployment_is_as_tight_as_its_fullest_device() -> None:
    snapshot = of_devices(
        {
            UUIDS[0]: Commitment(100 * GIB, Bounds(60 * GIB, 90 * GIB)),
            UUIDS[1]: Commitment(100 * GIB, Bounds(70 * GIB, 80 * GIB)),
        }
    )
    assert shown(snapshot, deployments.TIGHTEST_HEADROOM) == {
        ("r1", "low"): 30 * GIB,
        ("r1", "high"): 10 * GIB,
    }


def test_the_components_of_a_placement_are_its_sum() -> None:
    sums: dict[tuple[str, ...], float] = defaultdict(float)
    for (*placement, _), value in shown(FULL, deployments.EXPECTED_GPU).items():
        sums[tuple(placement)] += value
    assert len(sums) == len(UUIDS)
    assert shown(FULL, deployments.EXPECTED_GPU_SUM) == sums


def test_the_ratio_of_what_is_pending_is_there_only_while_something_is() -> None:
    loading = Commitment(100 * GIB, Bounds(60 * GIB, 90 * GIB), pending=Bounds(0, 5 * GIB))
    found = shown(of_devices({UUIDS[0]: loading, UUIDS[1]: replace(loading, pending=Bounds(0, 0))}), PENDING)
    assert found == {("0", UUIDS[0], "high"): 0.9}


PENDING = capacity.OVERCOMMIT_PENDING


@given(st.dictionaries(st.sampled_from([*SLOWDOWNS, "sw_power_cap", "sync_boost"]), st.booleans()))
def test_any_fault_that_holds_the_clocks_down_counts_and_the_power_cap_does_not(
    limits: dict[str, bool],
) -> None:
    gpu = replace(FULL.gpus[0], reading=replace(READING, clocks_limited=limits))
    found = shown(replace(FULL, gpus=(gpu,)), devices.GPU_SLOWED)
    faults = [holds for reason, holds in limits.items() if reason in SLOWDOWNS]
    assert found == ({("0", UUIDS[0]): float(any(faults))} if faults else {})
