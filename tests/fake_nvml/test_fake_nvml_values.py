"""The fake driver's devices give the real pynvml the values of the control file, in NVIDIA's structs."""

from __future__ import annotations

import time

import pytest

from fake_nvml.devices import MIB, FakeDevice, FakeProcess, FieldError, FieldValue
from fake_nvml.probe import Bench
from fake_nvml.returns import GPU_IS_LOST, INSUFFICIENT_SIZE, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED

# Memory


def test_memory_v2_splits_what_the_driver_reserves_and_v1_counts_it_as_used(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h200())
    with driver.change() as state:
        state.devices[0].occupy(pid=1234, used_bytes=32_362 * MIB)
    total, reserved, used = 143_771 * MIB, 614 * MIB, 32_362 * MIB
    assert child.ask(
        "[(m.total, m.reserved, m.used, m.free) for m in [nvmlDeviceGetMemoryInfo(gpu[0], nvmlMemory_v2)]]"
    ) == [(total, reserved, used, total - reserved - used)]
    assert child.ask("[(m.total, m.used, m.free) for m in [nvmlDeviceGetMemoryInfo(gpu[0])]]") == [
        (total, reserved + used, total - reserved - used)
    ]


def test_unified_memory_is_not_supported_or_of_size_nought(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.gb10())
    assert child.code("nvmlDeviceGetMemoryInfo(gpu[0], version=nvmlMemory_v2)") == NOT_SUPPORTED
    assert child.code("nvmlDeviceGetMemoryInfo(gpu[0])") == NOT_SUPPORTED
    assert child.ask("nvmlDeviceGetAddressingMode(gpu[0])") == 2
    assert child.ask("nvmlDeviceGetPowerUsage(gpu[0])") == 4000
    assert child.code("nvmlDeviceGetEnforcedPowerLimit(gpu[0])") == NOT_SUPPORTED
    with driver.change() as state:
        state.devices[0].memory_total_bytes = 0
    assert child.ask("nvmlDeviceGetMemoryInfo(gpu[0]).total") == 0


def test_bar1_memory(bench: Bench) -> None:
    _, child = bench.one(FakeDevice.h200())
    assert child.ask("nvmlDeviceGetBAR1MemoryInfo(gpu[0]).bar1Total") == 262_144 * MIB


# Processes

COMPUTE = "[(p.pid, p.usedGpuMemory) for p in nvmlDeviceGetComputeRunningProcesses(gpu[0])]"
CROWD = [FakeProcess(1000 + i, i * MIB) for i in range(100)]


def test_no_process(bench: Bench) -> None:
    assert bench.child(bench.driver([FakeDevice.h200()]), started=1).ask(COMPUTE) == []


def test_processes_of_each_kind_and_one_whose_memory_is_not_available(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h200())
    with driver.change() as state:
        state.devices[0].processes = [
            FakeProcess(10, 5 * MIB),
            FakeProcess(11, None),
            FakeProcess(12, 7 * MIB, "graphics"),
            FakeProcess(13, 8 * MIB, "mps"),
        ]
    assert child.ask(COMPUTE) == [(10, 5 * MIB), (11, None)]
    assert child.ask("[p.pid for p in nvmlDeviceGetComputeRunningProcesses_v2(gpu[0])]") == [10, 11]
    assert child.ask("[p.pid for p in nvmlDeviceGetGraphicsRunningProcesses(gpu[0])]") == [12]
    assert child.ask("[p.pid for p in nvmlDeviceGetMPSComputeRunningProcesses(gpu[0])]") == [13]


def test_process_details(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h200())
    with driver.change() as state:
        state.devices[0].processes = [FakeProcess(10, 5 * MIB), FakeProcess(13, 8 * MIB, "mps")]
    detail = "[p.pid for p in nvmlDeviceGetRunningProcessDetailList(gpu[0], nvmlProcessDetailList_v1, {})]"
    assert child.ask(detail.format("NVML_PROCESS_MODE_ALL")) == [10, 13]
    assert child.ask(detail.format("NVML_PROCESS_MODE_MPS")) == [13]


def test_processes_that_begin_between_sizing_and_filling_and_fit_are_listed(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h200())
    with driver.change() as state:
        state.devices[0].processes, state.devices[0].process_growth = CROWD[:3], 2
    answer = child.ask(COMPUTE)
    assert isinstance(answer, list)
    assert len(answer) == 5


def test_too_many_new_processes_are_an_insufficient_size_until_they_stop_coming(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h200())
    with driver.change() as state:
        state.devices[0].processes = CROWD
        state.devices[0].process_growth, state.devices[0].process_growth_calls = 1000, 2
    assert [child.code(COMPUTE) for _ in range(3)] == [INSUFFICIENT_SIZE, INSUFFICIENT_SIZE, 0]
    with driver.change() as state:
        state.devices[0].process_growth_calls = -1
    assert [child.code(COMPUTE) for _ in range(4)] == [INSUFFICIENT_SIZE] * 4


def test_a_process_that_ends_gives_its_memory_back() -> None:
    device = FakeDevice.h200()
    device.occupy(7, 5 * MIB)
    device.occupy(8, 6 * MIB)
    device.vacate(7)
    assert (device.memory_used_bytes, [p.pid for p in device.processes]) == (6 * MIB, [8])


# Power, energy, clocks, temperatures, health


def test_power_and_limits(bench: Bench) -> None:
    _, child = bench.one(FakeDevice.h200())
    assert child.ask("nvmlDeviceGetPowerUsage(gpu[0])") == 77_670
    assert child.ask("nvmlDeviceGetEnforcedPowerLimit(gpu[0])") == 700_000
    assert child.ask("nvmlDeviceGetPowerManagementLimit(gpu[0])") == 700_000
    assert child.ask("nvmlDeviceGetPowerManagementDefaultLimit(gpu[0])") == 700_000
    assert child.ask("nvmlDeviceGetPowerManagementLimitConstraints(gpu[0])") == [200_000, 700_000]


FIELDS = "[(f.nvmlReturn, f.valueType, f.value.uiVal) for f in nvmlDeviceGetFieldValues(gpu[0], {})]"


def test_each_field_has_its_own_return_code_and_type(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h200())
    with driver.change() as state:
        state.devices[0].power_average_milliwatts = 627_320
        state.devices[0].field_errors = [FieldError(186, NOT_SUPPORTED)]
        state.devices[0].fields = [FieldValue(185, 97_690, "u32", scope=2), FieldValue(138, 5, "u64")]
    answer = child.ask(FIELDS.format("[185, 186, (185, 1), (185, 2), (138, 3), 82, 9999]"))
    assert isinstance(answer, list)
    codes = [code for code, _, _ in answer]
    assert codes == [0, NOT_SUPPORTED, NOT_SUPPORTED, 0, 0, 0, NOT_SUPPORTED]
    assert [(kind, value) for code, kind, value in answer if code == 0] == [
        (1, 627_320),
        (1, 97_690),
        (3, 5),
        (1, 32),
    ]


def test_a_field_is_only_right_when_read_as_its_own_type(bench: Bench) -> None:
    _, child = bench.one(FakeDevice.h200())
    assert child.ask("nvmlDeviceGetFieldValues(gpu[0], [185])[0].value.ullVal") != 77_670


def test_the_whole_call_for_fields_can_fail(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h200())
    driver.fail("nvmlDeviceGetFieldValues", NOT_SUPPORTED)
    assert child.code(FIELDS.format("[185]")) == NOT_SUPPORTED


def test_energy_grows_with_the_power_drawn_and_keeps_what_was_drawn_before_a_change(bench: Bench) -> None:
    device = FakeDevice.h200()
    device.set_power(1_000_000)
    driver, child = bench.one(device)
    both = "[nvmlDeviceGetTotalEnergyConsumption(gpu[0]), time.monotonic()]"
    energies: list[tuple[float, float]] = []
    for _ in range(2):
        answer = child.ask(both)
        assert isinstance(answer, list)
        energies.append((answer[0], answer[1]))
        time.sleep(0.2)
    (first, begun), (second, ended) = energies
    assert second - first == pytest.approx((ended - begun) * 1_000_000, rel=0.05)
    with driver.change() as state:
        state.devices[0].set_power(0)
    settled = child.ask("nvmlDeviceGetTotalEnergyConsumption(gpu[0])")
    assert isinstance(settled, int)
    assert settled >= second
    time.sleep(0.05)
    assert child.ask("nvmlDeviceGetTotalEnergyConsumption(gpu[0])") == settled


def test_energy_stands_still_when_told_and_can_be_reset(bench: Bench) -> None:
    device = FakeDevice.h200()
    device.energy_advances, device.energy_millijoules = False, 5_000
    driver, child = bench.one(device)
    assert child.ask("nvmlDeviceGetTotalEnergyConsumption(gpu[0])") == 5_000
    assert child.ask("nvmlDeviceGetFieldValues(gpu[0], [83])[0].value.ullVal") == 5_000
    with driver.change() as state:
        state.devices[0].energy_millijoules = 12
    assert child.ask("nvmlDeviceGetTotalEnergyConsumption(gpu[0])") == 12


@pytest.mark.parametrize(
    "call", ["nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"]
)
def test_clocks_event_reasons_by_both_names(bench: Bench, call: str) -> None:
    device = FakeDevice.h200()
    device.clocks_event_reasons = 0x4 | 0x40
    assert bench.child(bench.driver([device]), started=1).ask(f"{call}(gpu[0])") == 0x44


def test_utilization_temperature_and_clocks(bench: Bench) -> None:
    device = FakeDevice.h200()
    device.utilization_gpu_percent, device.utilization_memory_percent = 100, 7
    _, child = bench.one(device)
    assert child.ask("[(u.gpu, u.memory) for u in [nvmlDeviceGetUtilizationRates(gpu[0])]]") == [(100, 7)]
    assert child.ask("nvmlDeviceGetTemperature(gpu[0], NVML_TEMPERATURE_GPU)") == 28
    assert child.ask("nvmlDeviceGetTemperatureV(gpu[0], NVML_TEMPERATURE_GPU)") == 28
    assert child.ask("nvmlDeviceGetClockInfo(gpu[0], NVML_CLOCK_MEM)") == 3201
    assert child.ask("nvmlDeviceGetPersistenceMode(gpu[0])") == 1
    assert child.ask("nvmlDeviceGetPcieThroughput(gpu[0], NVML_PCIE_UTIL_RX_BYTES)") == 337


def test_ecc_totals_and_remapped_rows(bench: Bench) -> None:
    device = FakeDevice.h200()
    device.ecc_corrected_volatile, device.ecc_uncorrected_volatile = 11, 12
    device.ecc_corrected_aggregate, device.ecc_uncorrected_aggregate = 21, 22
    device.remapped_rows_uncorrected, device.remapped_rows_pending = 2, 1
    _, child = bench.one(device)
    totals = "[nvmlDeviceGetTotalEccErrors(gpu[0], kind, since) for since in (0, 1) for kind in (0, 1)]"
    assert child.ask(totals) == [11, 12, 21, 22]
    assert child.ask("nvmlDeviceGetEccMode(gpu[0])") == [1, 1]
    assert child.ask("nvmlDeviceGetRemappedRows(gpu[0])") == (0, 2, 1, 0)
    assert child.ask(FIELDS.format("[143]")) == [(0, 1, 2)]


def test_a_geforce_board_has_no_ecc_no_mig_and_no_memory_temperature(bench: Bench) -> None:
    _, child = bench.one(FakeDevice.rtx_4090())
    assert child.ask("nvmlDeviceGetMemoryInfo(gpu[0]).total") == 24_564 * MIB
    assert child.code("nvmlDeviceGetTotalEccErrors(gpu[0], 0, 0)") == NOT_SUPPORTED
    assert child.code("nvmlDeviceGetMigMode(gpu[0])") == NOT_SUPPORTED
    assert child.ask("nvmlDeviceGetFieldValues(gpu[0], [82])[0].nvmlReturn") == NOT_SUPPORTED


# MIG


def test_slices_have_their_own_identity_and_memory(bench: Bench) -> None:
    _, child = bench.one(FakeDevice.h100_mig())
    assert child.ask("nvmlDeviceGetMigMode(gpu[0])") == [1, 1]
    child.do("gpu.update((10 + i, nvmlDeviceGetMigDeviceHandleByIndex(gpu[0], i)) for i in range(4))")
    assert child.ask("[nvmlDeviceGetMemoryInfo(gpu[10 + i]).total // 2**20 for i in range(4)]") == [
        40_448,
        20_096,
        9_984,
        9_984,
    ]
    assert child.ask("nvmlDeviceGetName(gpu[10])") == "NVIDIA H100 80GB HBM3 MIG 3g.40gb"
    assert child.ask("nvmlDeviceGetUUID(gpu[10])[:4]") == "MIG-"
    assert child.ask("[nvmlDeviceGetGpuInstanceId(gpu[12]), nvmlDeviceGetComputeInstanceId(gpu[12])]") == [
        9,
        0,
    ]
    assert child.ask("nvmlDeviceGetAttributes(gpu[10]).multiprocessorCount") == 60
    assert child.ask("nvmlDeviceIsMigDeviceHandle(gpu[10]).value") == 1
    parent = "nvmlDeviceGetUUID(nvmlDeviceGetDeviceHandleFromMigDeviceHandle(gpu[10]))"
    assert child.ask(parent) == FakeDevice.h100_mig().uuid
    assert child.code("nvmlDeviceGetUtilizationRates(gpu[0])") == NOT_SUPPORTED
    assert child.code("nvmlDeviceGetPowerUsage(gpu[10])") == NOT_SUPPORTED


def test_places_without_a_slice_are_not_found_and_slices_do_not_count_as_devices(bench: Bench) -> None:
    _, child = bench.one(FakeDevice.a100_mig())
    places = range(int(str(child.ask("nvmlDeviceGetMaxMigDeviceCount(gpu[0])"))))
    codes = [child.code(f"nvmlDeviceGetMigDeviceHandleByIndex(gpu[0], {i})") for i in places]
    assert codes == [0, 0, 0] + [NOT_FOUND] * 4
    assert child.ask("nvmlDeviceGetCount()") == 1


def test_processes_of_a_slice_are_listed_there_and_on_its_gpu_with_their_instance(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h100_mig())
    with driver.change() as state:
        state.devices[0].migs[1].occupy(99, 3 * MIB)
    child.do("gpu.update({1: nvmlDeviceGetMigDeviceHandleByIndex(gpu[0], 1)})")
    child.do("gpu.update({2: nvmlDeviceGetMigDeviceHandleByIndex(gpu[0], 0)})")
    fields = "(p.pid, p.gpuInstanceId, p.computeInstanceId)"
    listed = f"[{fields} for p in nvmlDeviceGetComputeRunningProcesses(gpu[{{}}])]"
    assert child.ask(listed.format(0)) == child.ask(listed.format(1)) == [(99, 3, 0)]
    assert child.ask(listed.format(2)) == []


def test_the_handle_of_a_deleted_slice_is_stale_and_a_lost_gpu_takes_its_slices_along(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h100_mig())
    child.do("gpu.update((1 + i, nvmlDeviceGetMigDeviceHandleByIndex(gpu[0], i)) for i in range(2))")
    with driver.change() as state:
        state.devices[0].migs.pop(1)
    assert child.code("nvmlDeviceGetMemoryInfo(gpu[2])") == INVALID_ARGUMENT
    driver.lose(0)
    assert child.code("nvmlDeviceGetMemoryInfo(gpu[1])") == GPU_IS_LOST


def test_a_gpu_that_is_not_cut_has_no_places_for_slices(bench: Bench) -> None:
    _, child = bench.one(FakeDevice.h200())
    assert child.ask("nvmlDeviceGetMigMode(gpu[0])") == [0, 0]
    assert child.ask("nvmlDeviceGetMaxMigDeviceCount(gpu[0])") == 0
