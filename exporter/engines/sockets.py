"""Where a process tree listens: the tables of its network namespace and its sockets (proc(5)).

The tables are everybody's to read; which socket belongs to which process is told only to its owner and to
who may ptrace(2) it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

_LISTEN = b"0A"
_MAX_BYTES = 1 << 22
_MOST_FDS = 65536
_LOCAL = re.compile(r"\|-- ([0-9.]{7,15})\s+/32 host LOCAL")
_ANY_IPV4, _ANY_IPV6 = IPv4Address(0), IPv6Address(0)

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Listener:
    """A TCP socket that waits for connections."""

    address: Address
    port: int
    inode: int


@dataclass(frozen=True, slots=True)
class Door:
    """An address at which this host reaches a listener. ``own``: of the engine's namespace, not loopback."""

    host: str
    port: int
    own: bool = False


@dataclass(frozen=True, slots=True)
class Listening:
    """What is known of where a tree listens.

    ``listeners`` None: the namespace's tables cannot be read. ``certain``: they are the tree's own sockets;
    else all of its namespace, since whose they are may not be asked.
    """

    listeners: tuple[Listener, ...] | None
    certain: bool
    elsewhere: bool
    """in another network namespace than this process"""


class Sockets:
    """Reads them; ``proc`` is the root of the process file system."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc

    def listening(self, root: int, pids: Iterable[int]) -> Listening:
        """Where the processes `pids` of the tree below `root` listen."""
        found = [
            listener
            for table in ("tcp", "tcp6")
            for listener in parse_listeners(_read(self._proc / str(root) / "net" / table))
        ]
        if not (self._proc / str(root) / "net" / "tcp").exists():
            return Listening(None, False, False)
        inodes, complete = self._inodes(pids)
        own = tuple(one for one in found if one.inode in inodes)
        elsewhere = self._elsewhere(root)
        return Listening(own if complete else tuple(found), complete, elsewhere)

    def door(self, root: int, listening: Listening, port: int) -> Door | None:
        """How the listener on `port` is reached; None when there is none, or no way to it."""
        addresses = {one.address for one in listening.listeners or () if one.port == port}
        if not addresses:
            return None
        if listening.elsewhere:
            if addresses & {_ANY_IPV4, _ANY_IPV6}:
                own = self._namespace_address(root)
                return Door(own, port, own=True) if own else None
            named = [one for one in addresses if not one.is_loopback]
            return Door(str(min(named, key=str)), port, own=True) if named else None
        if addresses & {_ANY_IPV4, _ANY_IPV6}:
            # A socket of all IPv6 addresses takes IPv4 as well, unless it was told not to (ipv6(7)).
            return Door("127.0.0.1", port)
        for address in sorted(addresses, key=str):
            if address.is_loopback:
                return Door(str(address), port)
        return Door(str(min(addresses, key=str)), port, own=True)

    def _inodes(self, pids: Iterable[int]) -> tuple[set[int], bool]:
        """Socket inodes of the processes, and whether every one of them could be asked."""
        inodes: set[int] = set()
        complete = True
        for pid in pids:
            try:
                with os.scandir(self._proc / str(pid) / "fd") as entries:
                    for _, entry in zip(range(_MOST_FDS), entries, strict=False):
                        target = os.readlink(entry.path)  # noqa: PTH115 (a server has thousands)
                        if target.startswith("socket:["):
                            inodes.add(int(target[8:-1]))
            except PermissionError:
                complete = False
            except (OSError, ValueError):
                continue
        return inodes, complete

    def _elsewhere(self, root: int) -> bool:
        """Whether a process is in another network namespace than this one; where that is not told, no."""
        try:
            return (self._proc / str(root) / "ns" / "net").readlink() != Path("/proc/self/ns/net").readlink()
        except OSError:
            return False

    def _namespace_address(self, root: int) -> str | None:
        """An address of a process's own namespace that is not loopback, if it has one that is private."""
        table = _read(self._proc / str(root) / "net" / "fib_trie").decode("ascii", "replace")
        for text in _LOCAL.findall(table):
            try:
                address = ip_address(text)
            except ValueError:
                continue
            if address.is_private and not address.is_loopback and not address.is_link_local:
                return str(address)
        return None


def parse_listeners(table: bytes) -> Iterator[Listener]:
    """The listening sockets of `/proc/PID/net/tcp` or `tcp6`; lines that make no sense are left out."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != _LISTEN:
            continue
        place, _, port = fields[1].partition(b":")
        try:
            yield Listener(_address(place), int(port, 16), int(fields[9]))
        except ValueError:
            continue


def _address(text: bytes) -> Address:
    """An address as the kernel prints it: words of 32 bits in the host's byte order."""
    raw = bytes.fromhex(text.decode("ascii"))
    words = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    if len(words) == 4:
        return IPv4Address(words)
    address = IPv6Address(words)
    return address.ipv4_mapped or address


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_BYTES)
    except OSError:
        return b""
