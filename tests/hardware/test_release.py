"""Letting go of the driver: no process holds a device afterwards; taken up again by itself or when told."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest
from fake_nvml.control import FakeDriver
from fake_nvml.devices import many
from nvml_host import OPTIONS, DriverFactory, Host, all_up, children, run, states

from exporter.hardware.gpu import GpuState

RELEASED = {0: GpuState.RELEASED, 1: GpuState.RELEASED}


def test_after_a_release_no_process_holds_the_driver(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        assert driver.holders() == set(host.source.worker_pids())
        assert await host.source.release() is True
        assert driver.holders() == set()
        assert host.source.released

    run(body)


def test_while_released_devices_say_so_and_the_driver_is_left_alone(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        await host.source.release()
        inits = driver.calls("nvmlInitWithFlags")
        for _ in range(5):
            sweep = await host.sweep()
            assert sweep.state == "released"
            assert states(sweep) == RELEASED
            assert all(gpu.reading is None and gpu.last_success_seconds for gpu in sweep.gpus)
        assert driver.calls("nvmlInitWithFlags") == inits
        assert driver.holders() == set()

    run(body)


def test_resume_takes_the_driver_up_at_the_next_sweep(make_driver: DriverFactory) -> None:
    make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        await host.source.release()
        await host.sweep()
        host.source.resume()
        assert not host.source.released
        await host.within(2, all_up(2))
        assert host.source.errors["released"] == 0

    run(body)


def test_a_release_ends_by_itself(make_driver: DriverFactory) -> None:
    make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        await host.source.release()
        released = time.monotonic()
        assert (await host.sweep()).state == "released"
        await host.until(all_up(2))
        assert time.monotonic() - released > 0.5

    run(body, options=dataclasses.replace(OPTIONS, release_for=0.6))


def test_a_device_that_hangs_does_not_hold_a_release_up(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 3))

    async def body(host: Host) -> None:
        await host.until(all_up(3))
        driver.hang(0)
        driver.hang(1)
        await host.until(lambda sweep: list(states(sweep).values()).count(GpuState.STALLED) == 2)
        assert len(driver.holders()) == 3
        assert await host.source.release() is True
        assert driver.holders() == set()
        assert host.source.workers_stuck == 0
        driver.release(0)
        driver.release(1)
        host.source.resume()
        await host.within(2, all_up(3))  # and nothing of the quarantine is left

    run(body)


def test_a_release_while_init_hangs_ends_that_worker_too(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))
    driver.set_driver(init_hang=True)

    async def body(host: Host) -> None:
        assert (await host.sweep()).state == "initialising"
        driver.wait_for_calls("nvmlInitWithFlags", more_than=0)
        assert await host.source.release() is True
        assert host.source.worker_pids() == []
        assert driver.holders() == set()
        assert (await host.sweep()).state == "released"
        driver.set_driver(init_hang=False)
        host.source.resume()
        await host.within(2, all_up(2))

    run(body)


def test_a_release_during_a_sweep_that_waits_for_init(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))
    driver.set_driver(init_hang=True)

    async def body(host: Host) -> None:
        sweeping = asyncio.create_task(host.sweep())
        await asyncio.to_thread(driver.wait_for_calls, "nvmlInitWithFlags", 0)
        assert await host.source.release() is True
        assert (await sweeping).state == "released"
        driver.set_driver(init_hang=False)
        host.source.resume()
        await host.within(2, all_up(2))

    run(body)


def test_a_release_while_a_worker_is_being_started(make_driver: DriverFactory) -> None:
    make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        before = set(children())
        sweeping = asyncio.create_task(host.sweep())
        while set(children()) == before:
            await asyncio.sleep(0)
        assert await host.source.release() is True
        assert set(children()) == before
        assert (await sweeping).state == "released"

    run(body)


def test_a_release_during_a_sweep_that_waits_for_a_device(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        driver.hang(1)
        asked = driver.calls("nvmlDeviceGetUUID", device=0)
        sweeping = asyncio.create_task(host.sweep())
        await asyncio.to_thread(driver.wait_for_calls, "nvmlDeviceGetUUID", asked, 0)
        assert await host.source.release() is True
        sweep = await sweeping
        assert sweep.state == "released"
        assert driver.holders() == set()
        driver.release(1)
        host.source.resume()
        await host.until(all_up(2))

    run(body, options=dataclasses.replace(OPTIONS, device_deadline=5.0), interval_seconds=10)


def test_a_second_release_says_yes_only_when_nothing_is_held(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        driver.hang(0)
        await host.until(lambda sweep: states(sweep)[0] == GpuState.STALLED)

        async def release() -> set[int]:
            assert await host.source.release() is True
            return driver.holders()

        assert list(await asyncio.gather(release(), release())) == [set(), set()]

    run(body)


def test_a_release_waits_for_workers_that_are_already_being_ended(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        with driver.change() as state:
            state.hang_calls.add("nvmlDeviceGetCount*")
        assert (await host.sweep()).state == "driver_stalled"
        assert await host.source.release() is True
        assert driver.holders() == set()

    run(body)


@pytest.mark.parametrize("trouble", ["none", "device hangs", "init hangs", "count hangs"])
def test_close_leaves_no_process_behind_whatever_hangs(make_driver: DriverFactory, trouble: str) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        if trouble == "init hangs":
            driver.set_driver(init_hang=True)
            await host.sweep()
            return
        await host.until(all_up(2))
        if trouble == "device hangs":
            driver.hang(0)
        elif trouble == "count hangs":
            with driver.change() as state:
                state.hang_calls.add("nvmlDeviceGetCount*")
        await host.sweep()

    run(body)  # checks that none is left
    assert_unheld(driver)


def assert_unheld(driver: FakeDriver) -> None:
    assert driver.holders() == set()


def test_after_close_a_sweep_starts_no_worker(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        await host.source.close()
        await asyncio.sleep(0.1)
        assert (await host.sweep()).state == "released"
        assert driver.holders() == set()

    run(body, options=dataclasses.replace(OPTIONS, release_for=0.05))
