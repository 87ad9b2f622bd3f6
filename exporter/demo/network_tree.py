"""Interfaces and RDMA ports of a recorded host as files of /sys: what `hardware/network` reads of them.

Shapes: the kernel's Documentation/ABI/testing/sysfs-class-net and stable/sysfs-class-infiniband.
"""

from __future__ import annotations

from collections.abc import Iterator

from exporter.demo.profile import Interface

_OCTETS_OF_A_WORD = 4  # port_xmit_data, sysfs-class-infiniband


def contents(interface: Interface, sent: int, received: int) -> Iterator[tuple[str, str]]:
    """(path, text) of all files of one interface."""
    if interface.kind == "rdma":
        folder = f"sys/class/infiniband/{interface.name}/ports/1"
        yield f"{folder}/state", "4: ACTIVE\n"
        yield f"{folder}/rate", f"{interface.rate}\n"
        yield f"{folder}/link_layer", "InfiniBand\n"
        yield f"{folder}/counters/port_xmit_data", f"{sent // _OCTETS_OF_A_WORD}\n"
        yield f"{folder}/counters/port_rcv_data", f"{received // _OCTETS_OF_A_WORD}\n"
        return
    folder = f"sys/class/net/{interface.name}"
    yield f"{folder}/type", "1\n"
    yield f"{folder}/operstate", "up\n"
    yield f"{folder}/speed", f"{round(interface.gigabits * 1000)}\n"
    yield f"{folder}/device/vendor", "0x15b3\n"
    yield f"{folder}/statistics/tx_bytes", f"{sent}\n"
    yield f"{folder}/statistics/rx_bytes", f"{received}\n"
