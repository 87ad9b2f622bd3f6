"""What a recorded host is: devices, engines, RAM, and the incidents of its script; one TOML file each.

Every file of `profiles/` says beside its values which were recorded, where, and which are constructed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any, TypeVar

MIB = 2**20
GIB = 2**30


class UnknownProfile(ValueError):
    """No recorded host, or no incident of it, has this name; the text names those that there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """The GPUs of a host, all alike. Watts and degrees are those without and with full load."""

    count: int
    name: str
    driver_version: str
    vendor: str = "nvidia"
    pci_device: int = 0
    """AMD: by which the board is known"""
    memory_mib: int
    reserved_mib: int
    limit_watts: float
    idle_watts: float
    busy_watts: float
    idle_celsius: float
    busy_celsius: float
    memory_celsius_above: float | None = None
    """how much warmer its memory is; None: the board has no such sensor"""
    ecc: bool = True
    numa_nodes: int = 1
    unattributed_mib: int = 0
    """used by no process: the driver's own"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ram:
    """RAM and processors. `used_gib`: what everything but the engines holds."""

    total_gib: float
    used_gib: float
    swap_gib: float
    nodes: int
    cpu: str
    sockets: int
    cores: int
    """per socket"""
    threads_per_core: int
    flags: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A network interface, or (kind `rdma`) the one port of an RDMA device. ``busy_bytes_per_second`` is what
    it carries each way under full load of the host's first engine.
    """

    name: str
    kind: str
    gigabits: float
    rate: str = ""
    """of a port, as its driver writes it"""
    busy_bytes_per_second: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine with its processes. `argv` has {port} where it listens; {rank} in `worker` counts GPUs.

    `between` are the titles of processes above the workers; without `worker` the first process holds all.
    `during` names the incident that brings it. `answers` False: it gives no HTTP answer, because it never
    gets that far or, on a second node, has no server.
    """

    name: str
    kind: str
    argv: tuple[str, ...]
    program: str
    pid: int
    model: str
    served: str
    version: str
    max_model_len: int
    max_num_seqs: int
    kv_capacity_tokens: int
    tokens_per_second: float
    unit: str
    gpus: tuple[int, ...] = ()
    first_rank: int = 0
    held_mib: int = 0
    """on each of its GPUs"""
    between: tuple[str, ...] = ()
    worker: str = ""
    anonymous_mib: int = 0
    """private RAM of each process"""
    mapped_gib: float = 0
    """weights that it maps"""
    weights_gib: float = 0
    kv_gib: float = 0
    dp: int = 1
    quantization: str = ""
    during: str = ""
    answers: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something that goes wrong, and which alerts must fire for it and no others."""

    name: str
    meaning: str
    starts_at: float
    lasts: float
    alerts: tuple[str, ...]
    stranger_gpus: tuple[int, ...] = ()
    stranger_gib: float = 0
    stranger_ram_gib: float = 0
    stranger_argv: tuple[str, ...] = ()
    lost_gpus: tuple[int, ...] = ()
    xid: int = 0
    hot_gpus: tuple[int, ...] = ()
    kv_usage: float = 0
    waiting: int = 0
    swap_gib: float = 0
    busy_interfaces: tuple[str, ...] = ()
    """that somebody else sends over"""
    busy_share: float = 0
    """of their speed"""
    stalled_share: float = 0
    """of the time in which all tasks wait for memory"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    name: str
    title: str
    cycle_seconds: float
    """after which the script begins again"""
    ram: Ram
    devices: Devices | None
    engines: tuple[Engine, ...]
    incidents: tuple[Incident, ...]
    interfaces: tuple[Interface, ...] = ()

    def incident(self, name: str) -> Incident:
        """Raises UnknownProfile."""
        for one in self.incidents:
            if one.name == name:
                return one
        known = ", ".join(one.name for one in self.incidents)
        raise UnknownProfile(f"{self.name} has no incident {name!r}; it has: {known}")


def names() -> list[str]:
    """The recorded hosts that come with this version."""
    files = resources.files("exporter.demo").joinpath("profiles").iterdir()
    return sorted(one.name.removesuffix(".toml") for one in files if one.name.endswith(".toml"))


def load(name: str) -> Profile:
    """A recorded host. Raises UnknownProfile."""
    if name not in names():
        raise UnknownProfile(f"no recorded host is called {name!r}; there are: {', '.join(names())}")
    text = resources.files("exporter.demo").joinpath("profiles", f"{name}.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    return Profile(
        name=name,
        title=table["title"],
        cycle_seconds=float(table["cycle_seconds"]),
        ram=_row(Ram, table["ram"]),
        devices=_row(Devices, table["devices"]) if "devices" in table else None,
        engines=tuple(_row(Engine, row) for row in table["engines"]),
        incidents=tuple(_row(Incident, row) for row in table["incidents"]),
        interfaces=tuple(_row(Interface, row) for row in table.get("interfaces", ())),
    )


Row = TypeVar("Row")


def _row(kind: type[Row], table: Mapping[str, Any]) -> Row:
    """A TOML table as one of the dataclasses above. Raises TypeError on keys that it does not have."""
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    if unknown := table.keys() - known:
        raise TypeError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})
