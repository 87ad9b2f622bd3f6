"""One device fails, or several: the others stay fresh, sweeps stay short, and what comes back is read again
without a restart of the supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from fake_nvml.devices import FakeDevice, many
from fake_nvml.returns import NOT_FOUND, UNKNOWN
from nvml_host import OPTIONS, DriverFactory, Host, all_up, gpu_at, run, states

from exporter.hardware.gpu import GpuState
from exporter.hardware.supervision import MAX_STUCK
from exporter.hardware.sweep import Sweep

UP, STALLED, LOST = GpuState.UP, GpuState.STALLED, GpuState.LOST


def all_up_but(count: int, **others: GpuState) -> dict[int, GpuState]:
    """States of `count` devices; `gpu3=STALLED` makes an exception."""
    return dict.fromkeys(range(count), UP) | {int(name[3:]): state for name, state in others.items()}


def assert_fresh(sweep: Sweep, *indices: int) -> None:
    for index in indices:
        gpu = gpu_at(sweep, index)
        assert gpu.state is UP, (index, gpu.state, gpu.reason)
        assert gpu.last_success_seconds is not None
        assert time.time() - gpu.last_success_seconds < 5


# Hangs


def test_a_device_that_hangs_is_stalled_and_the_other_seven_are_read_in_the_same_sweep(
    make_driver: DriverFactory,
) -> None:
    driver = make_driver(many("h200", 8))

    async def body(host: Host) -> None:
        await host.until(all_up(8))
        driver.hang(3)
        sweep = await host.sweep()
        assert states(sweep) == all_up_but(8, gpu3=STALLED)
        assert_fresh(sweep, 0, 1, 2, 4, 5, 6, 7)
        stalled = gpu_at(sweep, 3)
        assert stalled.reading is None
        assert stalled.reason == "driver call does not return"
        for _ in range(10):
            started = time.monotonic()
            assert states(await host.sweep()) == all_up_but(8, gpu3=STALLED)
            assert time.monotonic() - started < 0.4  # nobody waits for it again
        assert host.source.workers_stuck == 1
        driver.release(3)
        await host.within(3, all_up(8))
        await host.until(lambda _: host.source.workers_stuck == 0)
        assert len(host.source.worker_pids()) == 1

    host = run(body)
    assert host.longest_seconds < 2 * OPTIONS.device_deadline


def test_the_stuck_worker_is_not_killed_while_its_device_hangs(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        (stuck,) = host.source.worker_pids()
        driver.hang(1)
        for _ in range(8):
            await host.sweep()
            await asyncio.sleep(0.1)
        assert stuck in host.source.worker_pids()

    run(body)


@pytest.mark.parametrize(
    "call", ["nvmlDeviceGetHandleByIndex*", "nvmlDeviceGetUUID", "nvmlDeviceGetMPSCompute*"]
)
def test_a_hang_of_any_call_is_a_stall_of_its_device(make_driver: DriverFactory, call: str) -> None:
    driver = make_driver(many("h200", 3))

    async def body(host: Host) -> None:
        await host.until(all_up(3))
        driver.hang(2, call)
        await host.within(1, lambda sweep: states(sweep) == all_up_but(3, gpu2=STALLED))
        driver.release(2)
        await host.within(3, all_up(3))

    run(body)


def test_two_hanging_devices_are_found_in_one_sweep(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 4))

    async def body(host: Host) -> None:
        await host.until(all_up(4))
        with driver.change() as state:
            state.devices[0].hang_calls.add("*")
            state.devices[2].hang_calls.add("*")
        sweep = await host.sweep()
        assert states(sweep) == all_up_but(4, gpu0=STALLED, gpu2=STALLED)
        assert_fresh(sweep, 1, 3)
        with driver.change() as state:
            state.devices[0].hang_calls.clear()
            state.devices[2].hang_calls.clear()
        await host.until(all_up(4))
        await host.until(lambda _: len(host.source.worker_pids()) == 1)

    run(body)


def test_of_three_stuck_workers_the_oldest_is_ended(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 5))

    async def body(host: Host) -> None:
        await host.until(all_up(5))
        (first,) = host.source.worker_pids()
        with driver.change() as state:
            for device in state.devices[:3]:
                device.hang_calls.add("*")
        await host.until(
            lambda sweep: states(sweep) == all_up_but(5, gpu0=STALLED, gpu1=STALLED, gpu2=STALLED)
        )
        assert host.source.workers_stuck == MAX_STUCK
        assert first not in host.source.worker_pids()
        with driver.change() as state:
            for device in state.devices[:3]:
                device.hang_calls.clear()
        await host.until(all_up(5))

    run(body)


def test_eight_hanging_devices_do_not_make_a_sweep_endless(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 8))

    async def body(host: Host) -> None:
        await host.until(all_up(8))
        with driver.change() as state:
            for device in state.devices:
                device.hang_calls.add("*")
        everything_stalled = dict.fromkeys(range(8), STALLED)
        await host.until(lambda sweep: states(sweep) == everything_stalled)
        assert host.source.workers_stuck <= MAX_STUCK + 1
        with driver.change() as state:
            for device in state.devices:
                device.hang_calls.clear()
        await host.until(all_up(8))
        await host.until(lambda _: len(host.source.worker_pids()) == 1)

    host = run(body, interval_seconds=1.0)
    # Two intervals, one start of a worker and the device that was asked last.
    assert host.longest_seconds < 2 * 1.0 + 0.4 + 0.5


def test_a_device_that_a_sweep_has_no_time_for_is_not_called_lost(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 8))

    async def body(host: Host) -> None:
        await host.until(all_up(8))
        with driver.change() as state:
            for device in state.devices:
                device.hang_calls.add("*")
        seen = [states(await host.sweep()) for _ in range(3)]
        assert all(state in (STALLED, GpuState.DRIVER_DOWN) for sweep in seen for state in sweep.values())
        assert any("not reached" in gpu.reason for sweep in host.sweeps for gpu in sweep.gpus)

    run(body, interval_seconds=0.3)


def test_a_sentinel_that_dies_leaves_its_device_to_its_time(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        (sentinel,) = host.source.worker_pids()
        driver.hang(1)
        await host.until(lambda sweep: states(sweep) == all_up_but(2, gpu1=STALLED))
        os.kill(sentinel, signal.SIGKILL)
        # Tried again when its rest is over: it still hangs, and gets another sentinel.
        await host.until(lambda _: host.source.errors["stalled"] == 2)
        assert sentinel not in host.source.worker_pids()
        driver.release(1)
        await host.within(3, all_up(2))

    run(body)


# Lost, back, other numbers


def test_a_gpu_lost_at_index_0_of_8_costs_no_other_and_comes_back(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 8))

    async def body(host: Host) -> None:
        before = await host.until(all_up(8))
        driver.lose(0)
        sweep = await host.sweep()
        assert states(sweep) == all_up_but(8, gpu0=LOST)
        assert gpu_at(sweep, 0).reason == "gpu_is_lost"
        assert [gpu.identity for gpu in sweep.gpus] == [gpu.identity for gpu in before.gpus]
        assert sweep.up
        assert_fresh(sweep, 1, 2, 3, 4, 5, 6, 7)
        driver.restore(0)
        await host.within(1, all_up(8))
        assert host.source.worker_restarts == 0

    run(body)


def test_an_unknown_error_of_one_device_costs_that_one_only(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 3))

    async def body(host: Host) -> None:
        await host.until(all_up(3))
        with driver.change() as state:
            state.devices[1].error_calls["nvmlDeviceGetHandleByIndex*"] = UNKNOWN
        sweep = await host.sweep()
        assert states(sweep) == all_up_but(3, gpu1=GpuState.ERROR)
        assert gpu_at(sweep, 1).reason == "unknown"
        assert host.source.errors["unknown"] == 1

    run(body)


def test_a_device_that_the_driver_no_longer_lists_is_lost_and_not_absent(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 4))

    async def body(host: Host) -> None:
        await host.until(all_up(4))
        with driver.change() as state:
            gone = state.devices.pop()
        sweep = await host.sweep()
        assert states(sweep) == all_up_but(4, gpu3=LOST)
        assert sweep.visible == 3
        assert gpu_at(sweep, 3).reason == "driver lists 3 devices without it"
        with driver.change() as state:
            state.devices.append(gone)
        await host.within(1, all_up(4))
        with driver.change() as state:
            state.devices.append(FakeDevice.h200(4))
        sweep = await host.within(1, all_up(5))
        assert sweep.visible == 5

    run(body)


def test_a_count_beyond_the_devices_is_an_error_of_no_known_device(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        with driver.change() as state:
            state.count = 3
        sweep = await host.sweep()
        assert states(sweep) == all_up_but(2)
        assert sweep.visible == 3

    run(body)


def test_devices_that_move_to_other_indices_keep_their_uuids(make_driver: DriverFactory) -> None:
    devices = many("h200", 3)
    driver = make_driver(devices)

    async def body(host: Host) -> None:
        await host.until(all_up(3))
        with driver.change() as state:
            state.devices.pop(0)
        sweep = await host.sweep()
        by_uuid = {gpu.identity.uuid: (gpu.identity.index, gpu.state) for gpu in sweep.gpus}
        assert by_uuid == {
            devices[0].uuid: (0, LOST),
            devices[1].uuid: (0, UP),
            devices[2].uuid: (1, UP),
        }

    run(body)


def test_another_gpu_at_the_same_index_is_another_device(make_driver: DriverFactory) -> None:
    old, new = FakeDevice.h200(0), FakeDevice.h200(7)
    new.minor_number = 0
    driver = make_driver([old])

    async def body(host: Host) -> None:
        await host.until(all_up(1))
        with driver.change() as state:
            state.devices[0] = new
        sweep = await host.sweep()
        assert {gpu.identity.uuid: gpu.state for gpu in sweep.gpus} == {old.uuid: LOST, new.uuid: UP}
        driver.hang(0)
        sweep = await host.sweep()
        assert {gpu.identity.uuid: gpu.state for gpu in sweep.gpus} == {old.uuid: LOST, new.uuid: STALLED}
        driver.release(0)
        await host.within(3, lambda sweep: {gpu.state for gpu in sweep.gpus} == {LOST, UP})

    run(body)


def test_a_device_does_not_rest_in_the_place_of_another(make_driver: DriverFactory) -> None:
    devices = many("h200", 4)
    driver = make_driver(devices)

    async def body(host: Host) -> None:
        await host.until(all_up(4))
        (sentinel,) = host.source.worker_pids()
        driver.hang(2)
        await host.until(lambda sweep: states(sweep) == all_up_but(4, gpu2=STALLED))
        os.kill(sentinel, signal.SIGSTOP)  # it does not return, whatever happens to the list
        with driver.change() as state:
            state.devices.pop(0)
        # The one that hangs is at index 1 now, and its neighbour at 2, where it hung.
        sweep = await host.sweep()
        by_uuid = {gpu.identity.uuid: gpu.state for gpu in sweep.gpus}
        assert by_uuid[devices[1].uuid] == by_uuid[devices[3].uuid] == UP
        assert by_uuid[devices[2].uuid] != UP
        driver.release(1)
        sweep = await host.until(lambda sweep: sum(gpu.state is UP for gpu in sweep.gpus) == 3)
        assert {gpu.identity.uuid for gpu in sweep.gpus if gpu.state is not UP} == {devices[0].uuid}
        os.kill(sentinel, signal.SIGCONT)

    run(body)


# A device whose reading ends the worker


def test_a_device_that_crashes_the_worker_is_left_alone_and_the_others_are_read(
    make_driver: DriverFactory,
) -> None:
    driver = make_driver(many("h200", 4))

    async def body(host: Host) -> None:
        await host.until(all_up(4))
        with driver.change() as state:
            state.devices[1].signal_calls["nvmlDeviceGetPowerUsage"] = signal.SIGSEGV
            state.devices[1].signal_calls["nvmlDeviceGetFieldValues"] = signal.SIGSEGV
        sweep = await host.until(lambda sweep: states(sweep) == all_up_but(4, gpu1=GpuState.ERROR))
        assert gpu_at(sweep, 1).reason == "reading it ends the worker process"
        assert host.source.errors["worker_died"] >= 2
        with driver.change() as state:
            state.devices[1].signal_calls.clear()
        await host.until(all_up(4))

    run(body)


def test_each_handle_that_is_not_found_is_its_device_s_error(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        with driver.change() as state:
            state.devices[0].error_calls["nvmlDeviceGetHandleByIndex*"] = NOT_FOUND
        sweep = await host.sweep()
        assert states(sweep) == all_up_but(2, gpu0=GpuState.ERROR)
        assert gpu_at(sweep, 0).reason == "not_found"

    run(body)
