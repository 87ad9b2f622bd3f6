"""The fake driver is built, initialised, counted and changed as its control file says, seen by pynvml."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from fake_nvml.__main__ import main, parse_devices
from fake_nvml.build import build
from fake_nvml.devices import MIB, FakeDevice, many
from fake_nvml.probe import Bench
from fake_nvml.returns import (
    DRIVER_NOT_LOADED,
    FUNCTION_NOT_FOUND,
    GPU_IS_LOST,
    INVALID_ARGUMENT,
    NOT_FOUND,
    UNINITIALIZED,
    UNKNOWN,
    VERSION_MISMATCH,
)

# Build


def test_a_second_build_finds_the_first_in_the_cache() -> None:
    built = build() / "libnvidia-ml.so.1"
    before = built.stat().st_mtime_ns
    assert build() / "libnvidia-ml.so.1" == built
    assert built.stat().st_mtime_ns == before


def test_builds_with_different_symbols_stand_beside_each_other() -> None:
    assert build(without=["nvmlDeviceGetMemoryInfo_v2"]) != build()


def test_a_left_out_symbol_is_function_not_found_and_its_neighbour_still_answers(bench: Bench) -> None:
    driver = bench.driver([FakeDevice.h200()], without=["nvmlDeviceGetMemoryInfo_v2"])
    child = bench.child(driver, started=1)
    assert child.code("nvmlDeviceGetMemoryInfo(gpu[0], version=nvmlMemory_v2)") == FUNCTION_NOT_FOUND
    assert child.ask("nvmlDeviceGetMemoryInfo(gpu[0]).total") == 143_771 * MIB


# Driver


def test_versions_and_count(bench: Bench) -> None:
    child = bench.child(bench.driver(many("h200", 8)), started=8)
    assert child.ask("nvmlSystemGetDriverVersion()") == "590.48.01"
    assert child.ask("nvmlSystemGetNVMLVersion()") == "13.590.48.01"
    assert child.ask("nvmlSystemGetCudaDriverVersion_v2()") == 13_010
    assert child.ask("nvmlDeviceGetCount()") == 8


def test_calls_before_init_and_after_shutdown_are_uninitialised(bench: Bench) -> None:
    child = bench.child(bench.driver([FakeDevice.h200()]))
    child.do("nvmlInit()")
    child.do("nvmlShutdown()")
    assert child.code("nvmlDeviceGetCount()") == UNINITIALIZED
    assert child.code("nvmlShutdown()") == UNINITIALIZED


def test_init_is_counted_and_only_the_last_shutdown_ends_it(bench: Bench) -> None:
    child = bench.child(bench.driver([FakeDevice.h200()]))
    child.do("[nvmlInit(), nvmlInit(), nvmlShutdown()]")
    assert child.ask("nvmlDeviceGetCount()") == 1


@pytest.mark.parametrize("code", [DRIVER_NOT_LOADED, UNKNOWN, VERSION_MISMATCH])
def test_init_fails_with_any_code_and_succeeds_when_that_ends(bench: Bench, code: int) -> None:
    driver = bench.driver([FakeDevice.h200()])
    child = bench.child(driver)
    driver.set_driver(init_error=code)
    assert child.code("nvmlInit()") == code
    driver.set_driver(init_error=0)
    assert child.code("nvmlInit()") == 0


def test_without_a_control_file_no_driver_is_loaded_and_one_that_appears_is_found(bench: Bench) -> None:
    driver = bench.driver([FakeDevice.h200()])
    driver.unload()
    child = bench.child(driver)
    assert child.code("nvmlInit()") == DRIVER_NOT_LOADED
    driver.write()
    assert child.code("nvmlInit()") == 0


def test_a_driver_that_is_unloaded_while_nobody_holds_it_is_not_loaded(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h200())
    child.do("nvmlShutdown()")
    driver.unload()
    assert child.code("nvmlInit()") == DRIVER_NOT_LOADED


def test_a_first_control_file_that_is_not_understood_is_an_unknown_error(bench: Bench) -> None:
    driver = bench.driver([FakeDevice.h200()])
    driver.control_file.write_text("nonsense\n")
    assert bench.child(driver).code("nvmlInit()") == UNKNOWN


def test_init_can_be_slow(bench: Bench) -> None:
    driver = bench.driver([FakeDevice.h200()])
    driver.set_driver(init_delay_seconds=0.3)
    child = bench.child(driver)
    begun = time.monotonic()
    child.do("nvmlInit()")
    assert 0.3 <= time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("call", "name"), [("nvmlInit()", "nvmlInitWithFlags"), ("nvmlShutdown()", "nvmlShutdown")]
)
def test_init_and_shutdown_can_hang_until_released(bench: Bench, call: str, name: str) -> None:
    driver, child = bench.one(FakeDevice.h200())
    before = driver.calls(name)
    driver.set_driver(init_hang=True, shutdown_hang=True)
    child.send(call)
    driver.wait_for_calls(name, more_than=before)
    assert not child.answers_within(seconds=0.2)
    driver.set_driver(init_hang=False, shutdown_hang=False)
    assert child.answer() is None


def test_after_a_library_upgrade_only_new_processes_are_refused_until_the_module_is_loaded(
    bench: Bench,
) -> None:
    driver = bench.driver([FakeDevice.h200()])
    old = bench.child(driver, started=1)
    driver.upgrade_library("595.71.05")
    new = bench.child(driver)
    assert old.code("nvmlDeviceGetCount()") == 0
    assert new.code("nvmlInit()") == VERSION_MISMATCH
    driver.load_module("595.71.05")
    assert new.code("nvmlInit()") == 0
    assert new.ask("nvmlSystemGetDriverVersion()") == "595.71.05"
    assert old.code("nvmlDeviceGetCount()") == VERSION_MISMATCH
    assert old.code("nvmlInit()") == VERSION_MISMATCH


def test_device_nodes_are_open_while_initialised_and_let_go_by_shutdown(bench: Bench) -> None:
    driver = bench.driver(many("h200", 2))
    child = bench.child(driver, started=2)
    assert driver.holders() == {child.process.pid}
    held = {str(link.readlink()) for link in Path(f"/proc/{child.process.pid}/fd").iterdir()}
    assert {str(driver.nodes / name) for name in ("nvidiactl", "nvidia0", "nvidia1")} <= held
    child.do("nvmlShutdown()")
    assert driver.holders() == set()


def test_calls_of_all_processes_are_counted_by_name_and_device(bench: Bench) -> None:
    driver = bench.driver(many("h200", 2))
    for _ in range(2):
        bench.child(driver, started=2).ask("[nvmlDeviceGetPowerUsage(gpu[1]) for _ in range(5)]")
    assert driver.calls("nvmlInitWithFlags") == 2
    assert driver.calls("nvmlDeviceGetPowerUsage") == driver.calls("nvmlDeviceGetPowerUsage", device=1) == 10
    assert driver.calls("nvmlDeviceGetPowerUsage", device=0) == 0


# The control file


def test_python_and_c_know_the_same_numbers_of_a_device() -> None:
    in_c = re.findall(r"^X\((\w+)\)$", (Path(__file__).parent / "numbers.def").read_text(), re.MULTILINE)
    in_python = [f.name for f in fields(FakeDevice) if f.type == "int | None"]
    assert sorted(in_c) == sorted([*in_python, "lost"])


@pytest.mark.parametrize(
    "line",
    [
        "memory_total_bites 5",
        "memory_total_bytes five",
        "hang",
        "error nvmlInit_v2",
        "process gpu 1 2",
        "field 1 2",
    ],
)
def test_a_line_that_is_not_understood_is_named_and_the_old_state_stays(
    bench: Bench, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    driver, child = bench.one(FakeDevice.h200())
    with driver.control_file.open("a") as file:
        file.write(f"memory_used_bytes 4096\n{line}\n")
    assert child.ask("nvmlDeviceGetMemoryInfo(gpu[0], version=nvmlMemory_v2).used") == 0
    assert (
        f"nvml.control:{len(driver.control_file.read_text().splitlines())}: not understood"
        in capfd.readouterr().err
    )


def test_a_change_by_hand_counts_at_the_next_call(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h200())
    with driver.control_file.open("a") as file:
        file.write("\n  # by hand\n  memory_used_bytes   4096  \n")
    assert child.ask("nvmlDeviceGetMemoryInfo(gpu[0], version=nvmlMemory_v2).used") == 4096


def test_changes_in_quick_succession_are_all_seen(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h200())
    for used in range(10, 60):
        with driver.change() as state:
            state.devices[0].memory_used_bytes = used
        assert child.ask("nvmlDeviceGetMemoryInfo(gpu[0], version=nvmlMemory_v2).used") == used


def test_a_change_that_raises_is_not_written(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h200())
    with pytest.raises(ZeroDivisionError), driver.change() as state:
        state.devices[0].utilization_gpu_percent = 1 // 0
    assert child.ask("nvmlDeviceGetUtilizationRates(gpu[0]).gpu") == 0


# Identity


def test_identity(bench: Bench) -> None:
    child = bench.child(bench.driver(many("h200", 2)), started=2)
    wanted = FakeDevice.h200(1)
    assert child.ask("nvmlDeviceGetUUID(gpu[1])") == wanted.uuid
    assert child.ask("nvmlDeviceGetName(gpu[1])") == "NVIDIA H200"
    assert child.ask("nvmlDeviceGetSerial(gpu[1])") == wanted.serial
    assert child.ask("nvmlDeviceGetIndex(gpu[1])") == 1
    assert child.ask("nvmlDeviceGetMinorNumber(gpu[1])") == 1
    assert child.ask("nvmlDeviceGetCudaComputeCapability(gpu[1])") == (9, 0)
    pci = "nvmlDeviceGetPciInfo(gpu[1])"
    assert child.ask(f"[{pci}.busId, {pci}.busIdLegacy, {pci}.bus, {pci}.pciDeviceId]") == [
        "00000000:28:00.0",
        "0000:28:00.0",
        0x28,
        0x233510DE,
    ]


def test_a_handle_is_found_by_uuid_and_by_bus_id_and_is_the_same(bench: Bench) -> None:
    child = bench.child(bench.driver(many("h200", 2)), started=2)
    same = "addressof({}.contents) == addressof(gpu[1].contents)"
    assert child.ask(same.format(f"nvmlDeviceGetHandleByUUID({FakeDevice.h200(1).uuid!r})")) is True
    assert child.ask(same.format(f"nvmlDeviceGetHandleByPciBusId({FakeDevice.h200(1).pci_bus_id!r})")) is True
    assert child.code("nvmlDeviceGetHandleByUUID('GPU-nobody')") == NOT_FOUND
    assert child.code("nvmlDeviceGetHandleByIndex(2)") == INVALID_ARGUMENT


def test_what_is_no_handle_is_an_invalid_argument(bench: Bench) -> None:
    _, child = bench.one(FakeDevice.h200())
    assert child.code("nvmlDeviceGetUUID(cast(16, c_nvmlDevice_t))") == INVALID_ARGUMENT


def test_a_handle_stays_with_its_device_when_the_indices_are_swapped(bench: Bench) -> None:
    driver = bench.driver(many("h200", 2))
    child = bench.child(driver, started=2)
    with driver.change() as state:
        state.devices.reverse()
    assert child.ask("nvmlDeviceGetUUID(gpu[0])") == FakeDevice.h200(0).uuid
    assert child.ask("nvmlDeviceGetIndex(gpu[0])") == 1
    assert child.ask("nvmlDeviceGetUUID(nvmlDeviceGetHandleByIndex(0))") == FakeDevice.h200(1).uuid


def test_devices_appear_and_vanish(bench: Bench) -> None:
    driver = bench.driver(many("h200", 2))
    child = bench.child(driver, started=2)
    with driver.change() as state:
        state.devices.pop()
        state.devices.append(FakeDevice.h200(7))
        state.devices.append(FakeDevice.h200(8))
    assert child.ask("nvmlDeviceGetCount()") == 3
    assert child.code("nvmlDeviceGetUUID(gpu[1])") == GPU_IS_LOST
    assert child.ask("nvmlDeviceGetUUID(nvmlDeviceGetHandleByIndex(2))") == FakeDevice.h200(8).uuid


def test_sixty_four_devices(bench: Bench) -> None:
    child = bench.child(bench.driver(many("h100", 64)), started=64)
    uuids = child.ask("[nvmlDeviceGetUUID(gpu[i]) for i in range(64)]")
    assert uuids == [FakeDevice.h100(i).uuid for i in range(64)]


# By hand


def test_the_command_prints_an_environment_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["8xh200", str(tmp_path)])
    exports = capsys.readouterr().out
    count = "from pynvml import *; nvmlInit(); print(nvmlDeviceGetCount())"
    script = f"{exports}\nexec {sys.executable} -c {json.dumps(count)}"
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout == "8\n"


def test_a_device_kind_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["8xh999", "nowhere"])
    assert "h200" in capsys.readouterr().err
    assert [d.name for d in parse_devices("gb10")] == ["NVIDIA GB10"]
