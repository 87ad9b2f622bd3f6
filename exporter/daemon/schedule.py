"""Slower jobs on APScheduler, behind a guard against steps of the wall clock.

APScheduler plans on wall time: a step back silences it until the old time comes again, a step forward
without coalescing makes it run every missed time. Sampling therefore runs on monotonic time (poller), and on
a step noticed there the jobs are planned anew.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from exporter import log

_log = log.get(__name__)

STEP_SECONDS = 2.0
"""Difference between wall and monotonic time, since the last look, that counts as a step."""


class Schedule:
    """Jobs that run every so many seconds, in the event loop; they must not block."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self.clock_steps = 0

    def every(self, seconds: float, name: str, job: Callable[[], Awaitable[None]]) -> None:
        """Run `job` every `seconds`, the first time at once."""
        self._scheduler.add_job(
            job, IntervalTrigger(seconds=seconds, timezone=UTC), id=name, next_run_time=datetime.now(UTC)
        )

    def start(self) -> None:
        """Begin; needs a running event loop."""
        self._scheduler.start()

    def stop(self) -> None:
        """End without waiting for jobs."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def check_clock(self) -> bool:
        """To be called at every poll: whether the wall clock stepped, in which case jobs are planned anew."""
        offset = self._wall() - self._monotonic()
        step = offset - self._offset
        self._offset = offset
        if abs(step) < STEP_SECONDS:
            return False
        self.clock_steps += 1
        _log.warning("wall clock stepped; planning jobs anew", seconds=round(step, 3))
        for job in self._scheduler.get_jobs():
            interval: timedelta = job.trigger.interval
            job.reschedule(IntervalTrigger(seconds=interval.total_seconds(), timezone=UTC))
        return True
