"""Unified memory: what a device holds that is the host's RAM. It is promised once, and from RAM.

An APU has a part of its own, cut out of RAM before the kernel sees it, and maps RAM beyond that (GTT of
amdgpu); where a driver tells of no such part (GB10), all of it is RAM.
"""

from __future__ import annotations

from collections.abc import Iterable

from exporter.hardware.gpu import Gpu

UNIFIED = "unified"


def unified(gpus: Iterable[Gpu]) -> list[Gpu]:
    """The devices whose memory is RAM."""
    return [gpu for gpu in gpus if gpu.identity.memory_kind == UNIFIED]


def in_ram(gpu: Gpu, size_bytes: int) -> int:
    """How much of what is held on a unified device is RAM: what exceeds its own part, which fills first."""
    reading = gpu.reading
    own = 0
    if reading is not None and reading.gtt_total_bytes is not None:
        own = max(0, (reading.memory_total_bytes or 0) - reading.gtt_total_bytes)
    return max(0, size_bytes - own)
