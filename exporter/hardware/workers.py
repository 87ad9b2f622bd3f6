"""All worker processes of one source that still exist: the one that is asked, those that are stuck inside the
driver, those on their way out. Nothing that holds a device is ever out of sight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence

from exporter import log
from exporter.hardware.process import COMMAND, WorkerProcess

_log = log.get(__name__)


class Workers:
    """Starts workers and ends them; keeps each until it has been reaped."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = command
        self._started: list[WorkerProcess] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def stuck(self) -> int:
        """Workers that are inside a driver call and do not return."""
        return sum(worker.stuck for worker in self._alive())

    def pids(self) -> list[int]:
        """Every worker that is alive."""
        return [worker.pid for worker in self._alive()]

    async def start(self) -> WorkerProcess:
        """A new worker. Raises OSError when the system cannot."""
        worker = await WorkerProcess.start(self._command)
        self._started.append(worker)
        return worker

    def end(self, worker: WorkerProcess) -> None:
        """End a worker in the background."""
        self.spawn(self._end(worker))

    async def end_oldest_stuck(self) -> None:
        """End the worker that has been stuck longest, unless all of them sleep in the kernel."""
        stuck = (worker for worker in self._alive() if worker.stuck and not worker.unreapable)
        oldest = next(stuck, None)
        if oldest is not None:
            await oldest.stop(grace_seconds=0)

    async def end_all(self, *, grace_seconds: float) -> bool:
        """End every worker, with time to end by itself unless it is stuck; True when none is left.

        At most as long as one takes to be killed.
        """
        graces = [(one, 0 if one.stuck else grace_seconds) for one in self._alive()]
        return all(await asyncio.gather(*(one.stop(grace_seconds=grace) for one, grace in graces)))

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Do something about a worker in the background; a failure is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def close(self) -> None:
        """End every worker and what is done in the background."""
        await self.end_all(grace_seconds=0.5)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _end(self, worker: WorkerProcess) -> None:
        if not await worker.stop():
            worker.stuck = True

    def _alive(self) -> list[WorkerProcess]:
        self._started = [worker for worker in self._started if worker.alive]
        return self._started

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("care of a worker failed", exc_info=error)
