"""What holds a process below the memory of its host: limits of control groups, and the NUMA nodes it may use.

Sources: admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, cgroups(7), proc(5), mm/mempolicy.c mpol_to_str.
Whatever cannot be read, or makes no sense, is absent with a reason, and costs nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from exporter.engines.process import Process
from exporter.kernelfiles import NO_LIMIT_BYTES, parse_integer, parse_pressure, parse_vmstat, read_text

_DEEPEST = 32
"""Levels of control groups that are climbed; a pod of Kubernetes lies four below the root."""
_MOST_NODES = 1024
"""MAX_NUMNODES of any kernel"""
_POLICY_BYTES = 64
"""Each line of numa_maps costs the kernel a walk over all pages of one mapping, half a TiB of weights among
them. A reader that wants 64 bytes makes it write one line, that of the program's own code, which begins with
the policy of the whole process.
"""


class LimitState(StrEnum):
    """Whether a process has a limit of its own, or why that is not known."""

    LIMITED = "limited"
    UNLIMITED = "unlimited"
    NO_CGROUP = "no_cgroup"
    """the kernel counts no memory by group"""
    HIDDEN = "hidden"
    """its group lies outside of what this process can see, as from within a container"""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Group:
    """One control group with a limit, in bytes.

    ``limit``: the lower of what it is killed at and what it is throttled at. ``droppable``: of ``used``, page
    cache on the kernel's lists of what may be taken back. ``mapped``: page cache that processes have mapped
    and that this group pays for. Pressure and kills are of the group and everything below it.
    """

    path: str
    limit_bytes: int
    used_bytes: int
    droppable_bytes: int
    mapped_bytes: int | None = None
    pressure_some_seconds: float | None = None
    pressure_full_seconds: float | None = None
    oom_kills: int | None = None


@dataclass(frozen=True, slots=True)
class Confinement:
    """What confines one process. ``groups`` are those with a limit, the innermost first; ``nodes`` are the
    only NUMA nodes that may give it memory, None where that is not known.
    """

    state: LimitState
    groups: tuple[Group, ...] = ()
    nodes: frozenset[int] | None = None


def of_all(processes: Sequence[Confinement]) -> Confinement:
    """What confines several processes of one deployment together, the first of them its server: limits are
    the server's, and of the nodes those of any. Where one process may go anywhere, so may the deployment.
    """
    nodes = [one.nodes for one in processes]
    known = [one for one in nodes if one is not None]
    return replace(processes[0], nodes=frozenset().union(*known) if len(known) == len(nodes) else None)


class ConfinementReader:
    """Reads what confines processes. Blocks for some milliseconds: it belongs beside the poll loop."""

    def __init__(self, proc: Path, sys: Path) -> None:
        self._proc = proc
        self._groups = sys / "fs" / "cgroup"
        self._policies: dict[tuple[int, int], frozenset[int] | None] = {}

    def read(self, processes: Iterable[Process]) -> dict[int, Confinement]:
        """pid → what confines it."""
        wanted = tuple(processes)
        keys = {(one.pid, one.start_ticks) for one in wanted}
        self._policies = {key: bound for key, bound in self._policies.items() if key in keys}
        known: dict[str, Group | None] = {}
        return {one.pid: self._confinement(one, known) for one in wanted}

    def _confinement(self, process: Process, known: dict[str, Group | None]) -> Confinement:
        state, path, is_v1 = self._place(process.pid)
        groups = self._limited(path, is_v1, known) if path is not None else ()
        if state is LimitState.UNLIMITED and groups:
            state = LimitState.LIMITED
        return Confinement(state, groups, self._nodes(process))

    def _place(self, pid: int) -> tuple[LimitState, str | None, bool]:
        """(state, path below the root of the hierarchy that counts memory, whether that is version 1)."""
        lines = read_text(self._proc / str(pid) / "cgroup")
        if not lines:
            return LimitState.UNREADABLE, None, False
        path, is_v1 = memory_group(lines)
        if path is None or (not is_v1 and not (self._groups / "cgroup.controllers").exists()):
            return LimitState.NO_CGROUP, None, is_v1
        if ".." in path.split("/"):
            return LimitState.HIDDEN, None, is_v1
        root = self._groups / "memory" if is_v1 else self._groups
        if not (root / path.strip("/")).is_dir():
            return LimitState.HIDDEN, None, is_v1
        return LimitState.UNLIMITED, path.strip("/"), is_v1

    def _limited(self, path: str, is_v1: bool, known: dict[str, Group | None]) -> tuple[Group, ...]:
        """The groups with a limit from the innermost to the root; each is read once for all processes."""
        found = []
        for _ in range(_DEEPEST):
            if path not in known:
                known[path] = self._v1(path) if is_v1 else self._v2(path)
            group = known[path]
            if group is not None:
                found.append(group)
            if not path:
                break
            path = path.rpartition("/")[0]
        return tuple(found)

    def _v2(self, path: str) -> Group | None:
        folder = self._groups / path
        limits = (
            parse_integer(read_text(folder / "memory.max")),
            parse_integer(read_text(folder / "memory.high")),
        )
        limit = min((one for one in limits if one is not None), default=None)
        used = parse_integer(read_text(folder / "memory.current"))
        if limit is None or used is None:
            return None
        stat = parse_vmstat(read_text(folder / "memory.stat"))
        pressure = parse_pressure(read_text(folder / "memory.pressure"))
        return Group(
            path,
            limit,
            used,
            stat.get("inactive_file", 0) + stat.get("active_file", 0),
            stat.get("file_mapped"),
            pressure.get("some"),
            pressure.get("full"),
            parse_vmstat(read_text(folder / "memory.events")).get("oom_kill"),
        )

    def _v1(self, path: str) -> Group | None:
        folder = self._groups / "memory" / path
        limit = parse_integer(read_text(folder / "memory.limit_in_bytes"))
        used = parse_integer(read_text(folder / "memory.usage_in_bytes"))
        if limit is None or limit >= NO_LIMIT_BYTES or used is None:
            return None
        stat = parse_vmstat(read_text(folder / "memory.stat"))
        return Group(
            path,
            limit,
            used,
            stat.get("total_inactive_file", 0) + stat.get("total_active_file", 0),
            stat.get("total_mapped_file"),
            oom_kills=parse_vmstat(read_text(folder / "memory.oom_control")).get("oom_kill"),
        )

    def _nodes(self, process: Process) -> frozenset[int] | None:
        """The nodes that its cpuset allows, and of these only those that its policy binds it to."""
        status = read_text(self._proc / str(process.pid) / "status")
        listed = re.search(r"^Mems_allowed_list:\s*([0-9,-]{1,4096})\s*$", status, re.MULTILINE | re.ASCII)
        allowed = parse_list(listed[1]) if listed else None
        bound = self._bound(process)
        if allowed is None or bound is None:
            return allowed if bound is None else bound
        return (allowed & bound) or allowed

    def _bound(self, process: Process) -> frozenset[int] | None:
        """What its policy binds it to; asked for once, since the question holds the process's memory map."""
        key = (process.pid, process.start_ticks)
        if key not in self._policies:
            path = f"{self._proc}/{process.pid}/numa_maps"
            self._policies[key] = parse_policy(_beginning(path, _POLICY_BYTES))
        return self._policies[key]


def memory_group(text: str) -> tuple[str | None, bool]:
    """(path of the group that counts memory, whether by version 1), of `/proc/PID/cgroup`."""
    unified: str | None = None
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3 or not parts[2].startswith("/"):
            continue
        if "memory" in parts[1].split(","):
            return parts[2], True
        if (parts[0], parts[1]) == ("0", ""):
            unified = parts[2]
    return unified, False


def parse_list(text: str) -> frozenset[int] | None:
    """Numbers of a list as the kernel writes it, `0-2,5`; None when it is none, or names impossible nodes."""
    found: set[int] = set()
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part, re.ASCII)
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last >= _MOST_NODES:
            return None
        found.update(range(first, last + 1))
    return frozenset(found)


_BOUND = re.compile(r"[0-9a-f]{1,16} bind(?:=[a-z|+]{1,32})?:([0-9,-]+)\s", re.ASCII)


def parse_policy(text: str) -> frozenset[int] | None:
    """The nodes that the first line of `numa_maps` binds to; None for every policy that may go elsewhere
    (default, local, preferred, interleaved), and for what is none.
    """
    match = _BOUND.match(text)
    return parse_list(match[1]) if match else None


def _beginning(path: str, size: int) -> str:
    """No more than `size` bytes, asked of the kernel as such; "" when it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, size).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
