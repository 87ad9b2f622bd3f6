"""Asks NVML, for the modules that read NVIDIA devices; runs only inside the worker process.

Errors come in four sorts: of the library (only a new process helps), of the device as a whole, of a call that
the device does not have, and of one moment. Facts: NVML API reference.
Imports stay few, because each costs memory in a process that lives as long as the daemon.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pynvml as nvml

from exporter.hardware.driver import Unreadable

NOT_SUPPORTED = nvml.NVML_ERROR_NOT_SUPPORTED
LIBRARY_SCOPED = {
    nvml.NVML_ERROR_UNINITIALIZED: "uninitialized",
    nvml.NVML_ERROR_DRIVER_NOT_LOADED: "driver_not_loaded",
    nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "library_not_found",
    nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "version_mismatch",
}
"""Errors after which only a new process helps: a loaded library never heals after a driver change."""

CAPABILITY = {
    nvml.NVML_ERROR_NOT_SUPPORTED,
    nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    nvml.NVML_ERROR_NO_PERMISSION,
    nvml.NVML_ERROR_DEPRECATED,
    nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    nvml.NVML_ERROR_INVALID_ARGUMENT,
}
"""Errors that say "never on this device": remembered, asked again after an hour."""

DEVICE_SCOPED = {
    nvml.NVML_ERROR_GPU_IS_LOST: "lost",
    nvml.NVML_ERROR_RESET_REQUIRED: "error",
    nvml.NVML_ERROR_IRQ_ISSUE: "error",
    nvml.NVML_ERROR_TIMEOUT: "error",
}
"""Errors of one call that condemn the whole device, as the state it is then in."""

_STATES = {**DEVICE_SCOPED, nvml.NVML_ERROR_NO_PERMISSION: "no_permission"}

_NAMES = {
    getattr(nvml, name): name.removeprefix("NVML_ERROR_").lower()
    for name in dir(nvml)
    if name.startswith("NVML_ERROR_")
}
_RETRY_CAPABILITY_SECONDS = 3600.0


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


class Device:
    """One device, or one slice of it, during one reading: asks, remembers what is refused, notes errors."""

    condemning = frozenset(DEVICE_SCOPED)
    """errors of one call after which nothing more is asked"""

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
            if error.fatal or error.code in self.condemning:
                raise
            if error.code in CAPABILITY:
                self.refused[(self.uuid, name)] = time.monotonic() + _RETRY_CAPABILITY_SECONDS
            self.errors[name] = error.reason
            return None
