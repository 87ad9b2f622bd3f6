"""Devices by name, for hosts that are not at hand: what memory a card of this name has.

Rows of data/gpus.toml, each with its source. A name matches whole or not at all: cards of one generation
differ (an H100 NVL has 94 GiB, the others 80).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType

from exporter.footprint.deployment import DeviceShape, FootprintError
from exporter.units import MIB


@dataclass(frozen=True, slots=True)
class GpuModel:
    """A row of the table. ``checked``: the size was read from a device's own tool, not from a datasheet."""

    name: str
    vendor: str
    memory_bytes: int
    checked: bool
    source: str


@lru_cache(maxsize=1)
def gpu_models() -> Mapping[str, GpuModel]:
    """Every name and alias, lower-cased, with its row. Raises ValueError for a name that two rows claim."""
    raw = tomllib.loads(files("exporter.footprint.data").joinpath("gpus.toml").read_text("utf-8"))
    found: dict[str, GpuModel] = {}
    for row in raw["gpus"]:
        model = GpuModel(row["name"], row["vendor"], row["memory_mib"] * MIB, row["checked"], row["source"])
        for name in {row["name"].lower(), *(alias.lower() for alias in row["aliases"])}:
            if name in found:
                raise ValueError(f"two rows of gpus.toml claim the name {name}")
            found[name] = model
    return MappingProxyType(found)


def gpu_model(name: str) -> GpuModel:
    """The row of a name as the driver prints it, or of an alias; case and runs of blanks do not matter.

    Raises FootprintError, naming near ones, for any other.
    """
    key = " ".join(name.split()).lower()
    models = gpu_models()
    if key in models:
        return models[key]
    named = {row.name for alias, row in models.items() if len(key) > 2 and key in alias.split("-")[0].split()}
    near = sorted(named or {models[one].name for one in get_close_matches(key, models, n=4, cutoff=0.5)})
    hint = f"; near: {', '.join(near)}" if near else ""
    shown = "".join(character if character.isprintable() else "?" for character in key[:60])
    raise FootprintError(f"gpu {shown!r} is not in the table: give its memory instead{hint}")


def shapes(memory_bytes: int, count: int, name: str = "") -> tuple[DeviceShape, ...]:
    """``count`` devices of one size."""
    return tuple(DeviceShape(index, memory_bytes, 0, name) for index in range(count))


_BLACKWELL = ("B200", "B300", "GB200", "GB300")


def is_blackwell(name: str) -> bool:
    """Whether a device is a data-centre Blackwell card (compute capability 10): some defaults ask for it."""
    model = gpu_models().get(" ".join(name.split()).lower())
    return model is not None and any(word in _BLACKWELL for word in model.name.split())
