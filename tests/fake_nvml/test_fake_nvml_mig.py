"""The fake driver's MIG and unified devices, through the real pynvml."""

from __future__ import annotations

from fake_nvml.devices import MIB, FakeDevice
from fake_nvml.probe import Bench
from fake_nvml.returns import INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED

MEMORY = "nvmlDeviceGetMemoryInfo(gpu[{}], nvmlMemory_v2)"


def test_the_pending_mode_is_its_own_where_it_is_given(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.h100())
    assert child.ask("nvmlDeviceGetMigMode(gpu[0])") == [0, 0]
    with driver.change() as state:
        state.devices[0].mig_pending = 1
    assert child.ask("nvmlDeviceGetMigMode(gpu[0])") == [0, 1]


def test_two_compute_instances_of_one_gpu_instance_have_its_memory_each(bench: Bench) -> None:
    device = FakeDevice.h100()
    for part in (0, 1):
        device.cut("1c.2g.20gb", 3, 20_096, 17, compute_instance=part)
    _, child = bench.one(device)
    child.do("gpu.update((1 + i, nvmlDeviceGetMigDeviceHandleByIndex(gpu[0], i)) for i in range(2))")
    assert [child.ask(MEMORY.format(at) + ".total") for at in (1, 2)] == [20_096 * MIB] * 2
    assert [child.ask(f"nvmlDeviceGetGpuInstanceId(gpu[{at}])") for at in (1, 2)] == [3, 3]
    assert [child.ask(f"nvmlDeviceGetComputeInstanceId(gpu[{at}])") for at in (1, 2)] == [0, 1]
    assert child.ask("nvmlDeviceGetUUID(gpu[1]) != nvmlDeviceGetUUID(gpu[2])") is True


def test_a_slice_that_comes_back_has_its_uuid_and_its_old_handle_again(bench: Bench) -> None:
    driver, child = bench.one(FakeDevice.a100_mig())
    child.do("gpu.update({1: nvmlDeviceGetMigDeviceHandleByIndex(gpu[0], 0)})")
    with driver.change() as state:
        gone = state.devices[0].migs.pop(0)
    assert child.code(MEMORY.format(1)) == INVALID_ARGUMENT
    assert child.code("nvmlDeviceGetMigDeviceHandleByIndex(gpu[0], 0)") == NOT_FOUND
    with driver.change() as state:
        again = state.devices[0].cut("2g.20gb", 3, 19_968, 13)
    assert (again.uuid, again.mig_index) == (gone.uuid, 0)
    assert child.code(MEMORY.format(1)) == 0


def test_an_orin_tells_its_name_and_nothing_else(bench: Bench) -> None:
    _, child = bench.one(FakeDevice.orin())
    assert child.ask("nvmlDeviceGetName(gpu[0])") == "Orin (nvgpu)"
    for call in ("MemoryInfo", "PowerUsage", "ComputeRunningProcesses", "UtilizationRates", "MigMode"):
        assert child.code(f"nvmlDeviceGet{call}(gpu[0])") == NOT_SUPPORTED


def test_a_gh200_has_memory_of_its_own_and_tells_its_module_s_power_too(bench: Bench) -> None:
    _, child = bench.one(FakeDevice.gh200())
    assert child.ask(MEMORY.format(0) + ".total") == 97_871 * MIB
    assert child.ask("nvmlDeviceGetFieldValues(gpu[0], [(185, 1)])[0].value.uiVal") == 160_000
