"""Samples the host on monotonic time and turns each reading into a snapshot and its exposition."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import cached_property

from exporter import log
from exporter.capacity.assessment import assess
from exporter.capacity.attribution import owners
from exporter.capacity.declaration import declare, host_shape, shapes_of
from exporter.capacity.observation import Declared, Observation
from exporter.engines.process import Process, ProcessMemory, ProcessTable
from exporter.footprint.estimate import DeviceShape
from exporter.hardware.gpu import Gpu
from exporter.hardware.host import HostReading, HostSource, HostUnreadable
from exporter.hardware.inventory import Inventory
from exporter.hardware.supervision import VENDOR, NvmlSource, Sweep
from exporter.models.catalog import Catalog, catalog
from exporter.settings.options import Settings
from exporter.snapshot import Reload, Snapshot, Source

_log = log.get(__name__)

SCAN_SECONDS = 2.0
"""How long a poll waits for the process table."""


class Poller:
    """Reads everything once per `poll`; keeps what must outlive one reading."""

    def __init__(self, settings: Settings, inventory: Inventory) -> None:
        self.settings = settings
        self.nvml = NvmlSource(settings.nvml, inventory)
        self.clock_steps = 0
        self.reload = Reload(successful=True, at_seconds=time.time())
        self.last_poll_monotonic = time.monotonic()
        self._host = HostSource(
            settings.host.proc_path,
            settings.host.sys_path,
            cgroup_limit=settings.host.cgroup_limit == "auto",
        )
        self._table = ProcessTable(settings.host.proc_path)
        self._processes: Mapping[int, Process] | None = None
        self._scan: asyncio.Future[dict[int, Process]] | None = None
        # Not the loop's own executor: for that one asyncio waits at the end, also when it never returns.
        self._scanner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="processes")
        self._shapes: dict[int, tuple[str, DeviceShape]] = {}
        self._declared: tuple[Declared, ...] = ()
        self._declared_for: object = None
        self._last_success: dict[str, float] = {}
        self._errors: dict[str, Counter[str]] = {"host": Counter(), "processes": Counter()}
        self._problems: dict[str, str] = {}
        self._unknown_pids: set[int] = set()
        self._process_state = "up"
        self._process_seconds = 0.0

    @cached_property
    def _catalog(self) -> Catalog:
        """Loaded when the first deployment is declared: a host without one does not pay for it."""
        return catalog()

    def apply(self, settings: Settings) -> None:
        """Use other settings from the next poll on; what needs a restart stays as it was."""
        self.settings = settings
        self.nvml.apply(settings.nvml)
        self._host.cgroup_limit = settings.host.cgroup_limit == "auto"

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
        sources = []
        sweep = await self._sweep()
        sources.append(self._nvml_source(sweep, time.monotonic() - started))
        host_started = time.monotonic()
        host, host_state = self._read_host()
        sources.append(self._source("host", host_state, time.monotonic() - host_started))
        declared = self._place(sweep.gpus, host)
        if declared:
            await self._see_new_pids(sweep.gpus)
            sources.append(self._source("processes", self._process_state, self._process_seconds))
        owned, memory = self._owned(declared, sweep.gpus)
        observation = Observation(sweep.gpus, host, declared, owned, memory)
        capacity = self.settings.capacity
        assessment = assess(
            observation, gpu_margin=capacity.gpu_safety_margin, host_margin=capacity.host_safety_margin
        )
        self._report_deployments(declared)
        return Snapshot(
            taken_at_seconds=taken_at,
            duration_seconds=time.monotonic() - started,
            gpus=sweep.gpus,
            visible_gpus={VENDOR: sweep.visible} if sweep.up else {},
            expected_gpus=self._expected_gpus(),
            driver_version=sweep.driver_version,
            host=host,
            assessment=assessment,
            sources=tuple(sources),
            thresholds={
                one.name: float(getattr(self.settings.thresholds, one.name))
                for one in fields(self.settings.thresholds)
            },
            pool=self.settings.pool,
            reload=self.reload,
            workers_stuck=self.nvml.workers_stuck,
            clock_steps=self.clock_steps,
        )

    async def scan_processes(self) -> None:
        """Read the process table anew; in a thread, since ten thousand processes take a while.

        A file of a process that sleeps in the kernel can block its reader: such a scan is not waited for any
        longer, and no other is begun before it returns.
        """
        if not self.settings.deployments:
            self._processes = None
            return
        started = time.monotonic()
        self._table.look_for(
            entry.match.program
            for entry in self.settings.deployments
            if entry.match is not None and entry.match.program is not None
        )
        if self._scan is None or self._scan.done():
            self._scan = asyncio.get_running_loop().run_in_executor(self._scanner, self._table.scan)
        scan = self._scan
        await asyncio.wait([scan], timeout=SCAN_SECONDS)
        try:
            self._processes = scan.result()
            self._process_state = "up"
        except asyncio.InvalidStateError:
            self._processes = None
            self._process_state = "stalled"
            self._errors["processes"]["stalled"] += 1
        except OSError as error:
            self._processes = None
            self._process_state = "unreadable"
            self._errors["processes"][f"errno_{error.errno}"] += 1
        self._process_seconds = time.monotonic() - started

    async def _sweep(self) -> Sweep:
        if not self.settings.nvml.enabled:
            return Sweep((), "disabled", "", 0)
        return await self.nvml.sweep(self.settings.poll.interval)

    def _read_host(self) -> tuple[HostReading | None, str]:
        try:
            return self._host.read(), "up"
        except HostUnreadable as error:
            if self._problems.get("host") != str(error):
                _log.error("host memory not readable", error=str(error))
            self._problems["host"] = str(error)
            self._errors["host"]["unreadable"] += 1
            return None, "unreadable"

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

    async def _see_new_pids(self, gpus: tuple[Gpu, ...]) -> None:
        """A pid on a device that the last scan did not have means that something started since."""
        known = self._processes or {}
        on_devices = {p.pid for gpu in gpus if gpu.reading for p in gpu.reading.processes or ()}
        if self._processes is None or any(pid not in known for pid in on_devices - self._unknown_pids):
            await self.scan_processes()
            self._unknown_pids = on_devices - set(self._processes or {})

    def _owned(
        self, declared: tuple[Declared, ...], gpus: tuple[Gpu, ...]
    ) -> tuple[dict[str, frozenset[int]], dict[int, ProcessMemory]]:
        """Each deployment's processes and their RAM now; processes that have ended are left out."""
        if not self._processes:
            return {}, {}
        owned: dict[str, frozenset[int]] = {}
        memory: dict[int, ProcessMemory] = {}
        for name, pids in owners(declared, self._processes, gpus).items():
            alive = {pid: read for pid in pids if (read := self._table.memory(self._processes[pid]))}
            if alive:
                owned[name] = frozenset(alive)
                memory.update(alive)
        return owned, memory

    def _expected_gpus(self) -> int:
        configured = self.settings.expected_gpus
        return len(self.nvml.inventory.all()) if configured is None else configured

    def _nvml_source(self, sweep: Sweep, seconds: float) -> Source:
        declared = any(entry.devices for entry in self.settings.deployments)
        expected = self.settings.nvml.enabled and (self._expected_gpus() > 0 or declared)
        return self._source(
            "nvml",
            sweep.state,
            seconds,
            expected=expected,
            errors=self.nvml.errors,
            worker_restarts=self.nvml.worker_restarts,
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
