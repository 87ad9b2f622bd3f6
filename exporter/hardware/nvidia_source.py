"""The NVIDIA devices of this host: how their worker is started, and what to do when the driver fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exporter.hardware.backend import Backend
from exporter.hardware.inventory import Inventory
from exporter.hardware.process import COMMAND
from exporter.hardware.supervision import GpuSource
from exporter.settings.options import Nvml

VENDOR = "nvidia"
NO_LIBRARY = "library_not_found"
"""The state of a host without an NVIDIA driver, which is usually one without an NVIDIA GPU."""
_DRIVER_VERSION_FILE = Path("/proc/driver/nvidia/version")

ADVICE = {
    "library_not_found": "no NVIDIA driver library on this host; fine if it has no NVIDIA GPU",
    "driver_not_loaded": "load the kernel module (modprobe nvidia); picked up by itself afterwards",
    "version_mismatch": "library and kernel module differ, as after an upgrade: reload the module or reboot",
    "no_permission": "let the service open /dev/nvidiactl and /dev/nvidia[0-9]*",
    "unknown": "often device access taken away from the cgroup: restart the service; see docs/INSTALL.md",
    "init_stalled": "nvmlInit does not return: look for Xid and GSP errors in the kernel log",
    "driver_stalled": "the driver does not return: look for Xid and GSP errors in the kernel log",
    "workers_stuck": "worker processes sleep inside the driver; they end when it returns, or with a reboot",
}
"""What to do about a state of the driver, for the log and `doctor`."""


class NvmlSource(GpuSource):
    """The NVIDIA devices of this host."""

    def __init__(self, options: Nvml, inventory: Inventory, *, command: Sequence[str] = COMMAND) -> None:
        super().__init__(Backend(VENDOR, command, NO_LIBRARY, ADVICE, _driver_file), options, inventory)


def _driver_file() -> tuple[int, int] | None:
    """Identity of the loaded kernel module's version file: changes when a driver appears or is replaced."""
    try:
        status = _DRIVER_VERSION_FILE.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
