"""What the worker reads from each kind of device, through the real pynvml and the worker's own pipe."""

from __future__ import annotations

import dataclasses

import psutil
import pytest
from fake_nvml.devices import MIB, FakeDevice, FakeProcess, FieldError, FieldValue, many
from fake_nvml.returns import FUNCTION_NOT_FOUND, INSUFFICIENT_SIZE, NOT_SUPPORTED, UNKNOWN
from nvml_host import OPTIONS, DriverFactory, Host, gpu_at, run

from exporter.hardware.gpu import Gpu, GpuProcess, GpuReading, GpuState

POWER_AVERAGE, POWER_INSTANT = 185, 186
"""NVML_FI_DEV_POWER_AVERAGE and NVML_FI_DEV_POWER_INSTANT (NVML API reference)."""
GPU_SCOPE, MODULE_SCOPE = 0, 1
"""NVML_POWER_SCOPE_GPU and NVML_POWER_SCOPE_MODULE (NVML API reference)."""
ALL_REASONS = {
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
}
"""nvmlClocksEventReason… bits (NVML API reference)."""


def read(index: int = 0) -> Gpu:
    """One device as the first sweep in which the driver answers gives it."""

    async def look(host: Host) -> None:
        await host.up()

    return gpu_at(run(look).last, index)


def reading(index: int = 0) -> GpuReading:
    gpu = read(index)
    assert gpu.state is GpuState.UP, gpu.reason
    assert gpu.reading is not None
    return gpu.reading


def test_an_h200_gives_every_value(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.occupy(4711, 90 * 1024 * MIB)
    device.utilization_gpu_percent, device.utilization_memory_percent = 97, 41
    device.clocks_event_reasons = ALL_REASONS["sw_power_cap"]
    device.ecc_corrected_volatile, device.ecc_uncorrected_volatile = 3, 1
    device.energy_advances, device.energy_millijoules = False, 123_456_789
    device.numa_node = 1
    make_driver([device])
    gpu = read()
    identity = gpu.identity
    assert (identity.uuid, identity.index, identity.name) == (device.uuid, 0, "NVIDIA H200")
    assert (identity.vendor, identity.memory_kind, identity.numa_node) == ("nvidia", "dedicated", 1)
    assert identity.pci_bus_id == device.pci_bus_id
    assert identity.driver_version == "590.48.01"
    assert gpu.reading == GpuReading(
        memory_total_bytes=143_771 * MIB,
        memory_used_bytes=90 * 1024 * MIB,
        memory_free_bytes=(143_771 - 614 - 90 * 1024) * MIB,
        memory_reserved_bytes=614 * MIB,
        power_watts=77.67,
        power_limit_watts=700.0,
        energy_joules=123_456.789,
        utilization_ratio=0.97,
        memory_bandwidth_utilization_ratio=0.41,
        temperature_celsius={"gpu": 28, "memory": 32},
        clocks_limited={reason: reason == "sw_power_cap" for reason in ALL_REASONS},
        ecc_errors={"corrected": 3, "uncorrected": 1},
        processes=(GpuProcess(4711, 90 * 1024 * MIB),),
    )


def test_an_h100_s_memory_parts_add_up_to_its_total(make_driver: DriverFactory) -> None:
    make_driver([FakeDevice.h100()])
    one = reading()
    assert one.memory_total_bytes == 81_559 * MIB
    assert one.memory_used_bytes is not None
    assert one.memory_free_bytes is not None
    assert one.memory_reserved_bytes == 479 * MIB
    assert one.memory_used_bytes + one.memory_free_bytes + one.memory_reserved_bytes == one.memory_total_bytes


def test_a_geforce_has_no_ecc_and_no_memory_temperature_and_all_else(make_driver: DriverFactory) -> None:
    make_driver([FakeDevice.rtx_4090()])
    one = reading()
    assert one.memory_total_bytes == 24_564 * MIB
    assert one.ecc_errors == {}
    assert set(one.temperature_celsius) == {"gpu"}
    assert one.power_watts == 25.92
    assert one.processes == ()


def test_a_gb10_is_unified_and_has_no_memory_figures_but_power_and_processes(
    make_driver: DriverFactory,
) -> None:
    device = FakeDevice.gb10()
    device.occupy(77, 20 * 1024 * MIB)
    make_driver([device])
    gpu = read()
    assert gpu.identity.memory_kind == "unified"
    assert gpu.reading is not None
    assert gpu.reading.memory_total_bytes is None
    assert gpu.reading.memory_used_bytes is None
    assert gpu.reading.power_watts == 4.0
    assert gpu.reading.power_limit_watts is None
    assert gpu.reading.processes == (GpuProcess(77, 20 * 1024 * MIB),)


def test_a_gb10_whose_driver_gives_the_whole_ram_as_its_memory_is_unified_too(
    make_driver: DriverFactory,
) -> None:
    device = FakeDevice.gb10()
    device.memory_total_bytes, device.memory_used_bytes, device.memory_reserved_bytes = 120 << 30, 0, 0
    make_driver([device])
    gpu = read()
    assert gpu.identity.memory_kind == "unified"
    # What the driver calls used is then what all of the host uses (nvtop#511), and no figure of the device's.
    assert gpu.reading is not None
    assert (gpu.reading.memory_total_bytes, gpu.reading.memory_used_bytes) == (None, None)


@pytest.mark.parametrize(
    ("kind", "total"), [("gb10", 0), ("gb10", 8_128 * MIB), ("thor", None), ("orin", None)]
)
def test_known_chips_are_unified_whatever_the_driver_gives_as_their_memory(
    make_driver: DriverFactory, kind: str, total: int | None
) -> None:
    (device,) = many(kind, 1)
    device.memory_total_bytes, device.memory_used_bytes = total, None if total is None else 0
    make_driver([device])
    gpu = read()
    assert (gpu.state, gpu.identity.memory_kind) == (GpuState.UP, "unified")
    assert gpu.reading is not None
    assert gpu.reading.memory_total_bytes is None


def test_an_orin_is_up_and_tells_nothing_of_power_load_or_processes(make_driver: DriverFactory) -> None:
    make_driver([FakeDevice.orin()])
    assert reading() == GpuReading(processes=None)


@pytest.mark.parametrize("name", ["NVIDIA GB100", "NVIDIA Orion Thorium"])
def test_a_name_that_only_holds_a_chip_s_name_is_not_that_chip(make_driver: DriverFactory, name: str) -> None:
    device = FakeDevice.h200()
    device.name = name
    make_driver([device])
    assert read().identity.memory_kind == "dedicated"


@pytest.mark.parametrize(("translates", "kind"), [(2, "unified"), (0, "dedicated")])
def test_an_unknown_device_that_has_all_of_ram_is_unified_if_it_translates_addresses(
    make_driver: DriverFactory, translates: int, kind: str
) -> None:
    device = FakeDevice.gb10()
    device.name, device.addressing_mode = "NVIDIA N9X", translates
    device.memory_total_bytes = psutil.virtual_memory().total
    make_driver([device])
    assert read().identity.memory_kind == kind


def test_a_gh200_is_dedicated_with_its_own_memory_and_its_module_s_power(make_driver: DriverFactory) -> None:
    device = FakeDevice.gh200()
    device.field_errors = [
        FieldError(field, NOT_SUPPORTED, GPU_SCOPE) for field in (POWER_AVERAGE, POWER_INSTANT)
    ]
    make_driver([device])
    gpu = read()
    assert gpu.identity.memory_kind == "dedicated"
    assert gpu.reading is not None
    assert (gpu.reading.memory_total_bytes, gpu.reading.power_watts) == (97_871 * MIB, 160.0)


def test_an_unknown_device_without_memory_of_its_own_but_address_translation_is_unified(
    make_driver: DriverFactory,
) -> None:
    device = FakeDevice.gb10()
    device.name = "NVIDIA N9X"
    make_driver([device])
    assert read().identity.memory_kind == "unified"


def test_memory_that_is_not_supported_alone_is_not_unified(make_driver: DriverFactory) -> None:
    device = FakeDevice.gb10()
    device.name, device.addressing_mode = "NVIDIA N9X", 0
    make_driver([device])
    assert read().identity.memory_kind == "dedicated"


def test_a_superchip_with_memory_of_its_own_is_dedicated_though_it_translates_addresses(
    make_driver: DriverFactory,
) -> None:
    device = FakeDevice.h200()
    device.addressing_mode = 2
    make_driver([device])
    assert read().identity.memory_kind == "dedicated"


def test_an_error_of_the_memory_call_does_not_make_a_superchip_unified(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.addressing_mode = 2
    device.error_calls["nvmlDeviceGetMemoryInfo*"] = UNKNOWN
    make_driver([device])
    gpu = read()
    assert gpu.identity.memory_kind == "dedicated"
    assert gpu.reading is not None
    assert gpu.reading.memory_total_bytes is None


def test_each_of_eight_devices_is_read_under_its_own_uuid(make_driver: DriverFactory) -> None:
    devices = many("h200", 8)
    for at, device in enumerate(devices):
        device.memory_used_bytes = at << 30
    make_driver(devices)

    async def look(host: Host) -> None:
        await host.up()

    sweep = run(look).last
    assert sweep.visible == 8
    assert {gpu.identity.uuid: gpu.reading and gpu.reading.memory_used_bytes for gpu in sweep.gpus} == {
        device.uuid: at << 30 for at, device in enumerate(devices)
    }


# Memory: version 2, else version 1


def test_without_the_second_version_the_first_is_asked_and_reserved_is_not_known(
    make_driver: DriverFactory,
) -> None:
    make_driver([FakeDevice.h200()], without=["nvmlDeviceGetMemoryInfo_v2"])
    one = reading()
    assert one.memory_total_bytes == 143_771 * MIB
    assert one.memory_used_bytes == 614 * MIB  # version 1 counts what the driver reserves as used
    assert one.memory_reserved_bytes is None


@pytest.mark.parametrize("code", [UNKNOWN, NOT_SUPPORTED, FUNCTION_NOT_FOUND])
def test_a_refused_second_version_gives_way_to_the_first(make_driver: DriverFactory, code: int) -> None:
    device = FakeDevice.h200()
    device.error_calls["nvmlDeviceGetMemoryInfo_v2"] = code
    make_driver([device])
    assert reading().memory_total_bytes == 143_771 * MIB


# Power: field values of the GPU, of its module, else the older call


def test_the_average_power_is_preferred_to_the_instant_one(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.power_average_milliwatts, device.power_instant_milliwatts = 500_000, 690_000
    make_driver([device])
    assert reading().power_watts == 500.0


def test_the_instant_power_serves_where_the_average_is_refused(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.power_instant_milliwatts = 690_000
    device.field_errors = [FieldError(POWER_AVERAGE, NOT_SUPPORTED)]
    make_driver([device])
    assert reading().power_watts == 690.0


def test_a_superchip_that_tells_only_its_module_s_power_gives_that(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.field_errors = [
        FieldError(field, NOT_SUPPORTED, GPU_SCOPE) for field in (POWER_AVERAGE, POWER_INSTANT)
    ]
    device.fields = [FieldValue(POWER_AVERAGE, 650_000, "u32", MODULE_SCOPE)]
    make_driver([device])
    assert reading().power_watts == 650.0


def test_refused_field_values_give_way_to_the_older_call(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.power_usage_milliwatts = 512_000
    device.field_errors = [FieldError(field, NOT_SUPPORTED) for field in (POWER_AVERAGE, POWER_INSTANT)]
    make_driver([device])
    assert reading().power_watts == 512.0


def test_a_driver_without_field_values_is_asked_by_the_older_call(make_driver: DriverFactory) -> None:
    make_driver([FakeDevice.h100()], without=["nvmlDeviceGetFieldValues"])
    one = reading()
    assert one.power_watts == 69.85
    assert set(one.temperature_celsius) == {"gpu"}


def test_no_power_at_all_is_absent_and_not_nought(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.power_average_milliwatts = device.power_instant_milliwatts = device.power_usage_milliwatts = None
    device.energy_millijoules = None
    make_driver([device])
    one = reading()
    assert one.power_watts is None
    assert one.energy_joules is None


def test_the_energy_counter_grows_with_the_power(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.set_power(700_000)
    make_driver([device])
    joules: list[float] = []

    async def look(host: Host) -> None:
        await host.up()
        await host.until(lambda sweep: energy(gpu_at(sweep, 0)) > energy(gpu_at(host.sweeps[0], 0)) + 50)
        joules.extend(energy(gpu_at(sweep, 0)) for sweep in host.sweeps if sweep.up)

    run(look)
    assert joules == sorted(joules)


def energy(gpu: Gpu) -> float:
    return (gpu.reading.energy_joules if gpu.reading else None) or 0.0


# Clocks


@pytest.mark.parametrize(("reason", "bit"), ALL_REASONS.items())
def test_each_reason_that_limits_the_clocks_is_its_own_bit(
    make_driver: DriverFactory, reason: str, bit: int
) -> None:
    device = FakeDevice.h200()
    device.clocks_event_reasons = bit | 0x1  # and idle, which limits nothing
    make_driver([device])
    limited = reading().clocks_limited
    assert [name for name, holds in limited.items() if holds] == [reason]
    assert set(limited) == set(ALL_REASONS)


def test_a_driver_that_knows_the_clocks_reasons_by_the_older_name_only(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.clocks_event_reasons = ALL_REASONS["hw_slowdown"]
    make_driver([device], without=["nvmlDeviceGetCurrentClocksEventReasons"])
    assert reading().clocks_limited["hw_slowdown"] is True


# Processes


def test_a_process_whose_memory_is_not_told_is_listed_without(
    make_driver: DriverFactory,
) -> None:
    device = FakeDevice.h200()
    device.processes = [FakeProcess(11, None), FakeProcess(12, 5 * MIB)]
    make_driver([device])
    assert reading().processes == (GpuProcess(11, None), GpuProcess(12, 5 * MIB))


def test_a_process_that_stands_in_several_lists_counts_once(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.processes = [
        FakeProcess(11, 4 * MIB, "compute"),
        FakeProcess(11, 6 * MIB, "graphics"),
        FakeProcess(11, None, "mps"),
        FakeProcess(12, 1 * MIB, "mps"),
    ]
    make_driver([device])
    assert reading().processes == (GpuProcess(11, 6 * MIB), GpuProcess(12, 1 * MIB))


def test_a_list_that_grows_while_it_is_read_is_asked_again(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.processes = [FakeProcess(11, 4 * MIB)]
    device.process_growth, device.process_growth_calls = 50, 2
    make_driver([device])
    processes = reading().processes
    assert processes is not None
    assert GpuProcess(11, 4 * MIB) in processes


def test_a_list_that_always_grows_is_not_known_which_is_not_empty(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.processes = [FakeProcess(11, 4 * MIB)]
    device.process_growth = 50
    make_driver([device])
    assert reading().processes is None


def test_without_the_compute_processes_the_list_is_not_known(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.processes = [FakeProcess(11, 4 * MIB), FakeProcess(12, 4 * MIB, "graphics")]
    device.error_calls["nvmlDeviceGetComputeRunningProcesses*"] = UNKNOWN
    make_driver([device])
    assert reading().processes is None


def test_rows_in_which_pid_and_bytes_are_swapped_are_dropped(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.processes = [
        FakeProcess(2**32 - 1, 4711),
        FakeProcess(12, 900 << 30),
        FakeProcess(13, 5 * MIB),
    ]
    make_driver([device])
    assert reading().processes == (GpuProcess(13, 5 * MIB),)


# What a device refuses


def test_a_call_that_a_device_refuses_is_not_asked_at_every_sweep(
    make_driver: DriverFactory,
) -> None:
    device = FakeDevice.rtx_4090()
    driver = make_driver([device])

    async def look(host: Host) -> None:
        await host.up()
        await host.sweep()
        asked = driver.calls("nvmlDeviceGetTotalEccErrors")
        for _ in range(5):
            await host.sweep()
        assert driver.calls("nvmlDeviceGetTotalEccErrors") == asked > 0

    run(look)


def test_an_error_that_may_pass_is_asked_again_at_the_next_sweep(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.error_calls["nvmlDeviceGetTemperature*"] = UNKNOWN
    driver = make_driver([device])

    async def look(host: Host) -> None:
        first = await host.up()
        one = gpu_at(first, 0)
        assert one.state is GpuState.UP
        assert one.reading is not None
        assert "gpu" not in one.reading.temperature_celsius
        assert host.source.errors["unknown"] >= 1
        with driver.change() as state:
            state.devices[0].error_calls.clear()
        again = gpu_at(await host.sweep(), 0).reading
        assert again is not None
        assert again.temperature_celsius["gpu"] == 28

    run(look)


def test_a_device_that_gives_nothing_but_its_uuid_is_up_with_nothing(make_driver: DriverFactory) -> None:
    device = FakeDevice.h200()
    device.error_calls = {
        "nvmlDeviceGetHandleByIndex*": 0,
        "nvmlDeviceGetUUID": 0,
        "nvmlDevice*": NOT_SUPPORTED,
    }
    make_driver([device])
    gpu = read()
    assert gpu.state is GpuState.UP
    assert gpu.reading == GpuReading()
    assert gpu.identity.name == "unknown"


def test_a_list_that_is_too_long_for_its_buffer_by_the_driver_s_word_is_not_an_empty_one(
    make_driver: DriverFactory,
) -> None:
    device = FakeDevice.h200()
    device.error_calls["nvmlDeviceGetComputeRunningProcesses*"] = INSUFFICIENT_SIZE
    driver = make_driver([device])
    assert reading().processes is None
    assert driver.calls("nvmlDeviceGetComputeRunningProcesses_v3") >= 3


PCIE_SENT, PCIE_RECEIVED, NVLINK_SENT, NVLINK_RECEIVED = 197, 198, 138, 139
"""NVML_FI_DEV_PCIE_COUNT_{TX,RX}_BYTES and NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_{TX,RX}, the latter in KiB."""


def linked_reading(make_driver: DriverFactory, *, links: bool) -> GpuReading:
    device = FakeDevice.h200(0)
    device.fields = [
        FieldValue(PCIE_SENT, 10_000),
        FieldValue(PCIE_RECEIVED, 20_000),
        FieldValue(NVLINK_SENT, 3, scope=0xFFFFFFFF),
        FieldValue(NVLINK_SENT, 1, scope=0),
    ]
    device.field_errors = [FieldError(NVLINK_RECEIVED, NOT_SUPPORTED)]
    make_driver([device])

    async def look(host: Host) -> None:
        await host.up()

    found = gpu_at(run(look, options=dataclasses.replace(OPTIONS, links=links)).last, 0).reading
    assert found is not None
    return found


def test_link_traffic_is_read_when_asked_for_and_summed_over_links(make_driver: DriverFactory) -> None:
    found = linked_reading(make_driver, links=True)
    assert found.pcie_bytes == {"sent": 10_000, "received": 20_000}
    assert found.nvlink_bytes == {"sent": 3 * 1024}


def test_link_traffic_is_absent_unless_asked_for(make_driver: DriverFactory) -> None:
    found = linked_reading(make_driver, links=False)
    assert not found.pcie_bytes
    assert not found.nvlink_bytes
