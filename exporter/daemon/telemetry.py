"""Asks the engines of this host what they serve, beside the polls: a round of questions in a task."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporter.engines.discovery import Instance
from exporter.engines.process import Process

if TYPE_CHECKING:
    from exporter.engines.launch import Launch
    from exporter.engines.telemetry.reader import TelemetryReader
    from exporter.engines.telemetry.types import Target, TelemetryResult

ROUND_SECONDS = 2.25
"""How long one round of questions may last: the deadline of telemetry/client.py, and a little."""
FIRST_WORD_SECONDS = 0.25
"""How long a poll waits for an engine that was never asked before."""
_FRESH_POLLS = 3


class TelemetryWatch:
    """What the engines said last, each by its server process."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.errors: Counter[str] = Counter()
        self._askers: dict[str, TelemetryReader] = {}
        self._asking: asyncio.Task[None] | None = None
        self._results: dict[str, TelemetryResult] = {}

    def result(self, instance: Instance) -> TelemetryResult | None:
        """How the engine answered last; None while it was not asked, or gives no answers."""
        return self._results.get(_name(instance.server)) if instance.door is not None else None

    def has_asked(self, instances: Sequence[Instance]) -> bool:
        """Whether one of these was asked; how it answered is told of each deployment."""
        return any(_name(one.server) in self._results for one in instances)

    def forget(self, instances: Sequence[Instance]) -> None:
        """Keep only what these said."""
        names = {_name(one.server) for one in instances}
        self._results = {name: one for name, one in self._results.items() if name in names}

    async def ask(self, instances: Sequence[Instance], interval_seconds: float) -> None:
        """Take what the engines said last, and begin to ask them again; waits only for a first word."""
        if self._asking is not None and self._asking.done():
            self._asking.result()
            self._asking = None
        targets = self._targets(instances)
        if targets and self._asking is None:
            self._asking = asyncio.create_task(self._read(targets))
            if any(target.name not in self._results for target in targets):
                await asyncio.wait([self._asking], timeout=FIRST_WORD_SECONDS)
        # The next round begins when the slowest engine has answered, or its time is up.
        oldest = time.monotonic() - _FRESH_POLLS * interval_seconds - ROUND_SECONDS
        self._results = {name: one for name, one in self._results.items() if one.at >= oldest}

    def _take(self, name: str, result: TelemetryResult) -> None:
        """One engine's word, as it comes: a silent one keeps nobody else's back."""
        self._results[name] = result
        if result.reason is not None:
            self.errors[str(result.reason)] += 1

    async def _read(self, targets: Sequence[Target]) -> None:
        """Ask all of them at the same time; each has a reader of its own, so that none waits for another."""
        from exporter.engines.telemetry.reader import AT_ONCE, TelemetryReader

        self._askers = {one.name: self._askers.get(one.name) or TelemetryReader() for one in targets}
        slots = asyncio.Semaphore(AT_ONCE)

        async def read(target: Target) -> None:
            async with slots:
                self._take(target.name, (await self._askers[target.name].read([target]))[target.name])

        started = time.monotonic()
        await asyncio.gather(*(read(target) for target in targets))
        self.seconds = time.monotonic() - started

    def _targets(self, instances: Sequence[Instance]) -> list[Target]:
        asked = [one for one in instances if one.door is not None and not one.orphaned]
        if not asked:
            return []
        from exporter.engines.telemetry.types import Target

        found: dict[str, Target] = {}
        for one in asked:
            name, door = _name(one.server), one.door
            if name in found or door is None:
                continue
            try:
                found[name] = Target(
                    name=name,
                    engine=one.engine,
                    host=door.host,
                    port=door.port,
                    version=one.launch.engine_version,
                    own_address=door.own,
                    generation=(one.server.pid, one.server.start_ticks),
                    kv_unified=_is_unified(one.launch),
                    sleeps_when_idle=one.launch.sleep_idle_seconds is not None,
                )
            except ValueError:
                self.errors["address"] += 1
        return list(found.values())


def _name(server: Process) -> str:
    """What a target is called: its process, so that an answer of another one is never taken for its own."""
    return f"{server.pid}:{server.start_ticks}"


def _is_unified(launch: Launch) -> bool:
    """Whether slots share one cache; where it is not said, they do if their number is left to llama.cpp."""
    return launch.kv_unified if launch.kv_unified is not None else launch.max_num_seqs is None
