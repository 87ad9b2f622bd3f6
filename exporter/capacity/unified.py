"""Unified memory: what a device holds that is the host's RAM. It is promised once, and from RAM.

An APU has a part of its own, cut out of RAM before the kernel sees it, and maps RAM beyond that (GTT of
amdgpu); where a driver tells of no such part (GB10, Thor, Orin), all of it is RAM.

What an engine allocates on such a device the driver takes from RAM: the kernel no longer counts it as
available, and it is assumed not to be resident memory of the process, since a mapping of a driver's pages is
not counted there (mm/memory.c, insert_pfn). Managed memory may be. So what is held on devices and what is
resident in processes never count for more than all that is in use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from exporter.hardware.gpu import Gpu
from exporter.hardware.host import HostReading

UNIFIED = "unified"


def unified(gpus: Iterable[Gpu]) -> list[Gpu]:
    """The devices whose memory is RAM."""
    return [gpu for gpu in gpus if gpu.identity.memory_kind == UNIFIED]


def sized_by_ram(gpus: Iterable[Gpu], host: HostReading | None) -> tuple[Gpu, ...]:
    """The same devices; those whose memory is RAM and whose driver gives no size have the size of RAM, as
    CUDA sees it too. What of it is used or free on the device nobody says."""
    return tuple(gpu if host is None or not _is_all_ram(gpu) else _sized(gpu, host) for gpu in gpus)


def _is_all_ram(gpu: Gpu) -> bool:
    """NVIDIA's chips have no part of their own. An APU has: without its size nothing is known of it."""
    return gpu.identity.memory_kind == UNIFIED and gpu.identity.vendor == "nvidia"


def _sized(gpu: Gpu, host: HostReading) -> Gpu:
    if gpu.reading is None or gpu.reading.memory_total_bytes is not None:
        return gpu
    total, processes = host.memory_total_bytes, gpu.reading.processes
    if processes is not None:  # a process that holds more than there is: as `reading_from` drops it
        processes = tuple(one for one in processes if (one.used_bytes or 0) <= total)
    return replace(gpu, reading=replace(gpu.reading, memory_total_bytes=total, processes=processes))


def in_ram(gpu: Gpu, size_bytes: int) -> int:
    """How much of what is held on a unified device is RAM: what exceeds its own part, which fills first."""
    reading = gpu.reading
    own = 0
    if reading is not None and reading.gtt_total_bytes is not None:
        own = max(0, (reading.memory_total_bytes or 0) - reading.gtt_total_bytes)
    return max(0, size_bytes - own)
