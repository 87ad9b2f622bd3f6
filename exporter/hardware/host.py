"""RAM, swap, pressure, NUMA nodes and processors of this host, from /proc and /sys (proc(5), sysfs).

psutil reads what it knows; hugepages, NUMA, PSI, OOM kills and the container's limit it does not, so those
files are parsed here. A file that is missing or makes no sense gives an absent value, never zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from exporter.hardware.bandwidth import Bandwidth, memory_bandwidth
from exporter.kernelfiles import NO_LIMIT_BYTES, parse_integer, parse_pressure, parse_vmstat, read_text

_MAX_CPUINFO_BYTES = 2**23  # 1.5 KiB for each of up to thousands of threads
_KIB = 1024


@dataclass(frozen=True, slots=True)
class NumaNode:
    """RAM of one node, in bytes. ``droppable_bytes``: page cache and kernel caches that can be taken back;
    None where the kernel does not say.
    """

    total_bytes: int
    free_bytes: int
    droppable_bytes: int | None = None

    @property
    def available_bytes(self) -> int | None:
        """What can be had without swapping: the kernel's MemAvailable has no counterpart for a node."""
        return None if self.droppable_bytes is None else self.free_bytes + self.droppable_bytes


@dataclass(frozen=True, slots=True)
class Cpu:
    """What the processors are; numbers are None where /proc/cpuinfo does not say."""

    model: str
    sockets: int | None
    cores: int | None
    threads: int
    features: frozenset[str] = frozenset()
    """of `FEATURES`, those that it has"""


FEATURES = frozenset({"avx2", "avx512f", "asimddp", "i8mm"})
"""Instructions by which llama.cpp chooses how weights lie in RAM, as /proc/cpuinfo names them."""


@dataclass(frozen=True, slots=True)
class HostReading:
    """Memory of the host, or of the container that confines us, in bytes.

    `limit_bytes` is the container's limit when it is what counts; total and available already follow it.
    """

    memory_total_bytes: int
    memory_available_bytes: int
    limit_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_used_bytes: int | None = None
    hugepages_total_bytes: int | None = None
    hugepages_free_bytes: int | None = None
    shared_bytes: int | None = None
    pressure_some_seconds: float | None = None
    pressure_full_seconds: float | None = None
    oom_kills: int | None = None
    numa: Mapping[int, NumaNode] = field(default_factory=dict)
    cpu: Cpu | None = None
    bandwidth: Bandwidth | None = None


class HostUnreadable(Exception):
    """Not even the size of the memory could be read; the text says why."""


class HostSource:
    """Reads one host; `proc` and `sys` are the roots of the two file systems."""

    def __init__(
        self, proc: Path, sys: Path, *, cgroup_limit: bool, memory_bandwidth_bytes: int | None = None
    ) -> None:
        """``memory_bandwidth_bytes``: what the operator says the RAM of all sockets gives in a second."""
        self._proc = proc
        self._sys = sys
        self.cgroup_limit = cgroup_limit
        self._cpu = _cpu(read_text(proc / "cpuinfo", _MAX_CPUINFO_BYTES))
        model, sockets = (self._cpu.model, self._cpu.sockets) if self._cpu is not None else ("", None)
        self._bandwidth = memory_bandwidth(sys, model, sockets or 1, configured=memory_bandwidth_bytes)

    def read(self) -> HostReading:
        """One reading. Raises HostUnreadable."""
        meminfo = parse_meminfo(read_text(self._proc / "meminfo"))
        total, available, swap = self._memory(meminfo)
        limit, used = self._limit() if self.cgroup_limit else (None, None)
        if limit and limit < total:
            available = min(available, max(0, limit - (used or 0)))
            total = limit
        else:
            limit = None
        page = meminfo.get("Hugepagesize")
        pressure = parse_pressure(read_text(self._proc / "pressure" / "memory"))
        return HostReading(
            memory_total_bytes=total,
            memory_available_bytes=available,
            limit_bytes=limit,
            swap_total_bytes=swap[0],
            swap_used_bytes=swap[1],
            hugepages_total_bytes=_pages(meminfo.get("HugePages_Total"), page),
            hugepages_free_bytes=_pages(meminfo.get("HugePages_Free"), page),
            shared_bytes=meminfo.get("Shmem"),
            pressure_some_seconds=pressure.get("some"),
            pressure_full_seconds=pressure.get("full"),
            oom_kills=parse_vmstat(read_text(self._proc / "vmstat")).get("oom_kill"),
            numa=self._numa(),
            cpu=self._cpu,
            bandwidth=self._bandwidth,
        )

    def _memory(self, meminfo: Mapping[str, int]) -> tuple[int, int, tuple[int | None, int | None]]:
        if self._proc == Path("/proc"):
            try:
                memory, swap = psutil.virtual_memory(), psutil.swap_memory()
            except (OSError, ValueError, KeyError, RuntimeError) as error:
                raise HostUnreadable(f"/proc/meminfo: {error}") from None
            return memory.total, memory.available, (swap.total, swap.used)
        try:
            total, available = meminfo["MemTotal"], meminfo["MemAvailable"]
        except KeyError as missing:
            raise HostUnreadable(f"{self._proc / 'meminfo'} has no {missing.args[0]}") from None
        if not 0 < total >= available:
            raise HostUnreadable(
                f"{self._proc / 'meminfo'} says that {available} of {total} bytes are available"
            )
        swap_total, swap_free = meminfo.get("SwapTotal"), meminfo.get("SwapFree")
        used = None if swap_total is None or swap_free is None else swap_total - swap_free
        if used is not None and used < 0:
            swap_total = used = None
        return total, available, (swap_total, used)

    def _limit(self) -> tuple[int | None, int | None]:
        """(limit, used) of the container that confines us, else (None, None).

        A service's own MemoryMax is not the host's size, so only a limit that stands at the root of what we
        see counts: a container's cgroup namespace puts it there, and the host's root has none.
        Page cache that can be dropped at once is not use: `memory.current` counts it (ollama#15704).
        """
        root = self._sys / "fs" / "cgroup"
        limit = parse_integer(read_text(root / "memory.max"))
        if limit is not None:
            inactive = parse_vmstat(read_text(root / "memory.stat")).get("inactive_file", 0)
            return limit, max(0, (parse_integer(read_text(root / "memory.current")) or 0) - inactive)
        v1 = root / "memory"
        limit = parse_integer(read_text(v1 / "memory.limit_in_bytes"))
        if limit is None or limit >= NO_LIMIT_BYTES:
            return None, None
        inactive = parse_vmstat(read_text(v1 / "memory.stat")).get("total_inactive_file", 0)
        return limit, max(0, (parse_integer(read_text(v1 / "memory.usage_in_bytes")) or 0) - inactive)

    def _numa(self) -> dict[int, NumaNode]:
        nodes = {}
        try:
            folders = sorted((self._sys / "devices" / "system" / "node").glob("node[0-9]*"))
        except OSError:
            return {}
        for folder in folders:
            values = parse_meminfo(read_text(folder / "meminfo"))
            number = parse_integer(folder.name.removeprefix("node"))
            if number is not None and "MemTotal" in values and "MemFree" in values:
                droppable = [values.get(name) for name in _DROPPABLE]
                nodes[number] = NumaNode(
                    values["MemTotal"],
                    values["MemFree"],
                    None if None in droppable else sum(size or 0 for size in droppable),
                )
        return nodes


_DROPPABLE = ("Active(file)", "Inactive(file)", "SReclaimable")
"""Lines of a node's meminfo (drivers/base/node.c), the parts of what mm/show_mem.c makes MemAvailable of."""
_MEMINFO_LINE = re.compile(r"^(?:Node \d+ )?([A-Za-z_()0-9]{1,64}):\s+(\d{1,18})( kB)?\s*$", re.ASCII)


def parse_meminfo(text: str) -> dict[str, int]:
    """`/proc/meminfo` or a node's `meminfo`: sizes in bytes, counts as they are; other lines are left out."""
    values = {}
    for line in text.splitlines():
        match = _MEMINFO_LINE.match(line)
        if match:
            values[match[1]] = int(match[2]) * (_KIB if match[3] else 1)
    return values


def _cpu(cpuinfo: str) -> Cpu | None:
    threads = len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE))
    if not threads:
        return None
    name = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.{1,128})$", cpuinfo, re.MULTILINE)
    physical = re.findall(r"^physical id\s*:\s*(\d+)", cpuinfo, re.MULTILINE)
    cores = re.findall(r"^core id\s*:\s*(\d+)", cpuinfo, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.{1,8192})$", cpuinfo, re.MULTILINE)
    paired = len(physical) == len(cores) == threads
    return Cpu(
        model=name[1].strip() if name else "",
        sockets=len(set(physical)) if physical else None,
        cores=len(set(zip(physical, cores, strict=True))) if paired else None,
        threads=threads,
        features=FEATURES.intersection(flags[1].split()) if flags else frozenset(),
    )


def _pages(count: int | None, page_bytes: int | None) -> int | None:
    return None if count is None or page_bytes is None else count * page_bytes
