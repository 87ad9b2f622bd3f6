"""A /sys of network interfaces and RDMA ports, in the shapes of the kernel.

Shapes: Documentation/ABI/testing/sysfs-class-net, sysfs-class-net-statistics, stable/sysfs-class-infiniband,
drivers/infiniband/core/sysfs.c; entries of /sys/class are links into /sys/devices, as there.
"""

from __future__ import annotations

from pathlib import Path

ETHERNET, INFINIBAND = 1, 32
"""ARPHRD_ETHER and ARPHRD_INFINIBAND, include/uapi/linux/if_arp.h"""


class NetworkTree:
    """Builds below ``sys``; every method can be called again to change what is there."""

    def __init__(self, sys: Path) -> None:
        self.sys = sys
        self.net = sys / "class" / "net"
        self.net.mkdir(parents=True, exist_ok=True)

    def card(
        self,
        name: str,
        speed: str | None = "25000",
        *,
        operstate: str = "up",
        sent: int | str = 0,
        received: int | str = 0,
        kind: int = ETHERNET,
    ) -> Path:
        """An interface with hardware behind it. ``speed`` None: reading it fails, as while it is down."""
        folder = self.virtual(
            name, speed, operstate=operstate, sent=sent, received=received, kind=kind, under="pci0000:00"
        )
        (folder / "device").mkdir(exist_ok=True)
        return folder

    def virtual(
        self,
        name: str,
        speed: str | None = "10000",
        *,
        operstate: str = "up",
        sent: int | str = 0,
        received: int | str = 0,
        kind: int = ETHERNET,
        under: str = "virtual",
    ) -> Path:
        folder = self.sys / "devices" / under / "net" / name
        files = {"type": kind, "operstate": operstate, "mtu": 1500}
        for file, text in files.items():
            write(folder / file, f"{text}\n")
        if speed is not None:
            write(folder / "speed", f"{speed}\n")
        write(folder / "statistics" / "tx_bytes", f"{sent}\n")
        write(folder / "statistics" / "rx_bytes", f"{received}\n")
        link(self.net / name, folder)
        return folder

    def bond(self, name: str, *members: str, speed: str = "50000", sent: int = 0, received: int = 0) -> None:
        """A bond of cards that are there."""
        folder = self.virtual(name, speed, sent=sent, received=received)
        write(folder / "bonding" / "slaves", " ".join(members) + "\n")
        for member in members:
            link(self.net / member / "master", folder)

    def port(
        self,
        device: str,
        port: int = 1,
        rate: str = "400 Gb/sec (4X NDR)",
        *,
        state: str = "4: ACTIVE",
        sent_words: int | str = 0,
        received_words: int | str = 0,
        link_layer: str = "InfiniBand",
    ) -> Path:
        """A port of an RDMA device; its counters are words of four octets."""
        whole = self.sys / "devices" / "pci0000:00" / "infiniband" / device
        folder = whole / "ports" / str(port)
        files: dict[str, object] = {"state": state, "rate": rate, "link_layer": link_layer}
        files |= {"counters/port_xmit_data": sent_words, "counters/port_rcv_data": received_words}
        for file, text in files.items():
            write(folder / file, f"{text}\n")
        link(self.sys / "class" / "infiniband" / device, whole)
        return folder


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(target)


def route_table(*rows: tuple[str, str, str, int]) -> str:
    """/proc/net/route of (interface, network, mask, metric), all of them up."""
    head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    return head + "".join(
        f"{interface}\t{_hexadecimal(network)}\t00000000\t0001\t0\t0\t{metric}\t{_hexadecimal(mask)}\t0\t0\t0\n"
        for interface, network, mask, metric in rows
    )


def _hexadecimal(address: str) -> str:
    return bytes(reversed([int(part) for part in address.split(".")])).hex().upper()
