"""Which interfaces carry what a deployment sends to its other nodes, how full they are, and what they allow.

NCCL takes every RDMA port that it finds unless it is told otherwise, and the network stack only without one
(NCCL user guide, "Environment Variables": NCCL_IB_HCA, NCCL_IB_DISABLE, NCCL_SOCKET_IFNAME). So what a launch
says of sockets counts only where no port is up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from exporter.footprint.result import NetworkFootprint
from exporter.hardware.gpu import Gpu
from exporter.hardware.network import DIRECTIONS, Interface, NetworkReading, Route

if TYPE_CHECKING:
    # The readers of command lines stay unloaded where no engine runs.
    from exporter.engines.launch import Link

Basis = Literal["configured", "launch", "rdma", "route", "fastest", "only"]
"""How the interfaces are known: configured, said by the launch's environment, RDMA ports that are up, the
route to where the ranks meet, the fastest ones, the only one."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """Names of the interfaces that carry a deployment's traffic, and how that is known."""

    interfaces: tuple[str, ...]
    basis: Basis


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """The link of this node now. Bytes and tokens are per second, of each direction.

    ``speed`` is that of all interfaces together; ``usage_ratio``: direction → use of the fullest one.
    ``ceiling`` is what the whole deployment could compute, prompt and generated tokens together, if every
    node had this link and nothing else limited: at the high and the low end of the expected bytes. ``needed``
    is what a link must allow to be of use.
    """

    interfaces: tuple[str, ...]
    basis: Basis
    speed_bytes: int | None = None
    usage_ratio: Mapping[str, float] = field(default_factory=dict)
    ceiling_low_tokens: float | None = None
    ceiling_high_tokens: float | None = None
    needed_tokens: float | None = None
    read: bool = False
    """whether every interface that it consists of was read, and its rate is known"""


def choose(
    reading: NetworkReading,
    routes: Sequence[Route],
    configured: Sequence[str],
    said: Link | None,
    before: Set[str] = frozenset(),
) -> Carrier | None:
    """The interfaces of a launch; None where nothing tells. ``before`` were its interfaces: a port that goes
    down remains its port.
    """
    if configured:
        return Carrier(tuple(configured), "configured")
    devices = said.devices if said is not None else None
    sockets = said.interfaces if said is not None else None
    ports = [one for one in reading.interfaces if one.kind == "rdma" and (one.up or one.name in before)]
    if ports and (said is None or said.rdma is not False):
        named = [one.name for one in ports if devices and _is_named(one.name, devices)]
        return Carrier(tuple(named), "launch") if named else Carrier(_fastest(ports), "rdma")
    cards = [one for one in reading.interfaces if one.kind == "network" and one.up is not False]
    names = {one.name for one in cards}
    named = [one.name for one in cards if sockets and _is_named(one.name, sockets)]
    if named:
        return Carrier(tuple(named), "launch")
    routed = _routed(said.rendezvous, routes) if said is not None else None
    if routed is not None:
        # A VLAN's traffic is that of the card below it.
        for name in (routed, routed.partition(".")[0]):
            if name in names:
                return Carrier((name,), "route")
    if any(one.speed_bytes_per_second for one in cards):
        return Carrier(_fastest(cards), "fastest")
    return Carrier((cards[0].name,), "only") if len(cards) == 1 else None


def _fastest(interfaces: Iterable[Interface]) -> tuple[str, ...]:
    """All that are as fast as the fastest; those of unknown speed only where no speed is known."""
    found = tuple(interfaces)
    most = max(one.speed_bytes_per_second or 0 for one in found)
    return tuple(one.name for one in found if (one.speed_bytes_per_second or 0) == most or one.up is False)


def _is_named(name: str, patterns: str) -> bool:
    """NCCL's lists: prefixes with commas between, `=` before them for whole names, `^` for all but these. A
    device may come with its port.
    """
    excludes = patterns.startswith("^")
    listed = patterns.removeprefix("^")
    whole = listed.startswith("=")
    device, _, port = name.partition(":")
    for pattern in listed.removeprefix("=").split(","):
        wanted, _, wanted_port = pattern.removeprefix("=").partition(":")
        same = device == wanted if whole else device.startswith(wanted)
        if wanted and same and (not wanted_port or wanted_port == port):
            return not excludes
    return excludes


def _routed(rendezvous: str | None, routes: Sequence[Route]) -> str | None:
    """The interface that leads to an IPv4 address; None for a name, and for this host's own loopback."""
    address = _address((rendezvous or "").partition(":")[0])
    if address is None or address >> 24 == 127:
        return None
    leading = [one for one in routes if address & one.mask == one.network]
    return min(leading, key=lambda one: (-one.mask, one.metric)).interface if leading else None


def _address(text: str) -> int | None:
    parts = text.split(".")
    if len(parts) != 4 or not all(one.isascii() and one.isdigit() and len(one) <= 3 for one in parts):
        return None
    numbers = [int(one) for one in parts]
    if max(numbers) > 255:
        return None
    return int.from_bytes(bytes(numbers), "big")


def link_status(
    carrier: Carrier,
    reading: NetworkReading | None,
    network: NetworkFootprint,
    needed_per_gpu: float,
) -> LinkStatus:
    """What the interfaces of a deployment are and allow now."""
    total = network.total
    needed = needed_per_gpu * network.gpus if total is not None else None
    known = {one.name: one for one in reading.interfaces} if reading is not None else {}
    here = [known[name] for name in carrier.interfaces if name in known]
    speed = _speed(here)
    low = high = None
    if speed and total is not None:
        low = speed / total.high_bytes
        high = speed / total.low_bytes if total.low_bytes else None
    usage: dict[str, float] = {}
    for direction in DIRECTIONS:
        ratios = [one.usage_ratio(direction) for one in here]
        if told := [ratio for ratio in ratios if ratio is not None]:
            usage[direction] = max(told)
    complete = len(here) == len(carrier.interfaces) and all(one.rate_bytes_per_second for one in here)
    return LinkStatus(carrier.interfaces, carrier.basis, speed, usage, low, high, needed, complete)


def _speed(interfaces: Sequence[Interface]) -> int | None:
    """Of all that are up; None where one of them does not tell."""
    speeds = [one.speed_bytes_per_second for one in interfaces if one.up is not False]
    if not speeds or None in speeds:
        return None
    return sum(speed for speed in speeds if speed is not None)


def is_active(gpus: Iterable[Gpu], uuids: Set[str], requests: int | None, threshold: float) -> bool | None:
    """Whether a deployment works: a device of it is in use, or a request runs; None where neither is known.
    A node without a server knows it by its devices alone.
    """
    here = (gpu.reading for gpu in gpus if gpu.identity.uuid in uuids and gpu.reading is not None)
    used = [ratio for one in here if (ratio := one.utilization_ratio) is not None]
    if not used and requests is None:
        return None
    return bool(requests) or any(ratio > threshold for ratio in used)
