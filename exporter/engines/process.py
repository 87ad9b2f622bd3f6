"""The host's processes, as far as deployments need them: program, parent, unit, memory (proc(5)).

A command line is read for the program's own name only, and a name is kept only when it is one that was
asked for: no key in somebody's arguments can reach a label, a log line or an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

PROGRAMS: dict[str, tuple[str, ...]] = {
    "vllm": ("vllm", "VLLM::*", "vllm.entrypoints.*"),
    "sglang": ("sglang", "sglang::*", "sglang.launch_server"),
    "llama.cpp": ("llama-server", "llama-cli"),
    "ik_llama.cpp": ("llama-server", "llama-cli"),
    "llama-cpp-python": ("llama_cpp.server",),
    "ollama": ("ollama",),
    "ktransformers": ("ktransformers", "ktransformers.*"),
    "lmdeploy": ("lmdeploy", "lmdeploy.*"),
    "tensorrt-llm": ("trtllm-serve", "trtllm-llmapi-launch"),
    "tgi": ("text-generation-launcher", "text-generation-server"),
    "transformers": (),
}
"""Names under which an engine's processes run: files, retitled workers, `python -m` modules."""

_INTERPRETERS = re.compile(r"^(python|pypy)[0-9.]*$")
_MAX_BYTES = 65536
_SETTLED_AFTER_SCANS = 4
"""A new process may still become another program (exec, a title set late) without changing its short name."""
_MODULE = re.compile(r"^[A-Za-z_][\w.]{0,127}$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Process:
    """One process. (pid, start_ticks) is its identity: a pid alone is reused."""

    pid: int
    start_ticks: int
    parent: int
    programs: frozenset[str]
    units: frozenset[str]
    """systemd units and container scopes on its cgroup path"""


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """RAM of one process in bytes: private, mapped files, shared, hugepages."""

    anonymous: int
    file: int
    shared: int
    hugepages: int


class ProcessTable:
    """Reads the process table; what never changes about a process is read once."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._known: dict[tuple[int, int], Process] = {}
        self._scans: dict[tuple[int, int], int] = {}
        self._patterns: frozenset[str] = frozenset()
        self.look_for(())

    def look_for(self, patterns: Iterable[str]) -> None:
        """Names to recognise beside those of the known engines; `*` allowed."""
        wanted = frozenset(patterns).union(*PROGRAMS.values())
        if wanted != self._patterns:
            self._patterns = wanted
            self._known = {}

    def scan(self) -> dict[int, Process]:
        """Every process that can be read, by pid. Raises OSError when the table itself cannot."""
        found: dict[tuple[int, int], Process] = {}
        scans: dict[tuple[int, int], int] = {}
        for entry in self._proc.iterdir():
            if not entry.name.isdigit():
                continue
            stat = parse_stat(_read(entry / "stat"))
            if stat is None:
                continue
            command, parent, start = stat
            key = (int(entry.name), start)
            known = self._known.get(key)
            scans[key] = self._scans.get(key, 0) + 1
            settled = scans[key] > _SETTLED_AFTER_SCANS
            if known is None or not settled or known.parent != parent or command not in known.programs:
                known = Process(
                    pid=key[0],
                    start_ticks=start,
                    parent=parent,
                    programs=frozenset({command, *self._named(_read(entry / "cmdline"))}),
                    units=frozenset(parse_cgroup(_read(entry / "cgroup"))),
                )
            found[key] = known
        self._known, self._scans = found, scans
        return {process.pid: process for process in found.values()}

    def _named(self, cmdline: bytes) -> list[str]:
        return [
            name
            for name in _programs(cmdline)
            if any(fnmatchcase(name, pattern) for pattern in self._patterns)
        ]

    def memory(self, process: Process) -> ProcessMemory | None:
        """RAM of a process now; None when it is gone or another one has its pid."""
        folder = self._proc / str(process.pid)
        status = parse_status(_read(folder / "status"))
        stat = parse_stat(_read(folder / "stat"))
        if stat is None or stat[2] != process.start_ticks or "RssAnon" not in status:
            return None
        return ProcessMemory(
            anonymous=status["RssAnon"],
            file=status.get("RssFile", 0),
            shared=status.get("RssShmem", 0),
            hugepages=status.get("HugetlbPages", 0),
        )


def matching(
    processes: Mapping[int, Process], programs: Iterable[str], unit: str | None
) -> list[tuple[Process, frozenset[int]]]:
    """The process trees whose root runs one of `programs` (patterns) in `unit`, oldest first.

    Each is its root and the pids of the tree, root included. A match below another match is part of it.
    """
    patterns = tuple(programs)
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    matches = {
        process.pid
        for process in processes.values()
        if (unit is None or unit in process.units)
        and any(fnmatchcase(name, pattern) for name in process.programs for pattern in patterns)
    }
    roots = [processes[pid] for pid in matches if not (_ancestors(processes, pid) - {pid}) & matches]
    roots.sort(key=lambda process: (process.start_ticks, process.pid))
    return [(root, _tree(children, root.pid)) for root in roots]


def _ancestors(processes: Mapping[int, Process], pid: int) -> set[int]:
    seen: set[int] = set()
    parent = processes[pid].parent
    while parent in processes and parent not in seen:
        seen.add(parent)
        parent = processes[parent].parent
    return seen


def _tree(children: Mapping[int, list[int]], root: int) -> frozenset[int]:
    found = {root}
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return frozenset(found)


def parse_stat(data: bytes) -> tuple[str, int, int] | None:
    """(program, parent pid, start ticks) of `/proc/PID/stat`; None when it is not one."""
    opening, closing = data.find(b"("), data.rfind(b")")
    fields = data[closing + 1 :].split()
    if opening < 0 or closing < opening or len(fields) < 20:
        return None
    try:
        return data[opening + 1 : closing].decode(errors="replace"), int(fields[1]), int(fields[19])
    except ValueError:
        return None


def parse_status(data: bytes) -> dict[str, int]:
    """Sizes of `/proc/PID/status` in bytes."""
    rows = re.findall(rb"^(\w{1,32}):\s+(\d{1,15}) kB$", data, re.MULTILINE)
    return {name.decode(): int(size) * 1024 for name, size in rows}


def parse_cgroup(data: bytes) -> list[str]:
    """Unit and scope names on the paths of `/proc/PID/cgroup`."""
    names = []
    for line in data.decode(errors="replace").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            names += [part for part in parts[2].split("/") if part.endswith((".service", ".scope"))]
    return names


def _programs(cmdline: bytes) -> set[str]:
    """Names by which this program may be known: its file, and under an interpreter its script or module."""
    arguments = [part.decode(errors="replace") for part in cmdline.split(b"\0")[:8]]
    title = arguments[0] if arguments else ""
    names = {title if "::" in title and " " not in title else PurePosixPath(title).name}
    if _INTERPRETERS.match(PurePosixPath(title).name):
        rest = arguments[1:]
        while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
            rest = rest[1:]
        if rest[:1] == ["-m"] and len(rest) > 1 and _MODULE.match(rest[1]):
            names.add(rest[1])
        elif rest and rest[0] not in ("-m", "-c"):
            names.add(PurePosixPath(rest[0]).name)
    return {name for name in names if name}


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_BYTES)
    except OSError:
        return b""
