"""Reads the network beside the polls, in a thread of its own: a driver that is asked for its speed may sleep.

A reading that does not return is not waited for, and no other is begun before it does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from exporter.hardware.network import NetworkFiles, NetworkReading, NetworkUnreadable, Route
from exporter.hardware.network_rates import WINDOW_SECONDS, Rates

LOOK_SECONDS = 30.0
"""How often interfaces, speeds and routes are looked up; in between, when one goes up or down."""
WAIT_SECONDS = 0.25
"""How long a poll waits for a reading: it takes a few milliseconds."""


class NetworkSource:
    """One per daemon. ``state`` is "up", or why there is no reading."""

    def __init__(self, sys_path: Path, proc_path: Path, *, window_seconds: float = WINDOW_SECONDS) -> None:
        self.state = "up"
        self.seconds = 0.0
        self._files = NetworkFiles(str(sys_path), str(proc_path))
        self._rates = Rates(window_seconds)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network")
        self._reading: asyncio.Future[tuple[float, NetworkReading]] | None = None
        self._looked_at = float("-inf")
        self._looked_for: frozenset[str] = frozenset()

    @property
    def routes(self) -> tuple[Route, ...]:
        """The IPv4 routes as last seen."""
        return self._files.routes

    @property
    def errors(self) -> Mapping[str, int]:
        """Reason → how often, since the start."""
        return self._files.errors

    async def read(self, wanted: Collection[str] = ()) -> NetworkReading | None:
        """What the network is now, ``wanted`` interfaces in any case; None while it cannot be told."""
        started = time.monotonic()
        if self._reading is not None and self._reading.done():
            self._reading.exception()  # it came after its poll: what it says is old
            self._reading = None
        if self._reading is None:
            loop = asyncio.get_running_loop()
            self._reading = loop.run_in_executor(self._thread, self._read, frozenset(wanted))
        await asyncio.wait([self._reading], timeout=WAIT_SECONDS)
        self.seconds = time.monotonic() - started
        if not self._reading.done():
            self._fail("stalled")
            return None
        done, self._reading = self._reading, None
        try:
            at, reading = done.result()
        except NetworkUnreadable as error:
            self._fail(str(error))
            return None
        self.state = "up"
        return self._rates.add(reading, at)

    def close(self) -> None:
        """End the thread, unless it is inside a read that does not return."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _fail(self, state: str) -> None:
        if state != self.state:
            self._files.errors[state] = self._files.errors.get(state, 0) + 1
        self.state = state

    def _read(self, wanted: frozenset[str]) -> tuple[float, NetworkReading]:
        """In the thread: when, on monotonic time, and what."""
        due = time.monotonic() - self._looked_at >= LOOK_SECONDS
        if due or wanted != self._looked_for or self._files.changed():
            self._files.look(wanted)
            self._looked_at, self._looked_for = time.monotonic(), wanted
        return time.monotonic(), self._files.read()
