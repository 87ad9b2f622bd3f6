"""Whose memory an NVIDIA device has: its own, or the host's RAM; runs only inside the worker process.

A unified device answers in three ways when asked for its memory: not at all (GB10: nvitop#208; Thor:
cosmos-reason1#61; Orin, which answers nothing else either: intelligence-per-watt#40), with 0, or with the RAM
of the host and what all of the host uses of it (nvtop#466). None of them is the device's own use, so of a
unified device the driver's memory figures are never taken.
"""

from __future__ import annotations

import re

import pynvml as nvml

from exporter.hardware.driver import Unreadable
from exporter.hardware.nvidia_calls import CAPABILITY, Device, call
from exporter.hardware.sysfs import read_text

DEDICATED = "dedicated"
UNIFIED = "unified"
_CHIPS = re.compile(r"\b(?:GB10|Thor|Orin)\b", re.ASCII)
"""Chips without memory of their own, as the driver names them: "NVIDIA GB10", "NVIDIA Thor", "Orin (nvgpu)".
As whole words: a GB100 is none of them."""
_ADDRESSING_ATS = 2  # NVML_DEVICE_ADDRESSING_MODE_ATS
_SAME_RATIO = 0.01
"""Difference up to which a device's memory is taken for the host's RAM: MemTotal lacks what the kernel took
for itself before it counted."""
_MEMINFO = "/proc/meminfo"


def memory_kind(device: Device, name: str) -> str:
    """`unified`: one of the known chips; or a device with address translation services, and without memory
    of its own or with all of the RAM for it.

    NOT_SUPPORTED alone is also what a device in a bad mood answers, and a GH200 or GB200 has those services
    beside memory of its own.
    """
    if _CHIPS.search(name):
        return UNIFIED
    try:
        total = int(call(nvml.nvmlDeviceGetMemoryInfo, device.handle).total)
    except Unreadable as error:
        if error.code not in CAPABILITY:
            return DEDICATED
        total = 0
    if total and not _is_all_ram(total):
        return DEDICATED
    translates = device.ask(nvml.nvmlDeviceGetAddressingMode) == _ADDRESSING_ATS
    return UNIFIED if translates else DEDICATED


def _is_all_ram(total_bytes: int) -> bool:
    try:
        found = re.match(r"MemTotal:\s+(\d{1,15}) kB$", read_text(_MEMINFO), re.MULTILINE)
    except OSError:
        return False
    ram = 0 if found is None else int(found[1]) * 1024
    return abs(total_bytes - ram) <= ram * _SAME_RATIO
