"""Questions to one target within one deadline, and what is remembered of the answers between polls.

What does not change while an engine runs is asked for once a minute, and so is a question that the engine
refuses (not built in, not switched on, closed): a poll costs as few requests as can be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from exporter.engines.telemetry.client import Unanswered, get
from exporter.engines.telemetry.types import Reason, Target, Telemetry

STEADY_SECONDS = 60.0
"""How long an answer that does not change while the engine runs is used again."""
_LASTING = frozenset({Reason.BAD_STATUS, Reason.KEY_REQUIRED, Reason.REDIRECT})
"""Refusals that the next poll would meet again."""


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask an engine for.

    ``paths`` are the names of one endpoint, newest first: an older one is asked where the newer is not known.
    ``reading`` takes the body and keeps what may be kept, or raises Unanswered. ``steady``: the answer does
    not change while the engine runs. ``needed``: an engine of whose needed questions none is answered counts
    as unread; such a question is never steady, so that an engine that is gone is seen at once.
    """

    paths: tuple[str, ...]
    reading: Callable[[bytes, Target], Telemetry]
    steady: bool = False
    needed: bool = False


@dataclass(frozen=True, slots=True)
class Engine:
    """How an engine is read: questions put at once, then others where what is known by then allows it."""

    questions: tuple[Question, ...]
    then: tuple[Question, ...] = ()
    allowed: Callable[[Telemetry, Target], bool] = lambda _known, _target: True


@dataclass(slots=True)
class Memory:
    """What one target answered: path → (until when it holds by the loop's time, the answer)."""

    target: Target
    answers: dict[str, tuple[float, Telemetry | Reason]] = field(default_factory=dict)


@dataclass(slots=True)
class Answers:
    """What a target has said so far, and the paths that gave nothing."""

    telemetry: Telemetry = field(default_factory=Telemetry)
    missing: dict[str, Reason] = field(default_factory=dict)


async def ask(engine: Engine, memory: Memory, deadline: float) -> Answers:
    """Put an engine's questions to a target, all by one deadline (the loop's time).

    Raises Unanswered when none of the needed ones is answered, with the reason of the first.
    """
    answers = Answers()
    answered = await _put(engine.questions, memory, deadline, answers)
    if not answered:
        raise Unanswered(next(iter(answers.missing.values())))
    if engine.then and engine.allowed(answers.telemetry, memory.target):
        await _put(engine.then, memory, deadline, answers)
    return answers


async def _put(questions: Sequence[Question], memory: Memory, deadline: float, answers: Answers) -> bool:
    """Whether one of the needed questions was answered. Earlier questions' words win."""
    found = await asyncio.gather(*(_one(question, memory, deadline) for question in questions))
    answered = False
    for question, answer in zip(questions, found, strict=True):
        if isinstance(answer, Telemetry):
            answers.telemetry = joined(answers.telemetry, answer)
            answered |= question.needed
        else:
            answers.missing[question.paths[0]] = answer
    return answered


async def _one(question: Question, memory: Memory, deadline: float) -> Telemetry | Reason:
    answer: Telemetry | Reason = Reason.BAD_STATUS
    for path in question.paths:
        answer = await _path(path, question, memory, deadline)
        if answer is not Reason.BAD_STATUS:
            break
    return answer


async def _path(path: str, question: Question, memory: Memory, deadline: float) -> Telemetry | Reason:
    now = asyncio.get_running_loop().time()
    remembered = memory.answers.get(path)
    if remembered is not None and now < remembered[0]:
        return remembered[1]
    answer: Telemetry | Reason
    try:
        answer = question.reading(await get(memory.target, path, deadline), memory.target)
    except Unanswered as error:
        answer = error.reason
    if question.steady if isinstance(answer, Telemetry) else answer in _LASTING:
        memory.answers[path] = (now + STEADY_SECONDS, answer)
    return answer


_EMPTY = Telemetry()


def joined(first: Telemetry, second: Telemetry) -> Telemetry:
    """Both; where both speak, the first. Token counters are joined kind by kind."""
    changes: dict[str, Any] = {
        entry.name: getattr(second, entry.name)
        for entry in fields(Telemetry)
        if entry.name != "tokens" and getattr(first, entry.name) == getattr(_EMPTY, entry.name)
    }
    changes["tokens"] = {**second.tokens, **first.tokens}
    return replace(first, **changes)
