"""The AMD devices of this host: how their worker is started, and when it is not worth starting.

A host without a device bound to `amdgpu` pays for one listing of a folder, and for no process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from exporter.hardware.backend import NO_DEVICE, Backend
from exporter.hardware.inventory import Inventory
from exporter.hardware.nvidia_source import VENDOR as NVIDIA
from exporter.hardware.supervision import GpuSource
from exporter.settings.options import Nvml

VENDOR = "amd"
NO_DRIVER = "driver_not_loaded"
"""The state of a host without the amdgpu module, which is usually one without an AMD GPU."""

ADVICE = {
    NO_DRIVER: "load the kernel module (modprobe amdgpu); picked up by itself afterwards",
    NO_DEVICE: "amdgpu is loaded and has no device: look for it in the kernel log, and in lspci -k",
    "no_permission": "let the service see /sys/bus/pci/drivers/amdgpu",
    "driver_stalled": "sysfs does not answer: look for a GPU reset in the kernel log",
    "init_stalled": "sysfs does not answer: look for a GPU reset in the kernel log",
    "workers_stuck": "worker processes sleep inside the driver; they end when it returns, or with a reboot",
}
"""What to do about a state of the driver, for the log and `doctor`."""


def worker_command(sys_path: Path, proc_path: Path) -> tuple[str, ...]:
    """Starts the worker on these roots of sysfs and procfs."""
    return (
        sys.executable,
        "-I",
        "-OO",
        "-m",
        "exporter.hardware.amd_worker",
        str(sys_path),
        str(proc_path),
    )


class AmdSource(GpuSource):
    """The AMD devices of this host. Indices continue after NVIDIA's, where a host has both."""

    def __init__(
        self,
        options: Nvml,
        inventory: Inventory,
        sys_path: Path = Path("/sys"),
        proc_path: Path = Path("/proc"),
        *,
        command: Sequence[str] | None = None,
    ) -> None:
        self._sys = sys_path
        start = worker_command(sys_path, proc_path) if command is None else command
        backend = Backend(VENDOR, start, NO_DRIVER, ADVICE, self._module, self._absence, (NVIDIA,))
        super().__init__(backend, options, inventory)

    @property
    def is_here(self) -> bool:
        """Whether this host has, or had, an AMD device: without one there is nothing to tell."""
        return self._absence() is None or bool(self.remembered())

    def _module(self) -> object:
        try:
            status = (self._sys / "module" / "amdgpu").stat()
        except OSError:
            return None
        return status.st_ino

    def _absence(self) -> str | None:
        try:
            bound = list((self._sys / "bus" / "pci" / "drivers" / "amdgpu").iterdir())
        except OSError:
            return NO_DRIVER
        return None if any(":" in one.name for one in bound) else NO_DEVICE
