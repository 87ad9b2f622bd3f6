"""What one poll read, and what stands declared against it: the input of every judgement of this floor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from exporter.capacity.links import Carrier
from exporter.engines.confinement import Confinement
from exporter.engines.process import ProcessMemory
from exporter.engines.telemetry.types import Telemetry
from exporter.footprint.result import Footprint, NetworkFootprint
from exporter.hardware.gpu import Gpu, Number
from exporter.hardware.host import HostReading
from exporter.hardware.network import NetworkReading


@dataclass(frozen=True, slots=True)
class Declared:
    """A declared deployment with what it should need here.

    `footprint` None: it could not be worked out, and `problem` says why. `ranks` are its devices' uuids in
    the order of the footprint's devices; a device that was never seen here is "".
    """

    name: str
    model: str
    engine: str
    required: bool
    device_indices: tuple[Number, ...]
    ranks: tuple[str, ...]
    programs: tuple[str, ...]
    unit: str | None
    tp: int
    pp: int
    dp: int
    max_model_len: int | None
    max_num_seqs: int | None
    kv_cache_dtype: str | None
    footprint: Footprint | None
    problem: str = ""
    origin: Literal["declared", "discovered"] = "declared"
    """discovered: nobody declared it, and all that it says is what runs"""
    planned_tokens: int | None = None
    """what its KV cache must hold at once by the operator's plan, over all requests"""


@dataclass(frozen=True, slots=True)
class Running:
    """What is known of a deployment that runs: by its launch, its files and its engine's own word.

    Names are those of the catalogue, of the hub or of the server's own interface; nothing here is a path.
    ``answered`` is whether the engine's endpoint answers; None while it was not asked, or has none.
    ``has_answered``: it did once. ``state`` and ``reason`` are the endpoint's.
    """

    engine: str
    engine_version: str | None = None
    model: str | None = None
    model_known: bool = False
    served_model: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    ep: int | None = None
    speculative: str | None = None
    node_rank: int | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    orphaned: bool = False
    unit: str | None = None
    started_seconds: float | None = None
    """Unix time at which its first process started"""
    answered: bool | None = None
    has_answered: bool = False
    state: str | None = None
    reason: str | None = None
    telemetry: Telemetry | None = None
    network: NetworkFootprint | None = None
    """what it sends to its other nodes; None where it has none"""


@dataclass(frozen=True, slots=True)
class Observation:
    """One reading of everything. `host` None: unreadable."""

    gpus: tuple[Gpu, ...]
    host: HostReading | None
    declared: tuple[Declared, ...]
    owned: Mapping[str, frozenset[int]]
    """deployment → pids of its processes; one that does not run is absent"""
    memory: Mapping[int, ProcessMemory]
    """RAM by pid, of the processes in `owned`"""
    running: Mapping[str, Running] = field(default_factory=dict)
    """deployment → what is known of its processes beyond that they run"""
    taken_at_seconds: float = 0.0
    """Unix time"""
    network: NetworkReading | None = None
    carriers: Mapping[str, Carrier] = field(default_factory=dict)
    """deployment → what carries its traffic between nodes"""
    confinement: Mapping[str, Confinement] = field(default_factory=dict)
    """deployment → what holds its processes below the host's memory; absent until it was looked for"""
