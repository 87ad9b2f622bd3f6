"""MIG: slices as devices below their GPU, through the real pynvml, the worker's pipe and its supervisor."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from fake_nvml.control import FakeDriver
from fake_nvml.devices import MIB, FakeDevice, FakeProcess, many
from fake_nvml.returns import NOT_SUPPORTED, UNKNOWN
from nvml_host import DriverFactory, Host, gpu_at, run, states

from exporter.hardware.gpu import Gpu, GpuReading, GpuState
from exporter.hardware.inventory import Inventory
from exporter.hardware.sweep import Sweep

NO_PERMISSION = 4
RUNNING = "nvmlDeviceGet*RunningProcesses*"
H100_MIG = {0: "up", "0:2": "up", "0:3": "up", "0:9": "up", "0:10": "up"}


def reading(gpu: Gpu) -> GpuReading:
    assert gpu.reading is not None, (gpu.state, gpu.reason)
    return gpu.reading


def swept(device: FakeDevice, make_driver: DriverFactory) -> Sweep:
    """The first sweep in which the driver answers, of a host with this one GPU."""
    make_driver([device])

    async def look(host: Host) -> None:
        await host.up()

    return run(look).last


def test_slices_are_devices_with_their_memory_and_their_gpu_has_all_else(make_driver: DriverFactory) -> None:
    device = FakeDevice.h100_mig()
    sweep = swept(device, make_driver)
    assert states(sweep) == H100_MIG
    gpu, large = gpu_at(sweep, 0), gpu_at(sweep, "0:2")
    assert sweep.visible == 1
    assert (gpu.identity.memory_kind, gpu.identity.mig) == ("divided", None)
    assert reading(gpu).memory_total_bytes is None
    assert reading(gpu).power_watts == 69.85
    assert reading(gpu).temperature_celsius == {"gpu": 41, "memory": 48}
    assert reading(gpu).ecc_errors == {"corrected": 0, "uncorrected": 0}
    assert reading(gpu).utilization_ratio is None
    assert (reading(gpu).mig_enabled, reading(gpu).mig_slices) == ({"current": True, "pending": True}, 4)
    assert large.identity.memory_kind == "mig"
    assert large.identity.uuid == device.migs[0].uuid
    assert large.identity.pci_bus_id == gpu.identity.pci_bus_id
    assert large.identity.mig is not None
    assert (large.identity.mig.parent_uuid, large.identity.mig.profile) == (device.uuid, "3g.40gb")
    # Nothing but memory: no power, no load, no errors, which are the GPU's and would count four times.
    assert reading(large) == GpuReading(
        memory_total_bytes=40_448 * MIB,
        memory_used_bytes=26 * MIB,
        memory_free_bytes=(40_448 - 26) * MIB,
        memory_reserved_bytes=0,
        processes=(),
    )
    assert sum(one.reading.memory_total_bytes or 0 for one in sweep.gpus if one.reading) == 80_512 * MIB


def test_compute_instances_that_share_their_memory_are_one_slice(make_driver: DriverFactory) -> None:
    device = FakeDevice.h100()
    shared = [device.cut("1c.2g.20gb", 3, 20_096, 17, compute_instance=part) for part in (0, 1)]
    for part, one in enumerate(shared):
        one.processes.append(FakeProcess(100 + part, (1 + part) * MIB))
    sweep = swept(device, make_driver)
    assert states(sweep) == {0: "up", "0:3": "up"}
    one_slice = gpu_at(sweep, "0:3")
    assert one_slice.identity.uuids == tuple(one.uuid for one in shared)
    assert one_slice.identity.mig is not None
    assert (one_slice.identity.mig.profile, one_slice.identity.mig.places) == ("2g.20gb", (0, 1))
    assert reading(one_slice).memory_total_bytes == 20_096 * MIB
    held = {one.pid: one.used_bytes for one in reading(one_slice).processes or ()}
    assert held == {100: MIB, 101: 2 * MIB}


def test_processes_stand_on_their_slice_and_not_on_its_gpu(make_driver: DriverFactory) -> None:
    device = FakeDevice.h100_mig()
    device.migs[1].occupy(4711, 15_000 * MIB)
    sweep = swept(device, make_driver)
    listing = [gpu for gpu in sweep.gpus if 4711 in {one.pid for one in reading(gpu).processes or ()}]
    assert [gpu.identity.number for gpu in listing] == ["0:3"]


def test_where_slices_list_no_processes_their_gpu_tells_them_by_instance(make_driver: DriverFactory) -> None:
    device = FakeDevice.h100_mig()
    device.migs[0].occupy(11, MIB)
    device.migs[1].occupy(12, MIB)
    for one in device.migs:
        one.error_calls[RUNNING] = NOT_SUPPORTED
    sweep = swept(device, make_driver)
    assert [one.pid for one in reading(gpu_at(sweep, "0:2")).processes or ()] == [11]
    assert [one.pid for one in reading(gpu_at(sweep, "0:3")).processes or ()] == [12]


def test_a_process_list_that_nobody_may_read_is_not_an_empty_one(make_driver: DriverFactory) -> None:
    device = FakeDevice.h100_mig()
    device.error_calls[RUNNING] = NO_PERMISSION
    assert reading(gpu_at(swept(device, make_driver), "0:2")).processes is None


@pytest.mark.parametrize(("kind", "calls"), [("rtx_4090", 1), ("h200", 5)])
def test_a_gpu_that_is_not_divided_costs_one_call_at_most(
    make_driver: DriverFactory, kind: str, calls: int
) -> None:
    """In five sweeps; one that cannot be divided is asked once."""
    driver = make_driver(many(kind, 1))

    async def look(host: Host) -> None:
        await host.up()
        for _ in range(4):
            await host.sweep()

    run(look)
    assert driver.calls("nvmlDeviceGetMigMode") == calls
    assert driver.calls("nvmlDeviceGetMaxMigDeviceCount") == 0


# What changes while the daemon runs


def test_a_slice_that_was_removed_is_gone_and_not_lost_and_may_come_back(make_driver: DriverFactory) -> None:
    driver = make_driver([FakeDevice.h100_mig()])

    async def change(host: Host) -> None:
        await host.up()
        with driver.change() as state:
            removed = state.devices[0].migs.pop(1)
        assert states(await host.sweep()) == {n: one for n, one in H100_MIG.items() if n != "0:3"}
        with driver.change() as state:
            assert state.devices[0].cut("2g.20gb", 3, 20_096, 17).uuid == removed.uuid
        assert states(await host.sweep()) == H100_MIG
        assert reading(gpu_at(host.last, "0:3")).memory_total_bytes == 20_096 * MIB

    run(change)


def test_other_slices_in_the_place_of_old_ones_are_new_devices(make_driver: DriverFactory) -> None:
    driver = make_driver([FakeDevice.h100_mig()])

    async def change(host: Host) -> None:
        await host.up()
        with driver.change() as state:
            state.devices[0].migs.clear()
            state.devices[0].cut("7g.80gb", 0, 81_000, 60)
        sweep = await host.sweep()
        assert states(sweep) == {0: "up", "0:0": "up"}
        assert reading(gpu_at(sweep, "0:0")).memory_total_bytes == 81_000 * MIB

    run(change)


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_slice_that_vanishes_while_it_is_read_costs_nothing_else(
    make_driver: DriverFactory, comes_back: bool
) -> None:
    """What it refused by vanishing is not held against the one that is created in its place."""
    driver = make_driver([FakeDevice.h100_mig()])

    async def change(host: Host) -> None:
        await host.up()
        with driver.change() as state:
            state.devices[0].migs[1].hang_calls.add("nvmlDeviceGetMemoryInfo*")
        before = driver.calls("nvmlDeviceGetMemoryInfo_v2")
        sweeping = asyncio.create_task(host.sweep())
        await asyncio.to_thread(driver.wait_for_calls, "nvmlDeviceGetMemoryInfo_v2", before + 1)
        with driver.change() as state:
            removed = state.devices[0].migs.pop(1)
        sweep = await sweeping
        assert states(sweep) == {n: one for n, one in H100_MIG.items() if n != "0:3"}
        assert host.source.worker_restarts == 0
        if comes_back:
            removed.hang_calls.clear()
            with driver.change() as state:
                state.devices[0].migs.insert(1, removed)
            assert states(await host.sweep()) == H100_MIG
            assert reading(gpu_at(host.last, "0:3")).memory_total_bytes == 20_096 * MIB

    run(change)


def test_mig_switched_off_and_on_again(make_driver: DriverFactory) -> None:
    driver = make_driver([FakeDevice.h100_mig()])

    async def change(host: Host) -> None:
        await host.up()
        with driver.change() as state:
            gpu = state.devices[0]
            slices, gpu.migs = gpu.migs, []
            gpu.mig_enabled, gpu.mig_pending = 0, 1
        sweep = await host.sweep()
        assert states(sweep) == {0: "up"}
        whole = gpu_at(sweep, 0)
        assert whole.identity.memory_kind == "dedicated"
        assert reading(whole).memory_total_bytes == 81_559 * MIB
        assert reading(whole).mig_enabled == {"current": False, "pending": True}
        assert reading(whole).mig_slices is None
        with driver.change() as state:
            state.devices[0].migs, state.devices[0].mig_enabled = slices, 1
        assert states(await host.sweep()) == H100_MIG
        assert reading(gpu_at(host.last, 0)).memory_total_bytes is None

    run(change)


def test_mig_without_a_slice_is_up_with_none(make_driver: DriverFactory) -> None:
    device = FakeDevice.h100()
    device.mig_enabled = 1
    sweep = swept(device, make_driver)
    assert states(sweep) == {0: "up"}
    gpu = gpu_at(sweep, 0)
    assert (gpu.identity.memory_kind, reading(gpu).mig_slices) == ("divided", 0)
    assert reading(gpu).memory_total_bytes is None


# What fails


@pytest.mark.parametrize(
    ("call", "code", "state"),
    [
        ("nvmlDeviceGetMaxMigDeviceCount", NO_PERMISSION, "no_permission"),
        ("nvmlDeviceGetMigDeviceHandleByIndex", NO_PERMISSION, "no_permission"),
        ("nvmlDeviceGetMigDeviceHandleByIndex", UNKNOWN, "error"),
    ],
)
def test_slices_that_cannot_be_listed_are_not_taken_for_removed(
    make_driver: DriverFactory, call: str, code: int, state: str
) -> None:
    driver = make_driver([FakeDevice.h100_mig()])

    async def change(host: Host) -> None:
        await host.up()
        driver.fail(call, code)
        sweep = await host.sweep()
        assert states(sweep) == {0: "up", **{n: state for n in H100_MIG if n}}
        assert reading(gpu_at(sweep, 0)).mig_slices is None
        assert reading(gpu_at(sweep, 0)).power_watts is not None
        assert gpu_at(sweep, "0:3").last_success_seconds is not None
        driver.fail(call, 0)
        assert states(await host.sweep()) == H100_MIG

    run(change)


def test_slices_that_could_never_be_listed_are_not_said_to_be_none(make_driver: DriverFactory) -> None:
    device = FakeDevice.h100_mig()
    device.error_calls["nvmlDeviceGetMaxMigDeviceCount"] = NO_PERMISSION
    sweep = swept(device, make_driver)
    assert states(sweep) == {0: "up"}
    assert reading(gpu_at(sweep, 0)).mig_slices is None


def test_a_mode_that_is_not_told_for_once_is_as_it_was(make_driver: DriverFactory) -> None:
    driver = make_driver([FakeDevice.h100_mig()])

    async def change(host: Host) -> None:
        await host.up()
        driver.fail("nvmlDeviceGetMigMode", UNKNOWN)
        assert states(await host.sweep()) == H100_MIG

    run(change)


def test_a_lost_gpu_takes_its_slices_with_it_and_brings_them_back(make_driver: DriverFactory) -> None:
    driver = make_driver([FakeDevice.h100_mig(0), FakeDevice.h100(1)])

    async def change(host: Host) -> None:
        await host.up()
        driver.lose(0)
        sweep = await host.sweep()
        assert states(sweep) == {**dict.fromkeys(H100_MIG, "lost"), 1: "up"}
        assert gpu_at(sweep, "0:3").reason.startswith("its GPU: ")
        assert gpu_at(sweep, "0:3").last_success_seconds is not None
        driver.restore(0)
        assert states(await host.sweep()) == {**H100_MIG, 1: "up"}

    run(change)


def test_a_slice_whose_call_hangs_stalls_its_gpu_and_no_other(make_driver: DriverFactory) -> None:
    driver = make_driver([FakeDevice.h100_mig(0), FakeDevice.h100(1)])

    async def change(host: Host) -> None:
        await host.up()
        with driver.change() as state:
            state.devices[0].migs[2].hang_calls.add("nvmlDeviceGetMemoryInfo*")
        stalled = {**dict.fromkeys(H100_MIG, "stalled"), 1: "up"}
        await host.until(lambda sweep: states(sweep) == stalled)
        with driver.change() as state:
            state.devices[0].migs[2].hang_calls.clear()
        await host.until(lambda sweep: states(sweep) == {**H100_MIG, 1: "up"})

    run(change)


def test_the_release_of_the_driver_lets_go_of_slices_too(make_driver: DriverFactory) -> None:
    driver: FakeDriver = make_driver([FakeDevice.h100_mig()])

    async def change(host: Host) -> None:
        await host.up()
        assert driver.holders()
        assert await host.source.release()
        assert not driver.holders() - {os.getpid()}
        assert set(states(await host.sweep()).values()) == {"released"}
        host.source.resume()
        await host.until(lambda sweep: states(sweep) == H100_MIG)

    run(change)


def test_slices_are_not_remembered_across_a_restart(make_driver: DriverFactory, tmp_path: Any) -> None:
    make_driver([FakeDevice.h100_mig()])

    async def look(host: Host) -> None:
        await host.up()

    run(look, inventory=tmp_path / "inventory.json")
    assert [one.number for one in Inventory(tmp_path / "inventory.json").all()] == [0]


@pytest.mark.parametrize(
    ("total_mib", "used_mib", "expected"),
    [(9_984, 20_000, (9_984 * MIB, None)), (1 << 40, 9, (None, 9 * MIB)), (0, 0, (None, None))],
    ids=["more in use than there is", "more than any device has", "nothing"],
)
def test_absurd_memory_of_a_slice_is_left_out(
    make_driver: DriverFactory, total_mib: int, used_mib: int, expected: tuple[int | None, int | None]
) -> None:
    device = FakeDevice.h100()
    device.cut("1g.10gb", 9, total_mib, used_mib)
    sweep = swept(device, make_driver)
    one = reading(gpu_at(sweep, "0:9"))
    assert (one.memory_total_bytes, one.memory_used_bytes) == expected


def test_a_slice_without_an_instance_is_left_out_and_the_list_not_taken_for_whole(
    make_driver: DriverFactory,
) -> None:
    device = FakeDevice.h100_mig()
    device.migs[3].gpu_instance = 0xFFFFFFFF
    sweep = swept(device, make_driver)
    assert states(sweep) == {n: one for n, one in H100_MIG.items() if n != "0:10"}
    assert reading(gpu_at(sweep, 0)).mig_slices is None


def test_all_bits_set_is_no_power(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.set_power(0xFFFFFFFF)
    gpu = gpu_at(swept(device, make_driver), 0)
    assert gpu.state is GpuState.UP
    assert reading(gpu).power_watts is None
