"""Unified memory: what a device holds of RAM is promised once, and from RAM."""

from __future__ import annotations

from dataclasses import replace

import pytest

from capacity.builders import GIB, declared, footprint, gpu, observation, ram
from exporter.capacity.assessment import Assessment, Bounds, assess
from exporter.capacity.observation import Observation
from exporter.capacity.unified import in_ram
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
    # No size of its own, so no capacity of its own: RAM alone decides.
    assert assessment.devices == {}
    assert assessment.host is not None
    assert assessment.host.committed == Bounds(77 * GIB, 77 * GIB)


def test_a_device_of_its_own_memory_costs_no_ram() -> None:
    one = gpu(0, used=70 * GIB, processes={7: 70 * GIB})
    host = judged(seen(one, available=120 * GIB, runs=True)).host
    assert host is not None
    assert host.committed == Bounds(7 * GIB, 7 * GIB)


@pytest.mark.parametrize(("held", "ram_bytes"), [(0, 0), (GIB // 2, 0), (1 * GIB, 0), (3 * GIB, 2 * GIB)])
def test_a_part_of_its_own_fills_first(held: int, ram_bytes: int) -> None:
    assert in_ram(unified(held), held) == ram_bytes
