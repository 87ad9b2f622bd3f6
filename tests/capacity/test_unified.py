"""Unified memory: what a device holds of RAM is promised once, and from RAM."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capacity.builders import GIB, declared, footprint, gpu, observation, ram
from exporter.capacity.assessment import Assessment, assess
from exporter.capacity.bounds import Bounds
from exporter.capacity.observation import Observation
from exporter.capacity.unified import in_ram, sized_by_ram
from exporter.engines.process import ProcessMemory
from exporter.hardware.gpu import Gpu


def unified(held: int | None, *, gtt: int | None = 96 * GIB, own: int = 1 * GIB, told: bool = True) -> Gpu:
    """An APU with a part of its own; ``told`` False: a driver that tells of processes alone, as on a GB10."""
    one = gpu(0, used=held or 0, processes={7: held} if held else {}, reserved=None, total=(gtt or 0) + own)
    assert one.reading is not None
    reading = replace(one.reading, gtt_total_bytes=gtt)
    if not told:
        reading = replace(reading, memory_total_bytes=None, memory_used_bytes=None, memory_free_bytes=None)
    return Gpu(replace(one.identity, memory_kind="unified"), one.state, reading=reading)


def seen(device: Gpu, *, available: int, runs: bool, weights: int = 70 * GIB) -> Observation:
    one = declared("r1", footprint(1, weights=weights), devices=(0,))
    memory = {7: ProcessMemory(anonymous=2 * GIB, file=0, shared=0, hugepages=0)} if runs else {}
    return observation(
        (device,),
        (one,),
        owned={"r1": frozenset({7})} if runs else {},
        memory=memory,
        host=ram(127 * GIB, available),
    )


def judged(of: Observation) -> Assessment:
    return assess(of, gpu_margin=0, host_margin=1 * GIB)


def test_what_runs_is_counted_once() -> None:
    # 71 GiB on the device, of which 70 are RAM, 2 in the process, 5 of others: the kernel has 50 left.
    host = judged(seen(unified(71 * GIB), available=50 * GIB, runs=True)).host
    assert host is not None
    assert host.committed == Bounds(77 * GIB, 77 * GIB)
    assert host.headroom.low == 49 * GIB


def test_what_is_still_to_be_loaded_needs_ram() -> None:
    host = judged(seen(unified(None), available=100 * GIB, runs=False)).host
    assert host is not None
    # 70 GiB of weights, of which one fits into the device's own part.
    assert host.committed == Bounds(27 * GIB + 69 * GIB, 27 * GIB + 69 * GIB)


def test_a_model_larger_than_ram_is_ram_overcommitted() -> None:
    host = judged(seen(unified(None), available=100 * GIB, runs=False, weights=120 * GIB)).host
    assert host is not None
    assert host.headroom.low < 0


def test_where_the_driver_tells_of_processes_alone_they_are_what_is_held() -> None:
    assessment = judged(seen(unified(70 * GIB, gtt=None, told=False), available=50 * GIB, runs=True))
    assert {one.holder: one.size_bytes for one in assessment.held["GPU-0"]} == {
        "r1": 70 * GIB,
        "other": 0,
        "unattributed": 0,
    }
    assert assessment.devices == {}  # nobody has said yet how large RAM is
    assert assessment.host is not None
    assert assessment.host.committed == Bounds(77 * GIB, 77 * GIB)


def spark(held: int | None, *, runs: bool, available: int, listed: bool = True) -> Observation:
    """A GB10 of 127 GiB whose driver tells of processes alone, or not even of them; 70 GiB of weights."""
    device = unified(held, gtt=None, told=False)
    assert device.reading is not None
    if not listed:
        device = replace(device, reading=replace(device.reading, processes=None))
    of = seen(device, available=available, runs=runs)
    return replace(of, gpus=sized_by_ram(of.gpus, of.host))


def test_a_device_without_a_size_of_its_own_has_that_of_ram_and_no_use_that_nobody_tells() -> None:
    (device,) = spark(70 * GIB, runs=True, available=50 * GIB).gpus
    assert device.reading is not None
    assert device.reading.memory_total_bytes == 127 * GIB
    assert (device.reading.memory_used_bytes, device.reading.memory_free_bytes) == (None, None)


def test_a_deployment_on_all_of_ram_is_judged_on_the_device_and_once_against_ram() -> None:
    assessment = judged(spark(72 * GIB, runs=True, available=48 * GIB))
    device = assessment.devices["GPU-0"]
    assert (device.capacity, device.committed) == (127 * GIB, Bounds(72 * GIB, 72 * GIB))
    assert assessment.deployments[0].deviation["GPU-0"].size_bytes == 2 * GIB
    assert assessment.deployments[0].state == "warm"
    # 79 GiB are in use: 72 on the device, 2 in the process, 5 of others.
    assert assessment.host is not None
    assert assessment.host.committed == Bounds(79 * GIB, 79 * GIB)


def test_what_is_to_be_loaded_on_all_of_ram_is_promised_on_both() -> None:
    assessment = judged(spark(None, runs=False, available=100 * GIB))
    assert assessment.devices["GPU-0"].pending == Bounds(70 * GIB, 70 * GIB)
    assert assessment.host is not None
    assert assessment.host.committed == Bounds(97 * GIB, 97 * GIB)


def test_without_a_list_of_processes_what_is_held_is_not_known_and_ram_counts_it_once() -> None:
    """The 70 GiB that it should hold are among the 79 that are in use, and not promised beside them."""
    assessment = judged(spark(70 * GIB, runs=True, available=48 * GIB, listed=False))
    assert "GPU-0" not in assessment.held
    assert assessment.devices == {}
    assert assessment.deployments[0].deviation == {}
    assert assessment.host is not None
    assert assessment.host.committed == Bounds(79 * GIB, 79 * GIB)


def test_without_a_list_what_has_not_been_loaded_yet_is_still_promised() -> None:
    # 40 of 127 GiB are in use: too little for all of the 70 to be there.
    assessment = judged(spark(70 * GIB, runs=True, available=87 * GIB, listed=False))
    assert assessment.host is not None
    assert assessment.host.committed == Bounds(72 * GIB, 72 * GIB)


def test_memory_that_is_resident_in_the_process_too_is_not_counted_twice() -> None:
    """Managed memory: 70 GiB on the device are the same as 70 of the 72 in the process; 77 are in use."""
    of = spark(70 * GIB, runs=True, available=50 * GIB)
    of = replace(of, memory={7: ProcessMemory(anonymous=72 * GIB, file=0, shared=0, hugepages=0)})
    host = judged(of).host
    assert host is not None
    assert host.committed == Bounds(77 * GIB, 77 * GIB)


@given(held=st.integers(0, 127), resident=st.integers(0, 127), available=st.integers(0, 127))
def test_what_is_in_use_counts_and_nothing_of_it_twice(held: int, resident: int, available: int) -> None:
    """Whatever of it lies on the device, in the process or in both; readings are not of one instant."""
    of = spark(held * GIB, runs=True, available=available * GIB)
    of = replace(of, memory={7: ProcessMemory(anonymous=resident * GIB, file=0, shared=0, hugepages=0)})
    host = judged(of).host
    assert host is not None
    in_use = max(127 - available, resident) * GIB
    assert host.committed.low >= in_use
    if held >= 70:  # all that is expected is there
        assert host.committed.low == in_use


def test_a_process_that_holds_more_than_there_is_is_dropped() -> None:
    (device,) = spark(500 * GIB, runs=True, available=50 * GIB).gpus
    assert device.reading is not None
    assert device.reading.processes == ()


def test_an_apu_whose_size_cannot_be_read_is_not_given_that_of_ram() -> None:
    device = unified(70 * GIB, gtt=None, told=False)
    device = Gpu(replace(device.identity, vendor="amd"), device.state, reading=device.reading)
    assert sized_by_ram((device,), ram(127 * GIB, 50 * GIB)) == (device,)


def test_while_ram_cannot_be_read_the_device_has_no_size() -> None:
    device = unified(70 * GIB, gtt=None, told=False)
    assert sized_by_ram((device,), None) == (device,)


def test_a_device_of_its_own_memory_costs_no_ram() -> None:
    one = gpu(0, used=70 * GIB, processes={7: 70 * GIB})
    host = judged(seen(one, available=120 * GIB, runs=True)).host
    assert host is not None
    assert host.committed == Bounds(7 * GIB, 7 * GIB)


@pytest.mark.parametrize(("held", "ram_bytes"), [(0, 0), (GIB // 2, 0), (1 * GIB, 0), (3 * GIB, 2 * GIB)])
def test_a_part_of_its_own_fills_first(held: int, ram_bytes: int) -> None:
    assert in_ram(unified(held), held) == ram_bytes
