"""Who holds the memory: every device's used bytes, and the host's, split by holder so that they sum exactly.

A deployment's processes are found by program and unit. Where several declared deployments fit the same
processes, the one declared first takes the tree that started first; on devices, only trees that touch the
deployment's own devices count for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from exporter.capacity.observation import Declared
from exporter.capacity.unified import UNIFIED
from exporter.engines.process import Process, ProcessMemory, matching
from exporter.hardware.gpu import Gpu

HolderKind = Literal["deployment", "other", "unattributed"]
OTHER = "other"
UNATTRIBUTED = "unattributed"


@dataclass(frozen=True, slots=True)
class Holding:
    """Bytes of one device that one holder has."""

    holder: str
    kind: HolderKind
    size_bytes: int


@dataclass(frozen=True, slots=True)
class HostHolding:
    """RAM that one holder has, by kind of page."""

    holder: str
    memory: ProcessMemory


def owners(
    declared: Iterable[Declared], processes: Mapping[int, Process], gpus: Iterable[Gpu]
) -> dict[str, frozenset[int]]:
    """Deployment → pids of its processes; one that does not run is absent."""
    on_devices = devices_of_pids(gpus)
    taken: set[int] = set()
    result: dict[str, frozenset[int]] = {}
    for deployment in declared:
        wanted = frozenset(uuid for uuid in deployment.ranks if uuid)
        for root, tree in matching(processes, deployment.programs, deployment.unit):
            if root.pid in taken:
                continue
            on = frozenset(uuid for pid in tree for uuid in on_devices.get(pid, ()))
            if on and not wanted & on:
                continue
            result[deployment.name] = tree
            taken |= tree
            break
    return result


def devices_of_pids(gpus: Iterable[Gpu]) -> dict[int, set[str]]:
    """pid → uuids of the devices that list it."""
    found: dict[int, set[str]] = {}
    for gpu in gpus:
        for process in (gpu.reading.processes or ()) if gpu.reading else ():
            found.setdefault(process.pid, set()).add(gpu.identity.uuid)
    return found


def device_holdings(
    gpu: Gpu, owned: Mapping[str, frozenset[int]], placed: Mapping[str, int] | None = None
) -> tuple[Holding, ...] | None:
    """The device's used bytes by holder; they sum to it. None when the driver gives no used bytes, but for a
    unified device, of which then only the processes tell.

    ``placed``: deployments that run and should be on this device → bytes that they should hold there. They
    decide where an exporter tells of a device without its processes: what is used is then theirs.

    What no process accounts for (contexts of dead processes, the driver's own) is `unattributed`; so is all
    of it when the process list cannot be read. Drivers count shared pages once for each process: what
    exceeds the used bytes is taken from `other` first, then from the largest deployment.
    """
    reading = gpu.reading
    if reading is None:
        return None
    used = reading.memory_used_bytes
    if used is None and gpu.identity.memory_kind == UNIFIED and reading.processes is not None:
        used = sum(one.used_bytes or 0 for one in reading.processes)
    if used is None:
        return None
    if is_by_placement(gpu) and placed:
        return _by_placement(used, placed)
    owner = {pid: name for name, pids in owned.items() for pid in pids}
    held: dict[str, int] = {}
    other = 0
    for process in reading.processes or ():
        size = process.used_bytes or 0
        name = owner.get(process.pid)
        if name is None:
            other += size
        else:
            held[name] = held.get(name, 0) + size
    excess = max(0, other + sum(held.values()) - used)
    cut = min(excess, other)
    other, excess = other - cut, excess - cut
    for name in sorted(held, key=lambda one: (-held[one], one)):
        cut = min(excess, held[name])
        held[name], excess = held[name] - cut, excess - cut
    rest = used - other - sum(held.values())
    return (
        *(Holding(name, "deployment", size) for name, size in sorted(held.items())),
        Holding(OTHER, "other", other),
        Holding(UNATTRIBUTED, "unattributed", rest),
    )


def is_by_placement(gpu: Gpu) -> bool:
    """Whether who holds a device is told by where deployments are placed, because its exporter lists no
    processes. A driver of our own that cannot list them is a fault, and is told as one."""
    return bool(gpu.identity.source) and (gpu.reading is None or gpu.reading.processes is None)


def _by_placement(used: int, placed: Mapping[str, int]) -> tuple[Holding, ...]:
    """All of it to the only deployment; several share it as they should hold it, or equally where that is not
    known of each."""
    names = sorted(placed)
    shares = [placed[name] for name in names] if all(placed.values()) else [1] * len(names)
    total, given, before = sum(shares), [], 0
    for share in accumulate(shares):
        upto = used * share // total
        given.append(upto - before)
        before = upto
    return (
        *(Holding(name, "deployment", size) for name, size in zip(names, given, strict=True)),
        Holding(OTHER, "other", 0),
        Holding(UNATTRIBUTED, "unattributed", 0),
    )


def host_holdings(
    owned: Mapping[str, frozenset[int]], memory: Mapping[int, ProcessMemory]
) -> dict[str, ProcessMemory]:
    """RAM of each running deployment.

    Private pages add up over its processes; mapped files and shared memory are mostly the same pages in each
    of them, so the largest process stands for all: a lower bound.
    """
    result = {}
    for name, pids in owned.items():
        known = [memory[pid] for pid in pids if pid in memory]
        if known:
            result[name] = ProcessMemory(
                anonymous=sum(one.anonymous for one in known),
                file=max(one.file for one in known),
                shared=max(one.shared for one in known),
                hugepages=sum(one.hugepages for one in known),
                locked=max(one.locked for one in known),
                swapped=_sum(one.swapped for one in known),
                peak=max(one.peak for one in known),
                major_faults=_sum(one.major_faults for one in known),
            )
    return result


def _sum(counts: Iterable[int | None]) -> int | None:
    """None where one of them is not known: a part alone would seem to be the whole."""
    known = tuple(counts)
    return None if None in known else sum(one or 0 for one in known)
