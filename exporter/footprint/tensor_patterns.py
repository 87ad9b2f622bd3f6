"""Patterns of llama.cpp's ``--override-tensor``, matched in time linear in the name.

llama.cpp searches tensor names with std::regex (ECMAScript). A pattern comes from a command line that anyone
may have written, so that it must not be able to take long: it is compiled to a non-deterministic automaton
whose sets of states are remembered, never run by backtracking. Look-around and back-references are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

MAX_PATTERN = 1000
MAX_REPEAT = 200
MAX_STATES = 2000
MAX_WORK = 20_000_000
"""States looked at over all names; a real pattern needs a few thousand."""
_MAX_REMEMBERED = 2000
_MAX_DEPTH = 50

_CLASSES: dict[str, frozenset[str]] = {
    "d": frozenset("0123456789"),
    "w": frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"),
    "s": frozenset(" \t\n\r\f\v"),
}
_START, _END = "^", "$"


class PatternError(ValueError):
    """The pattern is malformed, too large, or uses what is not supported; the message never repeats it."""


@dataclass(frozen=True, slots=True)
class _Symbols:
    """One character out of a set, or out of all others."""

    characters: frozenset[str]
    negated: bool = False

    def accepts(self, character: str) -> bool:
        return (character in self.characters) is not self.negated


@dataclass(slots=True)
class _Machine:
    """Thompson's construction: state → moves on a symbol, free moves, free moves at an edge of the name."""

    moves: list[list[tuple[_Symbols, int]]] = field(default_factory=list)
    free: list[list[int]] = field(default_factory=list)
    edges: list[list[tuple[str, int]]] = field(default_factory=list)

    def state(self) -> int:
        if len(self.moves) >= MAX_STATES:
            raise PatternError("the pattern is too large")
        self.moves.append([])
        self.free.append([])
        self.edges.append([])
        return len(self.moves) - 1


_Builder = Callable[[_Machine, int, int], None]
"""Adds what matches between two states."""


@lru_cache(maxsize=512)
def matcher(pattern: str) -> Callable[[str], bool]:
    """A function that tells whether the pattern occurs in a name. Raises PatternError."""
    if not pattern or len(pattern) > MAX_PATTERN:
        raise PatternError(f"a pattern has 1 to {MAX_PATTERN} characters")
    if not set(pattern) & set(".^$*+?()[]{}|\\"):
        return lambda name: pattern in name
    build = _Parser(pattern).parse()
    machine = _Machine()
    start, end = machine.state(), machine.state()
    build(machine, start, end)
    return _Search(machine, start, end).occurs


class _Search:
    """Sets of states, worked out once for each set and character that turns up."""

    def __init__(self, machine: _Machine, start: int, end: int) -> None:
        self._machine, self._start, self._end = machine, start, end
        self._known: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        self._work = 0

    def occurs(self, name: str) -> bool:
        current = self._closure({self._start}, at_start=True, at_end=not name)
        for index, character in enumerate(name):
            if self._end in current:
                return True
            last = index == len(name) - 1
            key = (current, character + ("$" if last else ""))
            following = self._known.get(key)
            if following is None:
                moved = {
                    target
                    for state in current
                    for symbols, target in self._machine.moves[state]
                    if symbols.accepts(character)
                }
                # A search may begin anywhere.
                following = self._closure({*moved, self._start}, at_start=False, at_end=last)
                if len(self._known) >= _MAX_REMEMBERED:
                    self._known.clear()
                self._known[key] = following
            current = following
        return self._end in current

    def _closure(self, states: set[int], *, at_start: bool, at_end: bool) -> frozenset[int]:
        self._work += len(states) + 1
        if self._work > MAX_WORK:
            raise PatternError("the pattern takes too long")
        found, waiting = set(states), list(states)
        while waiting:
            state = waiting.pop()
            reachable = list(self._machine.free[state])
            reachable += [
                target
                for edge, target in self._machine.edges[state]
                if (at_start if edge == _START else at_end)
            ]
            for target in reachable:
                if target not in found:
                    found.add(target)
                    waiting.append(target)
        return frozenset(found)


class _Parser:
    """Recursive descent over alternatives, sequences, repeats and atoms."""

    def __init__(self, pattern: str) -> None:
        self._text, self._at, self._depth = pattern, 0, 0

    def parse(self) -> _Builder:
        build = self._alternatives()
        if self._at < len(self._text):
            raise PatternError("a bracket is closed that was not opened")
        return build

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _take(self) -> str:
        character = self._peek()
        if not character:
            raise PatternError("the pattern ends too early")
        self._at += 1
        return character

    def _alternatives(self) -> _Builder:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise PatternError("the pattern is nested too deeply")
        choices = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            choices.append(self._sequence())
        self._depth -= 1
        return choices[0] if len(choices) == 1 else _either(choices)

    def _sequence(self) -> _Builder:
        parts: list[_Builder] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated())
        return _one_after_another(parts)

    def _repeated(self) -> _Builder:
        atom = self._atom()
        while True:
            character = self._peek()
            if character == "*":
                atom = _repeat(atom, 0, None)
            elif character == "+":
                atom = _repeat(atom, 1, None)
            elif character == "?":
                atom = _repeat(atom, 0, 1)
            elif character == "{":
                least, most = self._counts()
                atom = _repeat(atom, least, most)
                self._at -= 1
            else:
                return atom
            self._at += 1
            if self._peek() == "?":
                # Lazy or greedy: the same names match.
                self._at += 1

    def _counts(self) -> tuple[int, int | None]:
        end = self._text.find("}", self._at)
        inner = self._text[self._at + 1 : end] if end > 0 else ""
        first, comma, second = inner.partition(",")
        if not first.isascii() or not first.isdigit() or (second and not second.isdigit()) or len(inner) > 9:
            raise PatternError("a repeat count is malformed")
        least = int(first)
        most = int(second) if second else (None if comma else least)
        if max(least, most or 0) > MAX_REPEAT or (most is not None and most < least):
            raise PatternError(f"a repeat count must rise and be at most {MAX_REPEAT}")
        self._at = end + 1
        return least, most

    def _atom(self) -> _Builder:
        character = self._take()
        if character == "(":
            if self._peek() == "?":
                if self._text[self._at : self._at + 2] != "?:":
                    raise PatternError("look-around is not supported")
                self._at += 2
            build = self._alternatives()
            if self._take() != ")":
                raise PatternError("a bracket is not closed")
            return build
        if character == "[":
            return _symbol(self._set())
        if character in (_START, _END):
            return _edge(character)
        if character == ".":
            return _symbol(_Symbols(frozenset("\n\r"), negated=True))
        if character == "\\":
            return _symbol(self._escaped(self._take()))
        if character in "*+?{":
            raise PatternError("a repeat has nothing to repeat")
        return _symbol(_Symbols(frozenset(character)))

    def _escaped(self, character: str) -> _Symbols:
        if character.lower() in _CLASSES:
            return _Symbols(_CLASSES[character.lower()], negated=character.isupper())
        if character.isalnum():
            raise PatternError("an escape is not supported")
        return _Symbols(frozenset(character))

    def _set(self) -> _Symbols:
        negated = self._peek() == "^"
        if negated:
            self._at += 1
        characters: set[str] = set()
        while (character := self._take()) != "]":
            if character == "\\":
                escaped = self._escaped(self._take())
                if escaped.negated:
                    raise PatternError("a negated class inside brackets is not supported")
                characters |= escaped.characters
                continue
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]"):
                self._at += 1
                last = self._take()
                if not character.isascii() or not last.isascii() or last < character:
                    raise PatternError("a range of characters is malformed")
                characters |= {chr(code) for code in range(ord(character), ord(last) + 1)}
            else:
                characters.add(character)
        return _Symbols(frozenset(characters), negated)


def _symbol(symbols: _Symbols) -> _Builder:
    def build(machine: _Machine, start: int, end: int) -> None:
        machine.moves[start].append((symbols, end))

    return build


def _edge(edge: str) -> _Builder:
    def build(machine: _Machine, start: int, end: int) -> None:
        machine.edges[start].append((edge, end))

    return build


def _either(choices: list[_Builder]) -> _Builder:
    def build(machine: _Machine, start: int, end: int) -> None:
        for choice in choices:
            first, last = machine.state(), machine.state()
            machine.free[start].append(first)
            choice(machine, first, last)
            machine.free[last].append(end)

    return build


def _one_after_another(parts: list[_Builder]) -> _Builder:
    def build(machine: _Machine, start: int, end: int) -> None:
        for part in parts:
            following = machine.state()
            part(machine, start, following)
            start = following
        machine.free[start].append(end)

    return build


def _repeat(part: _Builder, least: int, most: int | None) -> _Builder:
    def build(machine: _Machine, start: int, end: int) -> None:
        for _ in range(least):
            following = machine.state()
            part(machine, start, following)
            start = following
        if most is None:
            first, last = machine.state(), machine.state()
            machine.free[start].append(first)
            part(machine, first, last)
            machine.free[last].append(first)
            machine.free[first].append(end)
            return
        for _ in range(most - least):
            machine.free[start].append(end)
            following = machine.state()
            part(machine, start, following)
            start = following
        machine.free[start].append(end)

    return build
