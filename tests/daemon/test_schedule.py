"""Slower jobs go on whatever the wall clock does, and no step of it makes a burst of runs.

The wall clock is patched everywhere that it is read: in the schedule and inside APScheduler.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import datetime, tzinfo
from typing import Any, Self

import pytest
from apscheduler.schedulers import base
from apscheduler.triggers import interval

from exporter.daemon import schedule
from exporter.daemon.schedule import STEP_SECONDS, Schedule

EVERY_SECONDS = 0.05
HOUR, DAY = 3600.0, 86400.0


class Wall:
    """The wall clock, `offset` seconds away from the real one."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    clock = Wall()

    class Stepped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(clock(), tz)

    for module in (base, interval, schedule):
        monkeypatch.setattr(module, "datetime", Stepped)
    return clock


class Ticking:
    """A schedule with one job, whose clock is checked as a poll would."""

    def __init__(self, wall: Wall) -> None:
        self.runs = 0
        self.schedule = Schedule(wall=wall)
        self.schedule.every(EVERY_SECONDS, "job", self._run)

    async def _run(self) -> None:
        self.runs += 1

    async def run_again(self, times: int) -> None:
        wanted = self.runs + times
        await self.until(lambda: self.runs >= wanted)

    async def until(self, condition: Callable[[], bool], seconds: float = 3.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{self.runs} runs"
            self.schedule.check_clock()
            await asyncio.sleep(0.01)


def scenario(wall: Wall, body: Callable[[Ticking], Coroutine[Any, Any, None]]) -> Ticking:
    async def main() -> Ticking:
        ticking = Ticking(wall)
        ticking.schedule.start()
        try:
            await body(ticking)
        finally:
            ticking.schedule.stop()
        return ticking

    return asyncio.run(main())


def test_a_job_runs_at_once_and_again_and_again(wall: Wall) -> None:
    async def body(ticking: Ticking) -> None:
        await ticking.until(lambda: ticking.runs >= 1, seconds=0.5)
        await ticking.until(lambda: ticking.runs >= 4)

    assert scenario(wall, body).schedule.clock_steps == 0


@pytest.mark.parametrize("step", [-HOUR, -DAY, 6 * HOUR, DAY, -3.0, 3.0])
def test_after_a_step_of_the_wall_clock_jobs_go_on_at_their_pace(wall: Wall, step: float) -> None:
    async def body(ticking: Ticking) -> None:
        await ticking.until(lambda: ticking.runs >= 2)
        before, started = ticking.runs, time.monotonic()
        wall.offset += step
        await ticking.until(lambda: ticking.runs >= before + 5)
        lasted = time.monotonic() - started
        assert lasted > 3 * EVERY_SECONDS
        assert ticking.runs - before <= lasted / EVERY_SECONDS + 3

    assert scenario(wall, body).schedule.clock_steps == 1


def test_a_step_and_back_are_two(wall: Wall) -> None:
    async def body(ticking: Ticking) -> None:
        for step in (-HOUR, HOUR):
            wall.offset += step
            await ticking.run_again(3)

    assert scenario(wall, body).schedule.clock_steps == 2


def test_a_clock_that_is_slewed_does_not_step(wall: Wall) -> None:
    async def body(ticking: Ticking) -> None:
        for _ in range(10):
            wall.offset += STEP_SECONDS * 0.9
            await ticking.run_again(1)

    assert scenario(wall, body).schedule.clock_steps == 0


def test_without_a_look_at_the_clock_a_step_back_would_silence_the_jobs(wall: Wall) -> None:
    """What the guard is for: if this fails APScheduler has learnt it and the guard can go."""

    async def main() -> int:
        ticking = Ticking(wall)
        ticking.schedule.start()
        await ticking.until(lambda: ticking.runs >= 2)
        wall.offset -= HOUR
        await asyncio.sleep(2 * EVERY_SECONDS)
        before = ticking.runs
        await asyncio.sleep(10 * EVERY_SECONDS)
        ticking.schedule.stop()
        return ticking.runs - before

    assert asyncio.run(main()) == 0


def test_a_job_that_takes_long_is_not_begun_twice(wall: Wall) -> None:
    at_once = most = 0

    async def slow() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(4 * EVERY_SECONDS)
        at_once -= 1

    async def main() -> None:
        planned = Schedule(wall=wall)
        planned.every(EVERY_SECONDS, "slow", slow)
        planned.start()
        await asyncio.sleep(10 * EVERY_SECONDS)
        planned.stop()

    asyncio.run(main())
    assert most == 1


def test_a_job_that_fails_is_run_again(wall: Wall) -> None:
    runs = 0

    async def failing() -> None:
        nonlocal runs
        runs += 1
        raise OSError("no")

    async def main() -> None:
        planned = Schedule(wall=wall)
        planned.every(EVERY_SECONDS, "failing", failing)
        planned.start()
        deadline = time.monotonic() + 3
        while runs < 3:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        planned.stop()

    asyncio.run(main())
