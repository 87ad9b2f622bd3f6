"""What one poll read, and what stands declared against it: the input of every judgement of this floor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.engines.process import ProcessMemory
from exporter.footprint.result import Footprint
from exporter.hardware.gpu import Gpu
from exporter.hardware.host import HostReading


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
    device_indices: tuple[int, ...]
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
