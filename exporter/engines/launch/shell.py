"""Command lines as people write them for a shell: words, assignments, pipelines (POSIX.1-2017, Shell Command
Language, 2.3 and 2.10).

Nothing is executed and nothing is looked up but variables that the line itself or the given environment sets.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporter.engines.launch.facts import LaunchError

LONGEST_COMMAND = 262_144
_TOKEN = re.compile(
    r"""
    (?P<space>(?:[ \t\r]|\\\r?\n)+)
  | (?P<redirect>[0-9]*(?:<<<?|>>|>\||<>|<|>)(?:&[0-9-]+|&)?|&>>?)
  | (?P<end>\n|;;?|&&|\|\|?|&|[()])
  | (?P<comment>\#[^\n]*)
  | (?P<word>(?:\$\((?:[^()]|\([^()]*\))*\)|`[^`]*`|[^\s'"\\;&|<>()`]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+)
    """,
    re.VERBOSE | re.DOTALL,
)
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.ASCII | re.DOTALL)
_VARIABLE = re.compile(
    r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?::?-([^{}$]*))?\})", re.ASCII
)
_LONGEST_VALUE = 4096


@dataclass(frozen=True, slots=True)
class Simple:
    """One simple command: its words, and the variables that stand before it or were exported earlier."""

    words: tuple[str, ...]
    assignments: Mapping[str, str]


def simple_commands(line: str, environment: Mapping[str, str]) -> list[Simple]:
    """The simple commands of a line, in order. Raises LaunchError for an open quote and a line too long."""
    if len(line) > LONGEST_COMMAND:
        raise LaunchError(f"the command is longer than {LONGEST_COMMAND} characters")
    commands: list[Simple] = []
    known = dict(environment)
    for words in _split(line):
        assigned, rest = _assignments(words, known)
        if rest[:1] == ["export"]:
            assigned, rest = _assignments(rest[1:], known)
        if rest:
            commands.append(Simple(tuple(rest), {**_new(known, environment), **assigned}))
        else:
            known.update(assigned)
    return commands


def _new(known: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in known.items() if environment.get(name) != text}


def _assignments(words: Sequence[str], known: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    assigned: dict[str, str] = {}
    at = 0
    while at < len(words) and (match := _ASSIGNMENT.fullmatch(words[at])):
        assigned[match[1]] = _expanded(match[2], known)
        at += 1
    variables = {**known, **assigned}
    return assigned, [_expanded(word, variables) for word in words[at:]]


def _expanded(word: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        found = variables.get(match[1] or match[2], match[3])
        return match[0] if found is None or len(found) > _LONGEST_VALUE else found

    return _VARIABLE.sub(value, word) if "$" in word else word


def _split(line: str) -> list[list[str]]:
    """Words of each simple command; redirections and comments are left out."""
    commands: list[list[str]] = [[]]
    at, target = 0, False
    while at < len(line):
        match = _TOKEN.match(line, at)
        if match is None:
            raise LaunchError("the command has a quote that is not closed, or ends in a backslash")
        kind, text = match.lastgroup, match[0]
        if kind == "end":
            commands.append([])
            target = False
        elif kind == "redirect":
            target = not re.search(r"&[0-9-]+$", text)
        elif kind == "word" and target:
            target = False
        elif kind == "word":
            commands[-1].extend(shlex.split(text))
        at = match.end()
    return [words for words in commands if words]
