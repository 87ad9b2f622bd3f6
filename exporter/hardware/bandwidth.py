"""How fast the RAM of this host can be read at the most: channels × transfers a second × bytes of a transfer.

By the operator's word, else by the firmware's table of modules (root only), else by the channels in which
the kernel's error detection sees modules (EDAC, driver-api/edac.rst), else by what the processor has
(data/processors.toml, each row with its source). It is a bound: no program reaches it, 80 to 90 % are usual.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from exporter.hardware.dmi import MOST_BYTES, Module, parse_modules
from exporter.kernelfiles import parse_integer, read_text

Basis = Literal["configured", "dmi", "edac", "processor"]

_TRANSFER_BYTES = 8
"""A channel of DDR4, and both halves of one of DDR5, are 64 bits wide and check bits (JESD79-4, JESD79-5)."""
_MEGA = 10**6
_MOST_SOCKETS = 64


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes a second of all sockets together, and where that comes from."""

    bytes_per_second: int
    basis: Basis


@dataclass(frozen=True, slots=True)
class ProcessorMemory:
    """A row of the table, of one socket."""

    pattern: str
    channels: int
    megatransfers: int
    source: str


def memory_bandwidth(
    sys: Path, processor: str, sockets: int, *, configured: int | None = None
) -> Bandwidth | None:
    """The bound of a host whose processors are all of this name; None where nothing tells it."""
    if configured is not None:
        return Bandwidth(configured, "configured")
    rated = processor_memory(processor)
    channels = rated.channels * min(max(sockets, 1), _MOST_SOCKETS) if rated is not None else None
    populated = channels_in_use(sys)
    modules = parse_modules(_table(sys))
    speeds = [one.megatransfers for one in modules if one.megatransfers is not None]
    if speeds:
        return Bandwidth(_of_modules(modules, max(speeds), populated or channels), "dmi")
    if rated is None:
        return None
    if populated:
        return Bandwidth(populated * rated.megatransfers * _MEGA * _TRANSFER_BYTES, "edac")
    return Bandwidth((channels or 0) * rated.megatransfers * _MEGA * _TRANSFER_BYTES, "processor")


def processor_memory(name: str) -> ProcessorMemory | None:
    """The row of a processor, by its whole name as /proc/cpuinfo prints it."""
    plain = " ".join(name.split())
    return next((row for row in processors() if re.fullmatch(row.pattern, plain, re.ASCII)), None)


def processors() -> tuple[ProcessorMemory, ...]:
    """The table; read once by a daemon, and not kept."""
    raw = tomllib.loads(files("exporter.hardware.data").joinpath("processors.toml").read_text("utf-8"))
    return tuple(ProcessorMemory(**row) for row in raw["processors"])


_POSITION = re.compile(r"\b(branch|channel) (\d{1,3})\b", re.ASCII)


def channels_in_use(sys: Path) -> int | None:
    """Channels with a module in them, over all memory controllers; None without EDAC.

    A rank is listed like a module, so that what counts is where they are: controller, branch and channel.
    """
    found = set()
    try:
        folders = sorted((sys / "devices/system/edac/mc").glob("mc[0-9]*/[dr][ia][mn][mk][0-9]*"))
    except OSError:
        return None
    for folder in folders:
        place = tuple(_POSITION.findall(read_text(folder / "dimm_location")))
        if place and (parse_integer(read_text(folder / "size")) or 0) > 0:
            found.add((folder.parent.name, place))
    return len(found) or None


def _of_modules(modules: Sequence[Module], megatransfers: int, channels: int | None) -> int:
    """Two modules of one channel give no more than one: at most as many count as there are channels."""
    widths = sorted((one.width_bits for one in modules), reverse=True)
    return sum(widths[:channels]) // 8 * megatransfers * _MEGA


def _table(sys: Path) -> bytes:
    try:
        with (sys / "firmware/dmi/tables/DMI").open("rb") as stream:
            return stream.read(MOST_BYTES)
    except OSError:
        return b""
