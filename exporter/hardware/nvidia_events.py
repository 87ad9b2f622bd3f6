"""Xid errors of NVIDIA devices, as events of NVML; runs only inside the worker process.

A divided GPU's events are those of all its slices, and a slice has none of its own (NVML API reference,
nvmlEventSetWait_v2).
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

import pynvml as nvml

from exporter.hardware.nvidia_calls import DriverError, call, text


class XidEvents:
    """Waits for Xid errors of the devices that were added. Raises DriverError when the driver has no events.

    A device that is lost still sends the Xid that says so, but no longer tells its uuid: whose handle is
    whose is noted before.
    """

    def __init__(self, handle_of: Callable[[int], Any]) -> None:
        self._handle_of = handle_of
        self._set = call(nvml.nvmlEventSetCreate)
        self._uuids: dict[int | None, str] = {}

    def __len__(self) -> int:
        return len(self._uuids)

    def add(self, index: int) -> None:
        """Wait for this device's errors too, once; not for one that has none to give."""
        try:
            handle = self._handle_of(index)
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
