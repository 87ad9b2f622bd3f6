"""The one door: a process's arguments and environment, or a shell line, to a launch.

Raw arguments enter here and end in `flags.read_flags`; neither errors nor notes repeat them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from exporter.engines.launch import (
    ktransformers,
    llamacpp,
    lmdeploy,
    ollama,
    others,
    sglang,
    tensorrt_llm,
    tgi,
    transformers,
    vllm,
)
from exporter.engines.launch.facts import Launch, LaunchError, Role
from exporter.engines.launch.program import Program, find_program, in_command, starts_others

MOST_ARGUMENTS = 16_384
MOST_CHARACTERS = 2_097_152
"""What Linux allows a command line to hold (execve(2), ARG_MAX)."""


@dataclass(frozen=True, slots=True)
class _Engine:
    role_of: Callable[[Program], Role | None]
    read: Callable[[Program, Role], Launch]


# Ollama first: its runner is a llama-server.
_ENGINES = tuple(
    _Engine(module.role_of, module.read)
    for module in (ollama, vllm, sglang, llamacpp, ktransformers, lmdeploy, tensorrt_llm, tgi, transformers)
)
_ALL = (*_ENGINES, _Engine(others.role_of, others.read))


def read_launch(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Launch:
    """What a process is and what its line says. `argv` as /proc gives it, `environment` that of the process.

    A program that is not known has the role `none`. Raises LaunchError for a line that is too long, and for a
    launcher whose shell string has an open quote.
    """
    if len(argv) > MOST_ARGUMENTS or sum(len(one) for one in argv) > MOST_CHARACTERS:
        raise LaunchError("the command line is longer than Linux allows")
    return _read(find_program(argv, environment or {}, _is_engine))


def read_command(line: str, environment: Mapping[str, str] | None = None) -> Launch:
    """The same for a line as it is typed into a shell; of several commands, the first that an engine reads.

    Raises LaunchError for an open quote, a line that is too long, and one without a command.
    """
    program = in_command(line, environment or {}, _is_engine)
    if program is None:
        raise LaunchError("there is no command in it")
    return _read(program)


def _is_engine(program: Program) -> bool:
    return any((role := engine.role_of(program)) is not None and role is not Role.NONE for engine in _ENGINES)


def _read(program: Program | None) -> Launch:
    if program is None:
        return Launch(Role.NONE)
    for engine in _ALL:
        role = engine.role_of(program)
        if role is not None:
            launch = engine.read(program, role)
            return replace(launch, role=Role.LAUNCHER) if program.launched else launch
    return Launch(Role.LAUNCHER if starts_others(program) else Role.NONE)
