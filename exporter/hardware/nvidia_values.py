"""The values of an NVIDIA device, by what they speak of; runs only inside the worker process.

Calls and their order follow the NVML API reference; the fall-backs follow what drivers really answer
(each is named where it is used). What a device does not give is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pynvml as nvml

from exporter.hardware.driver import Reading
from exporter.hardware.nvidia_calls import Device

_FIELDS_POWER = (nvml.NVML_FI_DEV_POWER_AVERAGE, nvml.NVML_FI_DEV_POWER_INSTANT)
_POWER_SCOPES = (0, 1)  # GPU, then module: superchips may answer for the module only (NVML_POWER_SCOPE_*)
CLOCK_REASONS = {
    "sw_power_cap": nvml.nvmlClocksEventReasonSwPowerCap,
    "sw_thermal_slowdown": nvml.nvmlClocksEventReasonSwThermalSlowdown,
    "hw_slowdown": nvml.nvmlClocksEventReasonHwSlowdown,
    "hw_thermal_slowdown": nvml.nvmlClocksEventReasonHwThermalSlowdown,
    "hw_power_brake_slowdown": nvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    "sync_boost": nvml.nvmlClocksEventReasonSyncBoost,
}


def memory(device: Device) -> Reading:
    """Version 2 splits what the driver reserves; version 1 (older drivers, WSL) counts it as used."""
    info = device.ask(nvml.nvmlDeviceGetMemoryInfo, nvml.nvmlMemory_v2, key="memory_v2")
    if info is not None and info.total:
        return {
            "memory_total_bytes": int(info.total),
            "memory_used_bytes": int(info.used),
            "memory_free_bytes": int(info.free),
            "memory_reserved_bytes": int(info.reserved),
        }
    info = device.ask(nvml.nvmlDeviceGetMemoryInfo)
    if info is None or not info.total:
        return {}
    return {
        "memory_total_bytes": int(info.total),
        "memory_used_bytes": int(info.used),
        "memory_free_bytes": int(info.free),
    }


def power(device: Device) -> Reading:
    values: Reading = {}
    watts = _field_power(device)
    if watts is None:
        milliwatts = device.ask(nvml.nvmlDeviceGetPowerUsage)
        watts = None if milliwatts is None else milliwatts / 1000
    limit = device.ask(nvml.nvmlDeviceGetEnforcedPowerLimit)
    energy = device.ask(nvml.nvmlDeviceGetTotalEnergyConsumption)
    if watts is not None:
        values["power_watts"] = watts
    if limit is not None:
        values["power_limit_watts"] = limit / 1000
    if energy is not None:
        values["energy_joules"] = energy / 1000
    return values


def _field_power(device: Device) -> float | None:
    """Average power of the last second, else the instant value, of the GPU, else of its module."""
    wanted = [(field, scope) for scope in _POWER_SCOPES for field in _FIELDS_POWER]
    answers = device.ask(nvml.nvmlDeviceGetFieldValues, wanted, key="field_power")
    for answer in answers or ():
        if answer.nvmlReturn == nvml.NVML_SUCCESS and answer.value.uiVal:
            return float(answer.value.uiVal) / 1000
    return None


def load(device: Device) -> Reading:
    values: Reading = {}
    rates = device.ask(nvml.nvmlDeviceGetUtilizationRates)
    if rates is not None:
        values["utilization_ratio"] = rates.gpu / 100
        values["memory_bandwidth_utilization_ratio"] = rates.memory / 100
    mask = device.ask(nvml.nvmlDeviceGetCurrentClocksEventReasons)
    if mask is None:  # drivers before 535 know the same mask by its older name
        mask = device.ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    if mask is not None:
        values["clocks_limited"] = {name: bool(mask & bit) for name, bit in CLOCK_REASONS.items()}
    return values


def health(device: Device) -> Reading:
    values: Reading = {}
    celsius: dict[str, float] = {}
    core = device.ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU)
    if core is not None:
        celsius["gpu"] = core
    memory = device.ask(
        nvml.nvmlDeviceGetFieldValues, [nvml.NVML_FI_DEV_MEMORY_TEMP], key="field_memory_temp"
    )
    if memory and memory[0].nvmlReturn == nvml.NVML_SUCCESS and memory[0].value.uiVal:
        celsius["memory"] = memory[0].value.uiVal
    if celsius:
        values["temperature_celsius"] = celsius
    ecc = {}
    for kind, number in (
        ("corrected", nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
        ("uncorrected", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
    ):
        errors = device.ask(
            nvml.nvmlDeviceGetTotalEccErrors, number, nvml.NVML_VOLATILE_ECC, key=f"ecc_{kind}"
        )
        if errors is not None:
            ecc[kind] = int(errors)
    if ecc:
        values["ecc_errors"] = ecc
    return values


_LINK_FIELDS = {
    "pcie_bytes": (nvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES, nvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES, 0, 1),
    "nvlink_bytes": (
        nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
        nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX,
        0xFFFFFFFF,  # the sum of all links
        1024,
    ),
}
"""Value → fields of what was sent and received, their scope, and bytes in one unit of them (nvml.h)."""


def links(device: Device) -> Reading:
    values: Reading = {}
    for name, (sent, received, scope, unit_bytes) in _LINK_FIELDS.items():
        fields = [(sent, scope), (received, scope)]
        answers = device.ask(nvml.nvmlDeviceGetFieldValues, fields, key=f"field_{name}") or ()
        traffic = {
            direction: int(answer.value.ullVal) * unit_bytes
            for direction, answer in zip(("sent", "received"), answers, strict=False)
            if answer.nvmlReturn == nvml.NVML_SUCCESS
            and answer.valueType == nvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
        }
        if traffic:
            values[name] = traffic
    return values


def processes(device: Device, instance: int | None = None) -> dict[int, int | None] | None:
    """pid → bytes, or None where they are not told, of every process on the device; None when the list cannot
    be read: without the compute processes the others say little.

    A process may stand in several lists with the same memory, so a pid counts once. `instance`: of a divided
    GPU, only the processes of this GPU instance.
    """
    found: dict[int, int | None] = {}
    for function in (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
        nvml.nvmlDeviceGetMPSComputeRunningProcesses,
    ):
        rows = _list(device, function)
        if rows is None:
            if function is nvml.nvmlDeviceGetComputeRunningProcesses:
                return None
            continue
        for row in rows:
            if instance is None or row.gpuInstanceId == instance:
                found[row.pid] = larger(row.usedGpuMemory, found.get(row.pid))
    return found


def _list(device: Device, function: Callable[..., Any]) -> Any:
    """A list of processes. It can grow between the two calls that the binding makes (INSUFFICIENT_SIZE),
    hence three tries."""
    for _ in range(3):
        rows = device.ask(function)
        if rows is not None:
            device.errors.pop(function.__name__, None)
            return rows
        if device.errors.get(function.__name__) != "insufficient_size":
            break
    return None


def larger(one: int | None, other: int | None) -> int | None:
    """The larger of two sizes of the same memory; None where neither is told."""
    return max(filter(None, (one, other)), default=other if one is None else one)
