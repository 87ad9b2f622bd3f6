"""What each process holds on a DRM device, by the `fdinfo` of its open device files.

Source: Documentation/gpu/drm-usage-stats.rst and amdgpu_fdinfo.c. It fills what KFD does not count: Vulkan,
OpenGL and video. Only the process's owner and whoever may trace it can read these files (proc_pid_fdinfo(5)).
To find the open files, every process has to be looked at, which is done seldom; to read them, only those.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from exporter.hardware.sysfs import MAX_BYTES_OF_MEMORY, names, read_text

_LOOK_EVERY_SECONDS = 30.0
_SLICE_SECONDS = 0.01
_MOST_FILES = 20_000
"""of one process: looking at 1,600 files took 8 ms (homelab-monitor#247)"""
_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_LINE = re.compile(r"^([a-z][\w-]{0,63}):[ \t]*(.{1,128}?)[ \t]*$", re.ASCII | re.MULTILINE)
_SIZE = re.compile(r"^(\d{1,20})(?: (KiB|MiB|GiB))?$", re.ASCII)
_NODE = re.compile(r"/dri/((?:card|renderD)\d{1,5})$", re.ASCII)


class Client(NamedTuple):
    """One opened device file. Bytes are None where the driver does not say."""

    pci_address: str
    client_id: int
    vram_bytes: int | None
    gtt_bytes: int | None


class Usage(NamedTuple):
    """A process's hold on a device, in bytes."""

    vram_bytes: int
    gtt_bytes: int


def parse_client(text: str) -> Client | None:
    """One `fdinfo` of amdgpu; None for that of anything else.

    `drm-resident-…` is what is there now; older kernels say the same as `drm-memory-…`.
    """
    values = dict(_LINE.findall(text))
    client = values.get("drm-client-id", "")
    if values.get("drm-driver") != "amdgpu" or not (
        client.isascii() and client.isdigit() and len(client) <= 20
    ):
        return None
    sizes = (
        _size(values.get(f"drm-resident-{region}") or values.get(f"drm-memory-{region}"))
        for region in ("vram", "gtt")
    )
    return Client(values.get("drm-pdev", ""), int(client), *sizes)


def _size(text: str | None) -> int | None:
    match = _SIZE.match(text or "")
    if match is None:
        return None
    size = int(match[1]) * _UNITS[match[2] or ""]
    return size if size <= MAX_BYTES_OF_MEMORY else None


class OpenFiles:
    """Which processes hold which DRM device file open; looked for every half minute, a slice at a time."""

    def __init__(self, proc: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._proc = proc
        self._clock = clock
        self._left: list[int] = []
        self._found: dict[str, list[tuple[int, str]]] = {}
        self._found_denied = False
        self._by_node: dict[str, list[tuple[int, str]]] = {}
        self.denied = False
        """some processes' files may not be seen"""
        self._begin()
        self._go_on(math.inf)

    def usage(self, nodes: Iterable[str], pci_address: str) -> dict[int, Usage]:
        """pid → what it holds on the device at `pci_address`, whose files in /dev/dri are `nodes`.

        A client counts once, whichever processes have inherited its file: for the first of them.
        """
        if not self._left and self._clock() >= self._due:
            self._begin()
        self._go_on(_SLICE_SECONDS)
        counted: set[int] = set()
        found: dict[int, Usage] = {}
        for pid, number in sorted(one for node in set(nodes) for one in self._by_node.get(node, ())):
            try:
                client = parse_client(read_text(f"{self._proc}/{pid}/fdinfo/{number}"))
            except OSError:
                continue  # closed, ended, or not ours to read any more
            if client is None or client.pci_address != pci_address or client.client_id in counted:
                continue
            counted.add(client.client_id)
            before = found.get(pid, Usage(0, 0))
            found[pid] = Usage(
                before.vram_bytes + (client.vram_bytes or 0), before.gtt_bytes + (client.gtt_bytes or 0)
            )
        return found

    def _begin(self) -> None:
        """Begin a look at all processes; what the last one found holds until this one is done."""
        self._due = self._clock() + _LOOK_EVERY_SECONDS
        self._found, self._found_denied = {}, False
        try:
            self._left = [int(name) for name in names(self._proc) if name.isascii() and name.isdigit()]
        except OSError:
            self._left, self._found_denied = [], True
            self._by_node, self.denied = {}, True

    def _go_on(self, seconds: float) -> None:
        """Look at processes for a while: a device must not count as stalled because there are many."""
        if not self._left:
            return
        until = self._clock() + seconds
        while self._left and self._clock() < until:
            self._look_at(self._left.pop())
        if not self._left:
            self._by_node, self.denied = self._found, self._found_denied

    def _look_at(self, pid: int) -> None:
        """Note a process's open device files."""
        folder = f"{self._proc}/{pid}/fd"
        try:
            numbers = os.listdir(folder)[:_MOST_FILES]  # noqa: PTH208 (see sysfs)
        except PermissionError:
            self._found_denied = True
            return
        except OSError:
            return
        for number in numbers:
            try:
                match = _NODE.search(os.readlink(f"{folder}/{number}"))  # noqa: PTH115 (see sysfs)
            except OSError:
                continue
            if match is not None:
                self._found.setdefault(match[1], []).append((pid, number))
