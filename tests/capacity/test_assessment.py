"""Assessment: what is promised of a device and of RAM. The cases are those in which people get woken."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from capacity.builders import GIB, declared, footprint, gpu, observation, ram
from exporter.capacity.assessment import Assessment, assess
from exporter.capacity.bounds import Bounds
from exporter.capacity.observation import Observation
from exporter.engines.process import ProcessMemory
from exporter.hardware.gpu import GpuState


def judged(what: Observation, *, gpu_margin: int = 0, host_margin: int = 0) -> Assessment:
    return assess(what, gpu_margin=gpu_margin, host_margin=host_margin)


def test_capacity_is_total_without_the_drivers_reserve_and_the_margin() -> None:
    found = judged(observation((gpu(0),)), gpu_margin=2 * GIB)
    assert found.devices["GPU-0"].capacity == 97 * GIB


def test_old_drivers_that_tell_no_reserve_have_the_whole_as_capacity() -> None:
    assert judged(observation((gpu(0, reserved=None),))).devices["GPU-0"].capacity == 100 * GIB


def test_a_required_deployment_that_does_not_run_keeps_its_room() -> None:
    r1 = declared("r1", footprint(1, weights=80 * GIB, estimate=(1 * GIB, 4 * GIB)), devices=(0,))
    found = judged(observation((gpu(0),), (r1,)))
    assert found.devices["GPU-0"].committed == Bounds(81 * GIB, 84 * GIB)
    assert found.devices["GPU-0"].headroom == Bounds(18 * GIB, 15 * GIB)


def test_an_optional_deployment_counts_only_while_it_runs() -> None:
    r1 = declared("r1", footprint(1, weights=80 * GIB), devices=(0,), required=False)
    assert judged(observation((gpu(0),), (r1,))).devices["GPU-0"].committed.high == 0
    running = observation(
        (gpu(0, used=5 * GIB, processes={10: 5 * GIB}),), (r1,), owned={"r1": frozenset({10})}
    )
    assert judged(running).devices["GPU-0"].committed.low == 80 * GIB


def test_a_warm_engine_that_fills_its_budget_is_not_overcommitted() -> None:
    """vLLM at 0.97: nearly all is used, by design; a runtime term guessed too high must not page."""
    r1 = declared("r1", footprint(1, weights=90 * GIB, estimate=(4 * GIB, 12 * GIB)), devices=(0,))
    warm = gpu(0, used=96 * GIB, processes={10: 96 * GIB})
    found = judged(observation((warm,), (r1,), owned={"r1": frozenset({10})})).devices["GPU-0"]
    assert found.overcommit_ratio["low"] < 1
    assert found.overcommit_ratio["high"] > 1


def test_strangers_memory_adds_to_what_a_deployment_may_still_take() -> None:
    r1 = declared("r1", footprint(1, weights=80 * GIB), devices=(0,))
    loading = gpu(0, used=40 * GIB, processes={10: 10 * GIB, 99: 25 * GIB})
    found = judged(observation((loading,), (r1,), owned={"r1": frozenset({10})})).devices["GPU-0"]
    assert found.committed.low == (80 + 25 + 5) * GIB
    assert found.headroom.low == -11 * GIB


def test_a_second_deployment_on_the_same_devices_overcommits_them() -> None:
    both = tuple(declared(name, footprint(2, weights=60 * GIB), devices=(0, 1)) for name in ("a", "b"))
    found = judged(observation((gpu(0), gpu(1)), both))
    assert [one.overcommit_ratio["low"] > 1 for one in found.devices.values()] == [True, True]


def test_a_device_that_gives_no_reading_is_not_judged() -> None:
    r1 = declared("r1", footprint(2, weights=200 * GIB), devices=(0, 1))
    found = judged(observation((gpu(0, state=GpuState.LOST), gpu(1)), (r1,)))
    assert list(found.devices) == ["GPU-1"]


def test_weights_that_lie_in_page_cache_are_committed_though_the_kernel_calls_them_available() -> None:
    cpu = declared("cpu", footprint(0, weights=0, ram=40 * GIB, ram_mapped=36 * GIB))
    memory = {10: ProcessMemory(anonymous=4 * GIB, file=36 * GIB, shared=0, hugepages=0)}
    what = observation(
        (), (cpu,), owned={"cpu": frozenset({10})}, memory=memory, host=ram(64 * GIB, 58 * GIB)
    )
    found = judged(what, host_margin=2 * GIB)
    assert found.host_other == 2 * GIB
    assert found.host is not None
    assert found.host.capacity == 62 * GIB
    assert found.host.committed == Bounds(42 * GIB, 42 * GIB)


def test_a_model_larger_than_ram_overcommits_it_before_it_is_started() -> None:
    cpu = declared("cpu", footprint(0, weights=0, ram=400 * GIB))
    found = judged(observation((), (cpu,), host=ram(64 * GIB, 60 * GIB)))
    assert found.host is not None
    assert found.host.overcommit_ratio["low"] > 6


def test_unreadable_ram_is_not_judged() -> None:
    found = judged(observation())
    assert found.host is None
    assert found.host_other is None


def test_states_of_a_deployment() -> None:
    need = footprint(1, weights=80 * GIB)
    r1 = declared("r1", need, devices=(0,))
    owned = {"r1": frozenset({10})}

    def state(used: int, owned: dict[str, frozenset[int]]) -> str:
        what = observation((gpu(0, used=used, processes={10: used}),), (r1,), owned=owned)
        return judged(what).deployments[0].state

    assert state(0, {}) == "declared_only"
    assert state(10 * GIB, owned) == "loading"
    assert state(85 * GIB, owned) == "warm"


def test_an_unknown_model_costs_only_its_own_judgement() -> None:
    odd = declared("odd", None, devices=(0,))
    r1 = declared("r1", footprint(1, weights=80 * GIB), devices=(0,))
    found = judged(observation((gpu(0),), (odd, r1)))
    assert found.devices["GPU-0"].committed.low == 80 * GIB
    assert [one.state for one in found.deployments] == ["declared_only", "declared_only"]


@given(
    used=st.integers(0, 99 * GIB),
    held=st.integers(0, 99 * GIB),
    weights=st.integers(0, 200 * GIB),
    low=st.integers(0, 10 * GIB),
    more=st.integers(0, 10 * GIB),
    running=st.booleans(),
)
def test_low_never_exceeds_high_and_commitment_never_hides_use(
    used, held, weights, low, more, running
) -> None:
    r1 = declared("r1", footprint(1, weights=weights, estimate=(low, low + more)), devices=(0,))
    one = gpu(0, used=used, processes={10: min(held, used)})
    owned = {"r1": frozenset({10})} if running else {}
    committed = judged(observation((one,), (r1,), owned=owned)).devices["GPU-0"].committed
    assert committed.low <= committed.high
    assert committed.low >= used


def test_a_node_of_several_is_warm_when_its_own_ranks_are() -> None:
    """The ranks of the other node have no uuid here, and what they hold only that node can tell."""
    need = footprint(2, weights=80 * GIB)
    r1 = replace(declared("r1", need, devices=(0,)), ranks=("", "GPU-0"))
    what = observation(
        (gpu(0, used=85 * GIB, processes={10: 85 * GIB}),), (r1,), owned={"r1": frozenset({10})}
    )
    assert judged(what).deployments[0].state == "warm"


def test_a_device_that_is_lost_does_not_make_its_deployment_load_again() -> None:
    r1 = declared("r1", footprint(2, weights=80 * GIB), devices=(0, 1))
    warm = gpu(0, used=85 * GIB, processes={10: 85 * GIB})
    what = observation((warm, gpu(1, state=GpuState.LOST)), (r1,), owned={"r1": frozenset({10})})
    assert judged(what).deployments[0].state == "warm"


def test_locked_weights_count_once_though_the_kernel_no_longer_calls_them_available() -> None:
    """Without knowing of the lock they would count as expected and again as in use by others."""
    r1 = declared("r1", footprint(0, weights=0, ram=90 * GIB, ram_mapped=85 * GIB))
    memory = {10: ProcessMemory(5 * GIB, 85 * GIB, 0, 0, locked=85 * GIB)}
    found = judged(
        observation((), (r1,), owned={"r1": frozenset({10})}, memory=memory, host=ram(128 * GIB, 30 * GIB))
    )
    assert found.host_other == 8 * GIB
    assert found.host is not None
    assert found.host.committed == Bounds(98 * GIB, 98 * GIB)


def test_where_a_lock_was_refused_the_pages_behind_copies_do_not_page() -> None:
    """60 GiB of weights, 40 of them rearranged as well: with the lock 100 GiB cannot go, without it 60."""
    need = footprint(0, weights=0, ram=100 * GIB, ram_mapped=20 * GIB)
    need = replace(need, host=replace(need.host, locked_bytes=60 * GIB))
    r1 = declared("r1", need)

    def committed(locked: int) -> int:
        memory = {10: ProcessMemory(40 * GIB, 60 * GIB, 0, 0, locked=locked)}
        host = ram(128 * GIB, 128 * GIB - 40 * GIB - locked)
        found = judged(observation((), (r1,), owned={"r1": frozenset({10})}, memory=memory, host=host))
        assert found.host is not None
        return found.host.committed.low

    assert (committed(60 * GIB), committed(0)) == (100 * GIB, 60 * GIB)


def test_huge_pages_set_aside_for_an_engine_that_loads_are_not_others() -> None:
    kt = declared("kt", footprint(0, weights=0, ram=64 * GIB))
    memory = {10: ProcessMemory(GIB, 0, 0, 20 * GIB)}
    host = replace(ram(128 * GIB, 58 * GIB), hugepages_total_bytes=64 * GIB, hugepages_free_bytes=44 * GIB)
    found = judged(observation((), (kt,), owned={"kt": frozenset({10})}, memory=memory, host=host))
    assert found.host_other == 49 * GIB  # 44 GiB of it the free huge pages
    assert found.host is not None
    assert found.host.committed == Bounds((64 + 6) * GIB, (64 + 49) * GIB)
