"""Xid errors: each is counted once, for the device it belongs to, whatever happens to the worker."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from fake_nvml.control import FakeDriver
from fake_nvml.devices import many
from fake_nvml.returns import NOT_SUPPORTED, UNKNOWN
from nvml_host import PACE_SECONDS, DriverFactory, Host, all_up, gpu_at, run, states

from exporter.hardware.gpu import GpuState
from exporter.hardware.sweep import Sweep

FELL_OFF_THE_BUS, PAGE_FAULT = 79, 31  # NVIDIA, "XID Errors"


def times(sweep: Sweep, index: int, xid: int) -> int:
    return gpu_at(sweep, index).xid_errors.get(xid, (0, 0.0))[0]


async def watching(host: Host, driver: FakeDriver, *, more_than: int = 0) -> None:
    """Until every device has been read and the worker waits for its events."""
    await host.until(all_up(len(driver.state.devices)))
    await host.until(lambda _: driver.calls("nvmlEventSetWait_v2") > more_than)


def test_an_xid_is_counted_once_with_its_time(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await watching(host, driver)
        before = time.time()
        driver.xid(1, PAGE_FAULT)
        sweep = await host.until(lambda sweep: times(sweep, 1, PAGE_FAULT))
        for _ in range(5):
            sweep = await host.sweep()
        assert gpu_at(sweep, 0).xid_errors == {}
        assert list(gpu_at(sweep, 1).xid_errors) == [PAGE_FAULT]
        number, last = gpu_at(sweep, 1).xid_errors[PAGE_FAULT]
        assert number == 1
        assert before <= last <= time.time()
        driver.xid(1, PAGE_FAULT)
        await host.until(lambda sweep: times(sweep, 1, PAGE_FAULT) == 2)

    run(body)


def test_the_xid_of_a_device_that_is_lost_by_then_is_its_own(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await watching(host, driver)
        with driver.change() as state:
            state.devices[0].lost = True
        driver.xid(0, FELL_OFF_THE_BUS)
        sweep = await host.until(lambda sweep: times(sweep, 0, FELL_OFF_THE_BUS))
        assert states(sweep)[0] == GpuState.LOST
        assert times(sweep, 0, FELL_OFF_THE_BUS) == 1

    run(body)


def test_counts_outlive_the_worker(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await watching(host, driver)
        driver.xid(0, PAGE_FAULT)
        await host.until(lambda sweep: times(sweep, 0, PAGE_FAULT) == 1)
        waits = driver.calls("nvmlEventSetWait_v2")
        os.kill(host.source.worker_pids()[0], signal.SIGKILL)
        await host.until(lambda sweep: not sweep.up)
        await watching(host, driver, more_than=waits)
        assert times(host.last, 0, PAGE_FAULT) == 1
        driver.xid(0, PAGE_FAULT)
        await host.until(lambda sweep: times(sweep, 0, PAGE_FAULT) == 2)

    run(body)


def test_beside_a_worker_that_hangs_an_xid_of_another_device_counts_once(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await watching(host, driver)
        driver.hang(1)
        await host.until(lambda sweep: states(sweep)[1] == GpuState.STALLED)
        registered = driver.calls("nvmlEventSetWait_v2")
        await host.until(lambda _: driver.calls("nvmlEventSetWait_v2") > registered + 2)
        driver.xid(0, PAGE_FAULT)
        driver.xid(1, FELL_OFF_THE_BUS)
        sweep = await host.until(
            lambda sweep: times(sweep, 0, PAGE_FAULT) and times(sweep, 1, FELL_OFF_THE_BUS)
        )
        for _ in range(5):
            sweep = await host.sweep()
        assert (times(sweep, 0, PAGE_FAULT), times(sweep, 1, FELL_OFF_THE_BUS)) == (1, 1)
        assert states(sweep)[1] == GpuState.STALLED  # an Xid is no sign that the call returned

    run(body)


def test_a_device_that_hung_at_first_has_its_xids_counted_once_it_answers(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await watching(host, driver)
        driver.hang(1)
        await host.until(lambda sweep: states(sweep)[1] == GpuState.STALLED)
        driver.release(1)
        await host.until(all_up(2))
        await host.until(lambda _: len(host.source.worker_pids()) == 1)
        waits = driver.calls("nvmlEventSetWait_v2")
        await host.until(lambda _: driver.calls("nvmlEventSetWait_v2") > waits + 1)
        driver.xid(1, PAGE_FAULT)
        await host.until(lambda sweep: times(sweep, 1, PAGE_FAULT) == 1)

    run(body)


def test_devices_without_events_are_read_all_the_same(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))
    driver.fail("nvmlDeviceRegisterEvents", NOT_SUPPORTED)

    async def body(host: Host) -> None:
        await host.until(lambda _: host.source.errors["events_not_supported"])
        assert host.last.up
        for _ in range(5):
            await host.sweep()
        assert host.source.errors["events_not_supported"] == 1
        assert all_up(2)(host.last)

    run(body)


def test_events_that_fail_are_no_sign_that_a_stuck_call_returned(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await watching(host, driver)
        (sentinel,) = host.source.worker_pids()
        driver.hang(1)
        await host.until(lambda sweep: states(sweep)[1] == GpuState.STALLED)
        driver.fail("nvmlEventSetWait*", UNKNOWN)
        await host.until(lambda _: driver.calls("nvmlEventSetFree") >= 2)  # both workers have seen it
        for _ in range(5):
            assert states(await host.sweep()) == {0: GpuState.UP, 1: GpuState.STALLED}
            await asyncio.sleep(PACE_SECONDS)
        assert sentinel in host.source.worker_pids()
        assert host.source.workers_stuck == host.source.errors["stalled"] == 1

    run(body)


def test_an_event_wait_that_hangs_does_not_hold_the_sweeps_up(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))
    with driver.change() as state:
        state.hang_calls.add("nvmlEventSetWait*")

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        driver.wait_for_calls("nvmlEventSetWait_v2", more_than=0)
        for _ in range(5):
            assert all_up(2)(await host.sweep())

    run(body)
