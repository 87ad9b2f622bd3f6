"""The host's processes, as far as deployments need them: program, parent, unit, memory (proc(5)).

A command line is read for the program's own name only, and a name is kept only when it is one that was
asked for: no key in somebody's arguments can reach a label, a log line or an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
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
_MARKS = re.compile(
    rb"vllm|sglang|llama|ktransformers|lmdeploy|trtllm|tensorrt|text.generation|transformers|::|ray"
    rb"|(?:^|/)kt\0",
    re.IGNORECASE,
)
"""What the command line of anything to do with an engine holds: only such lines are read as launches."""

_MAX_LINE_BYTES = 2_097_152
"""What Linux allows a command line, and an environment, to hold (execve(2), ARG_MAX)."""
_SETTLED_AFTER_SCANS = 4
"""A new process may still become another program (exec, a title set late) without changing its short name."""
_MAX_STAT_BYTES = 2**20
"""/proc/stat has a line for each of up to thousands of threads, and one number for each interrupt."""
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_MODULE = re.compile(r"^[A-Za-z_][\w.]{0,127}$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Process:
    """One process. (pid, start_ticks) is its identity: a pid alone is reused."""

    pid: int
    start_ticks: int
    parent: int
    programs: frozenset[str]
    units: frozenset[str]
    """systemd units and container scopes on its cgroup path; of a program with a known name only"""
    candidate: bool = False
    """its command line may be that of an engine"""


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """RAM of one process in bytes: private, mapped files, shared, hugepages.

    ``locked`` are mappings that it holds down with mlock(2), of whatever kind; ``swapped`` is private memory
    that the kernel has moved to swap; ``peak`` is the most that it ever held at once; ``major_faults`` are
    pages for which it had to wait for a disk.
    """

    anonymous: int
    file: int
    shared: int
    hugepages: int
    locked: int = 0
    swapped: int | None = None
    peak: int = 0
    major_faults: int | None = None

    @property
    def pinned(self) -> int:
        """What the kernel cannot drop: all but page cache that is not locked."""
        return self.anonymous + self.shared + self.hugepages + self.locked_file

    @property
    def locked_file(self) -> int:
        """Page cache that is locked, at the most: a lock may also lie on private memory."""
        return min(self.file, self.locked)


class ProcessTable:
    """Reads the process table; what never changes about a process is read once."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._root = str(proc)
        self._known: dict[tuple[int, int], Process] = {}
        self._scans: dict[tuple[int, int], int] = {}
        self._patterns: frozenset[str] = frozenset()
        self.look_for(())

    def look_for(self, patterns: Iterable[str]) -> None:
        """Names to recognise beside those of the known engines; `*` allowed."""
        wanted = frozenset(patterns).union(*PROGRAMS.values())
        if wanted != self._patterns:
            self._patterns = wanted
            self._is_wanted = re.compile("|".join(translate(one) for one in sorted(wanted))).match
            self._known = {}

    def scan(self, *, thorough: bool = True) -> dict[int, Process]:
        """Every process that can be read, by pid. Raises OSError when the table itself cannot.

        Not `thorough`: only new and young processes are looked at; one that was known long since is taken
        for what it was as long as its pid is listed.
        """
        found: dict[tuple[int, int], Process] = {}
        scans: dict[tuple[int, int], int] = {}
        by_pid = {} if thorough else {key[0]: key for key in self._known}
        for name in os.listdir(self._root):  # noqa: PTH208 (see _read)
            if not name.isdigit():
                continue
            before = by_pid.get(int(name))
            if before is not None and self._scans.get(before, 0) > _SETTLED_AFTER_SCANS:
                found[before], scans[before] = self._known[before], self._scans[before]
                continue
            stat = parse_stat(_read(f"{self._root}/{name}/stat"))
            if stat is None:
                continue
            command, parent, start = stat
            key = (int(name), start)
            known = self._known.get(key)
            scans[key] = self._scans.get(key, 0) + 1
            settled = scans[key] > _SETTLED_AFTER_SCANS
            if known is None or not settled or known.parent != parent or command not in known.programs:
                known = self._look(name, key, command, parent, known)
            found[key] = known
        self._known, self._scans = found, scans
        return {process.pid: process for process in found.values()}

    def _look(
        self, name: str, key: tuple[int, int], command: str, parent: int, before: Process | None
    ) -> Process:
        """What a process is now; `before` itself when nothing about it has changed."""
        line = _read(f"{self._root}/{name}/cmdline")
        programs = frozenset({command, *(one for one in _programs(line) if self._is_wanted(one))})
        candidate = _MARKS.search(line) is not None
        # The names of units are asked for beside that of an engine's program, and on a busy host the
        # third file of every process would cost as much as the other two.
        named = candidate or any(self._is_wanted(one) for one in programs)
        units = frozenset(parse_cgroup(_read(f"{self._root}/{name}/cgroup"))) if named else frozenset()
        seen = Process(key[0], key[1], parent, programs, units, candidate)
        return before if before == seen else seen

    def arguments(self, process: Process) -> list[str]:
        """The command line of a candidate, for the reader of launches alone."""
        line = _read(f"{self._root}/{process.pid}/cmdline", _MAX_LINE_BYTES).rstrip(b"\0")
        return [part.decode(errors="replace") for part in line.split(b"\0")] if line else []

    def environment(self, process: Process) -> dict[str, str] | None:
        """The variables of a candidate, for the reader of launches alone; None where they may not be read."""
        try:
            with (self._proc / str(process.pid) / "environ").open("rb") as stream:
                data = stream.read(_MAX_LINE_BYTES)
        except OSError:
            return None
        pairs = (part.decode(errors="replace").partition("=") for part in data.split(b"\0") if part)
        return {name: value for name, equals, value in pairs if equals and name.strip("\0")}

    def started_seconds(self, process: Process) -> float | None:
        """Unix time at which a process started (proc(5): btime, and ticks since); None without a btime.

        It moves with the wall clock, as the kernel's own notion of its boot does.
        """
        found = re.search(rb"^btime (\d{1,12})$", _read(f"{self._root}/stat", _MAX_STAT_BYTES), re.MULTILINE)
        return None if found is None else int(found[1]) + process.start_ticks / _TICKS_PER_SECOND

    def is_alive(self, process: Process) -> bool:
        """Whether it is still this process that has the pid, and not what is left of it."""
        data = _read(f"{self._root}/{process.pid}/stat")
        stat = parse_stat(data)
        return stat is not None and stat[2] == process.start_ticks and not _is_dead(data)

    def memory(self, process: Process) -> ProcessMemory | None:
        """RAM of a process now; None when it is gone or another one has its pid."""
        folder = f"{self._root}/{process.pid}"
        status = parse_status(_read(f"{folder}/status"))
        line = _read(f"{folder}/stat")
        stat = parse_stat(line)
        if stat is None or stat[2] != process.start_ticks or "RssAnon" not in status:
            return None
        return ProcessMemory(
            anonymous=status["RssAnon"],
            file=status.get("RssFile", 0),
            shared=status.get("RssShmem", 0),
            hugepages=status.get("HugetlbPages", 0),
            locked=status.get("VmLck", 0),
            swapped=status.get("VmSwap"),
            peak=status.get("VmHWM", 0),
            major_faults=parse_major_faults(line),
        )


def matching(
    processes: Mapping[int, Process], programs: Iterable[str], unit: str | None
) -> list[tuple[Process, frozenset[int]]]:
    """The process trees whose root runs one of `programs` (patterns) in `unit`, oldest first.

    Each is its root and the pids of the tree, root included. A match below another match is part of it.
    """
    is_wanted = re.compile("|".join(translate(one) for one in programs) or r"(?!)").match
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    matches = {
        process.pid
        for process in processes.values()
        if (unit is None or unit in process.units) and any(is_wanted(name) for name in process.programs)
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


def parse_major_faults(data: bytes) -> int | None:
    """Faults of a process and of its threads that had to read from a disk, of `/proc/PID/stat`."""
    fields = data[data.rfind(b")") + 1 :].split()
    return int(fields[9]) if len(fields) > 9 and fields[9].isdigit() else None


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


def _is_dead(stat: bytes) -> bool:
    """Whether `/proc/PID/stat` is that of a process that has ended and was not collected yet."""
    return stat[stat.rfind(b")") + 1 :].split()[:1] in ([b"Z"], [b"X"])


def _read(path: str, limit: int = _MAX_BYTES) -> bytes:
    # Not pathlib, nor a stream: of ten thousand processes every microsecond counts.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = os.read(fd, 4096)
        while len(data) >= 4096 and len(data) < limit and (piece := os.read(fd, 65536)):
            data += piece
        return data[:limit]
    except OSError:
        return b""
    finally:
        os.close(fd)
