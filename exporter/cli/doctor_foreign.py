"""What `doctor` says of devices that we have no driver for: each configured exporter, and what nobody reads.

Asks every `[[foreign_exporters]]` once, and looks at the PCI vendors of this host in /sys, which wakes no
device.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.cli.checks import Check, Verdict
from exporter.settings.options import ForeignExporter, Settings
from exporter.units import GIB, TIB, format_bytes

if TYPE_CHECKING:
    from exporter.hardware.foreign_map import ForeignDevice

SMALLEST_BYTES, LARGEST_BYTES = GIB, TIB
"""Between these lies the memory of any accelerator that serves a language model; beyond, a unit is wrong."""

_DISPLAY, _ACCELERATOR = 0x03, 0x12
"""PCI base classes: display controllers, processing accelerators (PCI Code and ID Assignment)."""


@dataclass(frozen=True, slots=True)
class Vendor:
    """What of a PCI vendor is an accelerator, and the kind of exporter that tells of it."""

    name: str
    kind: str
    classes: frozenset[int] = frozenset({_ACCELERATOR})
    devices: range = range(0x10000)


VENDORS: dict[int, Vendor] = {
    # d801 is a 910A, d802 a 910B, d803 an A3 (lspci in public reports); Kunpeng's ZIP engine, a250, is none.
    0x19E5: Vendor("Huawei (Ascend)", "ascend", devices=range(0xD000, 0xE000)),
    0x1DA3: Vendor("Habana Labs (Intel Gaudi)", "gaudi"),
    # The NPU of an Intel processor is an accelerator too, and has no memory of its own.
    0x8086: Vendor("Intel", "xpumd", frozenset({_DISPLAY})),
    0x1D94: Vendor("Hygon", "custom", frozenset({_DISPLAY, _ACCELERATOR})),
}
"""By PCI vendor (Linux, include/linux/pci_ids.h); of others, every processing accelerator."""

_OWN_VENDORS = frozenset({0x10DE, 0x1002, 0x1022})
"""NVIDIA, AMD: read without another exporter."""
_INTEL, _INTEGRATED = 0x8086, "0000:00:02.0"
"""Where the display of an Intel processor stands (Intel, datasheets of the processors, PCI devices)."""
_MOST_DEVICES = 4096


def foreign(settings: Settings) -> list[Check]:
    """One check for each entry, its devices, and one for each vendor that is here and not read."""
    checks = [check for entry in settings.foreign_exporters for check in _entry(settings, entry)]
    return [*checks, *_unread(settings)]


def _entry(settings: Settings, entry: ForeignExporter) -> Iterator[Check]:
    from exporter.hardware.foreign import ADVICE, hear
    from exporter.hardware.foreign_map import map_of

    by = map_of(entry)
    heard = asyncio.run(hear(entry, by))
    if heard.page is None:
        yield Check(entry.source, "problem", heard.state, ADVICE.get(heard.state, ""))
        return
    page = heard.page
    yield Check(
        entry.source,
        "ok",
        f"{by.exporter}: {len(page.devices)} devices, {heard.seconds:.2f} s (experimental)",
    )
    if page.count is not None and page.count != len(page.devices):
        yield Check(
            f"{entry.source}.count",
            "problem",
            f"it counts {page.count} devices and tells of {len(page.devices)}",
            "see its log: of the others its driver gives nothing, or its first round is not over",
        )
    sizes: Counter[tuple[str, int | None]] = Counter()
    for device in page.devices:
        reading = device.reading
        sizes[device.name, reading.memory_total_bytes if reading is not None else None] += 1
    for (name, total), count in sorted(sizes.items(), key=lambda item: (item[0][0], item[0][1] or 0)):
        yield _size(f"{entry.source}.memory", f"{count} × {name}", total)
    if page.devices and all(one.reading is None or one.reading.processes is None for one in page.devices):
        yield Check(
            f"{entry.source}.processes",
            "note",
            "not listed",
            "who holds a device is told by where deployments are placed: declare `devices` of each",
        )
    elif not _are_here(settings, page.devices):
        yield Check(
            f"{entry.source}.processes",
            "note",
            "none of them is a process of this host",
            "it counts them in another pid namespace (run it with the host's): who holds a device is told by "
            "where deployments are placed",
        )
    if page.errors:
        found = ", ".join(f"{reason} {times}" for reason, times in sorted(page.errors.items()))
        yield Check(f"{entry.source}.values", "note", f"left out, by reason: {found}")


def _are_here(settings: Settings, devices: Sequence[ForeignDevice]) -> bool:
    """Whether one of the listed processes is this host's; without any there is nothing to say."""
    pids = [p.pid for one in devices if one.reading is not None for p in one.reading.processes or ()]
    return not pids or any((settings.host.proc_path / str(pid)).exists() for pid in pids)


def _size(name: str, found: str, total: int | None) -> Check:
    """Whether a size can be that of an accelerator: a wrong unit is off by a thousand or a million."""
    if total is None:
        return Check(
            name, "problem", f"{found}: no memory told", "see the exporter's log; the device may hang"
        )
    verdict: Verdict = "ok" if SMALLEST_BYTES <= total <= LARGEST_BYTES else "problem"
    advice = (
        ""
        if verdict == "ok"
        else "that is no accelerator's: correct `scale` of memory_total_bytes (1048576 where it tells MiB)"
    )
    return Check(name, verdict, f"{found}: {format_bytes(total)}", advice)


def _unread(settings: Settings) -> Iterator[Check]:
    kinds = {entry.kind for entry in settings.foreign_exporters}
    for vendor, count in sorted(accelerators(settings.host.sys_path).items()):
        row = VENDORS.get(vendor) or Vendor(f"PCI vendor 0x{vendor:04x}", "custom")
        if row.kind in kinds or "custom" in kinds:
            continue
        yield Check(
            f"unread.{vendor:04x}",
            "note",
            f"{count} devices of {row.name} are here and not read",
            "an exporter of this host that tells of them can be read: [[foreign_exporters]], "
            f'kind = "{row.kind}"; see docs/FOREIGN.md',
        )


def accelerators(sys_path: Path) -> Counter[int]:
    """PCI vendor → accelerators of it that none of our drivers reads."""
    found: Counter[int] = Counter()
    try:
        folders = sorted((sys_path / "bus" / "pci" / "devices").iterdir())[:_MOST_DEVICES]
    except OSError:
        return found
    for folder in folders:
        vendor, kind, device = (_number(folder / file) for file in ("vendor", "class", "device"))
        if vendor is None or kind is None or device is None or vendor in _OWN_VENDORS:
            continue
        row = VENDORS.get(vendor) or Vendor("", "custom")
        integrated = vendor == _INTEL and folder.name == _INTEGRATED
        if kind >> 16 in row.classes and device in row.devices and not integrated:
            found[vendor] += 1
    return found


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text("ascii"), 16)
    except (OSError, ValueError):
        return None
