"""Keeps NVIDIA devices readable whatever the driver does: starts the worker, times every device, sets a
stuck one aside, starts anew after a driver change, and lets go of the driver on request.

A worker stuck inside a driver call is not killed at once: killing can freeze the device
(dcgm-exporter#84), and its return is the first sign that the device answers again. It stays as that
device's sentinel while another worker reads the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from exporter import log
from exporter.hardware import gpu
from exporter.hardware.gpu import Gpu, GpuIdentity, GpuState
from exporter.hardware.inventory import Inventory
from exporter.hardware.process import Message, WorkerProcess
from exporter.settings.options import Nvml

_log = log.get(__name__)

VENDOR = "nvidia"
NO_LIBRARY = "library_not_found"
"""The state of a host without an NVIDIA driver, which is usually one without an NVIDIA GPU."""
MAX_STUCK = 2
_QUARANTINE_MAX_SECONDS = 600.0
_RETRY_MAX_SECONDS = 300.0
_SHARE_OF_INTERVAL = 0.4  # so that a stall found and the rest read still fit into one poll
_DRIVER_VERSION_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one pass over the devices gave. `state` is "up" or why the driver as a whole does not answer."""

    gpus: tuple[Gpu, ...]
    state: str
    driver_version: str
    visible: int
    """devices that the driver counts now"""

    @property
    def up(self) -> bool:
        return self.state == "up"


@dataclass(slots=True)
class _Quarantine:
    """A device left alone: until its sentinel returns or, without one, until `until` (monotonic)."""

    until: float
    delay_seconds: float
    sentinel: WorkerProcess | None


@dataclass(slots=True)
class _Pass:
    """What one sweep has collected so far; filled by several workers when one gets stuck."""

    visible: int = 0
    fresh: dict[str, Gpu] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)


class _DriverDown(Exception):
    """The driver as a whole does not answer; the text is the state."""


class NvmlSource:
    """The NVIDIA devices of this host. `sweep` is called by one caller at a time."""

    def __init__(self, options: Nvml, inventory: Inventory) -> None:
        self._options = options
        self.inventory = inventory
        self._worker: WorkerProcess | None = None
        self._starting: asyncio.Task[WorkerProcess] | None = None
        self._stuck: list[WorkerProcess] = []
        self._quarantine: dict[int, _Quarantine] = {}
        self._uuid_at: dict[int, str] = {one.index: one.uuid for one in inventory.all()}
        self._last: dict[str, Gpu] = {}
        self._xid: dict[str, dict[int, tuple[int, float]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._retry_at = 0.0
        self._retry_delay = options.retry
        self._down_state = "starting"
        self._driver_seen = _driver_file()
        self._released_until: float | None = None
        self._driver_version = ""
        self.worker_restarts = 0
        self.errors: Counter[str] = Counter()

    @property
    def workers_stuck(self) -> int:
        """Worker processes that are inside a driver call and do not return."""
        return sum(worker.alive for worker in self._stuck)

    @property
    def released(self) -> bool:
        return self._released_until is not None

    def apply(self, options: Nvml) -> None:
        """Use other deadlines from the next sweep on."""
        self._options = options

    def worker_pids(self) -> list[int]:
        """Live workers, for those who account for our own processes."""
        workers = [self._worker] if self._worker else []
        return [worker.pid for worker in (*workers, *self._stuck) if worker.alive]

    async def sweep(self, interval_seconds: float) -> Sweep:
        """Read every device once; returns in bounded time whatever the driver does."""
        patience = min(self._options.device_deadline, interval_seconds * _SHARE_OF_INTERVAL)
        progress = _Pass()
        state = "up"
        try:
            await self._read_all(progress, patience)
        except _DriverDown as down:
            state = str(down)
        return Sweep(self._assemble(progress, state), state, self._driver_version, progress.visible)

    async def release(self) -> bool:
        """Let go of the driver until `resume` or the configured time; True when no process holds it."""
        self._released_until = time.monotonic() + self._options.release_for
        workers = [worker for worker in (self._worker, *self._stuck) if worker is not None]
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        self._worker = None
        self._stuck = []
        self._quarantine.clear()
        ended = await asyncio.gather(*(worker.stop(grace_seconds=0.5) for worker in workers))
        self._stuck = [worker for worker in workers if worker.alive]
        return all(ended)

    def resume(self) -> None:
        """Take the driver up again at the next sweep."""
        if self._released_until is not None:
            self._released_until = None
            self._retry_at = 0.0
            self._retry_delay = self._options.retry
            _log.info("driver taken up again")

    async def close(self) -> None:
        """End every worker; at most as long as one takes to be killed."""
        await self.release()
        for task in self._tasks:
            task.cancel()

    async def _read_all(self, progress: _Pass, patience: float) -> None:
        self._resume_when_due()
        while True:
            worker = await self._ready_worker(patience)
            stalled_at = await self._read_with(worker, progress, patience)
            if stalled_at is None:
                self._worked()
                return
            self._set_aside(worker, stalled_at)

    async def _read_with(self, worker: WorkerProcess, progress: _Pass, patience: float) -> int | None:
        """Let `worker` read what has not been read yet; the index it got stuck at, or None when done."""
        worker.ask({"sweep": 0, "skip": sorted(self._skipped() | progress.answered)})
        at: int | None = None
        while True:
            try:
                message = await worker.next(patience)
            except TimeoutError:
                if at is None:
                    raise self._down("driver_stalled", worker) from None
                return at
            if message is None:
                raise self._down("released" if self.released else "worker_died", worker)
            match message["kind"]:
                case "begin":
                    progress.visible = int(message["count"])
                case "start":
                    at = int(message["index"])
                case "device" | "device_error":
                    self._take(message, progress)
                case "xid":
                    self._count_xid(message)
                case "events_error":
                    self.errors["events_" + str(message["reason"])] += 1
                case "fatal":
                    raise self._down(str(message["reason"]), worker)
                case "end":
                    return None

    def _take(self, message: Message, progress: _Pass) -> None:
        """One device's answer, good or bad."""
        index = int(message["index"])
        progress.answered.add(index)
        self._quarantine.pop(index, None)
        if message["kind"] == "device":
            try:
                identity = gpu.identity_from(
                    message["identity"], vendor=VENDOR, driver_version=self._driver_version
                )
                reading = gpu.reading_from(message)
            except (KeyError, TypeError, ValueError):
                self.errors["malformed_reading"] += 1
                return
            for reason in dict(message.get("errors", {})).values():
                self.errors[str(reason)] += 1
            self._uuid_at[index] = identity.uuid
            self.inventory.remember(identity)
            progress.fresh[identity.uuid] = Gpu(
                identity, GpuState.UP, reading=reading, last_success_seconds=time.time()
            )
            return
        self.errors[str(message["reason"])] += 1
        identity_known = self._identity_at(index)
        if identity_known is not None:
            progress.fresh[identity_known.uuid] = Gpu(
                identity_known, GpuState(message["state"]), reason=str(message["reason"])
            )

    def _assemble(self, progress: _Pass, state: str) -> tuple[Gpu, ...]:
        """Every remembered device with its present state; one line in the log for each that changed."""
        result = []
        for identity in self.inventory.all():
            known = progress.fresh.get(identity.uuid) or self._absent(identity, progress, state)
            before = self._last.get(identity.uuid)
            last_success = known.last_success_seconds or (before.last_success_seconds if before else None)
            one = Gpu(
                identity=known.identity,
                state=known.state,
                reason=known.reason,
                reading=known.reading,
                last_success_seconds=last_success,
                xid_errors=dict(self._xid.get(identity.uuid, {})),
            )
            if before is None or before.state != one.state:
                write = _log.info if one.state is GpuState.UP else _log.warning
                write(
                    "device state", gpu=identity.index, uuid=identity.uuid, state=one.state, reason=one.reason
                )
            self._last[identity.uuid] = one
            result.append(one)
        self._last = {one.identity.uuid: one for one in result}
        return tuple(result)

    def _absent(self, identity: GpuIdentity, progress: _Pass, state: str) -> Gpu:
        """A device that gave no answer in this sweep, and why."""
        if self._uuid_at.get(identity.index) == identity.uuid and identity.index in self._quarantine:
            return Gpu(identity, GpuState.STALLED, reason="driver call does not return")
        if state == "released":
            return Gpu(identity, GpuState.RELEASED, reason="released on request")
        if state != "up":
            return Gpu(identity, GpuState.DRIVER_DOWN, reason=state)
        return Gpu(identity, GpuState.LOST, reason=f"driver lists {progress.visible} devices without it")

    def _identity_at(self, index: int) -> GpuIdentity | None:
        uuid = self._uuid_at.get(index)
        return next((one for one in self.inventory.all() if one.uuid == uuid), None)

    def _count_xid(self, message: Message) -> None:
        uuid, xid, at = str(message["uuid"]), int(message["xid"]), float(message["at"])
        times, _ = self._xid.setdefault(uuid, {}).get(xid, (0, 0.0))
        self._xid[uuid][xid] = (times + 1, at)
        _log.warning("Xid error", uuid=uuid, xid=xid)

    async def _ready_worker(self, patience: float) -> WorkerProcess:
        """The present worker, or a new one once the driver is initialised. Raises _DriverDown."""
        if self.released:
            raise _DriverDown("released")
        if self._worker is not None:
            return self._worker
        if self._starting is None:
            self._wait_before_retry()
            self._starting = asyncio.create_task(self._start())
        done, _ = await asyncio.wait([self._starting], timeout=patience)
        if not done:
            raise _DriverDown("initialising")
        task, self._starting = self._starting, None
        if task.cancelled():
            raise _DriverDown("released")
        self._worker = task.result()  # raises _DriverDown
        return self._worker

    async def _start(self) -> WorkerProcess:
        """A new worker that has initialised the driver. Raises _DriverDown."""
        if self.workers_stuck >= MAX_STUCK:
            await self._end_oldest_stuck()
        if self.workers_stuck >= MAX_STUCK:
            raise self._down("workers_stuck", None)
        try:
            worker = await WorkerProcess.start()
        except OSError as error:
            raise self._down(f"cannot_start_worker_{error.errno}", None) from None
        try:
            message = await worker.next(self._options.init_deadline)
        except TimeoutError:
            self._stuck.append(worker)
            self._spawn(self._end(worker))
            raise self._down("init_stalled", None) from None
        except asyncio.CancelledError:
            self._spawn(self._end(worker))
            raise
        if message is None or message["kind"] != "init":
            raise self._down(str(message["reason"]) if message else "worker_died", worker)
        self._driver_version = str(message["driver_version"])
        return worker

    def _down(self, state: str, worker: WorkerProcess | None) -> _DriverDown:
        """Note that the driver is down, plan the next try, and get rid of `worker`."""
        if state != "released":
            self.errors[state] += 1
            self._retry_at = time.monotonic() + self._retry_delay
            self._retry_delay = min(self._retry_delay * 2, _RETRY_MAX_SECONDS)
            if state != self._down_state:
                write = _log.info if state == NO_LIBRARY else _log.warning
                write("GPU driver does not answer", state=state, **_advice(state))
            self._down_state = state
        if worker is not None:
            if worker is self._worker:
                self._worker = None
            self.worker_restarts += 1
            self._spawn(self._end(worker))
        return _DriverDown(state)

    def _worked(self) -> None:
        if self._down_state != "up":
            _log.info("GPU driver answers", driver_version=self._driver_version)
        self._down_state = "up"
        self._retry_delay = self._options.retry

    def _wait_before_retry(self) -> None:
        """Raise _DriverDown until it is time to try again; a driver that appears ends the wait."""
        seen = _driver_file()
        if seen != self._driver_seen:
            self._driver_seen, self._retry_at, self._retry_delay = seen, 0.0, self._options.retry
        if time.monotonic() < self._retry_at:
            raise _DriverDown(self._down_state)

    def _resume_when_due(self) -> None:
        if self._released_until is not None and time.monotonic() >= self._released_until:
            self.resume()

    def _set_aside(self, worker: WorkerProcess, index: int) -> None:
        """The worker is stuck at `index`: it becomes that device's sentinel, and the device rests."""
        before = self._quarantine.get(index)
        delay = self._options.quarantine if before is None else before.delay_seconds * 2
        delay = min(delay, _QUARANTINE_MAX_SECONDS)
        self._quarantine[index] = _Quarantine(time.monotonic() + delay, delay, worker)
        self._stuck.append(worker)
        self._worker = None
        self._retry_at = 0.0
        self.worker_restarts += 1
        self.errors["stalled"] += 1
        self._spawn(self._watch_sentinel(worker, index))

    def _skipped(self) -> set[int]:
        now = time.monotonic()
        return {
            index for index, rest in self._quarantine.items() if rest.sentinel is not None or now < rest.until
        }

    async def _watch_sentinel(self, worker: WorkerProcess, index: int) -> None:
        """End the device's rest when the stuck call returns; leave it to its time when the worker dies."""
        message = await worker.next(None)
        while message is not None and message["kind"] == "xid":
            self._count_xid(message)
            message = await worker.next(None)
        rest = self._quarantine.get(index)
        if rest is not None and rest.sentinel is worker:
            rest.sentinel = None
            if message is not None:
                rest.until = 0.0
                _log.info("stuck driver call returned", gpu=index)
        await self._end(worker)

    async def _end_oldest_stuck(self) -> None:
        oldest = next((worker for worker in self._stuck if worker.alive and not worker.unreapable), None)
        if oldest is not None:
            await self._end(oldest)

    async def _end(self, worker: WorkerProcess) -> None:
        await worker.stop()
        if not worker.alive and worker in self._stuck:
            self._stuck.remove(worker)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _driver_file() -> tuple[int, int] | None:
    """Identity of the loaded kernel module's version file: changes when a driver appears or is replaced."""
    try:
        status = _DRIVER_VERSION_FILE.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _advice(state: str) -> dict[str, str]:
    advice = ADVICE.get(state)
    return {"advice": advice} if advice else {}


ADVICE = {
    "library_not_found": "no NVIDIA driver library on this host; fine if it has no NVIDIA GPU",
    "driver_not_loaded": "load the kernel module (modprobe nvidia); picked up by itself afterwards",
    "version_mismatch": "library and kernel module differ, as after an upgrade: reload the module or reboot",
    "no_permission": "let the service open /dev/nvidiactl and /dev/nvidia[0-9]*",
    "unknown": "often device access taken away from the cgroup: restart the service; see docs/INSTALL.md",
    "init_stalled": "nvmlInit does not return: look for Xid and GSP errors in the kernel log",
    "driver_stalled": "the driver does not return: look for Xid and GSP errors in the kernel log",
    "workers_stuck": "worker processes sleep inside the driver; they end when it returns, or with a reboot",
}
"""What to do about a state of the driver, for the log and `doctor`."""
