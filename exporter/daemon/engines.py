"""Keeps watch over the engines of this host: finds them, and joins them with what their checkpoints say
(`checkpoints.py`), what they say themselves (`telemetry.py`) and what is declared.

Everything slow happens beside the polls: the process table and checkpoints in threads, telemetry in a task.
A poll takes what was last learned, and never what was learned of a process that is no longer there.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import log
from exporter.capacity.declaration import Shapes, shape_at
from exporter.capacity.observation import Declared, Running
from exporter.capacity.placement import devices_of
from exporter.daemon.checkpoints import CheckpointWatch
from exporter.daemon.telemetry import TelemetryWatch
from exporter.engines.confinement import Confinement, ConfinementReader, of_all
from exporter.engines.discovery import Discovery, Found, Instance, Key
from exporter.engines.process import Process, ProcessMemory, ProcessTable
from exporter.footprint.estimate import DeviceShape, Footprint, HostShape
from exporter.hardware.gpu import Gpu, Number

if TYPE_CHECKING:
    from exporter.capacity.identity import Identity
    from exporter.capacity.joining import Names
    from exporter.engines.launch import Link
    from exporter.engines.telemetry.types import Telemetry, TelemetryResult

_log = log.get(__name__)

SCAN_SECONDS = 2.0
"""How long a poll waits for the process table."""
THOROUGH_SECONDS = 30.0
"""How often every process is looked at again, not only those that are new."""


@dataclass(frozen=True, slots=True)
class Engines:
    """What runs, as one poll sees it: `deployments` are the declared ones and those nobody declared."""

    deployments: tuple[Declared, ...]
    owned: Mapping[str, frozenset[int]]
    memory: Mapping[int, ProcessMemory]
    running: Mapping[str, Running]
    links: Mapping[str, Link | None] = field(default_factory=dict)
    """of those that run on several nodes: what their launches say of the way there"""
    confinement: Mapping[str, Confinement] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Seen:
    """An instance with what is known of it now."""

    instance: Instance
    identity: Identity
    served: str | None
    devices: tuple[Number, ...] | None
    result: TelemetryResult | None
    said: Telemetry | None


class EngineWatch:
    """One per daemon."""

    def __init__(self, proc: Path, sys: Path) -> None:
        self.state = "up"
        self.seconds = 0.0
        self.errors: Counter[str] = Counter()
        self.telemetry = TelemetryWatch()
        self._checkpoints = CheckpointWatch()
        self._table = ProcessTable(proc)
        self._discovery = Discovery(self._table, proc)
        self._confines = ConfinementReader(proc, sys)
        self._confined: Mapping[int, Confinement] = {}
        self._owned: frozenset[int] = frozenset()
        self._found: Found | None = None
        self._scan: asyncio.Future[tuple[Found, Mapping[int, Confinement]]] | None = None
        self._thorough_at = float("-inf")
        # Not the loop's own executor: for that one asyncio waits at the end, also when it never returns.
        self._scanner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="processes")
        self._said: dict[Key, Telemetry] = {}
        self._names: Names | None = None
        self._identities: dict[Key, tuple[object, Identity]] = {}
        self._footprints: dict[Key, tuple[object, tuple[Footprint | None, str]]] = {}
        self._started: dict[Process, float | None] = {}
        self._unknown_pids: frozenset[int] = frozenset()
        self._last_success: float | None = None

    @property
    def processes(self) -> Mapping[int, Process] | None:
        """The process table as last seen; None when it could not be read."""
        return self._found.processes if self._found is not None else None

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The engines as last found."""
        return self._found.instances if self._found is not None else ()

    @property
    def has_asked(self) -> bool:
        """Whether an engine that runs was asked; how it answered is told of each deployment."""
        return self.telemetry.has_asked(self.instances)

    def look_for(self, programs: Iterable[str]) -> None:
        """Names of programs to recognise beside those of the engines."""
        self._table.look_for(programs)

    async def look(self, *, thorough: bool = False) -> None:
        """Look at the process table anew; in a thread, since ten thousand processes take a while.

        A file of a process that sleeps in the kernel can block its reader: such a scan is not waited for any
        longer, and no other is begun before it returns.
        """
        started = time.monotonic()
        if self._scan is None or self._scan.done():
            due = started - self._thorough_at >= THOROUGH_SECONDS
            if thorough or due:
                self._thorough_at = started
            self._scan = asyncio.get_running_loop().run_in_executor(
                self._scanner, self._look, thorough or due, self._owned
            )
        scan = self._scan
        await asyncio.wait([scan], timeout=SCAN_SECONDS)
        try:
            self._found, self._confined = scan.result()
            self.state = "up"
        except asyncio.InvalidStateError:
            self._found = None
            self.state = "stalled"
            self.errors["stalled"] += 1
        except OSError as error:
            self._found = None
            self.state = "unreadable"
            self.errors[f"errno_{error.errno}"] += 1
        self.seconds = time.monotonic() - started
        self._forget()

    def _look(self, thorough: bool, owned: frozenset[int]) -> tuple[Found, Mapping[int, Confinement]]:
        """In a thread: what runs, and what confines the processes of engines and of `owned`."""
        found = self._discovery.look(thorough=thorough)
        pids = owned.union(*(one.pids for one in found.instances))
        return found, self._confines.read(found.processes[pid] for pid in pids if pid in found.processes)

    async def see_new_pids(self, gpus: Iterable[Gpu]) -> None:
        """Look again when a device lists a pid that the last look did not have, or none has been taken."""
        known = self.processes or {}
        on_devices = {p.pid for gpu in gpus if gpu.reading for p in gpu.reading.processes or ()}
        if self._found is None or any(pid not in known for pid in on_devices - self._unknown_pids):
            await self.look()
            self._unknown_pids = frozenset(on_devices - set(self.processes or {}))

    async def ask(self, interval_seconds: float) -> None:
        """Take what the engines said last, and begin to ask them again; waits only for a first word."""
        await self.telemetry.ask(self.instances, interval_seconds)

    def join(
        self, declared: Sequence[Declared], gpus: Sequence[Gpu], shapes: Shapes, host: HostShape | None
    ) -> Engines:
        """The deployments as they are: declared ones with their processes, and what nobody declared."""
        found = self._found
        if found is None or (not declared and not found.instances):
            return Engines(tuple(declared), {}, {}, {})
        from exporter.capacity.joining import Names, join

        alive = {one.key: one for one in found.instances if self._table.is_alive(one.root)}
        seen = {key: self._see(one, gpus) for key, one in alive.items()}
        joined = join(
            declared,
            tuple(alive.values()),
            found.processes,
            gpus,
            lambda one: seen[one.key].identity.model_id,
            found.roles,
        )
        running: dict[str, Running] = {}
        links: dict[str, Link | None] = {}
        deployments: list[Declared] = []
        for one in declared:
            instance = joined.instances.get(one.name)
            if instance is None:
                deployments.append(one)
                continue
            placed, running[one.name] = self._placed(one, seen[instance.key], shapes, host)
            links[one.name] = instance.launch.link
            deployments.append(placed)
        owned = dict(joined.owned)
        named = [seen[one.key] for one in joined.undeclared if self._is_named(seen[one.key])]
        if self._names is None:
            self._names = Names()
        names = self._names.of(
            [(one.instance, one.served or "unknown", (one.devices or (None,))[0]) for one in named],
            reserved=(one.name for one in declared),
        )
        for one_seen in named:
            name = names[one_seen.instance.key]
            deployment, running[name] = self._discovered(name, one_seen, shapes, host)
            links[name] = one_seen.instance.launch.link
            deployments.append(deployment)
            owned[name] = one_seen.instance.pids
        owned, memory = self._alive(owned, found.processes)
        kept = tuple(one for one in deployments if one.origin == "declared" or one.name in owned)
        here = {name: one for name, one in running.items() if name in owned}
        links = {name: links[name] for name, one in here.items() if one.network is not None}
        self._owned = frozenset(pid for pids in owned.values() for pid in pids)
        confinement = {
            name: of_all(known)
            for name, pids in owned.items()
            if (known := [self._confined[pid] for pid in sorted(pids) if pid in self._confined])
        }
        return Engines(kept, owned, memory, here, links, confinement)

    def _alive(
        self, owned: Mapping[str, frozenset[int]], processes: Mapping[int, Process]
    ) -> tuple[dict[str, frozenset[int]], dict[int, ProcessMemory]]:
        """Each deployment's processes that are still there, and their RAM now."""
        result: dict[str, frozenset[int]] = {}
        memory: dict[int, ProcessMemory] = {}
        for name, pids in owned.items():
            here = {
                pid: read
                for pid in pids
                if pid in processes and (read := self._table.memory(processes[pid])) is not None
            }
            if here:
                result[name] = frozenset(here)
                memory.update(here)
        return result, memory

    def _is_named(self, one: _Seen) -> bool:
        """Whether its name is settled: the launch tells it, or the engine has been asked."""
        return one.served is not None or one.instance.door is None or one.result is not None

    def _see(self, instance: Instance, gpus: Sequence[Gpu]) -> _Seen:
        from exporter.capacity.identity import identify, served_name

        result = self.telemetry.result(instance)
        telemetry = result.telemetry if result is not None else None
        if telemetry is not None and instance.engine == "ollama":
            telemetry = self._of_runner(instance, telemetry)
        if telemetry is not None:
            self._said[instance.key] = telemetry
        said = self._said.get(instance.key)
        checkpoint = self._checkpoints.of(instance)
        names = (said.model, said.served_model, said.quantization) if said is not None else None
        basis = (instance.launch, id(checkpoint), names)
        known = self._identities.get(instance.key)
        if known is None or known[0] != basis:
            known = (basis, identify(instance.launch, checkpoint, said))
            self._identities[instance.key] = known
        served = "orphaned" if instance.orphaned else served_name(instance.launch, said)
        if served is None and known[1].shown is not None and result is not None:
            served = known[1].shown
        if result is not None and telemetry is not result.telemetry:
            result = replace(result, telemetry=telemetry)
        return _Seen(instance, known[1], served, devices_of(instance, gpus), result, said)

    def _of_runner(self, instance: Instance, telemetry: Telemetry) -> Telemetry:
        """What an Ollama server says of this runner: of several models, the one that its file tells."""
        loaded = telemetry.loaded_models
        runners = [one for one in self.instances if one.server is instance.server]
        name: str | None = None
        if len(loaded) == 1 and len(runners) == 1:
            name = loaded[0].name
        elif loaded:
            name = self._checkpoints.named_by_files(instance, [one.name for one in loaded])
        length = next((one.context_tokens for one in loaded if one.name == name), None)
        return replace(telemetry, model=name, served_model=name, max_model_len=length)

    def _expected(
        self, one: _Seen, shapes: Shapes, host: HostShape | None
    ) -> tuple[Footprint | None, str, tuple[str, ...]]:
        """What an instance should need on its devices, or why that is not known; and the devices' uuids."""
        from exporter.capacity.identity import expected

        if one.devices is None:
            return None, "it holds no GPU yet", ()
        here = [shape_at(number, shapes) for number in one.devices]
        if any(shape is None for shape in here):
            return None, "the size of one of its GPUs was never read here", ()
        uuids = tuple(shapes[number][0] for number in one.devices)
        launch = one.instance.launch
        local = tuple(shape for shape in here if shape is not None)
        devices, ranks = _over_nodes(local, uuids, *launch.node)
        said = one.said
        facts = (said.engine_version, said.max_model_len, said.max_num_seqs) if said is not None else None
        capacity = said.kv_capacity_tokens if said is not None and launch.max_model_len is None else None
        basis = (launch, one.identity, devices, host, facts, capacity)
        key = one.instance.key
        known = self._footprints.get(key)
        if known is None or known[0] != basis:
            known = (basis, expected(launch, one.identity, said, devices, host))
            self._footprints[key] = known
        return (*known[1], ranks)

    def _placed(
        self, declared: Declared, one: _Seen, shapes: Shapes, host: HostShape | None
    ) -> tuple[Declared, Running]:
        """A declared deployment that runs; where its declaration gives no expectation, the launch's own."""
        footprint, _, ranks = self._expected(one, shapes, host)
        running = self._running(one, footprint)
        if declared.footprint is None and footprint is not None:
            return replace(declared, footprint=footprint, ranks=ranks, problem=""), running
        return declared, running

    def _running(self, one: _Seen, footprint: Footprint | None) -> Running:
        root = one.instance.root
        if root not in self._started:
            self._started[root] = self._table.started_seconds(root)
        return replace(_running(one, footprint), started_seconds=self._started[root])

    def _discovered(
        self, name: str, one: _Seen, shapes: Shapes, host: HostShape | None
    ) -> tuple[Declared, Running]:
        footprint, problem, ranks = self._expected(one, shapes, host)
        running = self._running(one, footprint)
        deployment = Declared(
            name=name,
            model=running.model or "unknown",
            engine=running.engine,
            required=False,
            device_indices=one.devices or (),
            ranks=ranks,
            programs=(),
            unit=None,
            tp=running.tp or 1,
            pp=running.pp or 1,
            dp=running.dp or 1,
            max_model_len=running.max_model_len,
            max_num_seqs=running.max_num_seqs,
            kv_cache_dtype=running.kv_cache_dtype,
            footprint=footprint,
            problem=problem,
            origin="discovered",
        )
        return deployment, running

    def _forget(self) -> None:
        """Drop what was learned of processes that are gone."""
        if self._found is None:
            return
        live = {one.key for one in self.instances}
        roots = {one.root for one in self.instances}
        self._started = {root: at for root, at in self._started.items() if root in roots}
        for table in (self._said, self._identities, self._footprints):
            for key in [key for key in table if key not in live]:
                del table[key]
        self._checkpoints.forget(live)
        self.telemetry.forget(self.instances)


def _over_nodes(
    local: tuple[DeviceShape, ...], uuids: tuple[str, ...], node_rank: int, nodes: int
) -> tuple[tuple[DeviceShape, ...], tuple[str, ...]]:
    """The devices of all nodes, taken to be alike; those of other nodes have no uuid."""
    if not 1 < nodes <= 256 or not 0 <= node_rank < nodes:
        return local, uuids
    before, after = node_rank * len(local), (nodes - node_rank - 1) * len(local)
    return local * nodes, ("",) * before + uuids + ("",) * after


def _running(one: _Seen, footprint: Footprint | None) -> Running:
    launch, said, result = one.instance.launch, one.said, one.result
    fresh = result.telemetry if result is not None else None
    speculative = launch.speculative
    return Running(
        engine=launch.variant or one.instance.engine,
        engine_version=(said.engine_version if said is not None else None) or launch.engine_version,
        model=one.identity.model_id or one.identity.shown,
        model_known=one.identity.model_id is not None,
        served_model=one.served,
        quantization=footprint.quantization if footprint is not None else one.identity.quantization,
        kv_cache_dtype=launch.kv_cache_dtype
        or launch.cache_type_k
        or (said.kv_cache_dtype if said is not None else None),
        tp=launch.tp,
        pp=launch.pp,
        dp=launch.dp,
        ep=launch.ep,
        speculative=(speculative.method or "draft") if speculative is not None else None,
        node_rank=launch.node[0] if launch.node[1] > 1 else None,
        max_model_len=launch.max_model_len or (said.max_model_len if said is not None else None),
        max_num_seqs=launch.max_num_seqs or (said.max_num_seqs if said is not None else None),
        orphaned=one.instance.orphaned,
        unit=one.instance.unit,
        answered=None if result is None else result.telemetry is not None,
        has_answered=said is not None,
        state=None if result is None else str(result.state),
        reason=None if result is None or result.reason is None else str(result.reason),
        network=footprint.network if footprint is not None else None,
        telemetry=None if fresh is None else replace(fresh, model=None, served_model=None, loaded_models=()),
    )
