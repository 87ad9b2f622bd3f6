"""Reads NVIDIA devices through NVML; runs only inside the worker process.

Calls and their order follow the NVML API reference; the fall-backs follow what drivers really answer
(each is named where it is used). Answers are plain JSON data: what a device does not give is left out.
Imports stay few, because each costs memory in a process that lives as long as the daemon.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable
from typing import Any

import pynvml as nvml

from exporter.hardware.driver import Reading, Unreadable

NOT_SUPPORTED = nvml.NVML_ERROR_NOT_SUPPORTED
LIBRARY_SCOPED = {
    nvml.NVML_ERROR_UNINITIALIZED: "uninitialized",
    nvml.NVML_ERROR_DRIVER_NOT_LOADED: "driver_not_loaded",
    nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "library_not_found",
    nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "version_mismatch",
}
"""Errors after which only a new process helps: a loaded library never heals after a driver change."""

_CAPABILITY = {
    nvml.NVML_ERROR_NOT_SUPPORTED,
    nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    nvml.NVML_ERROR_NO_PERMISSION,
    nvml.NVML_ERROR_DEPRECATED,
    nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    nvml.NVML_ERROR_INVALID_ARGUMENT,
}
"""Errors that say "never on this device": remembered, asked again after an hour."""

_DEVICE_SCOPED = {
    nvml.NVML_ERROR_GPU_IS_LOST: "lost",
    nvml.NVML_ERROR_RESET_REQUIRED: "error",
    nvml.NVML_ERROR_IRQ_ISSUE: "error",
    nvml.NVML_ERROR_TIMEOUT: "error",
}
"""Errors of one call that condemn the whole device, as the state it is then in."""

_STATES = {**_DEVICE_SCOPED, nvml.NVML_ERROR_NO_PERMISSION: "no_permission"}

_NAMES = {
    getattr(nvml, name): name.removeprefix("NVML_ERROR_").lower()
    for name in dir(nvml)
    if name.startswith("NVML_ERROR_")
}
_RETRY_CAPABILITY_SECONDS = 3600.0
_UNIFIED_NAMES = ("GB10", "Thor", "Orin", "Spark")
_ADDRESSING_ATS = 2
_FIELDS_POWER = (nvml.NVML_FI_DEV_POWER_AVERAGE, nvml.NVML_FI_DEV_POWER_INSTANT)
_POWER_SCOPES = (0, 1)  # GPU, then module: superchips may answer for the module only (NVML_POWER_SCOPE_*)
_REASONS = {
    "sw_power_cap": nvml.nvmlClocksEventReasonSwPowerCap,
    "sw_thermal_slowdown": nvml.nvmlClocksEventReasonSwThermalSlowdown,
    "hw_slowdown": nvml.nvmlClocksEventReasonHwSlowdown,
    "hw_thermal_slowdown": nvml.nvmlClocksEventReasonHwThermalSlowdown,
    "hw_power_brake_slowdown": nvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    "sync_boost": nvml.nvmlClocksEventReasonSyncBoost,
}


class DriverError(Unreadable):
    """An error of the driver: `code` is NVML's number, `reason` its name. (NVML's own exception cannot be
    hashed or compared, so it stays inside this module.)"""

    def __init__(self, code: int, *, call: str = "") -> None:
        super().__init__(
            LIBRARY_SCOPED.get(code) or error_name(code),
            code=code,
            call=call,
            state=_STATES.get(code, "error"),
            fatal=code in LIBRARY_SCOPED,
        )


def error_name(code: int) -> str:
    """NVML's name of an error code, lower case: 15 → "gpu_is_lost"."""
    return _NAMES.get(code, f"error_{code}")


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """One driver call; raises DriverError."""
    try:
        return function(*arguments)
    except nvml.NVMLError as error:
        raise DriverError(int(error.value), call=function.__name__) from None
    except UnicodeDecodeError:  # the binding decodes text strictly
        raise DriverError(nvml.NVML_ERROR_UNKNOWN, call=function.__name__) from None


def text(value: Any) -> str:
    """NVML text, which is bytes or str by version of the binding."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


class Driver:
    """An initialised NVML. Raises DriverError from the constructor when the driver cannot be used."""

    def __init__(self) -> None:
        call(nvml.nvmlInit)
        self.version = self._version()
        self._identities: dict[str, Reading] = {}
        self._refused: dict[tuple[str, str], float] = {}

    @staticmethod
    def _version() -> str:
        try:
            return text(call(nvml.nvmlSystemGetDriverVersion))
        except DriverError as error:
            if error.fatal:
                raise
            return ""

    def count(self) -> int:
        """Devices the driver knows."""
        return int(call(nvml.nvmlDeviceGetCount))

    def handle(self, index: int) -> Any:
        """The handle of one device."""
        return call(nvml.nvmlDeviceGetHandleByIndex, index)

    def read(self, index: int, *, links: bool = False) -> Reading:
        """Everything of one device: {"identity", "values", "processes", "errors"}; `links` adds the traffic
        of PCIe and NVLink.

        Raises DriverError when the device as a whole does not answer.
        """
        handle = self.handle(index)
        uuid = text(call(nvml.nvmlDeviceGetUUID, handle))
        identity = self._identities.get(uuid)
        if identity is None or identity["index"] != index:
            identity = self._identities[uuid] = self._identify(handle, index, uuid)
        device = _Device(handle, uuid, self._refused)
        values: Reading = {}
        for part in (_memory, _power, _load, _health, *((_links,) if links else ())):
            values.update(part(device))
        return {
            "identity": identity,
            "values": values,
            "processes": _processes(device),
            "errors": device.errors,
        }

    def _identify(self, handle: Any, index: int, uuid: str) -> Reading:
        device = _Device(handle, uuid, {})
        name = text(device.ask(nvml.nvmlDeviceGetName) or "unknown")
        pci = device.ask(nvml.nvmlDeviceGetPciInfo)
        node = device.ask(nvml.nvmlDeviceGetNumaNodeId)
        return {
            "index": index,
            "uuid": uuid,
            "name": name,
            "pci_bus_id": text(pci.busId).lower() if pci is not None else "",
            "numa_node": node,
            "memory_kind": _memory_kind(device, name),
        }


class _Device:
    """One device during one reading: asks, remembers what is refused, notes errors."""

    def __init__(self, handle: Any, uuid: str, refused: dict[tuple[str, str], float]) -> None:
        self.handle = handle
        self.uuid = uuid
        self.refused = refused
        self.errors: dict[str, str] = {}

    def ask(self, function: Callable[..., Any], *arguments: Any, key: str = "") -> Any:
        """The answer, or None when the device cannot give it. Raises DriverError on a dead device."""
        name = key or function.__name__
        again = self.refused.get((self.uuid, name))
        if again is not None and time.monotonic() < again:
            return None
        try:
            return call(function, self.handle, *arguments)
        except DriverError as error:
            if error.fatal or error.code in _DEVICE_SCOPED:
                raise
            if error.code in _CAPABILITY:
                self.refused[(self.uuid, name)] = time.monotonic() + _RETRY_CAPABILITY_SECONDS
            self.errors[name] = error.reason
            return None


def _memory_kind(device: _Device, name: str) -> str:
    """`unified`: one of the known names, whose memory call is not supported, says 0 or says the whole RAM
    (nvitop#208, nvtop#466); or no memory of its own and address translation services. NOT_SUPPORTED alone is
    also what a MIG slice may answer, and a GH200 has those services beside memory of its own."""
    if any(known in name for known in _UNIFIED_NAMES):
        return "unified"
    try:
        own = call(nvml.nvmlDeviceGetMemoryInfo, device.handle).total > 0
    except DriverError as error:
        own = error.code not in _CAPABILITY
    if not own and device.ask(nvml.nvmlDeviceGetAddressingMode) == _ADDRESSING_ATS:
        return "unified"
    return "dedicated"


def _memory(device: _Device) -> Reading:
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


def _power(device: _Device) -> Reading:
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


def _field_power(device: _Device) -> float | None:
    """Average power of the last second, else the instant value, of the GPU, else of its module."""
    wanted = [(field, scope) for scope in _POWER_SCOPES for field in _FIELDS_POWER]
    answers = device.ask(nvml.nvmlDeviceGetFieldValues, wanted, key="field_power")
    for answer in answers or ():
        if answer.nvmlReturn == nvml.NVML_SUCCESS and answer.value.uiVal:
            return float(answer.value.uiVal) / 1000
    return None


def _load(device: _Device) -> Reading:
    values: Reading = {}
    rates = device.ask(nvml.nvmlDeviceGetUtilizationRates)
    if rates is not None:
        values["utilization_ratio"] = rates.gpu / 100
        values["memory_bandwidth_utilization_ratio"] = rates.memory / 100
    mask = device.ask(nvml.nvmlDeviceGetCurrentClocksEventReasons)
    if mask is None:  # drivers before 535 know the same mask by its older name
        mask = device.ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
    if mask is not None:
        values["clocks_limited"] = {name: bool(mask & bit) for name, bit in _REASONS.items()}
    return values


def _health(device: _Device) -> Reading:
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


def _links(device: _Device) -> Reading:
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


def _processes(device: _Device) -> list[list[int | None]] | None:
    """[pid, bytes or None] of every process on the device; None when the list cannot be read: without the
    compute processes the others say little.

    A process may stand in several lists with the same memory, so a pid counts once. The list can grow
    between the two calls that the binding makes (INSUFFICIENT_SIZE), hence three tries.
    """
    found: dict[int, int | None] = {}
    for function in (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
        nvml.nvmlDeviceGetMPSComputeRunningProcesses,
    ):
        for _ in range(3):
            processes = device.ask(function)
            if processes is not None or device.errors.get(function.__name__) != "insufficient_size":
                break
        if processes is None:
            if function is nvml.nvmlDeviceGetComputeRunningProcesses:
                return None
            continue
        device.errors.pop(function.__name__, None)
        for process in processes:
            used = process.usedGpuMemory
            known = found.get(process.pid)
            found[process.pid] = known if used is None else max(int(used), known or 0)
    return [[pid, used] for pid, used in found.items()]


class XidEvents:
    """Waits for Xid errors of the devices that were added. Raises DriverError when the driver has no events.

    A device that is lost still sends the Xid that says so, but no longer tells its uuid: whose handle is
    whose is noted before.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._set = call(nvml.nvmlEventSetCreate)
        self._uuids: dict[int | None, str] = {}

    def __len__(self) -> int:
        return len(self._uuids)

    def add(self, index: int) -> None:
        """Wait for this device's errors too, once; not for one that has none to give."""
        try:
            handle = self._driver.handle(index)
            uuid = text(call(nvml.nvmlDeviceGetUUID, handle))
            if uuid in self._uuids.values():
                return
            call(nvml.nvmlDeviceRegisterEvents, handle, nvml.nvmlEventTypeXidCriticalError, self._set)
        except DriverError as error:
            if error.fatal:
                raise
        else:
            self._uuids[_address(handle)] = uuid

    def close(self) -> None:
        """Give the set back."""
        with contextlib.suppress(DriverError):
            call(nvml.nvmlEventSetFree, self._set)

    def wait(self, milliseconds: int) -> tuple[str, int] | None:
        """The next (uuid, xid), or None when none came in time."""
        try:
            data = call(nvml.nvmlEventSetWait_v2, self._set, milliseconds)
        except DriverError as error:
            if error.code == nvml.NVML_ERROR_TIMEOUT:
                return None
            raise
        uuid = self._uuids.get(_address(data.device))
        return None if uuid is None else (uuid, int(data.eventData))


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
