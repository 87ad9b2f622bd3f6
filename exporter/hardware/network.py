"""Network interfaces and RDMA ports of this host: counters, speed, whether they are up, from /sys.

An interface is reported when hardware is behind it, or when it bonds such interfaces; bridges, veth pairs,
tunnels, VLANs and tap devices carry what those carry already. RDMA goes past the network stack, so a port of
InfiniBand or RoCE is an interface of its own here (`mlx5_0:1`). Sources: the kernel's
Documentation/ABI/testing/sysfs-class-net and sysfs-class-net-statistics, stable/sysfs-class-infiniband,
net/core/net-sysfs.c, drivers/infiniband/core/sysfs.c, proc(5).
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from exporter.hardware.sysfs import names, parse_integer, read_text, reason_of

MOST_INTERFACES = 32
"""Of more, those that were configured or are up come first."""
_MOST_LOOKED_AT = 4096
"""Entries of a folder that are looked at: a host of containers has an interface for each."""

_NETDEV = re.compile(r"[A-Za-z0-9_.@-]{1,15}", re.ASCII)
"""IFNAMSIZ of include/uapi/linux/if.h. The kernel allows more characters (never `:`), which no tool makes:
what a label says is not for a container to choose."""
_DEVICE = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_RATE = re.compile(r"(\d{1,6})(\.5)? Gb/sec\b", re.ASCII)
_MOST_MEGABITS = 10**8
_COUNTER_MOST = 2**64 - 1
_INFINIBAND_OCTETS = 4
"""port_xmit_data counts words of four octets."""
_IPOIB = 32
"""ARPHRD_INFINIBAND of include/uapi/linux/if_arp.h: what it carries counts at its port."""

Direction = Literal["sent", "received"]
DIRECTIONS: tuple[Direction, ...] = ("sent", "received")


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface now. ``up`` None: its driver does not tell. ``speed`` is of each direction, None where it
    is not known: down, virtual, or a driver that does not say.
    """

    name: str
    kind: Literal["network", "rdma"]
    up: bool | None
    speed_bytes_per_second: int | None
    bytes_total: Mapping[str, int]
    """direction → bytes since the driver was loaded; "sent" and "received" """
    rate_bytes_per_second: Mapping[str, float] = field(default_factory=dict)
    """direction → the average of the last minute; absent until two readings lie far enough apart"""

    def usage_ratio(self, direction: str) -> float | None:
        """Rate / speed; None where either is not known, or where no link of this speed could carry it."""
        rate = self.rate_bytes_per_second.get(direction)
        if rate is None or not self.speed_bytes_per_second:
            return None
        ratio = rate / self.speed_bytes_per_second
        return ratio if ratio <= _MOST_RATIO else None


_MOST_RATIO = 1.1
"""Counters and clock are read one after the other; beyond, the speed that the driver tells is none (a virtual
card's)."""


@dataclass(frozen=True, slots=True)
class NetworkReading:
    """``left_out``: interfaces beyond `MOST_INTERFACES`, and names that are none."""

    interfaces: tuple[Interface, ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """A row of the kernel's table of IPv4 routes: an address leads there when its bits under ``mask`` are
    those of ``network``.
    """

    network: int
    mask: int
    interface: str
    metric: int


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one interface is read, with what changes seldom."""

    name: str
    kind: Literal["network", "rdma"]
    path: str
    up: bool | None
    speed: int | None


class NetworkUnreadable(Exception):
    """Not even the list of interfaces can be read; the text is a short reason."""


class NetworkFiles:
    """Reads one host. What changes seldom is looked up by `look`, the counters by `read`."""

    def __init__(self, sys_path: str, proc_path: str) -> None:
        self._net = f"{sys_path}/class/net"
        self._rdma = f"{sys_path}/class/infiniband"
        self._routes = f"{proc_path}/net/route"
        self._places: tuple[_Place, ...] = ()
        self._left_out = 0
        self.routes: tuple[Route, ...] = ()
        self.errors: dict[str, int] = {}

    def look(self, wanted: Iterable[str] = ()) -> None:
        """Which interfaces there are, how fast, whether up; and the routes. ``wanted`` ones are read also
        when they are virtual. Slow: a speed is asked of the driver under the lock of the whole network
        configuration (speed_show). Raises NetworkUnreadable.
        """
        chosen = frozenset(wanted)
        ports = list(self._ports())
        found = {one.name: one for one in self._netdevs(chosen, skip_ipoib=bool(ports))}
        found.update((one.name, one) for one in ports)
        ordered = sorted(found.values(), key=lambda one: (one.name not in chosen, one.up is False, one.name))
        self._places = tuple(sorted(ordered[:MOST_INTERFACES], key=lambda one: one.name))
        self._left_out += max(0, len(ordered) - MOST_INTERFACES)
        self.routes = parse_routes(self._text(self._routes) or "")

    def read(self) -> NetworkReading:
        """The counters now. One that cannot be read is absent, an interface that is gone too."""
        return NetworkReading(tuple(filter(None, map(self._read, self._places))), self._left_out)

    def changed(self) -> bool:
        """Whether an interface has gone up or down since the last look; cheap, no driver is asked."""
        return any(
            one.kind == "network" and _up(self._text(f"{one.path}/operstate")) is not one.up
            for one in self._places
        )

    def _read(self, place: _Place) -> Interface | None:
        if place.kind == "rdma":
            files = {"sent": "counters/port_xmit_data", "received": "counters/port_rcv_data"}
            octets = _INFINIBAND_OCTETS
        else:
            files = {"sent": "statistics/tx_bytes", "received": "statistics/rx_bytes"}
            octets = 1
        counters = {}
        for direction, name in files.items():
            count = parse_counter(self._text(f"{place.path}/{name}"))
            if count is not None:
                counters[direction] = count * octets
        if not counters and not os.access(place.path, os.F_OK):
            return None
        return Interface(place.name, place.kind, place.up, place.speed, counters)

    def _netdevs(self, chosen: frozenset[str], *, skip_ipoib: bool) -> Iterable[_Place]:
        try:
            entries = names(self._net)
        except OSError as error:
            raise NetworkUnreadable(reason_of(error)) from None
        self._left_out = sum(1 for name in entries if not _NETDEV.fullmatch(name))
        for name in entries[:_MOST_LOOKED_AT]:
            path = f"{self._net}/{name}"
            if not _NETDEV.fullmatch(name) or not (name in chosen or self._is_hardware(path)):
                continue
            if skip_ipoib and parse_integer(self._text(f"{path}/type") or "") == _IPOIB:
                continue
            up = _up(self._text(f"{path}/operstate"))
            speed = None if up is False else parse_speed(self._text(f"{path}/speed"))
            yield _Place(name, "network", path, up, speed)

    def _is_hardware(self, path: str) -> bool:
        """A card, or a bond of cards, which then do not count again. A bridge's port stays: the bridge is
        virtual.
        """
        if os.access(f"{path}/bonding", os.F_OK):
            return True
        return os.access(f"{path}/device", os.F_OK) and not os.access(f"{path}/master/bonding", os.F_OK)

    def _ports(self) -> Iterable[_Place]:
        for device in self._listed(self._rdma):
            if not _DEVICE.fullmatch(device):
                continue
            ports = f"{self._rdma}/{device}/ports"
            for port in self._listed(ports):
                if parse_integer(port) is None:
                    continue
                path = f"{ports}/{port}"
                up = parse_port_state(self._text(f"{path}/state"))
                # The rate of a port that is down is the slowest that there is, not none.
                speed = parse_rate(self._text(f"{path}/rate")) if up else None
                yield _Place(f"{device}:{port}", "rdma", path, up, speed)

    def _listed(self, path: str) -> list[str]:
        try:
            return names(path)[:_MOST_LOOKED_AT]
        except OSError as error:
            self._note(error)
            return []

    def _text(self, path: str) -> str | None:
        try:
            return read_text(path)
        except OSError as error:
            self._note(error)
            return None

    def _note(self, error: OSError) -> None:
        """Only what should not be: a file that is not there, and a speed that a driver has none of, is no
        fault.
        """
        if error.errno not in _EXPECTED:
            reason = reason_of(error)
            self.errors[reason] = self.errors.get(reason, 0) + 1


_EXPECTED = {errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV}


def parse_counter(text: str | None) -> int | None:
    """A counter of 64 bits at most."""
    count = parse_integer(text) if text is not None else None
    return count if count is not None and 0 <= count <= _COUNTER_MOST else None


def parse_speed(text: str | None) -> int | None:
    """`speed` of an interface, Mb/s, as bytes a second; -1, 0 and SPEED_UNKNOWN as an unsigned number are
    none (include/uapi/linux/ethtool.h).
    """
    megabits = parse_integer(text) if text is not None else None
    if megabits is None or not 0 < megabits < _MOST_MEGABITS:
        return None
    return megabits * 125_000


def parse_rate(text: str | None) -> int | None:
    """`rate` of a port, "400 Gb/sec (4X NDR)" or "2.5 Gb/sec (1X SDR)", as bytes a second."""
    match = _RATE.match(text or "")
    if match is None:
        return None
    return (int(match[1]) * 10 + (5 if match[2] else 0)) * 12_500_000 or None


def parse_port_state(text: str | None) -> bool | None:
    """`state` of a port: "4: ACTIVE" is up."""
    number, colon, _ = (text or "").partition(":")
    return number.strip() == "4" if colon else None


def _up(text: str | None) -> bool | None:
    """`operstate` (RFC 2863); many drivers know only "unknown" (Documentation/networking/operstates.rst)."""
    return {"up": True, "unknown": None, None: None}.get(text, False)


def parse_routes(text: str) -> tuple[Route, ...]:
    """/proc/net/route: addresses are hexadecimal in the byte order of the machine. Other lines, and routes
    that are not up, are left out.
    """
    found = []
    for line in text.splitlines()[1:1025]:
        fields = line.split()
        if len(fields) < 8 or not _NETDEV.fullmatch(fields[0]):
            continue
        try:
            network, mask = _address(fields[1]), _address(fields[7])
            flags, metric = int(fields[3], 16), int(fields[6])
        except ValueError:
            continue
        if flags & 1:  # RTF_UP
            found.append(Route(network & mask, mask, fields[0], metric))
    return tuple(found)


def _address(text: str) -> int:
    if len(text) != 8:
        raise ValueError("not an address")
    return int.from_bytes(bytes.fromhex(text), sys.byteorder)
