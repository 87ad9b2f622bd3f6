"""What the roster makes of a worker's answers, whatever they hold."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.hardware.backend import Backend
from exporter.hardware.gpu import GpuIdentity, GpuState
from exporter.hardware.inventory import Inventory
from exporter.hardware.roster import Roster
from exporter.hardware.sweep import Pass

BACKEND = Backend("nvidia", (), "", {}, lambda: None)


def identity(**more: Any) -> dict[str, Any]:
    plain = {"index": 0, "uuid": "GPU-0", "name": "H", "pci_bus_id": "", "memory_kind": "divided"}
    return {**plain, **more}


def slice_of(parent: str = "GPU-0", instance: Any = 3, **more: Any) -> dict[str, Any]:
    mig = {"parent_uuid": parent, "instance": instance, "profile": "1g", "uuids": ["MIG-3"], "places": [0]}
    return {
        "identity": identity(uuid="MIG-3", memory_kind="mig", mig=mig),
        "values": {"memory_total_bytes": 10},
        "processes": [],
        "errors": {},
        **more,
    }


def device(slices: Any, problem: Any = "") -> dict[str, Any]:
    return {
        "kind": "device",
        "index": 0,
        "identity": identity(),
        "values": {},
        "processes": [],
        "errors": {},
        "slices": slices,
        "slices_problem": problem,
    }


class Watched:
    """A roster and what it has said."""

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self.roster = Roster(BACKEND, Inventory(None), self.errors)

    def sees(self, *messages: dict[str, Any]) -> dict[str | int, str]:
        """Number → state after a sweep with these answers."""
        progress = Pass(ends_at=0.0)
        self.roster.begin()
        for message in messages:
            self.roster.take(message, "590", progress)
        return {one.identity.number: one.state.value for one in self.roster.assemble(progress, lost)}


def lost(of: GpuIdentity) -> tuple[GpuState, str]:
    return GpuState.LOST, "gone"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        slice_of("GPU-other"),
        slice_of(instance="three"),
        slice_of(values={"memory_total_bytes": "much"}),
        slice_of(values={"no_such_value": 1}),
        slice_of(processes=[[1]]),
        {**slice_of(), "identity": identity()},
    ],
)
def test_a_malformed_slice_costs_itself_alone_and_removes_none(wrong: dict[str, Any]) -> None:
    watched = Watched()
    assert watched.sees(device([slice_of()])) == {0: "up", "0:3": "up"}
    assert watched.sees(device([wrong])) == {0: "up", "0:3": "error"}
    assert watched.errors["malformed_reading"] == 1
    assert watched.sees(device([])) == {0: "up"}


def test_slices_follow_their_gpu_s_index() -> None:
    watched = Watched()
    watched.sees(device([slice_of()]))
    error = {"kind": "device_error", "index": 2, "state": "lost", "reason": "gpu_is_lost"}
    assert watched.sees({**error, "identity": identity(index=2)}) == {2: "lost", "2:3": "lost"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["identity", "values", "processes", "errors", "mig", "uuid", "index", "memory_total_bytes"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    slices=JSON | st.lists(JSON | st.builds(slice_of, instance=JSON, values=JSON, processes=JSON), max_size=3)
)
def test_no_list_of_slices_costs_its_gpu(slices: Any) -> None:
    watched = Watched()
    states = watched.sees(device(slices))
    assert states[0] == "up"
    assert all(isinstance(number, (int, str)) for number in states)


@given(problem=JSON)
def test_no_problem_costs_the_gpu(problem: Any) -> None:
    assert Watched().sees(device([slice_of()], problem)) == {0: "up", "0:3": "up"}
