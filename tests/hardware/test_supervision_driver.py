"""The driver as a whole fails and comes back: named reasons, bounded sweeps, nothing forgotten."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path

import pytest
from fake_nvml.devices import FakeDevice, many
from fake_nvml.returns import DRIVER_NOT_LOADED, NOT_SUPPORTED, UNINITIALIZED, UNKNOWN
from nvml_host import OPTIONS, DriverFactory, Host, all_up, gpu_at, run, states

from exporter.hardware import nvidia_source, supervision
from exporter.hardware.gpu import GpuState

NO_PERMISSION = 4  # NVML_ERROR_NO_PERMISSION (NVML API reference)


def test_without_a_library_the_state_says_so(without_library: Path) -> None:
    async def body(host: Host) -> None:
        sweep = await host.until(lambda sweep: sweep.state not in ("starting", "initialising"))
        assert (sweep.state, sweep.up, sweep.gpus) == ("library_not_found", False, ())

    run(body)


def test_without_a_library_no_process_is_started_at_every_sweep(without_library: Path) -> None:
    async def body(host: Host) -> None:
        await host.until(lambda sweep: sweep.state == "library_not_found")
        await host.until(lambda _: not host.source.worker_pids())
        for _ in range(20):
            sweep = await host.sweep()
            assert sweep.state == "library_not_found"
            assert host.source.worker_pids() == []
            await asyncio.sleep(0.01)
        assert host.source.errors["library_not_found"] == 1

    run(body, options=dataclasses.replace(OPTIONS, retry=30))


def test_the_wait_before_the_next_try_doubles(without_library: Path) -> None:
    async def body(host: Host) -> None:
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            await host.sweep()
            await asyncio.sleep(0.02)
        # Tries at 0, 0.1, 0.3, 0.7, 1.5 s and a little later each: fewer than a constant wait would make.
        assert 3 <= host.source.errors["library_not_found"] <= 6

    run(body)


def test_a_driver_that_appears_ends_the_wait(
    make_driver: DriverFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "version"
    monkeypatch.setattr(nvidia_source, "_DRIVER_VERSION_FILE", module)
    driver = make_driver(many("h200", 2))
    driver.unload()

    async def body(host: Host) -> None:
        await host.until(lambda sweep: sweep.state == "driver_not_loaded")
        driver.write()
        for _ in range(3):
            assert (await host.sweep()).state == "driver_not_loaded"
        module.write_text("NVRM version: 590.48.01")
        await host.within(2, all_up(2))

    run(body, options=dataclasses.replace(OPTIONS, retry=60))


def test_a_driver_that_is_loaded_later_is_picked_up(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))
    driver.unload()

    async def body(host: Host) -> None:
        sweep = await host.until(lambda sweep: sweep.state == "driver_not_loaded")
        assert sweep.gpus == ()
        driver.write()
        await host.until(all_up(2))

    run(body)


def test_a_driver_unloaded_mid_life_leaves_its_devices_known(
    make_driver: DriverFactory,
) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        before = await host.until(all_up(2))
        driver.unload()
        sweep = await host.within(2, lambda sweep: not sweep.up)
        assert states(sweep) == {0: GpuState.DRIVER_DOWN, 1: GpuState.DRIVER_DOWN}
        for index in (0, 1):
            assert gpu_at(sweep, index).reading is None
            seen = gpu_at(before, index).last_success_seconds
            assert seen is not None
            assert gpu_at(sweep, index).last_success_seconds == pytest.approx(seen, abs=1)
        driver.write()
        await host.until(all_up(2))

    run(body)


def test_an_upgrade_is_survived_with_a_new_worker(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        sweep = await host.until(all_up(2))
        assert sweep.driver_version == "590.48.01"
        driver.upgrade_library("595.71.05")
        assert (await host.sweep()).up  # the worker still holds the library that the module knows
        driver.load_module("595.71.05")
        sweep = await host.within(2, lambda sweep: not sweep.up)
        assert sweep.state == "version_mismatch"
        sweep = await host.until(all_up(2))
        assert sweep.driver_version == "595.71.05"
        assert gpu_at(sweep, 0).identity.driver_version == "595.71.05"

    run(body)


def test_a_mismatch_at_start_is_named_until_the_module_is_reloaded(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 1))
    driver.set_driver(version_mismatch=True)

    async def body(host: Host) -> None:
        await host.until(lambda sweep: sweep.state == "version_mismatch")
        driver.set_driver(version_mismatch=False)
        await host.until(all_up(1))

    run(body)


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (UNKNOWN, "unknown"),
        (NO_PERMISSION, "no_permission"),
        (DRIVER_NOT_LOADED, "driver_not_loaded"),
        (NOT_SUPPORTED, "not_supported"),
    ],
)
def test_an_error_of_init_is_the_state(make_driver: DriverFactory, code: int, state: str) -> None:
    driver = make_driver(many("h200", 1))
    driver.set_driver(init_error=code)

    async def body(host: Host) -> None:
        await host.until(lambda sweep: sweep.state == state)
        assert host.source.errors[state] >= 1
        driver.set_driver(init_error=0)
        await host.until(all_up(1))

    run(body)


def test_the_version_s_error_alone_does_not_cost_the_devices(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 1))
    driver.fail("nvmlSystemGetDriverVersion", UNKNOWN)

    async def body(host: Host) -> None:
        sweep = await host.until(all_up(1))
        assert sweep.driver_version == ""

    run(body)


def test_sweeps_stay_short_while_init_does_not_return_and_the_reason_is_told(
    make_driver: DriverFactory,
) -> None:
    driver = make_driver(many("h200", 1))
    driver.set_driver(init_hang=True)

    async def body(host: Host) -> None:
        assert (await host.sweep()).state == "initialising"
        await host.until(lambda sweep: sweep.state == "init_stalled")
        driver.set_driver(init_hang=False)
        await host.until(all_up(1))
        await host.until(lambda _: host.source.workers_stuck == 0)

    host = run(body, options=dataclasses.replace(OPTIONS, init_deadline=0.5))
    assert host.longest_seconds < 1.0


def test_a_slow_init_is_waited_for(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 1))
    driver.set_driver(init_delay_seconds=1.0)

    async def body(host: Host) -> None:
        await host.until(all_up(1))
        assert driver.calls("nvmlInitWithFlags") == 1
        assert "initialising" in {sweep.state for sweep in host.sweeps}

    run(body)


def test_a_hang_of_the_count_is_the_driver_s_and_ends_with_it(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        with driver.change() as state:
            state.hang_calls.add("nvmlDeviceGetCount*")
        sweep = await host.sweep()
        assert sweep.state == "driver_stalled"
        assert states(sweep) == {0: GpuState.DRIVER_DOWN, 1: GpuState.DRIVER_DOWN}
        assert host.source.workers_stuck == 1
        with driver.change() as state:
            state.hang_calls.clear()
        await host.until(all_up(2))
        await host.until(lambda _: host.source.workers_stuck == 0)

    host = run(body)
    assert host.longest_seconds < 2 * OPTIONS.device_deadline


def test_workers_that_hang_at_the_count_do_not_pile_up(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))
    with driver.change() as state:
        state.hang_calls.add("nvmlDeviceGetCount*")

    async def body(host: Host) -> None:
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            await host.sweep()
            assert len(host.source.worker_pids()) <= supervision.MAX_STUCK + 1
            await asyncio.sleep(0.02)

    run(body, options=dataclasses.replace(OPTIONS, retry=0.01, device_deadline=0.1))


def test_an_error_of_the_count_restarts_the_worker(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        driver.fail("nvmlDeviceGetCount*", UNINITIALIZED)
        sweep = await host.sweep()
        assert sweep.state == "uninitialized"
        driver.fail("nvmlDeviceGetCount*", 0)
        await host.until(all_up(2))
        assert driver.calls("nvmlInitWithFlags") >= 2

    run(body)


def test_an_error_of_the_count_that_may_pass_does_not_end_the_daemon(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        driver.fail("nvmlDeviceGetCount*", UNKNOWN)
        sweep = await host.within(2, lambda sweep: not sweep.up)
        assert sweep.state == "unknown"
        driver.fail("nvmlDeviceGetCount*", 0)
        await host.until(all_up(2))

    run(body)


def test_init_happens_once_and_not_at_every_sweep(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        for _ in range(10):
            await host.sweep()
        assert driver.calls("nvmlInitWithFlags") == 1
        assert host.source.worker_restarts == 0

    run(body)


def test_every_call_not_supported_is_a_state_and_not_a_crash(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        driver.fail("nvmlDevice*", NOT_SUPPORTED)
        sweep = await host.within(2, lambda sweep: GpuState.UP not in states(sweep).values())
        assert sweep.state in ("up", "not_supported")
        driver.fail("nvmlDevice*", 0)
        await host.until(all_up(2))

    run(body)


def test_no_permission_for_one_device_is_that_device_s_state(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        with driver.change() as state:
            state.devices[1].error_calls["nvmlDeviceGetHandleByIndex*"] = NO_PERMISSION
        sweep = await host.sweep()
        assert states(sweep) == {0: GpuState.UP, 1: GpuState.NO_PERMISSION}

    run(body)


def test_a_name_that_is_no_text_costs_the_name_and_not_the_worker(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.name = "NVIDIA \N{LATIN SMALL LETTER E WITH ACUTE}"
    driver = make_driver([device, FakeDevice.h200(1)])
    text = driver.control_file.read_bytes()
    driver.control_file.write_bytes(text.replace("é".encode(), b"\xe9"))

    async def body(host: Host) -> None:
        sweep = await host.until(all_up(2))
        assert gpu_at(sweep, 0).identity.name == "unknown"

    run(body)
