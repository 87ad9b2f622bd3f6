"""What AMD's compute driver (KFD) says in sysfs: its nodes, and what each process holds on them.

A GPU has one node, or one for each partition it is divided in (CPX and the like). Sources are the kernel's
kfd_topology.c and kfd_process.c, which say also:
* `local_mem_size` of a node is 0 on every device, so it tells nothing of where the memory is;
* `location_id` is bus, device and function in its low 16 bits; a partition's number stands in bits 28 to 31,
  on older kernels it was added to the function;
* `gpu_id` and `properties` are refused (EPERM) to a process whose device cgroup excludes the render node, as
  some kernels may do with what follows;
* `proc/PID/vram_<gpu_id>` is what the process asked for as device memory, world-readable; on an APU too,
  where the kernel may take it from RAM. What is shared, mapped or migrated into RAM is not in it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from exporter.hardware.sysfs import (
    MAX_BYTES_OF_MEMORY,
    names,
    parse_integer,
    parse_pairs,
    read_text,
    reason_of,
)

_HEAPS_OF_DEVICE = (1, 2)  # FB_PUBLIC and FB_PRIVATE of kfd_crat.h
_ADDRESS = re.compile(r"^([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$", re.ASCII)


class Node(NamedTuple):
    """A GPU, or a partition of one, as KFD counts. `memory_bytes` is None where no memory bank says it."""

    number: int
    gpu_id: int
    slot: tuple[int, int, int]
    """PCI domain, bus and device"""
    function: int
    render_minor: int
    memory_bytes: int | None


class Topology(NamedTuple):
    """KFD's nodes of GPUs. `problem`: why some or all of them are not known, "" when all are."""

    nodes: tuple[Node, ...]
    problem: str


def parse_address(text: str) -> tuple[int, int, int, int] | None:
    """A PCI address, "0000:c1:00.0", as domain, bus, device and function; None for anything else."""
    match = _ADDRESS.match(text)
    if match is None:
        return None
    domain, bus, device, function = (int(part, 16) for part in match.groups())
    return domain, bus, device, function


def read_topology(root: str) -> Topology:
    """The nodes below `root`, `/sys/class/kfd/kfd`; none where KFD is not there."""
    folder = f"{root}/topology/nodes"
    try:
        numbers = [name for name in names(folder) if name.isascii() and name.isdigit() and len(name) < 6]
    except FileNotFoundError:
        return Topology((), "")
    except OSError as error:
        return Topology((), reason_of(error))
    found: list[Node] = []
    problem = ""
    for number in sorted(numbers, key=int):
        try:
            node = _node(f"{folder}/{number}", int(number))
        except FileNotFoundError:
            continue  # gone between the listing and now
        except OSError as error:
            problem = reason_of(error)
            continue
        if node is not None:
            found.append(node)
    return Topology(tuple(found), problem)


def _node(path: str, number: int) -> Node | None:
    """One node; None for a processor's. Raises OSError."""
    gpu_id = parse_integer(read_text(f"{path}/gpu_id"))
    if not gpu_id or gpu_id < 0:
        return None
    values = parse_pairs(read_text(f"{path}/properties"))
    location = values.get("location_id")
    if location is None:
        return None
    return Node(
        number=number,
        gpu_id=gpu_id,
        slot=(values.get("domain", 0), location >> 8 & 0xFF, location >> 3 & 0x1F),
        function=location & 7,
        render_minor=values.get("drm_render_minor", 0),
        memory_bytes=_device_memory(f"{path}/mem_banks"),
    )


def _device_memory(path: str) -> int | None:
    total = None
    try:
        for bank in names(path):
            values = parse_pairs(read_text(f"{path}/{bank}/properties"))
            size = values.get("size_in_bytes", 0)
            if values.get("heap_type") in _HEAPS_OF_DEVICE and 0 < size <= MAX_BYTES_OF_MEMORY:
                total = (total or 0) + size
    except OSError:
        return None
    return total


def read_processes(root: str, gpu_id: int) -> dict[int, int] | None:
    """pid → bytes of device memory on one node, of processes that hold any. None: KFD does not say."""
    try:
        pids = [name for name in names(f"{root}/proc") if name.isascii() and name.isdigit() and len(name) < 8]
    except OSError:
        return None
    found = {}
    for pid in pids:
        try:
            size = parse_integer(read_text(f"{root}/proc/{pid}/vram_{gpu_id}"))
        except PermissionError:
            return None  # who else is there would be missing from the list without a word
        except OSError:
            continue  # not on this device, or it has just ended
        if size is not None and 0 < size <= MAX_BYTES_OF_MEMORY:
            found[int(pid)] = size
    return found
