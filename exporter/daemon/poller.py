"""Samples the host on monotonic time and turns each reading into a snapshot and its exposition."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from exporter import log
from exporter.capacity.assessment import Assessment, assess
from exporter.capacity.confined import confined
from exporter.capacity.confined import limits as limits_of
from exporter.capacity.connection import connected
from exporter.capacity.declaration import declare, host_shape, shapes_of
from exporter.capacity.decode import decode_bounds
from exporter.capacity.observation import Declared, Observation
from exporter.capacity.tolerance import Tolerance
from exporter.capacity.unified import sized_by_ram
from exporter.daemon.engines import EngineWatch
from exporter.daemon.links import LinkWatch
from exporter.daemon.stores import StoreWatch, wanted
from exporter.footprint.estimate import DeviceShape
from exporter.hardware import amd_source
from exporter.hardware.amd_source import AmdSource
from exporter.hardware.gpu import Gpu, Number
from exporter.hardware.host import HostReading, HostSource, HostUnreadable
from exporter.hardware.inventory import Inventory
from exporter.hardware.nvidia_source import VENDOR, NvmlSource
from exporter.hardware.process import COMMAND
from exporter.hardware.supervision import GpuSource
from exporter.hardware.sweep import Sweep
from exporter.models.catalog import Catalog, catalog
from exporter.settings.options import Settings
from exporter.snapshot import Reload, Snapshot, Source

if TYPE_CHECKING:
    from exporter.hardware.foreign import ForeignExporters, ForeignSource

_log = log.get(__name__)


class _Timed(NamedTuple):
    """A sweep and how long it took."""

    sweep: Sweep
    seconds: float


class _Devices(NamedTuple):
    """All devices of one poll; `visible`: vendor → how many its driver lists."""

    gpus: tuple[Gpu, ...]
    sources: tuple[Source, ...]
    visible: dict[str, int]
    driver_version: str


class Poller:
    """Reads everything once per `poll`; keeps what must outlive one reading."""

    def __init__(
        self,
        settings: Settings,
        inventory: Inventory,
        *,
        demo: str = "",
        gpu_worker: Sequence[str] = COMMAND,
    ) -> None:
        """`demo` names the recorded host that is played, whose driver `gpu_worker` speaks for."""
        self.settings = settings
        self.nvml = NvmlSource(settings.nvml, inventory, command=gpu_worker)
        self.amd = AmdSource(settings.nvml, inventory, settings.host.sys_path, settings.host.proc_path)
        self._foreign: ForeignExporters | None = None
        self._demo = demo
        self.clock_steps = 0
        self.reload = Reload(successful=True, at_seconds=time.time())
        self.last_poll_monotonic = time.monotonic()
        self._host = HostSource(
            settings.host.proc_path,
            settings.host.sys_path,
            cgroup_limit=settings.host.cgroup_limit == "auto",
            memory_bandwidth_bytes=settings.host.memory_bandwidth,
        )
        self.links = LinkWatch(
            settings.network,
            settings.host.sys_path,
            settings.host.proc_path,
            time_scale=settings.alerting.time_scale,
        )
        self.engines = EngineWatch(settings.host.proc_path, settings.host.sys_path)
        self.stores = StoreWatch(settings.storage, settings.stores)
        self._plan_next()
        self._shapes: dict[Number, tuple[str, DeviceShape]] = {}
        self._declared: tuple[Declared, ...] = ()
        self._declared_for: object = None
        self._last_success: dict[str, float] = {}
        self._errors: dict[str, Counter[str]] = {"host": Counter()}
        self._problems: dict[str, str] = {}

    @cached_property
    def _catalog(self) -> Catalog:
        """Loaded when the first deployment is declared: a host without one does not pay for it."""
        return catalog()

    def apply(self, settings: Settings) -> None:
        """Use other settings from the next poll on; what needs a restart stays as it was."""
        self.settings = settings
        for source in (self.nvml, self.amd):
            source.apply(settings.nvml)
        self._host.cgroup_limit = settings.host.cgroup_limit == "auto"
        self.links.settings = settings.network
        self.stores.apply(settings.storage, settings.stores)
        self._plan_next()

    def _plan_next(self) -> None:
        """The model that is planned for the stores; a plan that makes no sense is told and left aside."""
        try:
            self.stores.wanted = (
                wanted(self.settings.storage, self._catalog) if self.settings.storage.next_model else None
            )
        except ValueError as error:
            self.stores.wanted = None
            _log.warning("no room is worked out for the next model", problem=str(error))

    async def run(self, publish: Callable[[Snapshot], None], stop: asyncio.Event) -> None:
        """Poll until `stop` is set; a poll that took too long skips the times it missed."""
        due = time.monotonic()
        while not stop.is_set():
            snapshot = await self.poll()
            publish(snapshot)
            due = max(due + self.settings.poll.interval, time.monotonic())
            try:
                async with asyncio.timeout(due - time.monotonic()):
                    await stop.wait()
            except TimeoutError:
                continue

    async def poll(self) -> Snapshot:
        """One reading of everything."""
        started, taken_at = time.monotonic(), time.time()
        self.last_poll_monotonic = started
        devices = await self._read_devices()
        sources = list(devices.sources)
        host_started = time.monotonic()
        host, host_state = self._read_host()
        sources.append(self._source("host", host_state, time.monotonic() - host_started))
        gpus = sized_by_ram(devices.gpus, host)
        declared = self._place(gpus, host)
        await self.engines.see_new_pids(gpus)
        sources.append(self._engine_source("processes", self.engines.state, self.engines.errors))
        await self.engines.ask(self.settings.poll.interval)
        if self.engines.has_asked:
            sources.append(self._engine_source("engines", "up", self.engines.telemetry.errors))
        shape = host_shape(host) if host else None
        engines = self.engines.join(declared, gpus, self._shapes, shape)
        network = await self.links.read()
        if self.links.has_word(engines.links):
            sources.append(self._network_source(expected=bool(engines.links)))
        self.stores.see(self.engines.instances)
        await self.stores.refresh()
        if self.stores.is_watching:
            sources.append(self._store_source())
        observation = Observation(
            gpus,
            host,
            engines.deployments,
            engines.owned,
            engines.memory,
            engines.running,
            taken_at,
            network,
            self.links.carry(engines.links, network),
            engines.confinement,
        )
        assessment = self._assess(observation)
        self._report_deployments(engines.deployments)
        return Snapshot(
            taken_at_seconds=taken_at,
            duration_seconds=time.monotonic() - started,
            gpus=gpus,
            visible_gpus=devices.visible,
            expected_gpus=self._expected_gpus(),
            driver_version=devices.driver_version,
            host=host,
            network=network,
            assessment=assessment,
            sources=tuple(sources),
            thresholds={
                one.name: float(getattr(self.settings.thresholds, one.name))
                for one in fields(self.settings.thresholds)
            },
            pool=self.settings.pool,
            reload=self.reload,
            workers_stuck=self.nvml.workers_stuck + self.amd.workers_stuck,
            clock_steps=self.clock_steps,
            stores=self.stores.stores(engines.owned),
            demo=self._demo,
        )

    async def _read_devices(self) -> _Devices:
        """What every driver, and every other exporter that is configured, tells of devices."""
        nvml, amd = await self._sweep()
        foreign = await self._sweep_foreign()
        sources = [self._nvml_source(nvml)]
        if amd:
            sources.append(self._amd_source(amd))
        sources += [self._source(of.name, one.state, of.seconds, errors=of.errors) for of, one in foreign]
        told = [one.gpus for _, one in foreign]
        return _Devices(
            gpus=tuple(chain(nvml.sweep.gpus, amd.sweep.gpus if amd else (), *told)),
            sources=tuple(sources),
            visible=_visible(
                (VENDOR, nvml.sweep),
                (amd_source.VENDOR, amd.sweep if amd else None),
                *((of.vendor, one) for of, one in foreign),
            ),
            driver_version=nvml.sweep.driver_version or (amd.sweep.driver_version if amd else ""),
        )

    def _assess(self, observation: Observation) -> Assessment:
        capacity, limits = self.settings.capacity, self.settings.thresholds
        judged = assess(
            observation,
            gpu_margin=capacity.gpu_safety_margin,
            host_margin=capacity.host_safety_margin,
            tolerance=Tolerance(
                limits.deviation_exact_ratio,
                limits.deviation_exact_bytes,
                limits.deviation_estimate_ratio,
                limits.deviation_estimate_bytes,
            ),
            rollout_seconds=limits.rollout_seconds,
        )
        placed = replace(
            judged,
            confined=confined(observation, judged, host_margin=capacity.host_safety_margin),
            limits=limits_of(observation),
            decode=decode_bounds(observation),
        )
        return connected(
            placed,
            observation,
            link_tokens_per_second=limits.link_tokens_per_second,
            active_ratio=limits.active_utilization_ratio,
        )

    async def scan_processes(self) -> None:
        """Look for engines that came or went."""
        self.engines.look_for(
            entry.match.program
            for entry in self.settings.deployments
            if entry.match is not None and entry.match.program is not None
        )
        await self.engines.look()

    async def scan_stores(self) -> None:
        """Look at the files of the stores."""
        await self.stores.scan()

    async def release(self) -> bool:
        """Let go of every driver; True when no process holds one."""
        return all(await asyncio.gather(self.nvml.release(), self.amd.release()))

    def resume(self) -> None:
        """Take the drivers up again at the next poll."""
        self.nvml.resume()
        self.amd.resume()

    async def close(self) -> None:
        """End every worker for good, and ask nobody any more."""
        self.links.source.close()
        foreign = [self._foreign.close()] if self._foreign is not None else []
        await asyncio.gather(self.nvml.close(), self.amd.close(), *foreign)

    def worker_pids(self) -> list[int]:
        """Live workers of every driver."""
        return self.nvml.worker_pids() + self.amd.worker_pids()

    async def _sweep(self) -> tuple[_Timed, _Timed | None]:
        """What NVIDIA's driver gives and, on a host with AMD devices, at the same time what AMD's does."""
        if self._has_amd():
            return await asyncio.gather(self._sweep_nvml(), self._timed(self.amd))
        return await self._sweep_nvml(), None

    async def _sweep_nvml(self) -> _Timed:
        if not self.settings.nvml.enabled:
            return _Timed(Sweep((), "disabled", "", 0), 0.0)
        return await self._timed(self.nvml)

    async def _timed(self, source: GpuSource) -> _Timed:
        started = time.monotonic()
        sweep = await source.sweep(self.settings.poll.interval)
        return _Timed(sweep, time.monotonic() - started)

    async def _sweep_foreign(self) -> list[tuple[ForeignSource, Sweep]]:
        """What other exporters of this host tell of devices; loaded with the first that is configured."""
        entries = self.settings.foreign_exporters
        if self._foreign is None:
            if not entries:
                return []
            from exporter.hardware.foreign import ForeignExporters

            self._foreign = ForeignExporters(self.nvml.inventory, self.settings.host.proc_path)
        self._foreign.apply(entries)
        return await self._foreign.sweep(self.settings.poll.interval)

    def _has_amd(self) -> bool:
        """Whether there is anything to say of AMD devices: most hosts have none, and pay nothing."""
        return self.settings.amd.enabled and self.amd.is_here

    def _read_host(self) -> tuple[HostReading | None, str]:
        try:
            return self._host.read(), "up"
        except HostUnreadable as error:
            if self._problems.get("host") != str(error):
                _log.error("host memory not readable", error=str(error))
            self._problems["host"] = str(error)
            self._errors["host"]["unreadable"] += 1
            return None, "unreadable"

    def _network_source(self, expected: bool) -> Source:
        one = self.links.source
        return self._source("network", one.state, one.seconds, expected=expected, errors=one.errors)

    def _place(self, gpus: tuple[Gpu, ...], host: HostReading | None) -> tuple[Declared, ...]:
        """The declared deployments on the devices as they are; worked out again only when either changes."""
        self._shapes = shapes_of(gpus, self._shapes)
        entries = self.settings.deployments
        shape = host_shape(host) if host else None
        basis = (tuple(map(repr, entries)), tuple(self._shapes.items()), shape)
        if basis != self._declared_for:
            self._declared = declare(entries, self._shapes, shape, self._catalog) if entries else ()
            self._declared_for = basis
        return self._declared

    def _expected_gpus(self) -> int:
        configured = self.settings.expected_gpus
        if configured is not None:
            return configured
        read = {"", *(entry.source for entry in self.settings.foreign_exporters)}
        return sum(one.source in read for one in self.nvml.inventory.all())

    def _nvml_source(self, timed: _Timed) -> Source:
        # Devices that are configured or declared are NVIDIA's where nothing speaks of another vendor's.
        others = self._has_amd() or bool(self.settings.foreign_exporters)
        expected = bool(self.nvml.remembered()) or (self._wants_gpus() and not others)
        return self._gpu_source("nvml", self.nvml, timed, self.settings.nvml.enabled and expected)

    def _amd_source(self, timed: _Timed) -> Source:
        others = bool(self.nvml.remembered()) or bool(self.settings.foreign_exporters)
        expected = bool(self.amd.remembered()) or (self._wants_gpus() and not others)
        return self._gpu_source("amdgpu", self.amd, timed, expected)

    def _wants_gpus(self) -> bool:
        """Whether the configuration speaks of devices."""
        declared = any(entry.devices for entry in self.settings.deployments)
        return declared or bool(self.settings.expected_gpus)

    def _gpu_source(self, name: str, of: GpuSource, timed: _Timed, expected: bool) -> Source:
        return self._source(
            name,
            timed.sweep.state,
            timed.seconds,
            expected=expected,
            errors=of.errors,
            worker_restarts=of.worker_restarts,
        )

    def _engine_source(self, name: str, state: str, errors: Mapping[str, int]) -> Source:
        seconds = self.engines.seconds if name == "processes" else self.engines.telemetry.seconds
        # Without a declaration nothing need run here, so that silence is no fault.
        expected = bool(self.settings.deployments) or name == "processes"
        return self._source(name, state, seconds, expected=expected, errors=errors)

    def _store_source(self) -> Source:
        watch = self.stores
        return self._source(
            "stores", watch.state, watch.seconds, expected=watch.expected, errors=watch.errors
        )

    def _source(
        self,
        name: str,
        state: str,
        seconds: float,
        *,
        expected: bool = True,
        errors: Mapping[str, int] | None = None,
        worker_restarts: int | None = None,
    ) -> Source:
        if state == "up":
            self._last_success[name] = time.time()
            self._problems.pop(name, None)
        return Source(
            name=name,
            state=state,
            expected=expected,
            last_success_seconds=self._last_success.get(name),
            duration_seconds=seconds,
            errors=dict(self._errors[name] if errors is None else errors),
            worker_restarts=worker_restarts,
        )

    def _report_deployments(self, declared: tuple[Declared, ...]) -> None:
        """One log line when a declaration cannot be worked out, and none while that stays so."""
        for one in declared:
            key = f"deployment {one.name}"
            if one.problem and self._problems.get(key) != one.problem:
                _log.warning("deployment has no expectation", deployment=one.name, problem=one.problem)
            if one.problem:
                self._problems[key] = one.problem
            elif self._problems.pop(key, None):
                _log.info("deployment has an expectation", deployment=one.name)


def _visible(*sweeps: tuple[str, Sweep | None]) -> dict[str, int]:
    """Vendor → devices that its driver, or the exporters that tell of it, list now."""
    found: dict[str, int] = {}
    for vendor, sweep in sweeps:
        if sweep is not None and sweep.up:
            found[vendor] = found.get(vendor, 0) + sweep.visible
    return found
