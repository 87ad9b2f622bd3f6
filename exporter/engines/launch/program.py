"""Whose line is it: the process's own program, seen through what starts it.

A program is known by its own name (argv[0], the module after `-m`, the script's file), never by a word
further along: `vllm bench serve` is no server, and `docker run … vllm serve` is docker. Programs that replace
themselves (env, numactl, nohup) are seen through; those that stay alive as the parent of the real process
are launchers. Sources: usage texts of util-linux, coreutils, numactl, Docker 27, uv 0.8; Python 3.11 cmdline.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import PurePosixPath

from exporter.engines.launch.facts import LaunchError
from exporter.engines.launch.shell import simple_commands

DEEPEST = 8
"""Wrappers within wrappers that are followed."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program and its own arguments. ``names`` are the ways in which it may be known, the most telling
    first: a module's dotted name, a file's name. ``launched``: it stands inside a launcher.
    """

    names: tuple[str, ...]
    path: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    launched: bool = False
    image: str = ""


Known = Callable[[Program], bool]
"""Whether some engine reads this program."""


@dataclass(frozen=True, slots=True)
class _Exec:
    """A program that becomes another: its options that take a value, and how many words it wants first."""

    valued: frozenset[str] = frozenset()
    words: int = 0
    words_unless: frozenset[str] = field(default_factory=frozenset)


def _valued(*options: str) -> frozenset[str]:
    return frozenset(options)


_BECOMES = {
    "env": _Exec(_valued("-u", "--unset", "-C", "--chdir")),
    "nohup": _Exec(),
    "nice": _Exec(_valued("-n", "--adjustment")),
    "ionice": _Exec(_valued("-c", "--class", "-n", "--classdata")),
    "numactl": _Exec(
        _valued("-N", "--cpunodebind", "-m", "--membind", "-i", "--interleave", "-C", "--physcpubind")
        | _valued("-p", "--preferred", "-P", "--preferred-many", "-w", "--weighted-interleave")
    ),
    "taskset": _Exec(words=1),
    "chrt": _Exec(words=1),
    "stdbuf": _Exec(_valued("-i", "-o", "-e", "--input", "--output", "--error")),
    "setsid": _Exec(),
    "setarch": _Exec(words=1),
    "prlimit": _Exec(),
    "exec": _Exec(_valued("-a")),
    "command": _Exec(),
    "gosu": _Exec(words=1),
    "su-exec": _Exec(words=1),
    "setpriv": _Exec(_valued("--reuid", "--regid", "--groups")),
    "chroot": _Exec(words=1),
    "catchsegv": _Exec(),
}


@lru_cache(maxsize=16)
def programs(kind: str) -> frozenset[str]:
    """Names of data/programs.toml under one heading."""
    table = files("exporter.engines.launch.data").joinpath("programs.toml").read_text("utf-8")
    names: list[str] = tomllib.loads(table)[kind]
    return frozenset(names)


_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "busybox"})
_INTERPRETER = re.compile(r"(?:python|pypy)[0-9.]*(?:\.exe)?", re.ASCII)
_MODULE = re.compile(r"[A-Za-z_]\w{0,63}(?:\.[A-Za-z_]\w{0,63}){0,15}", re.ASCII)
_VALUED_PYTHON = ("-W", "-X", "--check-hash-based-pycs")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,127})=(.*)", re.ASCII | re.DOTALL)
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/@-]{0,254}", re.ASCII)

IMAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("vllm/vllm-openai", ("vllm.entrypoints.openai.api_server",)),
    ("huggingface/text-generation-inference", ("text-generation-launcher",)),
    ("ggml-org/llama.cpp:server", ("llama-server",)),
    ("ggerganov/llama.cpp:server", ("llama-server",)),
    ("ggml-org/llama.cpp:full", ("llama-tools",)),
    ("ggerganov/llama.cpp:full", ("llama-tools",)),
    ("ollama/ollama", ("ollama",)),
    ("abetlen/llama-cpp-python", ("llama_cpp.server",)),
)
"""Images that have an engine as entry point (their Dockerfiles), and the program that it starts."""

_CONTAINER_RUNNERS = ("docker", "podman", "nerdctl")
_CONTAINER_SWITCHES = re.compile(
    r"-[ditPq]+|--(?:rm|init|privileged|detach|interactive|tty|read-only|publish-all|no-healthcheck|quiet|help"
    r"|oom-kill-disable|sig-proxy|disable-content-trust|replace|tls-verify)",
    re.ASCII,
)


def starts_others(program: Program) -> bool:
    """Whether the program is a launcher whatever it launches."""
    if not programs("always_launcher").isdisjoint(program.names):
        return True
    return (
        program.names[:1] != () and program.names[0] in _CONTAINER_RUNNERS and "run" in program.arguments[:1]
    )


def find_program(argv: Sequence[str], environment: Mapping[str, str], known: Known) -> Program | None:
    """The program of a process, or the known one inside a launcher; None when there is neither.

    Raises LaunchError when a launcher's shell string cannot be read.
    """
    return _find(tuple(argv), dict(environment), known, False, DEEPEST)


def _find(
    argv: tuple[str, ...], environment: dict[str, str], known: Known, launched: bool, depth: int
) -> Program | None:
    argv = _without_empty_start(argv)
    if not argv or depth == 0:
        return None
    name = _file_name(argv[0])
    if name in _BECOMES:
        return _find(*_become(name, argv[1:], environment), known, launched, depth - 1)
    if name in _SHELLS:
        return _in_shell(argv[1:], environment, known, depth)
    program = _program(argv, environment, launched)
    if known(program):
        return program
    if not programs("launcher").isdisjoint(program.names):
        inner = _inside(program, known, depth)
        if inner is not None:
            return inner
    elif not programs("replaced").isdisjoint(program.names):
        inner = _inside(program, known, depth)
        if inner is not None:
            return replace(inner, launched=launched)
    return program


def _without_empty_start(argv: tuple[str, ...]) -> tuple[str, ...]:
    at = 0
    while at < len(argv) and not argv[at]:
        at += 1
    return argv[at:]


def _file_name(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name.removesuffix(".exe") if len(path) <= 4096 else ""


def _program(argv: tuple[str, ...], environment: Mapping[str, str], launched: bool) -> Program:
    """argv[0], or the module or script that an interpreter runs."""
    path, rest = argv[0], argv[1:]
    if not _INTERPRETER.fullmatch(PurePosixPath(path).name):
        return Program((_file_name(path),), path, rest, environment, launched)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        option = rest[0]
        cluster = re.fullmatch(r"-[bBdEhiIOPqsSuvVx]*([mc])(.*)", option, re.ASCII | re.DOTALL)
        if cluster is not None and cluster[1] == "c":
            code = cluster[2] or (rest[1] if len(rest) > 1 else "")
            return Program((_in_line(code),), path, (), environment, launched)
        if cluster is not None:
            module, after = (
                (cluster[2], rest[1:]) if cluster[2] else (rest[1] if len(rest) > 1 else "", rest[2:])
            )
            names = (module,) if _MODULE.fullmatch(module) else ()
            return Program(names, module if names else "", after, environment, launched)
        rest = rest[2:] if option in _VALUED_PYTHON else rest[1:]
    if not rest:
        return Program((), path, (), environment, launched)
    script = rest[0]
    return Program(_script_names(script), script, rest[1:], environment, launched)


def _in_line(code: str) -> str:
    """Python's own children of `multiprocessing` run a line of code that is always the same."""
    if code.startswith("from multiprocessing.spawn import spawn_main"):
        return "multiprocessing.spawn"
    if code.startswith(("from multiprocessing.forkserver", "from multiprocessing.resource_tracker")):
        return "multiprocessing.resource_tracker"
    return ""


def _script_names(script: str) -> tuple[str, ...]:
    """`…/vllm/entrypoints/openai/api_server.py` is the module of that name, and of every shorter one."""
    path = PurePosixPath(script)
    if path.suffix != ".py":
        return (path.name,)
    parts = [part for part in path.with_suffix("").parts if part not in ("/", ".", "..")][-6:]
    dotted = [".".join(parts[at:]) for at in range(len(parts))]
    return (*(name for name in dotted if _MODULE.fullmatch(name)), path.name)


def _become(
    name: str, arguments: tuple[str, ...], environment: dict[str, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """What `env`, `numactl` and their like turn into, with the variables that they set."""
    rules = _BECOMES[name]
    environment = dict(environment)
    at, words = 0, rules.words
    while at < len(arguments):
        argument = arguments[at]
        if argument == "--":
            at += 1
            break
        if name == "env" and (match := _ASSIGNMENT.fullmatch(argument)):
            environment[match[1]] = match[2]
        elif name == "env" and argument in ("-S", "--split-string") and at + 1 < len(arguments):
            commands = simple_commands(arguments[at + 1], environment)
            split = commands[0].words if commands else ()
            return (*split, *arguments[at + 2 :]), environment
        elif argument.startswith("-") and len(argument) > 1:
            at += argument in rules.valued
        elif words:
            words -= 1
        else:
            break
        at += 1
    while words and at < len(arguments):
        words, at = words - 1, at + 1
    return arguments[at:], environment


def _in_shell(
    arguments: tuple[str, ...], environment: dict[str, str], known: Known, depth: int
) -> Program | None:
    """The known program in `sh -c "…"`; a shell that runs a script says nothing about it."""
    if arguments[:1] and arguments[0] in _SHELLS:
        arguments = arguments[1:]
    for at, argument in enumerate(arguments):
        if re.fullmatch(r"[-+][A-Za-z]*c[A-Za-z]*", argument, re.ASCII) and at + 1 < len(arguments):
            found = in_command(arguments[at + 1], environment, known, launched=True, depth=depth - 1)
            return found if found is not None and known(found) else None
        if not argument.startswith(("-", "+")):
            return None
    return None


def in_command(
    line: str, environment: Mapping[str, str], known: Known, *, launched: bool = False, depth: int = DEEPEST
) -> Program | None:
    """The known program of a shell line, else its first program. Raises LaunchError."""
    first: Program | None = None
    for command in simple_commands(line, environment):
        found = _find(command.words, {**environment, **command.assignments}, known, launched, depth)
        if found is not None and known(found):
            return found
        first = first or found
    return first


def _inside(program: Program, known: Known, depth: int) -> Program | None:
    """The known program among a launcher's arguments: the first place at which one begins."""
    environment = dict(program.environment)
    arguments = program.arguments
    if program.names[0] in _CONTAINER_RUNNERS and arguments[:1] in (("run",), ("create",)):
        return _in_container(arguments[1:], environment, known, depth)
    for at, argument in enumerate(arguments[:512]):
        if match := _ASSIGNMENT.fullmatch(argument):
            environment[match[1]] = match[2]
            continue
        if argument.startswith("-"):
            continue
        found = _at(arguments[at:], environment, known, depth)
        if found is not None:
            return found
    return None


def _at(argv: tuple[str, ...], environment: dict[str, str], known: Known, depth: int) -> Program | None:
    try:
        found = _find(argv, environment, known, True, depth - 1)
    except LaunchError:
        return None
    return found if found is not None and known(found) else None


def _in_container(
    arguments: tuple[str, ...], environment: dict[str, str], known: Known, depth: int
) -> Program | None:
    """What the container of `docker run` starts: the image's entry point, or the command behind the image."""
    inner: dict[str, str] = {}
    entry, at = "", 0
    while at < len(arguments) and arguments[at].startswith("-"):
        option, equals, attached = arguments[at].partition("=")
        if not equals and not _CONTAINER_SWITCHES.fullmatch(option):
            at += 1
            attached = arguments[at] if at < len(arguments) else ""
        if option in ("-e", "--env") and (match := _ASSIGNMENT.fullmatch(attached)):
            inner[match[1]] = match[2]
        elif option == "--entrypoint":
            entry = attached
        at += 1
    image = arguments[at] if at < len(arguments) else ""
    command = arguments[at + 1 :]
    if not _IMAGE.fullmatch(image):
        image = ""
    if entry:
        return _imaged(_at((entry, *command), inner, known, depth), image)
    found = _at(command, inner, known, depth)
    if found is None:
        program = next((names for part, names in IMAGES if part in image), None)
        if program is None:
            return None
        candidate = Program(program, program[0], command, inner, True, image)
        found = candidate if known(candidate) else None
    return _imaged(found, image)


def _imaged(program: Program | None, image: str) -> Program | None:
    if program is None:
        return None
    return replace(program, launched=True, image=image)
