"""Reads many targets at once; what one of them does costs itself alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from exporter import log
from exporter.engines.telemetry import (
    llama_cpp_python,
    llamacpp,
    lmdeploy,
    ollama,
    sglang,
    tensorrt_llm,
    tgi,
    vllm,
)
from exporter.engines.telemetry.ask import Engine, Memory, ask
from exporter.engines.telemetry.client import DEADLINE_SECONDS, Unanswered
from exporter.engines.telemetry.types import Reason, State, Target, TelemetryResult

_log = log.get(__name__)

ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        "vllm": vllm.ENGINE,
        "sglang": sglang.ENGINE,
        "ktransformers": sglang.ENGINE,
        "llama.cpp": llamacpp.ENGINE,
        "ik_llama.cpp": llamacpp.ENGINE,
        "llama-cpp-python": llama_cpp_python.ENGINE,
        "ollama": ollama.ENGINE,
        "lmdeploy": lmdeploy.ENGINE,
        "tensorrt-llm": tensorrt_llm.ENGINE,
        "tgi": tgi.ENGINE,
    }
)
"""Engine, by the name that a launch gives it → how it is read."""

AT_ONCE = 8


class TelemetryReader:
    """Asks engines for their telemetry and remembers, per target, what does not change between polls."""

    def __init__(
        self,
        at_once: int = AT_ONCE,
        deadline_seconds: float = DEADLINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._memories: dict[str, Memory] = {}

    async def read(
        self, targets: Sequence[Target], heard: Callable[[str, TelemetryResult], None] | None = None
    ) -> dict[str, TelemetryResult]:
        """Target's name → its result, for every target, in at most one deadline per `at_once` targets.

        `heard` is told each result as it comes, so that a silent engine keeps no other's back. Never raises
        for what a target does. Names are unique; of equal ones the last counts.
        """
        wanted = {target.name: target for target in targets}
        self._memories = {
            name: self._memories[name]
            if name in self._memories and self._memories[name].target == target
            else Memory(target)
            for name, target in wanted.items()
        }
        memories = list(self._memories.values())
        results = await asyncio.gather(*(self._heard(memory, heard) for memory in memories))
        return dict(zip(wanted, results, strict=True))

    async def _heard(
        self, memory: Memory, heard: Callable[[str, TelemetryResult], None] | None
    ) -> TelemetryResult:
        (result,) = await asyncio.gather(self._read_one(memory), return_exceptions=True)
        settled = self._settled(result)
        if heard is not None:
            heard(memory.target.name, settled)
        return settled

    async def _read_one(self, memory: Memory) -> TelemetryResult:
        engine = ENGINES.get(memory.target.engine)
        if engine is None:
            return self._unread(Reason.UNSUPPORTED)
        async with self._slots:
            deadline = asyncio.get_running_loop().time() + self._deadline_seconds
            try:
                answers = await ask(engine, memory, deadline)
            except Unanswered as error:
                memory.answers.clear()  # whoever answers next may be another
                return self._unread(error.reason)
        state = State.SLEEPING if answers.telemetry.sleeping else State.WARM
        return TelemetryResult(answers.telemetry, state, None, self._clock(), tuple(answers.missing.items()))

    def _settled(self, result: TelemetryResult | BaseException) -> TelemetryResult:
        """A fault of ours costs the one target too; what it says may hold what was received."""
        if isinstance(result, TelemetryResult):
            return result
        if not isinstance(result, Exception):
            raise result
        _log.error("an engine's answer could not be read", fault=type(result).__name__)
        return self._unread(Reason.NONSENSE)

    def _unread(self, reason: Reason) -> TelemetryResult:
        state = State.LOADING if reason is Reason.LOADING else State.UNREACHABLE
        return TelemetryResult(None, state, reason, self._clock())
