"""A recorded host at one moment: what its driver, its kernel and its engines would say.

Memory that engines hold is the profile's; load, and what follows it (power, heat, requests, tokens), is
constructed from `timeline`. The same profile, script and second give the same scene.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from exporter.demo import timeline
from exporter.demo.profile import GIB, MIB, Devices, Engine, Interface, Profile
from exporter.demo.timeline import Script, Span
from exporter.hardware.driver import Reading

UPTIME_SECONDS = 6 * 3600
"""How long host and engines have run when the demo begins."""
_TICKS_PER_SECOND = 100  # USER_HZ, proc(5)
_STRANGER_PID = 48_000
_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # RFC 9562: names that are URLs
_STARTING_MIB = 520
"""A CUDA context and little more: what an engine holds that waits for memory. Constructed."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process. `title` replaces its command line, as setproctitle does."""

    pid: int
    parent: int
    start_ticks: int
    program: str
    argv: tuple[str, ...] = ()
    title: str = ""
    unit: str = ""
    anonymous_bytes: int = 0
    file_bytes: int = 0
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Serving:
    """What an engine counts and shows now."""

    engine: Engine
    load: float
    kv_usage: float
    running: int
    waiting: int
    preemptions: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int

    @property
    def kv_used_tokens(self) -> int:
        return round(self.kv_usage * self.engine.kv_capacity_tokens)


@dataclass(frozen=True, slots=True)
class Memory:
    """RAM of the host, bytes; stalls in seconds since boot."""

    total: int
    available: int
    swap_total: int
    swap_used: int
    stalled_some: float
    stalled_full: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything at one moment. A device that is lost is None; `xids` are (index, Xid) seen so far."""

    devices: tuple[Reading | None, ...]
    processes: tuple[Process, ...]
    serving: Mapping[str, Serving]
    """name of an engine that answers → what it says"""
    memory: Memory
    xids: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """(device, Xid) → how often so far"""
    traffic: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """interface → bytes sent and received so far"""


class Play:
    """A profile with its script and the ports that its engines were given."""

    def __init__(self, profile: Profile, script: Script, ports: Mapping[str, int]) -> None:
        self.profile = profile
        self.script = script
        self._ports = ports

    def at(self, seconds: float) -> Scene:
        """The host `seconds` after the start."""
        memory, file_share = self._memory(seconds)
        engines = [one for one in self.profile.engines if self._is_there(one, seconds)]
        processes = [one for engine in engines for one in self._tree(engine, seconds, file_share)]
        processes += self._strangers(seconds)
        devices = self.profile.devices
        return Scene(
            devices=tuple(self._device(devices, index, engines, seconds) for index in range(devices.count))
            if devices is not None
            else (),
            processes=tuple(processes),
            serving={one.name: self._serving(one, seconds) for one in engines if self._answers(one, seconds)},
            memory=memory,
            xids={
                (index, incident.xid): times
                for incident, span in self.script.spans
                for index in incident.lost_gpus
                if incident.xid and (times := span.count(seconds))
            },
            traffic={one.name: self._traffic(one, seconds) for one in self.profile.interfaces},
        )

    def _traffic(self, interface: Interface, seconds: float) -> tuple[int, int]:
        """What the first engine's load has sent and received, and what somebody else has sent."""
        work = self._work_until(self.profile.engines[0], seconds)
        both = interface.busy_bytes_per_second * (work + UPTIME_SECONDS / 2)
        others = sum(
            one.busy_share * interface.gigabits * 1e9 / 8 * span.intensity_until(seconds)
            for one, span in self.script.spans
            if interface.name in one.busy_interfaces
        )
        return int(both + others), int(both)

    def _is_there(self, engine: Engine, seconds: float) -> bool:
        if not engine.during:
            return True
        span = self.script.span(engine.during)
        return span is not None and span.is_on(seconds)

    def _answers(self, engine: Engine, seconds: float) -> bool:
        """A tensor-parallel group that has lost a device hangs."""
        return engine.answers and not any(span.is_on(seconds) for span in self._breaking(engine))

    def _breaking(self, engine: Engine) -> Iterator[Span]:
        for incident, span in self.script.spans:
            if set(incident.lost_gpus) & set(engine.gpus):
                yield span

    def _started(self, engine: Engine, seconds: float) -> float:
        """When an engine started, or was started again after it hung; negative: before the demo."""
        if engine.during:
            span = self.script.span(engine.during)
            assert span is not None
            return (span.count(seconds) - 1) * span.cycle + span.starts_at
        ends = [end for span in self._breaking(engine) if (end := span.last_end(seconds)) is not None]
        return max(ends, default=float(-UPTIME_SECONDS))

    def _load(self, engine: Engine, seconds: float) -> float:
        pressed = max((span.intensity(seconds) for _, span in self._saturating()), default=0.0)
        return timeline.load(seconds, _phase(engine.pid)) + 0.2 * pressed

    def _saturating(self) -> Iterator[tuple[float, Span]]:
        for incident, span in self.script.spans:
            if incident.kv_usage:
                yield incident.kv_usage, span

    def _serving(self, engine: Engine, seconds: float) -> Serving:
        load = self._load(engine, seconds)
        usage = 0.12 + 0.6 * timeline.load(seconds, _phase(engine.pid))
        waiting, preemptions = 0.0, 0.0
        for incident, span in self.script.spans:
            if incident.kv_usage:
                intensity = span.intensity(seconds)
                usage += (incident.kv_usage - usage) * intensity
                waiting += incident.waiting * intensity
                preemptions += incident.waiting * 0.1 * span.intensity_until(seconds)
        generated = engine.tokens_per_second * (
            self._work_until(engine, seconds) - self._work_until(engine, self._started(engine, seconds))
        )
        return Serving(
            engine=engine,
            load=load,
            kv_usage=min(usage, 1.0),
            running=max(1, min(engine.max_num_seqs, round(engine.max_num_seqs * load))),
            waiting=round(waiting),
            preemptions=int(preemptions),
            prompt_tokens=int(3 * generated),  # of a chat three tokens are read for one that is written
            cached_tokens=int(1.1 * generated),
            generated_tokens=int(generated),
        )

    def _work_until(self, engine: Engine, seconds: float) -> float:
        pressed = sum(span.intensity_until(max(seconds, 0.0)) for _, span in self._saturating())
        return timeline.load_until(seconds, _phase(engine.pid)) + 0.2 * pressed

    def _tree(self, engine: Engine, seconds: float, file_share: float) -> Iterator[Process]:
        """Server → what stands between → a worker for each GPU."""
        start = self._started(engine, seconds)
        ticks = round((UPTIME_SECONDS + max(start, -UPTIME_SECONDS + 60)) * _TICKS_PER_SECOND)
        pid = self._pid(engine, seconds)
        port = self._ports.get(engine.name, 0)
        anonymous = engine.anonymous_mib * MIB
        yield Process(
            pid,
            1,
            ticks,
            engine.program,
            argv=tuple(part.replace("{port}", str(port)) for part in engine.argv),
            unit=engine.unit,
            anonymous_bytes=anonymous,
            file_bytes=round(engine.mapped_gib * GIB * file_share),
            ports=(port,) if engine.answers and port else (),
        )
        parent = pid
        workers = [
            engine.worker.replace("{rank}", str(engine.first_rank + at)) for at in range(len(engine.gpus))
        ]
        for title in engine.between:
            parent += 1
            yield _titled(title, parent, parent - 1, ticks, engine)
        for rank, title in enumerate(workers if engine.worker else ()):
            yield _titled(title, parent + 1 + rank, parent, ticks, engine)

    def _pid(self, engine: Engine, seconds: float) -> int:
        """Of its first process: another one after every start."""
        return engine.pid + max(0, round(self._started(engine, seconds)))

    def _holders(self, engine: Engine, seconds: float) -> dict[int, int]:
        """GPU → pid that holds the engine's memory on it."""
        first = self._pid(engine, seconds) + len(engine.between)
        if not engine.worker:
            return dict.fromkeys(engine.gpus, first)
        return {gpu: first + 1 + rank for rank, gpu in enumerate(engine.gpus)}

    def _strangers(self, seconds: float) -> Iterator[Process]:
        for at, (incident, span) in enumerate(self.script.spans):
            if incident.stranger_argv and span.is_on(seconds):
                start = (span.count(seconds) - 1) * span.cycle + span.starts_at
                yield Process(
                    _STRANGER_PID + at,
                    1,
                    round((UPTIME_SECONDS + start) * _TICKS_PER_SECOND),
                    "python3",
                    argv=incident.stranger_argv,
                    anonymous_bytes=round(incident.stranger_ram_gib * GIB * span.intensity(seconds))
                    + 400 * MIB,
                )

    def _device(self, devices: Devices, index: int, engines: list[Engine], seconds: float) -> Reading | None:
        """What the driver would say of one device; None while it is lost."""
        if any(index in one.lost_gpus and span.is_on(seconds) for one, span in self.script.spans):
            return None
        rows: list[list[int]] = []
        for engine in engines:
            if index in engine.gpus:
                held = engine.held_mib if not engine.during else _STARTING_MIB
                rows.append([self._holders(engine, seconds)[index], held * MIB])
        for at, (incident, span) in enumerate(self.script.spans):
            if index in incident.stranger_gpus and span.is_on(seconds):
                rows.append([_STRANGER_PID + at, round(incident.stranger_gib * GIB)])
        total, reserved = devices.memory_mib * MIB, devices.reserved_mib * MIB
        used = sum(size for _, size in rows) + devices.unattributed_mib * MIB
        return {
            "identity": _identity(self.profile.name, devices, index),
            "values": {
                "memory_total_bytes": total,
                "memory_used_bytes": used,
                "memory_free_bytes": total - reserved - used,
                "memory_reserved_bytes": reserved,
                **self._effort(devices, index, engines, seconds),
            },
            "processes": rows,
            "errors": {},
        }

    def _effort(self, devices: Devices, index: int, engines: list[Engine], seconds: float) -> Reading:
        """Power, heat and use, which follow the load of the engine that lies on the device."""
        engine = next((one for one in engines if index in one.gpus and not one.during), None)
        is_hung = engine is not None and any(span.is_on(seconds) for span in self._breaking(engine))
        load = 0.0 if engine is None else 1.0 if is_hung else self._load(engine, seconds)
        work = 0.0 if engine is None else self._work_until(engine, seconds)
        hot = max(
            (s.intensity(seconds) for one, s in self.script.spans if index in one.hot_gpus), default=0.0
        )
        watts = devices.idle_watts + (devices.busy_watts - devices.idle_watts) * (0.4 if is_hung else load)
        joules = devices.idle_watts * seconds + (devices.busy_watts - devices.idle_watts) * work
        celsius = devices.idle_celsius + (devices.busy_celsius - devices.idle_celsius) * load + index % 3
        celsius += (90.0 - celsius) * hot
        sensors = {"gpu": round(celsius)}
        if devices.memory_celsius_above is not None:
            sensors["memory"] = round(celsius + devices.memory_celsius_above)
        values: Reading = {
            "power_watts": round(watts, 1),
            "power_limit_watts": devices.limit_watts,
            "energy_joules": round(devices.busy_watts * 0.6 * UPTIME_SECONDS + joules, 3),
            "utilization_ratio": round(min(1.0, 0.5 + 0.6 * load), 2) if engine is not None else 0.0,
            "memory_bandwidth_utilization_ratio": round(0.15 + 0.5 * load, 2) if engine is not None else 0.0,
            "temperature_celsius": sensors,
            "clocks_limited": {
                "sw_power_cap": False,
                "sw_thermal_slowdown": hot > 0.5,
                "hw_slowdown": False,
                "hw_thermal_slowdown": False,
                "hw_power_brake_slowdown": False,
                "sync_boost": False,
            },
        }
        return values | ({"ecc_errors": {"corrected": 0, "uncorrected": 0}} if devices.ecc else {})

    def _memory(self, seconds: float) -> tuple[Memory, float]:
        """RAM now, and which share of the mapped weights is left in it."""
        ram = self.profile.ram
        total = round(ram.total_gib * GIB)
        used, swapped, some, full = ram.used_gib * GIB, 0.0, 3.0, 0.5
        for incident, span in self.script.spans:
            intensity = span.intensity(seconds)
            used += incident.stranger_ram_gib * GIB * intensity
            swapped += incident.swap_gib * GIB * intensity
            full += incident.stalled_share * span.intensity_until(seconds)
            some += 1.5 * incident.stalled_share * span.intensity_until(seconds)
        mapped = 0.0
        for engine in self.profile.engines:
            if self._is_there(engine, seconds):
                processes = 1 + len(engine.between) + (len(engine.gpus) if engine.worker else 0)
                used += engine.anonymous_mib * MIB * processes
                mapped += engine.mapped_gib * GIB
        available = max(2 * GIB, round(total - used + 0.2 * GIB * timeline.load(seconds)))
        share = min(1.0, available / mapped) if mapped else 1.0
        swap_total = round(ram.swap_gib * GIB)
        return Memory(total, available, swap_total, min(round(swapped), swap_total), some, full), share


def _titled(title: str, pid: int, parent: int, ticks: int, engine: Engine) -> Process:
    return Process(
        pid,
        parent,
        ticks,
        title[:15],  # TASK_COMM_LEN of include/linux/sched.h
        title=title,
        unit=engine.unit,
        anonymous_bytes=engine.anonymous_mib * MIB,
    )


def _identity(profile: str, devices: Devices, index: int) -> Reading:
    """Constructed: uuids and addresses of a real board would be somebody's. AMD's are shorter."""
    own = uuid.uuid5(_NAMESPACE, f"demo/{profile}/{index}")
    is_amd = devices.vendor == "amd"
    return {
        "index": index,
        "uuid": f"GPU-{own.hex[:16]}" if is_amd else f"GPU-{own}",
        "name": devices.name,
        "pci_bus_id": f"{'0000' if is_amd else '00000000'}:{0x18 + 0x11 * index:02x}:00.0",
        "numa_node": index * devices.numa_nodes // devices.count if devices.numa_nodes > 1 else None,
        "memory_kind": "dedicated",
    }


def _phase(pid: int) -> float:
    return pid % 97 / 97
