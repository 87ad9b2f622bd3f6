"""Memory of a device that serves, held by others than its deployments."""

from __future__ import annotations

from dataclasses import replace

from fixed_snapshot import FULL, UUIDS
from hypothesis import given
from hypothesis import strategies as st

from exporter.capacity.assessment import Assessment
from exporter.capacity.attribution import Holding
from exporter.capacity.strangers import foreign_bytes
from exporter.units import GIB, MIB

STRANGERS = (Holding("other", "other", 600 * MIB), Holding("unattributed", "unattributed", 700 * MIB))


def holding(*holdings: Holding, uuid: str = UUIDS[0], expected: bool = False) -> Assessment:
    """A host on which these hold memory of one device; `expected`: R1 is to run on both devices of it."""
    deployments = FULL.assessment.deployments if expected else ()
    return replace(FULL.assessment, held={uuid: holdings}, deployments=deployments)


def test_strangers_and_leftovers_beside_a_deployment_add_up() -> None:
    found = foreign_bytes(holding(Holding("vllm:r1", "deployment", 80 * GIB), *STRANGERS))
    assert found == {UUIDS[0]: 1300 * MIB}


def test_a_deployment_that_nobody_else_disturbs_has_none() -> None:
    assert foreign_bytes(holding(Holding("vllm:r1", "deployment", 80 * GIB))) == {UUIDS[0]: 0}


def test_a_device_that_is_promised_counts_before_the_deployment_is_there() -> None:
    assert foreign_bytes(holding(*STRANGERS, expected=True)) == {UUIDS[0]: 1300 * MIB}


def test_a_device_that_serves_nobody_is_free_for_everybody() -> None:
    assert foreign_bytes(holding(*STRANGERS)) == {}


def test_a_deployment_that_holds_nothing_there_does_not_make_it_a_serving_device() -> None:
    assert foreign_bytes(holding(Holding("vllm:r1", "deployment", 0), *STRANGERS)) == {}


def test_a_device_whose_holders_are_not_known_is_absent() -> None:
    assert foreign_bytes(replace(FULL.assessment, held={})) == {}


@given(st.lists(st.tuples(st.sampled_from(["deployment", "other", "unattributed"]), st.integers(0, 2**40))))
def test_with_what_deployments_hold_it_is_all_that_is_held(sizes: list[tuple[str, int]]) -> None:
    found = foreign_bytes(holding(*(Holding(kind, kind, size) for kind, size in sizes), expected=True))
    ours = sum(size for kind, size in sizes if kind == "deployment")
    assert found[UUIDS[0]] + ours == sum(size for _, size in sizes)
