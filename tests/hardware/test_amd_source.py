"""The AMD worker as the supervisor sees it: started only where there is something to read, abandoned when
sysfs blocks, and nothing that happens to one device costs another."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from amd_tree import GIB, MI300X_ADDRESSES, AmdHost, eight_mi300x, host, mi300x
from fake_nvml.devices import many
from nvml_host import INTERVAL_SECONDS, OPTIONS, DriverFactory, children, gpu_at, states

from exporter.hardware.amd_source import AmdSource
from exporter.hardware.gpu import GpuIdentity, GpuState
from exporter.hardware.inventory import Inventory
from exporter.hardware.nvidia_source import NvmlSource
from exporter.hardware.sweep import Sweep

UP, STALLED, LOST, SUSPENDED = GpuState.UP, GpuState.STALLED, GpuState.LOST, GpuState.SUSPENDED
BUSY = "gpu_busy_percent"


@dataclass
class Watched:
    """One AmdSource on a tree."""

    source: AmdSource
    made: AmdHost
    sweeps: list[Sweep] = field(default_factory=list)

    async def sweep(self) -> Sweep:
        self.sweeps.append(await self.source.sweep(INTERVAL_SECONDS))
        return self.sweeps[-1]

    async def until(self, condition: Callable[[Sweep], object]) -> Sweep:
        async with asyncio.timeout(15):
            while not condition(sweep := await self.sweep()):
                await asyncio.sleep(0.05)
            return sweep


def run(
    made: AmdHost,
    body: Callable[[Watched], Coroutine[Any, Any, None]],
    inventory: Inventory | None = None,
) -> None:
    """Run a test's body, close the source, and check that it leaves no process behind."""

    async def main() -> None:
        source = AmdSource(OPTIONS, inventory or Inventory(None), made.sys, made.proc)
        try:
            await body(Watched(source, made))
        finally:
            await source.close()

    before = set(children())
    asyncio.run(main())
    assert set(children()) <= before


def all_up(count: int) -> Callable[[Sweep], bool]:
    return lambda sweep: states(sweep) == dict.fromkeys(range(count), UP)


def block(made: AmdHost, index: int) -> Path:
    """Make one file of a device block whoever reads it; unblocked by writing to it."""
    path = made.folder(MI300X_ADDRESSES[index]) / BUSY
    path.unlink()
    os.mkfifo(path)
    return path


def test_eight_devices_are_read_in_one_sweep(tmp_path: Path) -> None:
    async def body(watched: Watched) -> None:
        sweep = await watched.until(all_up(8))
        assert (sweep.state, sweep.visible, sweep.driver_version) == ("up", 8, "6.12.12")
        reading = gpu_at(sweep, 7).reading
        assert reading is not None
        assert reading.memory_used_bytes == 170 * GIB + 297_771_008
        assert gpu_at(sweep, 7).identity.vendor == "amd"

    run(eight_mi300x(tmp_path), body)


def test_a_host_without_amd_starts_no_process(tmp_path: Path) -> None:
    async def body(watched: Watched) -> None:
        before = children()
        sweep = await watched.sweep()
        assert (sweep.state, sweep.gpus) == ("driver_not_loaded", ())
        assert children() == before
        assert not watched.source.is_here

    run(AmdHost(tmp_path), body)


def test_a_driver_without_a_device_starts_no_process(tmp_path: Path) -> None:
    async def body(watched: Watched) -> None:
        before = children()
        assert (await watched.sweep()).state == "no_device"
        assert children() == before
        assert not watched.source.is_here

    run(host(tmp_path, []), body)


def test_a_driver_that_comes_later_is_taken_up(tmp_path: Path) -> None:
    made = eight_mi300x(tmp_path)
    bound = made.sys / "bus/pci/drivers/amdgpu"
    bound.rename(tmp_path / "later")

    async def body(watched: Watched) -> None:
        assert (await watched.sweep()).state == "driver_not_loaded"
        (tmp_path / "later").rename(bound)
        await watched.until(all_up(8))

    run(made, body)


def test_a_file_that_blocks_stalls_its_device_alone_until_it_answers(tmp_path: Path) -> None:
    made = eight_mi300x(tmp_path)

    async def body(watched: Watched) -> None:
        await watched.until(all_up(8))
        blocked = block(made, 3)
        sweep = await watched.sweep()
        assert states(sweep) == dict.fromkeys(range(8), UP) | {3: STALLED}
        assert gpu_at(sweep, 3).reading is None
        assert watched.source.workers_stuck == 1
        # The file answers again: to the reader that waits, then to whoever comes.
        with blocked.open("w") as answer:
            answer.write("97\n")
        blocked.unlink()
        blocked.write_text("97\n")
        await watched.until(all_up(8))
        await watched.until(lambda _: len(watched.source.worker_pids()) == 1)

    run(made, body)


def test_a_device_that_vanishes_is_lost_and_the_others_stay(tmp_path: Path) -> None:
    made = eight_mi300x(tmp_path)

    async def body(watched: Watched) -> None:
        await watched.until(all_up(8))
        made.remove(MI300X_ADDRESSES[7])
        sweep = await watched.until(lambda sweep: states(sweep)[7] != UP)
        assert states(sweep) == dict.fromkeys(range(7), UP) | {7: LOST}
        assert sweep.visible == 7

    run(made, body)


def test_the_last_device_that_vanishes_is_lost_too(tmp_path: Path) -> None:
    made = host(tmp_path, [mi300x(0)])

    async def body(watched: Watched) -> None:
        await watched.until(all_up(1))
        made.remove(MI300X_ADDRESSES[0])
        await watched.until(lambda sweep: states(sweep) == {0: LOST})
        assert watched.source.is_here  # there is something to tell

    run(made, body)


def test_a_device_that_was_lost_before_the_start_is_known(tmp_path: Path) -> None:
    made = host(tmp_path, [])
    known = GpuIdentity("GPU-1", 0, "AMD Instinct MI300X", "amd", "0000:05:00.0", "dedicated")
    inventory = Inventory(None)
    inventory.remember(known)

    async def body(watched: Watched) -> None:
        assert states(await watched.sweep()) == {0: LOST}

    run(made, body, inventory)


def test_a_driver_that_is_unloaded_takes_its_devices_down(tmp_path: Path) -> None:
    made = eight_mi300x(tmp_path)

    async def body(watched: Watched) -> None:
        await watched.until(all_up(8))
        (made.sys / "bus/pci/drivers/amdgpu").rename(tmp_path / "gone")
        sweep = await watched.until(lambda sweep: not sweep.up)
        assert sweep.state == "driver_not_loaded"
        assert set(states(sweep).values()) == {GpuState.DRIVER_DOWN}
        await watched.until(lambda _: watched.source.worker_pids() == [])

    run(made, body)


def test_a_sleeping_device_is_neither_lost_nor_an_error(tmp_path: Path) -> None:
    made = host(tmp_path, [mi300x(0), mi300x(1)])
    made.put(MI300X_ADDRESSES[1], "power/runtime_status", "suspended\n")

    async def body(watched: Watched) -> None:
        sweep = await watched.until(lambda sweep: sweep.up)
        assert states(sweep) == {0: UP, 1: SUSPENDED}
        assert gpu_at(sweep, 1).reading is None
        assert gpu_at(sweep, 1).identity.uuid == "GPU-a1b2c3d4e5f60001"
        assert watched.source.errors == {}
        made.put(MI300X_ADDRESSES[1], "power/runtime_status", "active\n")
        await watched.until(all_up(2))

    run(made, body)


@pytest.mark.parametrize("nvidia", [0, 2])
def test_indices_follow_those_of_nvidia_s_devices(tmp_path: Path, nvidia: int) -> None:
    inventory = Inventory(None)
    for index in range(nvidia):
        inventory.remember(
            GpuIdentity(f"GPU-n{index}", index, "NVIDIA H200", "nvidia", "0000:18:00.0", "dedicated")
        )
    made = eight_mi300x(tmp_path)

    async def body(watched: Watched) -> None:
        sweep = await watched.until(lambda sweep: sweep.up)
        assert states(sweep) == dict.fromkeys(range(nvidia, nvidia + 8), UP)
        block(made, 0)
        sweep = await watched.sweep()
        assert states(sweep)[nvidia] == STALLED
        assert [one.vendor for one in watched.source.remembered()] == ["amd"] * 8

    run(made, body, inventory)


def test_two_vendors_on_one_host_tell_of_their_own_devices_only(
    tmp_path: Path, make_driver: DriverFactory
) -> None:
    make_driver(many("h200", 2))
    inventory = Inventory(None)
    made = eight_mi300x(tmp_path)

    async def body(watched: Watched) -> None:
        nvidia = NvmlSource(OPTIONS, inventory)
        try:
            async with asyncio.timeout(15):
                while not (sweep := await nvidia.sweep(INTERVAL_SECONDS)).up:
                    pass
            amd = await watched.until(lambda sweep: sweep.up)
            again = await nvidia.sweep(INTERVAL_SECONDS)
        finally:
            await nvidia.close()
        assert states(sweep) == states(again) == {0: UP, 1: UP}
        assert states(amd) == dict.fromkeys(range(2, 10), UP)
        assert len(inventory.all()) == 10

    run(made, body, inventory)


def test_an_nvidia_device_that_appears_later_moves_amd_s_indices_and_not_their_identities(
    tmp_path: Path,
) -> None:
    inventory = Inventory(None)

    async def body(watched: Watched) -> None:
        before = await watched.until(all_up(8))
        inventory.remember(GpuIdentity("GPU-n", 0, "NVIDIA H200", "nvidia", "0000:18:00.0", "dedicated"))
        after = await watched.sweep()
        assert [one.identity.index for one in after.gpus] == list(range(1, 9))
        assert [one.identity.uuid for one in after.gpus] == [one.identity.uuid for one in before.gpus]

    run(eight_mi300x(tmp_path), body, inventory)


def test_release_ends_the_worker_and_resume_starts_it_again(tmp_path: Path) -> None:
    async def body(watched: Watched) -> None:
        await watched.until(all_up(8))
        assert await watched.source.release()
        assert watched.source.worker_pids() == []
        assert set(states(await watched.sweep()).values()) == {GpuState.RELEASED}
        watched.source.resume()
        await watched.until(all_up(8))

    run(eight_mi300x(tmp_path), body)


def test_the_worker_loads_no_vendor_library_and_stays_small(tmp_path: Path) -> None:
    async def body(watched: Watched) -> None:
        await watched.until(all_up(8))
        (pid,) = watched.source.worker_pids()
        maps = {one.path for one in psutil.Process(pid).memory_maps()}
        assert not any("nvidia" in path or "rocm" in path or "amd_smi" in path for path in maps)
        assert psutil.Process(pid).memory_full_info().pss < 16 * 2**20

    run(eight_mi300x(tmp_path), body)
