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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exporter import log
from exporter.hardware import gpu
from exporter.hardware.backend import NO_DEVICE, Backend
from exporter.hardware.gpu import Gpu, GpuIdentity, GpuState
from exporter.hardware.inventory import Inventory
from exporter.hardware.process import COMMAND, Message, WorkerProcess
from exporter.hardware.quarantine import Quarantine
from exporter.hardware.workers import Workers
from exporter.settings.options import Nvml

_log = log.get(__name__)

VENDOR = "nvidia"
"""of those whose worker `NvmlSource` watches"""
NO_LIBRARY = "library_not_found"
"""The state of a host without an NVIDIA driver, which is usually one without an NVIDIA GPU."""
MAX_STUCK = 2
"""Stuck workers that are left alone beside the one that reads; beyond, the oldest is killed."""
_RETRY_MAX_SECONDS = 300.0
_SHARE_OF_INTERVAL = 0.4  # so that a stall found and the rest read still fit into one poll
_SWEEP_INTERVALS = 2  # many devices that hang are found over several sweeps, so that none takes for ever
_BESIDE_SWEEPS = ("xid", "events_error")
"""Messages that come at any time and say nothing of a sweep's progress."""
_LAST_LOOK_SECONDS = 0.05
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
class _Pass:
    """What one sweep has collected so far; filled by several workers when one gets stuck."""

    ends_at: float
    """monotonic"""
    visible: int = 0
    fresh: dict[str, Gpu] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    """indices of the devices that answered or showed that they do not"""
    renumbered: bool = False
    """the driver's list changed, so what was asked for by index has to be asked again"""
    cut_short: bool = False
    """time was over before every device had its turn"""

    @property
    def remaining_seconds(self) -> float:
        return self.ends_at - time.monotonic()


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
        self._first = self._first_index()
        self._uuid_at: dict[int, str] = {one.index - self._first: one.uuid for one in self.remembered()}
        """by the driver's own index"""
        self._last: dict[str, Gpu] = {}
        self._xid: dict[str, dict[int, tuple[int, float]]] = {}
        self._retry_at = 0.0
        self._retry_delay = options.retry
        self._down_state = "starting"
        self._driver_seen = backend.module()
        self._released_until: float | None = None
        self._driver_version = ""
        self.worker_restarts = 0
        self.errors: Counter[str] = Counter()

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
        return [one for one in self.inventory.all() if one.vendor == self._backend.vendor]

    def worker_pids(self) -> list[int]:
        """Live workers, for those who account for our own processes."""
        return self._workers.pids()

    async def sweep(self, interval_seconds: float) -> Sweep:
        """Read every device once; returns in bounded time whatever the driver does."""
        patience = min(self._options.device_deadline, interval_seconds * _SHARE_OF_INTERVAL)
        progress = _Pass(ends_at=time.monotonic() + _SWEEP_INTERVALS * interval_seconds)
        self._first = self._first_index()
        state = "up"
        try:
            await self._read_all(progress, patience)
        except _DriverDown as down:
            state = str(down)
        return Sweep(self._assemble(progress, state), state, self._driver_version, progress.visible)

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

    async def _read_all(self, progress: _Pass, patience: float) -> None:
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

    async def _read_with(self, worker: WorkerProcess, progress: _Pass, patience: float) -> bool:
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
                        self._take(message, progress)
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
                self._count_xid(message)
            else:
                self.errors["events_" + str(message["reason"])] += 1
            if time.monotonic() > due:
                raise TimeoutError

    def _count(self, visible: int, progress: _Pass) -> None:
        """Note how many devices the driver lists. Another number means other indices: a device that rests
        under its old index is then found anew, instead of an innocent one resting in its place."""
        if self._visible is not None and visible != self._visible and self._quarantine:
            self._quarantine.clear()
            progress.renumbered = True
        self._visible = progress.visible = visible

    def _take(self, message: Message, progress: _Pass) -> None:
        """One device's answer, good or bad."""
        index = int(message["index"])
        progress.done.add(index)
        self._quarantine.end(index)
        if message["kind"] == "device":
            try:
                identity = self._identify(message)
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
        state = GpuState(message["state"])
        if state is not GpuState.SUSPENDED:
            self.errors[str(message["reason"])] += 1
        if "identity" in message:
            identity = self._identify(message)
            self._uuid_at[index] = identity.uuid
            self.inventory.remember(identity)
        identity_known = self._identity_at(index)
        if identity_known is not None:
            progress.fresh[identity_known.uuid] = Gpu(identity_known, state, reason=str(message["reason"]))

    def _identify(self, message: Message) -> GpuIdentity:
        """Whose answer it is. Raises KeyError, TypeError or ValueError on a malformed one."""
        return gpu.identity_from(
            message["identity"],
            vendor=self._backend.vendor,
            driver_version=self._driver_version,
            first_index=self._first,
        )

    def _assemble(self, progress: _Pass, state: str) -> tuple[Gpu, ...]:
        """Every remembered device with its present state; one line in the log for each that changed."""
        result = []
        for identity in self.remembered():
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
                write = _log.info if one.state in gpu.HEALTHY else _log.warning
                write(
                    "device state", gpu=identity.index, uuid=identity.uuid, state=one.state, reason=one.reason
                )
            self._last[identity.uuid] = one
            result.append(one)
        self._last = {one.identity.uuid: one for one in result}
        return tuple(result)

    def _absent(self, identity: GpuIdentity, progress: _Pass, state: str) -> Gpu:
        """A device that gave no answer in this sweep, and why."""
        index = identity.index - self._first
        rest = self._quarantine.get(index)
        if rest is not None and self._uuid_at.get(index) == identity.uuid:
            if rest.worker_ended:
                return Gpu(identity, GpuState.ERROR, reason="reading it ends the worker process")
            return Gpu(identity, GpuState.STALLED, reason="driver call does not return")
        if state == "released":
            return Gpu(identity, GpuState.RELEASED, reason="released on request")
        if state not in ("up", NO_DEVICE):
            return Gpu(identity, GpuState.DRIVER_DOWN, reason=state)
        if progress.cut_short and index < progress.visible:
            return Gpu(identity, GpuState.STALLED, reason="not reached: other devices held the sweep up")
        return Gpu(identity, GpuState.LOST, reason=f"driver lists {progress.visible} devices without it")

    def _identity_at(self, index: int) -> GpuIdentity | None:
        uuid = self._uuid_at.get(index)
        return next((one for one in self.remembered() if one.uuid == uuid), None)

    def _first_index(self) -> int:
        """The index of the driver's first device: after those of the vendors that come before."""
        before = [one.index for one in self.inventory.all() if one.vendor in self._backend.after_vendors]
        return max(before, default=-1) + 1

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
        uuid = self._uuid_at.get(index)
        message = await worker.next(None)
        while message is not None and message["kind"] in _BESIDE_SWEEPS:
            if message["kind"] == "xid" and message.get("uuid") == uuid:
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    self._count_xid(message)
            message = await worker.next(None)
        returned = message is not None
        if self._quarantine.sentinel_gone(worker, index, returned=returned) and returned:
            _log.info("stuck driver call returned", gpu=index)
        worker.stuck = False
        self._workers.end(worker)


def _driver_file() -> tuple[int, int] | None:
    """Identity of the loaded kernel module's version file: changes when a driver appears or is replaced."""
    try:
        status = _DRIVER_VERSION_FILE.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


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


class NvmlSource(GpuSource):
    """The NVIDIA devices of this host."""

    def __init__(self, options: Nvml, inventory: Inventory, *, command: Sequence[str] = COMMAND) -> None:
        super().__init__(Backend(VENDOR, command, NO_LIBRARY, ADVICE, _driver_file), options, inventory)
