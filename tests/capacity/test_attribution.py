"""Attribution: every used byte has exactly one holder."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from capacity.builders import GIB, declared, footprint, gpu
from exporter.capacity.attribution import device_holdings, host_holdings, owners
from exporter.engines.process import Process, ProcessMemory


def process(pid: int, *, parent: int = 1, program: str = "vllm", start: int | None = None) -> Process:
    return Process(pid, pid if start is None else start, parent, frozenset({program}), frozenset())


def by_holder(one, owned):
    holdings = device_holdings(one, owned)
    assert holdings is not None
    return {holding.holder: holding.size_bytes for holding in holdings}


def test_used_is_split_into_deployments_others_and_the_rest() -> None:
    one = gpu(0, used=90 * GIB, processes={10: 60 * GIB, 11: 5 * GIB, 99: 20 * GIB})
    assert by_holder(one, {"r1": frozenset({10, 11})}) == {
        "r1": 65 * GIB,
        "other": 20 * GIB,
        "unattributed": 5 * GIB,
    }


def test_all_is_unattributed_when_the_process_list_cannot_be_read() -> None:
    one = gpu(0, used=90 * GIB, processes=None)
    assert by_holder(one, {})["unattributed"] == 90 * GIB


def test_a_process_without_a_size_leaves_its_bytes_unattributed() -> None:
    one = gpu(0, used=90 * GIB, processes={10: None})
    assert by_holder(one, {"r1": frozenset({10})}) == {"r1": 0, "other": 0, "unattributed": 90 * GIB}


def test_what_drivers_count_twice_is_taken_from_others_before_deployments() -> None:
    one = gpu(0, used=50 * GIB, processes={10: 45 * GIB, 99: 10 * GIB})
    assert by_holder(one, {"r1": frozenset({10})}) == {
        "r1": 45 * GIB,
        "other": 5 * GIB,
        "unattributed": 0,
    }


@given(
    used=st.integers(0, 100 * GIB),
    sizes=st.dictionaries(st.integers(1, 9), st.none() | st.integers(0, 100 * GIB), max_size=9),
    a=st.frozensets(st.integers(1, 9)),
    b=st.frozensets(st.integers(1, 9)),
)
def test_holdings_always_sum_to_used(used, sizes, a, b) -> None:
    holdings = device_holdings(gpu(0, used=used, processes=sizes), {"a": a, "b": b - a})
    assert holdings is not None
    assert sum(one.size_bytes for one in holdings) == used
    assert all(one.size_bytes >= 0 for one in holdings)


def test_a_deployment_owns_the_tree_that_is_on_its_devices() -> None:
    left = declared("left", footprint(1, weights=1), devices=(0,))
    right = declared("right", footprint(1, weights=1), devices=(1,))
    table = {10: process(10), 20: process(20)}
    gpus = (gpu(0, processes={20: GIB}), gpu(1, processes={10: GIB}))
    assert owners((left, right), table, gpus) == {"left": frozenset({20}), "right": frozenset({10})}


def test_two_alike_on_the_same_devices_go_by_order_of_declaration_and_start() -> None:
    first = declared("first", footprint(1, weights=1), devices=(0,))
    second = declared("second", footprint(1, weights=1), devices=(0,))
    table = {10: process(10, start=9), 20: process(20, start=5)}
    gpus = (gpu(0, processes={10: GIB, 20: GIB}),)
    assert owners((first, second), table, gpus) == {"first": frozenset({20}), "second": frozenset({10})}
    assert owners((first, second), {10: table[10]}, gpus) == {"first": frozenset({10})}


def test_a_deployment_in_ram_does_not_own_a_tree_on_a_device() -> None:
    in_ram = declared("cpu", footprint(0, weights=0, ram=GIB))
    gpus = (gpu(0, processes={10: GIB}),)
    assert owners((in_ram,), {10: process(10)}, gpus) == {}
    assert owners((in_ram,), {10: process(10)}, ()) == {"cpu": frozenset({10})}


def test_shared_pages_count_once_for_a_deployment() -> None:
    rank = ProcessMemory(anonymous=4 * GIB, file=2 * GIB, shared=8 * GIB, hugepages=0)
    held = host_holdings({"r1": frozenset({1, 2})}, {1: rank, 2: rank})
    assert held["r1"] == ProcessMemory(8 * GIB, 2 * GIB, 8 * GIB, 0)
