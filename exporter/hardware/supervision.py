"""Keeps the devices of one vendor readable whatever the driver does: starts the worker, times every device,
sets a stuck one aside, starts anew after a driver change, and lets go of the driver on request.

A worker stuck inside a driver call is not killed at once: killing can freeze the device
(dcgm-exporter#84), and its return is the first sign that the device answers again. It stays as that
device's sentinel while another worker reads the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter

from exporter import log
from exporter.hardware.backend import NO_DEVICE, Backend
from exporter.hardware.gpu import GpuIdentity, GpuState
from exporter.hardware.inventory import Inventory
from exporter.hardware.process import Message, WorkerProcess
from exporter.hardware.quarantine import Quarantine
from exporter.hardware.roster import Absence, Roster
from exporter.hardware.sweep import Pass, Sweep
from exporter.hardware.workers import Workers
from exporter.settings.options import Nvml

_log = log.get(__name__)

MAX_STUCK = 2
"""Stuck workers that are left alone beside the one that reads; beyond, the oldest is killed."""
_RETRY_MAX_SECONDS = 300.0
_SHARE_OF_INTERVAL = 0.4  # so that a stall found and the rest read still fit into one poll
_SWEEP_INTERVALS = 2  # many devices that hang are found over several sweeps, so that none takes for ever
_BESIDE_SWEEPS = ("xid", "events_error")
"""Messages that come at any time and say nothing of a sweep's progress."""
_LAST_LOOK_SECONDS = 0.05


class _DriverDown(Exception):
    """The driver as a whole does not answer; the text is the state."""


class GpuSource:
    """The devices of this host that one vendor's driver reads. `sweep` is called by one caller at a time."""

    def __init__(self, backend: Backend, options: Nvml, inventory: Inventory) -> None:
        self._backend = backend
        self._options = options
        self.inventory = inventory
        self._workers = Workers(backend.command)
        self._worker: WorkerProcess | None = None
        self._starting: asyncio.Task[WorkerProcess] | None = None
        self._quarantine = Quarantine()
        self._visible: int | None = None
        self._died_at: int | None = None
        self._retry_at = 0.0
        self._retry_delay = options.retry
        self._down_state = "starting"
        self._driver_seen = backend.module()
        self._released_until: float | None = None
        self._driver_version = ""
        self.worker_restarts = 0
        self.errors: Counter[str] = Counter()
        self._roster = Roster(backend, inventory, self.errors)

    @property
    def workers_stuck(self) -> int:
        """Worker processes that are inside a driver call and do not return."""
        return self._workers.stuck

    @property
    def released(self) -> bool:
        return self._released_until is not None

    def apply(self, options: Nvml) -> None:
        """Use other deadlines from the next sweep on."""
        self._options = options

    def remembered(self) -> list[GpuIdentity]:
        """Every device of this vendor that was ever seen here, by index."""
        return self._roster.remembered()

    def worker_pids(self) -> list[int]:
        """Live workers, for those who account for our own processes."""
        return self._workers.pids()

    async def sweep(self, interval_seconds: float) -> Sweep:
        """Read every device once; returns in bounded time whatever the driver does."""
        patience = min(self._options.device_deadline, interval_seconds * _SHARE_OF_INTERVAL)
        progress = Pass(ends_at=time.monotonic() + _SWEEP_INTERVALS * interval_seconds)
        self._roster.begin()
        state = "up"
        try:
            await self._read_all(progress, patience)
        except _DriverDown as down:
            state = str(down)
        gpus = self._roster.assemble(progress, lambda identity: self._why_silent(identity, progress, state))
        return Sweep(gpus, state, self._driver_version, progress.visible)

    async def release(self) -> bool:
        """Let go of the driver until `resume` or the configured time; True when no process holds it."""
        self._released_until = time.monotonic() + self._options.release_for
        self._quarantine.clear()
        self._worker = None
        if (starting := self._starting) is not None:
            starting.cancel()
            await asyncio.wait([starting])
            if self._starting is starting:
                self._starting = None
        return await self._workers.end_all(grace_seconds=0.5)

    def resume(self) -> None:
        """Take the driver up again at the next sweep."""
        if self._released_until is not None:
            self._released_until = None
            self._retry_at = 0.0
            self._retry_delay = self._options.retry
            _log.info("driver taken up again")

    async def close(self) -> None:
        """End every worker for good; at most as long as one takes to be killed."""
        await self.release()
        self._released_until = math.inf
        await self._workers.close()

    async def _read_all(self, progress: Pass, patience: float) -> None:
        self._resume_when_due()
        while progress.remaining_seconds > 0:
            worker = await self._ready_worker(patience)
            if not await self._read_with(worker, progress, patience):
                continue
            if not progress.renumbered:
                self._worked()
                return
            progress.renumbered = False
            progress.done.clear()
        progress.cut_short = True

    async def _read_with(self, worker: WorkerProcess, progress: Pass, patience: float) -> bool:
        """Let `worker` read what has not been read yet; False when it was lost over one of the devices.

        Raises _DriverDown when it says or shows that the driver as a whole does not answer.
        """
        skip = sorted(progress.done.union(self._quarantine))
        worker.ask({"sweep": 0, "skip": skip, "links": self._options.links})
        at: int | None = None
        while True:
            try:
                message = await self._next_of_sweep(worker, patience)
                if message is None:
                    progress.done.add(self._mourn(worker, at))
                    return False
                match message["kind"]:
                    case "begin":
                        self._count(int(message["count"]), progress)
                    case "start":
                        at = int(message["index"])
                    case "device" | "device_error":
                        index = int(message["index"])
                        progress.done.add(index)
                        self._quarantine.end(index)
                        self._roster.take(message, self._driver_version, progress)
                        at = None
                    case "fatal":
                        raise self._down(str(message["reason"]), worker)
                    case "end":
                        return True
            except TimeoutError:
                worker.stuck = True
                if at is None:
                    raise self._down("driver_stalled", worker) from None
                self._set_aside(worker, at)
                progress.done.add(at)
                return False
            except (KeyError, TypeError, ValueError):
                raise self._down("malformed_answer", worker) from None

    async def _next_of_sweep(self, worker: WorkerProcess, patience: float) -> Message | None:
        """The next message that belongs to the sweep, heeding the others; None when the worker is dead.

        Raises TimeoutError when none comes in time, KeyError, TypeError or ValueError on a malformed one.
        """
        due = time.monotonic() + patience
        while True:
            try:
                message = await worker.next(due - time.monotonic())
            except TimeoutError:
                # What has come counts, however late we are to look: this process may have slept itself.
                message = await worker.next(_LAST_LOOK_SECONDS)
            if message is None or message["kind"] not in _BESIDE_SWEEPS:
                return message
            if message["kind"] == "xid":
                self._roster.count_xid(message)
            else:
                self.errors["events_" + str(message["reason"])] += 1
            if time.monotonic() > due:
                raise TimeoutError

    def _count(self, visible: int, progress: Pass) -> None:
        """Note how many devices the driver lists. Another number means other indices: a device that rests
        under its old index is then found anew, instead of an innocent one resting in its place."""
        if self._visible is not None and visible != self._visible and self._quarantine:
            self._quarantine.clear()
            progress.renumbered = True
        self._visible = progress.visible = visible

    def _why_silent(self, identity: GpuIdentity, progress: Pass, state: str) -> Absence:
        """Why a device gave no answer in this sweep."""
        index = self._roster.index_of(identity)
        rest = self._quarantine.get(index)
        if rest is not None and self._roster.uuid_at(index) == identity.uuid:
            if rest.worker_ended:
                return GpuState.ERROR, "reading it ends the worker process"
            return GpuState.STALLED, "driver call does not return"
        if state == "released":
            return GpuState.RELEASED, "released on request"
        if state not in ("up", NO_DEVICE):
            return GpuState.DRIVER_DOWN, state
        if progress.cut_short and index < progress.visible:
            return GpuState.STALLED, "not reached: other devices held the sweep up"
        return GpuState.LOST, f"driver lists {progress.visible} devices without it"

    async def _ready_worker(self, patience: float) -> WorkerProcess:
        """The present worker, or a new one once the driver is initialised. Raises _DriverDown."""
        if self.released:
            raise _DriverDown("released")
        if self._worker is not None:
            return self._worker
        if self._starting is None:
            if (absence := self._backend.absence()) is not None:
                raise _DriverDown(absence)
            self._wait_before_retry()
            self._starting = asyncio.create_task(self._start())
        starting = self._starting
        done, _ = await asyncio.wait([starting], timeout=patience)
        if not done:
            raise _DriverDown("initialising")
        self._starting = None
        if starting.cancelled():
            raise _DriverDown("released")
        worker = starting.result()  # raises _DriverDown
        if self.released:
            raise _DriverDown("released")
        self._worker = worker
        return self._worker

    async def _start(self) -> WorkerProcess:
        """A new worker that has initialised the driver. Raises _DriverDown."""
        if self.workers_stuck > MAX_STUCK:
            await self._workers.end_oldest_stuck()
        if self.workers_stuck > MAX_STUCK:
            raise self._down("workers_stuck", None)
        try:
            worker = await self._workers.start()
        except OSError as error:
            raise self._down(f"cannot_start_worker_{error.errno}", None) from None
        try:
            message = await worker.next(self._options.init_deadline)
        except TimeoutError:
            worker.stuck = True
            raise self._down("init_stalled", worker) from None
        if message is None:
            raise self._down("worker_died", worker)
        if message["kind"] != "init":
            raise self._down(str(message.get("reason", "malformed_answer")), worker)
        self._driver_version = str(message.get("driver_version", ""))
        return worker

    def _down(self, state: str, worker: WorkerProcess | None) -> _DriverDown:
        """Note that the driver is down, plan the next try, and get rid of `worker`."""
        if state != "released":
            self.errors[state] += 1
            self._retry_at = time.monotonic() + self._retry_delay
            self._retry_delay = min(self._retry_delay * 2, _RETRY_MAX_SECONDS)
            if state != self._down_state:
                write = _log.info if state == self._backend.quiet_state else _log.warning
                write(
                    "GPU driver does not answer",
                    vendor=self._backend.vendor,
                    state=state,
                    **self._advice(state),
                )
            self._down_state = state
            self.worker_restarts += worker is not None
        if worker is not None:
            if worker is self._worker:
                self._worker = None
            self._workers.end(worker)
        return _DriverDown(state)

    def _advice(self, state: str) -> dict[str, str]:
        advice = self._backend.advice.get(state)
        return {"advice": advice} if advice else {}

    def _mourn(self, worker: WorkerProcess, at: int | None) -> int:
        """The worker is dead. Raises _DriverDown, unless it is plain that reading the device `at` ends it, as
        it did twice in a row or when last tried: the device is then set aside and returned."""
        if self.released:
            raise self._down("released", worker)
        rest = None if at is None else self._quarantine.get(at)
        if at is None or not (at == self._died_at or (rest is not None and rest.worker_ended)):
            self._died_at = at
            raise self._down("worker_died", worker)
        self._set_aside(worker, at, worker_ended=True)
        return at

    def _worked(self) -> None:
        if self._down_state != "up":
            _log.info("GPU driver answers", vendor=self._backend.vendor, driver_version=self._driver_version)
        self._down_state = "up"
        self._died_at = None
        self._retry_delay = self._options.retry

    def _wait_before_retry(self) -> None:
        """Raise _DriverDown until it is time to try again; a driver that appears ends the wait."""
        seen = self._backend.module()
        if seen != self._driver_seen:
            self._driver_seen, self._retry_at, self._retry_delay = seen, 0.0, self._options.retry
        if time.monotonic() < self._retry_at:
            raise _DriverDown(self._down_state)

    def _resume_when_due(self) -> None:
        if self._released_until is not None and time.monotonic() >= self._released_until:
            self.resume()

    def _set_aside(self, worker: WorkerProcess, index: int, *, worker_ended: bool = False) -> None:
        """Let the device rest that the worker got stuck at, with the worker as its sentinel, or died of."""
        self._quarantine.add(index, self._options.quarantine, None if worker_ended else worker)
        self._worker = None
        self._retry_at = 0.0
        self.worker_restarts += 1
        self.errors["worker_died" if worker_ended else "stalled"] += 1
        if worker_ended:
            self._workers.end(worker)
        else:
            self._workers.spawn(self._watch_sentinel(worker, index))

    async def _watch_sentinel(self, worker: WorkerProcess, index: int) -> None:
        """End the device's rest when the stuck call returns; leave it to its time when the worker dies.

        Of Xid errors it counts its own device's only: the next worker waits for those of all the others.
        """
        uuid = self._roster.uuid_at(index)
        message = await worker.next(None)
        while message is not None and message["kind"] in _BESIDE_SWEEPS:
            if message["kind"] == "xid" and message.get("uuid") == uuid:
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    self._roster.count_xid(message)
            message = await worker.next(None)
        returned = message is not None
        if self._quarantine.sentinel_gone(worker, index, returned=returned) and returned:
            _log.info("stuck driver call returned", gpu=index)
        worker.stuck = False
        self._workers.end(worker)
