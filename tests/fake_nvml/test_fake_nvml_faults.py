"""The fake driver fails as real ones do: hangs, losses, errors, crashes, and Xid events on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from fake_nvml.control import FakeDriver
from fake_nvml.devices import MIB, FakeDevice, many
from fake_nvml.probe import Bench, Child
from fake_nvml.returns import GPU_IS_LOST, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, TIMEOUT, UNKNOWN

# What goes wrong

MEMORY = "nvmlDeviceGetMemoryInfo(gpu[{}], version=nvmlMemory_v2).total"


def test_one_device_hangs_until_released_while_another_process_reads_its_neighbour(bench: Bench) -> None:
    driver = bench.driver(many("h200", 2))
    stuck, other = bench.child(driver, started=2), bench.child(driver, started=2)
    driver.hang(1)
    stuck.send(MEMORY.format(1))
    driver.wait_for_calls("nvmlDeviceGetMemoryInfo_v2", more_than=0, device=1)
    assert other.ask(MEMORY.format(0)) == 143_771 * MIB
    assert not stuck.answers_within(seconds=0.2)
    released = time.monotonic()
    driver.release(1)
    assert stuck.answer() == 143_771 * MIB
    assert time.monotonic() - released < 1


def test_a_hang_of_one_call_leaves_the_device_s_other_calls(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h200())
    driver.hang(0, "nvmlDeviceGetMemoryInfo*")
    assert child.ask("nvmlDeviceGetPowerUsage(gpu[0])") == 77_670


def test_a_process_that_hangs_in_the_driver_ignores_its_own_signal_handlers_and_dies_by_sigkill(
    bench: Bench,
) -> None:
    driver, child = bench.one(FakeDevice.h200())
    child.do("signal.signal(15, lambda *_: sys.exit(0))")
    driver.hang(0)
    child.send(MEMORY.format(0))
    driver.wait_for_calls("nvmlDeviceGetMemoryInfo_v2", more_than=0)
    child.process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        child.process.wait(0.3)
    child.process.kill()
    assert child.process.wait(5) == -signal.SIGKILL


def test_a_hanging_call_does_not_hold_up_another_thread_of_the_same_process(bench: Bench) -> None:
    driver = bench.driver(many("h200", 2))
    child = bench.child(driver, started=2)
    driver.hang(1)
    child.do(f"threading.Thread(target=lambda: {MEMORY.format(1)}, daemon=True).start()")
    driver.wait_for_calls("nvmlDeviceGetMemoryInfo_v2", more_than=0, device=1)
    assert child.ask(MEMORY.format(0)) == 143_771 * MIB


def test_one_device_is_lost_and_back_while_the_others_answer(bench: Bench) -> None:
    driver = bench.driver(many("h200", 2))
    child = bench.child(driver, started=2)
    driver.lose(0)
    assert child.code(MEMORY.format(0)) == GPU_IS_LOST
    assert child.code("nvmlDeviceGetHandleByIndex(0)") == GPU_IS_LOST
    assert child.ask("nvmlDeviceGetCount()") == 2
    assert child.code(MEMORY.format(1)) == 0
    driver.restore(0)
    assert child.code(MEMORY.format(0)) == 0


def test_a_device_s_error_is_nearer_than_the_driver_s_and_nought_makes_an_exception(bench: Bench) -> None:
    driver = bench.driver(many("h200", 2))
    child = bench.child(driver, started=2)
    with driver.change() as state:
        state.error_calls["nvmlDeviceGet*"] = NOT_SUPPORTED
        state.devices[1].error_calls = {"nvmlDeviceGetPowerUsage": 0, "*": UNKNOWN}
    assert child.code("nvmlDeviceGetPowerUsage(gpu[0])") == NOT_SUPPORTED
    assert child.code("nvmlDeviceGetPowerUsage(gpu[1])") == 0
    assert child.code("nvmlDeviceGetName(gpu[1])") == UNKNOWN
    driver.fail("nvmlDeviceGet*", 0)
    assert child.code("nvmlDeviceGetPowerUsage(gpu[0])") == 0


def test_the_count_can_fail_and_can_differ_from_the_devices(bench: Bench) -> None:
    driver = bench.driver(many("h200", 2))
    child = bench.child(driver, started=2)
    driver.fail("nvmlDeviceGetCount_v2", UNKNOWN)
    assert child.code("nvmlDeviceGetCount()") == UNKNOWN
    driver.fail("nvmlDeviceGetCount_v2", 0)
    with driver.change() as state:
        state.count = 1
    assert child.ask("nvmlDeviceGetCount()") == 1
    assert child.code("nvmlDeviceGetHandleByIndex(1)") == INVALID_ARGUMENT


def test_a_delay_of_one_call_on_one_device(bench: Bench) -> None:
    driver = bench.driver(many("h200", 2))
    child = bench.child(driver, started=2)
    with driver.change() as state:
        state.devices[1].delay_calls["nvmlDeviceGetPowerUsage"] = 0.3
    begun = time.monotonic()
    child.do("nvmlDeviceGetPowerUsage(gpu[1])")
    assert 0.3 <= time.monotonic() - begun < 5
    with driver.change() as state:
        state.devices[1].delay_calls["nvmlDeviceGetPowerUsage"] = 60
    child.send("nvmlDeviceGetPowerUsage(gpu[1])")
    assert not child.answers_within(seconds=0.1)
    with driver.change() as state:
        state.devices[1].delay_calls.clear()
    assert child.answer() == 77_670


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_call_can_crash_the_process(bench: Bench, number: signal.Signals) -> None:
    driver, child = bench.one(FakeDevice.h200())
    with driver.change() as state:
        state.devices[0].signal_calls["nvmlDeviceGetMemoryInfo*"] = number
    child.send(MEMORY.format(0))
    assert child.process.wait(5) == -number


def test_a_call_can_stop_the_process_as_a_stand_in_for_uninterruptible_sleep(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h200())
    with driver.change() as state:
        state.devices[0].signal_calls["nvmlDeviceGetMemoryInfo*"] = signal.SIGSTOP
    child.send(MEMORY.format(0))
    pid, status = os.waitpid(child.process.pid, os.WUNTRACED)
    assert pid and os.WIFSTOPPED(status)
    child.process.terminate()
    assert not child.answers_within(seconds=0.2)
    assert child.process.poll() is None
    os.kill(pid, signal.SIGCONT)
    assert child.process.wait(5) == -signal.SIGTERM


def test_a_lost_gpu_is_lost_before_its_missing_slice_is_not_found(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h100())
    assert child.code("nvmlDeviceGetMigDeviceHandleByIndex(gpu[0], 0)") == NOT_FOUND
    driver.lose(0)
    assert child.code("nvmlDeviceGetMigDeviceHandleByIndex(gpu[0], 0)") == GPU_IS_LOST


def test_what_goes_wrong_with_a_gpu_goes_wrong_with_its_slices(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h100_mig())
    child.do("gpu.update({1: nvmlDeviceGetMigDeviceHandleByIndex(gpu[0], 0)})")
    with driver.change() as state:
        state.devices[0].error_calls["nvmlDeviceGetMemoryInfo_v2"] = UNKNOWN
    assert child.code(MEMORY.format(1)) == UNKNOWN


# Xid events

REGISTER = "nvmlDeviceRegisterEvents(gpu[{}], nvmlEventTypeXidCriticalError, gpu['set'])"
WAIT = (
    "[(e.eventType, e.eventData, addressof(e.device.contents)) for e in [nvmlEventSetWait(gpu['set'], {})]]"
)


def registered(bench: Bench, driver: FakeDriver, count: int) -> Child:
    child = bench.child(driver, started=count)
    child.do("gpu.update(set=nvmlEventSetCreate())")
    for index in range(count):
        child.do(REGISTER.format(index))
    return child


def test_an_xid_wakes_the_wait_and_names_its_device_by_the_registered_handle(bench: Bench) -> None:
    driver = bench.driver(many("h200", 2))
    child = registered(bench, driver, 2)
    child.send(WAIT.format(10_000))
    driver.wait_for_calls("nvmlEventSetWait_v2", more_than=0)
    driver.xid(1, 79)
    handle = child.answer(), child.ask("addressof(gpu[1].contents)")
    assert handle[0] == [(8, 79, handle[1])]


def test_events_come_in_order_once_each_and_none_from_before_the_registration(bench: Bench) -> None:
    driver = bench.driver(many("h200", 2))
    driver.xid(0, 13)
    first, second = registered(bench, driver, 2), registered(bench, driver, 2)
    with driver.change() as state:
        state.devices[0].lost = True
    driver.xid(0, 79)
    driver.xid(1, 48)
    codes = f"[e[1] for _ in range(2) for e in {WAIT.format(1000)}]"
    assert first.ask(codes) == second.ask(codes) == [79, 48]
    assert first.code(WAIT.format(0)) == TIMEOUT


def test_a_wait_without_an_event_takes_its_time(bench: Bench) -> None:
    child = registered(bench, bench.driver([FakeDevice.h200()]), 1)
    begun = time.monotonic()
    assert child.code(WAIT.format(200)) == TIMEOUT
    assert 0.2 <= time.monotonic() - begun < 5


def test_a_device_without_events_refuses_the_registration(bench: Bench) -> None:
    device = FakeDevice.h200()
    device.event_types = None
    _, child = bench.one(device)
    child.do("gpu.update(set=nvmlEventSetCreate())")
    assert child.code(REGISTER.format(0)) == NOT_SUPPORTED
    assert child.code("nvmlDeviceGetSupportedEventTypes(gpu[0])") == NOT_SUPPORTED


def test_events_of_a_device_that_is_not_registered_are_not_delivered(bench: Bench) -> None:
    driver = bench.driver(many("h200", 2))
    child = registered(bench, driver, 1)
    driver.xid(1, 79)
    assert child.code(WAIT.format(50)) == TIMEOUT


def test_a_freed_set_is_gone_and_its_place_can_be_used_again(bench: Bench) -> None:
    _, child = bench.one(FakeDevice.h200())
    for _ in range(100):
        child.do("gpu.update(set=nvmlEventSetCreate())")
        child.do(REGISTER.format(0))
        child.do("nvmlEventSetFree(gpu['set'])")
    assert child.code(WAIT.format(50)) == INVALID_ARGUMENT
