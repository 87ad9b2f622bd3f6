"""Reads NVIDIA devices through NVML; runs only inside the worker process.

How it is asked stands in `nvidia_calls`, for what in `nvidia_values`, divided GPUs in `nvidia_mig`. Answers
are plain JSON data: what a device does not give is left out.
Imports stay few, because each costs memory in a process that lives as long as the daemon.
"""

from __future__ import annotations

from typing import Any

import pynvml as nvml

from exporter.hardware import nvidia_values as values_of
from exporter.hardware.driver import DIVIDED, Reading
from exporter.hardware.nvidia_calls import Device, DriverError, call, text
from exporter.hardware.nvidia_memory import UNIFIED, memory_kind
from exporter.hardware.nvidia_mig import Mig


class Driver:
    """An initialised NVML. Raises DriverError from the constructor when the driver cannot be used."""

    def __init__(self) -> None:
        call(nvml.nvmlInit)
        self.version = self._version()
        self._identities: dict[str, Reading] = {}
        self._refused: dict[tuple[str, str], float] = {}
        self._mig = Mig(self._refused)

    @staticmethod
    def _version() -> str:
        try:
            return text(call(nvml.nvmlSystemGetDriverVersion))
        except DriverError as error:
            if error.fatal:
                raise
            return ""

    def count(self) -> int:
        """Devices the driver knows; slices are none of them."""
        return int(call(nvml.nvmlDeviceGetCount))

    def handle(self, index: int) -> Any:
        """The handle of one device."""
        return call(nvml.nvmlDeviceGetHandleByIndex, index)

    def read(self, index: int, *, links: bool = False) -> Reading:
        """Everything of one device: {"identity", "values", "processes", "errors"}, and of a divided one its
        "slices" and, in "slices_problem", why some may be missing; `links` adds the traffic of PCIe and
        NVLink.

        Raises DriverError when the device as a whole does not answer.
        """
        handle = self.handle(index)
        uuid = text(call(nvml.nvmlDeviceGetUUID, handle))
        identity = self._identities.get(uuid)
        if identity is None or identity["index"] != index:
            identity = self._identities[uuid] = self._identify(handle, index, uuid)
        device = Device(handle, uuid, self._refused)
        mode = self._mig.mode(device)
        divided = mode is not None and mode.current
        values: Reading = {}
        if not divided and identity["memory_kind"] != UNIFIED:
            values.update(values_of.memory(device))
        for part in (values_of.power, values_of.load, values_of.health):
            values.update(part(device))
        if links:
            values.update(values_of.links(device))
        if mode is not None and any(mode):
            values["mig_enabled"] = {"current": mode.current, "pending": mode.pending}
        reading = {"identity": identity, "values": values, "errors": device.errors}
        if not divided:
            held = values_of.processes(device)
            return {**reading, "processes": None if held is None else [[*one] for one in held.items()]}
        slices, problem = self._mig.slices(device, identity)
        if not problem:
            values["mig_slices"] = len(slices)
        return {
            **reading,
            "identity": {**identity, "memory_kind": DIVIDED},
            "processes": [],  # they hold memory of its slices, where they stand
            "slices": slices,
            "slices_problem": problem,
        }

    def _identify(self, handle: Any, index: int, uuid: str) -> Reading:
        device = Device(handle, uuid, {})
        name = text(device.ask(nvml.nvmlDeviceGetName) or "unknown")
        pci = device.ask(nvml.nvmlDeviceGetPciInfo)
        node = device.ask(nvml.nvmlDeviceGetNumaNodeId)
        return {
            "index": index,
            "uuid": uuid,
            "name": name,
            "pci_bus_id": text(pci.busId).lower() if pci is not None else "",
            "numa_node": node,
            "memory_kind": memory_kind(device, name),
        }
