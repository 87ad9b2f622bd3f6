"""A recorded host's /proc and /sys as files: what the exporter reads of them and nothing else.

Shapes: proc(5), Documentation/filesystems/proc.rst, accounting/psi.rst. A title fills a command line up with
NUL bytes, as setproctitle leaves it. A file changes by a rename, so that nobody reads half of one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from exporter.demo import amd_tree, network_tree
from exporter.demo.profile import Profile, Ram
from exporter.demo.scene import Memory, Process, Scene

_KIB = 1024
_INODES_FROM = 900_000
_TITLE_BYTES = 160


@dataclass(frozen=True, slots=True)
class Files:
    """Relative path → content, and relative path → where a symbolic link points."""

    contents: Mapping[str, bytes]
    links: Mapping[str, str]


def files(scene: Scene, host: Profile) -> Files:
    """All files of one moment, below `proc/` and `sys/`."""
    ram, devices = host.ram, host.devices
    contents: dict[str, str] = {
        "proc/meminfo": _meminfo(scene.memory),
        "proc/cpuinfo": _cpuinfo(ram),
        "proc/vmstat": "pgfault 77\noom_kill 0\n",
        "proc/pressure/memory": _pressure(scene.memory),
        **_nodes(scene.memory, ram.nodes),
    }
    links: dict[str, str] = {}
    sockets = [
        (port, _INODES_FROM + number)
        for number, port in enumerate(port for process in scene.processes for port in process.ports)
    ]
    table = _tcp(sockets)
    for process in scene.processes:
        folder = f"proc/{process.pid}"
        contents[f"{folder}/stat"] = _stat(process)
        contents[f"{folder}/status"] = _status(process)
        contents[f"{folder}/cmdline"] = _cmdline(process)
        contents[f"{folder}/cgroup"] = f"0::/system.slice/{process.unit}\n" if process.unit else "0::/\n"
        contents[f"{folder}/net/tcp"] = table
        for number, (port, inode) in enumerate(sockets):
            if port in process.ports:
                links[f"{folder}/fd/{number + 3}"] = f"socket:[{inode}]"
    if devices is not None and devices.vendor == "amd":
        contents.update(amd_tree.contents(devices, scene.devices))
        links.update(amd_tree.links(scene.devices))
    for interface in host.interfaces:
        contents.update(network_tree.contents(interface, *scene.traffic[interface.name]))
    return Files({path: text.encode() for path, text in contents.items()}, links)


@dataclass(slots=True)
class Tree:
    """Those files in a folder; only what has changed is written."""

    root: Path
    _contents: dict[str, bytes] = field(default_factory=dict)

    def show(self, wanted: Files) -> None:
        """Make the folder hold exactly these. Raises OSError."""
        before = {_process(path) for path in self._contents} - {None}
        after = {_process(path) for path in wanted.contents}
        for pid in before - after:
            self._remove(str(pid))
        for pid in sorted((after - before) - {None}, key=str):
            self._appear(str(pid), wanted)
        for path in self._contents.keys() - wanted.contents.keys():
            (self.root / path).unlink()
        for path, content in wanted.contents.items():
            if self._contents.get(path) != content:
                _write(self.root / path, content)
        for path, target in wanted.links.items():
            if _process(path) is None and not (self.root / path).is_symlink():
                _link(self.root / path, target)
        self._contents = dict(wanted.contents)

    def _appear(self, pid: str, wanted: Files) -> None:
        """A process is there with all its files or not at all."""
        prefix = f"proc/{pid}/"
        hidden = self.root / "proc" / f".{pid}.new"
        for path, content in wanted.contents.items():
            if path.startswith(prefix):
                _write(hidden / path.removeprefix(prefix), content)
                self._contents[path] = content
        for path, target in wanted.links.items():
            if path.startswith(prefix):
                _link(hidden / path.removeprefix(prefix), target)
        hidden.rename(self.root / "proc" / pid)

    def _remove(self, pid: str) -> None:
        gone = (self.root / "proc" / pid).rename(self.root / "proc" / f".{pid}.gone")
        shutil.rmtree(gone)
        prefix = f"proc/{pid}/"
        self._contents = {path: one for path, one in self._contents.items() if not path.startswith(prefix)}


def _process(path: str) -> str | None:
    part = path.split("/")[1]
    return part if path.startswith("proc/") and part.isdigit() else None


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)


def _stat(process: Process) -> str:
    # pid (comm) state ppid, then 17 fields that nobody here reads, then starttime, the 22nd.
    return f"{process.pid} ({process.program}) S {process.parent} {'0 ' * 17}{process.start_ticks} 0 0\n"


def _status(process: Process) -> str:
    sizes = {
        "VmHWM": process.anonymous_bytes + process.file_bytes,
        "VmLck": 0,
        "RssAnon": process.anonymous_bytes,
        "RssFile": process.file_bytes,
        "RssShmem": 0,
        "VmSwap": 0,
        "HugetlbPages": 0,
    }
    rows = (f"{name}:\t{size // _KIB:>8} kB\n" for name, size in sizes.items())
    return f"Name:\t{process.program}\nPid:\t{process.pid}\nPPid:\t{process.parent}\n" + "".join(rows)


def _cmdline(process: Process) -> str:
    if process.title:
        return process.title.ljust(_TITLE_BYTES, "\0")
    return "".join(f"{part}\0" for part in process.argv)


def _tcp(sockets: list[tuple[int, int]]) -> str:
    head = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    )
    return head + "".join(
        f"{number:4}: 0100007F:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000"
        f"     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
        for number, (port, inode) in enumerate(sockets)
    )


def _meminfo(memory: Memory) -> str:
    sizes = {
        "MemTotal": memory.total,
        "MemFree": memory.available // 3,
        "MemAvailable": memory.available,
        "Cached": memory.available * 2 // 3,
        "Shmem": 0,
        "SwapTotal": memory.swap_total,
        "SwapFree": memory.swap_total - memory.swap_used,
    }
    return "".join(f"{name + ':':16}{size // _KIB:>8} kB\n" for name, size in sizes.items())


def _nodes(memory: Memory, count: int) -> dict[str, str]:
    rows = {
        "MemTotal": memory.total,
        "MemFree": memory.available // 3,
        "Active(file)": memory.available // 3,
        "Inactive(file)": memory.available // 3,
        "SReclaimable": 0,
    }
    return {
        f"sys/devices/system/node/node{node}/meminfo": "".join(
            f"Node {node} {name + ':':16}{size // count // _KIB:>8} kB\n" for name, size in rows.items()
        )
        for node in range(count)
    }


def _pressure(memory: Memory) -> str:
    return "".join(
        f"{scope} avg10=0.00 avg60=0.00 avg300=0.00 total={round(seconds * 1e6)}\n"
        for scope, seconds in (("some", memory.stalled_some), ("full", memory.stalled_full))
    )


def _cpuinfo(ram: Ram) -> str:
    """Sibling threads come last, as on real hosts."""
    return "\n".join(
        f"processor\t: {(thread * ram.sockets + socket) * ram.cores + core}\nmodel name\t: {ram.cpu}\n"
        f"physical id\t: {socket}\ncore id\t\t: {core}\nflags\t\t: {ram.flags}\n"
        for thread in range(ram.threads_per_core)
        for socket in range(ram.sockets)
        for core in range(ram.cores)
    )
