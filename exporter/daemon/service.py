"""The life of the daemon: start, poll, reload, answer, report to the service manager, stop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import socket
import time
from collections.abc import Coroutine, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter import __version__, log
from exporter.daemon import notify, paths
from exporter.daemon.alerts import Alerts
from exporter.daemon.control import Answer, ControlServer
from exporter.daemon.poller import Poller
from exporter.daemon.schedule import Schedule
from exporter.exposition.collect import alert_samples, receiver_samples, samples
from exporter.exposition.render import Renderer
from exporter.hardware.inventory import Inventory
from exporter.settings import resolve
from exporter.settings.errors import ConfigurationError
from exporter.settings.options import Settings, sections
from exporter.snapshot import Reload, Snapshot, to_plain
from exporter.web.app import Application
from exporter.web.server import Server, is_loopback, listen

if TYPE_CHECKING:
    from exporter.demo.stage import Stage

_log = log.get(__name__)

STANDSTILL_POLLS = 6
STANDSTILL_LEAST_SECONDS = 30.0
_PROBE_SECONDS = 5.0
_STOP_SECONDS = 8.0  # below TimeoutStopSec of the unit, after which systemd kills


class Service:
    """One running daemon."""

    def __init__(
        self,
        settings: Settings,
        file: Path | None,
        flags: Mapping[str, Any],
        *,
        stage: Stage | None = None,
    ) -> None:
        """`stage` plays a recorded host, which the settings make the daemon read."""
        self._settings = settings
        self._stage = stage
        self._file = file
        self._flags = flags
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._snapshot: Snapshot | None = None
        self._served: frozenset[str] = frozenset()
        self._renderer = Renderer()
        inventory = Inventory(paths.inventory_file(settings.state))
        if stage is None:
            self._poller = Poller(settings, inventory)
        else:
            self._poller = Poller(settings, inventory, demo=stage.name, gpu_worker=stage.worker_command)
        self._application = Application(self.healthy, lambda: self._poller.settings.poll.interval)
        self._alerts: Alerts | None = None
        self._schedule = Schedule()
        self._reloading = asyncio.Lock()
        self._address = ("", 0)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises ListenError or ControlError when it cannot start."""
        bound = listen(self._settings.web.listen_address)
        control = ControlServer(paths.control_socket(self._settings.state), self._command)
        try:
            await control.start()
        except BaseException:
            bound.close()
            raise
        self._address = bound.getsockname()[:2]
        if not is_loopback(bound):
            _log.warning(
                "listening beyond this host without authentication; put a proxy or a firewall in front",
                address=self._settings.web.listen_address,
            )
        alerts_file = paths.alerts_file(self._settings.state)
        # Of a host that is played nothing may be told under the name of the real one.
        host = self._stage.name if self._stage is not None else f"{socket.gethostname()}:{self._address[1]}"
        self._alerts = Alerts(self._settings, host, alerts_file)
        self._alerts.start(self._settings)
        if self._stage is not None:
            self._spawn(self._stage.play())
        server = Server(self._application, self._settings.web)
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        polling = asyncio.create_task(self._poller.run(self._publish, self._stop))
        self._schedule.every(self._settings.poll.discovery_interval, "processes", self._poller.scan_processes)
        self._schedule.every(self._settings.storage.scan_interval, "stores", self._poller.scan_stores)
        self._schedule.start()
        self._handle_signals()
        self._spawn(self._keep_alive())
        _log.info("started", version=__version__, address=f"{self._address[0]}:{self._address[1]}")
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait([serving, polling, stopped], return_when=asyncio.FIRST_COMPLETED)
        await self._shut_down(server, control, serving, polling)
        stopped.cancel()

    def healthy(self) -> bool:
        """Whether sampling goes on; says nothing of hardware."""
        limit = max(STANDSTILL_POLLS * self._poller.settings.poll.interval, STANDSTILL_LEAST_SECONDS)
        return time.monotonic() - self._poller.last_poll_monotonic < limit

    def _publish(self, snapshot: Snapshot) -> None:
        first = self._snapshot is None
        seen = list(samples(snapshot))
        if self._alerts is not None:
            alerts = self._alerts.judge(seen)
            receivers = self._alerts.receivers()
            snapshot = replace(snapshot, alerts=alerts, receivers=receivers)
            seen += [*alert_samples(alerts), *receiver_samples(receivers)]
        self._snapshot = snapshot
        exposition = self._renderer.render(seen)
        self._application.publish(exposition, snapshot)
        if self._schedule.check_clock():
            self._poller.clock_steps = self._schedule.clock_steps
        served = frozenset(one.declared.name for one in snapshot.assessment.deployments if one.running)
        if first or served - self._served:
            # What start-up needed, and what the first look at a model needed.
            _give_back_memory()
        self._served = served
        if first:
            notify.ready(f"{exposition.series} series, {len(snapshot.gpus)} GPUs")

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload_logged()))
        loop.add_signal_handler(signal.SIGUSR1, lambda: self._spawn(self._release()))

    async def _release(self) -> None:
        await self._poller.release()

    async def _reload_logged(self) -> None:
        await self._reload()

    async def _reload(self) -> str:
        """Read the configuration again; the problem, or "" when it is in force now."""
        async with self._reloading:
            notify.reloading()
            try:
                settings = await resolve.resolve_async(self._file, self._flags)
            except ConfigurationError as error:
                before = self._poller.reload
                self._poller.reload = Reload(False, before.at_seconds, str(error))
                _log.error("configuration not reloaded; the old one stays", problem=str(error))
                return str(error)
            else:
                kept = needs_restart(self._settings, settings)
                if kept:
                    _log.warning("these options take effect only after a restart", options=", ".join(kept))
                self._settings = settings = without_restart(self._settings, settings)
                self._poller.apply(settings)
                if self._alerts is not None:
                    await self._alerts.apply(settings)
                log.configure(settings.log.level, settings.log.format)
                self._poller.reload = Reload(True, time.time())
                await self._poller.scan_processes()
                _log.info("configuration reloaded", deployments=len(settings.deployments))
                return ""
            finally:
                notify.ready("configuration read")

    async def _command(self, request: Answer) -> Answer:
        """One request on the control socket."""
        match request.get("command"):
            case "status":
                return self._status()
            case "snapshot" if self._snapshot is not None:
                return to_plain(self._snapshot)
            case "snapshot":
                return {"error": "no snapshot yet; try again in a moment"}
            case "release":
                complete = await self._poller.release()
                return {"released": complete, "seconds": self._poller.settings.nvml.release_for}
            case "resume":
                self._poller.resume()
                return {"resumed": True}
            case "reload":
                problem = await self._reload()
                return {"reloaded": not problem, "problem": problem}
            case "forget":
                uuid = str(request.get("uuid", ""))
                if not self._poller.nvml.inventory.forget(uuid):
                    return {"error": f"no remembered device has uuid {uuid!r}; `status` lists them"}
                return {"forgotten": uuid}
            case other:
                return {"error": f"unknown command {other!r}"}

    def _status(self) -> Answer:
        nvml, reload = self._poller.nvml, self._poller.reload
        return {
            "version": __version__,
            "pid": os.getpid(),
            "address": f"{self._address[0]}:{self._address[1]}",
            "healthy": self.healthy(),
            "driver_released": nvml.released,
            "worker_pids": self._poller.worker_pids(),
            "configuration": {"successful": reload.successful, "problem": reload.problem},
            "sources": {one.name: one.state for one in self._snapshot.sources} if self._snapshot else {},
        }

    async def _keep_alive(self) -> None:
        """Signs of life for the service manager, only while sampling goes on and HTTP answers."""
        every = notify.watchdog_seconds()
        if every is None:
            return
        while True:
            if self.healthy() and await self._http_answers():
                notify.send("WATCHDOG=1")
            await asyncio.sleep(every)

    async def _http_answers(self) -> bool:
        host, port = self._address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                line = await reader.readline()
                writer.close()
        except (OSError, TimeoutError):
            return False
        return b" 200 " in line

    async def _shut_down(
        self,
        server: Server,
        control: ControlServer,
        serving: asyncio.Task[None],
        polling: asyncio.Task[None],
    ) -> None:
        """Stop everything within a bounded time; what a task failed with is raised."""
        notify.stopping()
        _log.info("stopping")
        self._stop.set()
        self._schedule.stop()
        control.close()
        server.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._poller.close()
                await asyncio.wait([serving, polling])
        if self._alerts is not None:
            await self._alerts.stop()
        for task in (serving, polling, *self._tasks):
            if task.done() and not task.cancelled() and task.exception() is not None:
                raise task.exception() or AssertionError
            task.cancel()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background task failed", exc_info=error)


def without_restart(before: Settings, after: Settings) -> Settings:
    """`after`, but with the old value of every option that a reload does not apply."""
    changed = {}
    for section, kind in sections().items():
        old = getattr(before, section)
        kept = {
            one.name: getattr(old, one.name)
            for one in fields(kind)
            if not one.metadata.get("reloadable", True)
        }
        changed[section] = replace(getattr(after, section), **kept)
    return replace(after, **changed)


def needs_restart(before: Settings, after: Settings) -> list[str]:
    """Options that differ and that a reload does not apply."""
    return [
        f"{section}.{one.name}"
        for section, kind in sections().items()
        for one in fields(kind)
        if not one.metadata.get("reloadable", True)
        and getattr(getattr(before, section), one.name) != getattr(getattr(after, section), one.name)
    ]


def _give_back_memory() -> None:
    """What start-up needed and steady life does not, back to the system (malloc_trim(3), glibc only)."""
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
