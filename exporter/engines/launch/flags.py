"""An allow-list of flags, and how each kind of parser cuts a command line into them.

`read_flags` is the one function that sees raw arguments: what it hands on are values that a listed flag's
reader made. Cutting follows argparse (Python 3.11 argparse.py, _parse_optional and _get_option_tuples),
click 8 (parser.py), clap 4, Go's flag package and llama.cpp's own loop (b11434 common/arg.cpp).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache
from importlib.resources import files

from exporter.engines.launch.values import Reader, Value, boolean, json_parts


class Arity(Enum):
    """How many of the following words belong to a flag."""

    VALUE = auto()
    SWITCH = auto()
    LIST = auto()
    OPTIONAL = auto()


@dataclass(frozen=True, slots=True)
class Flag:
    """One setting: the field it fills and every spelling of it, dashes included.

    A SWITCH gives `constant`; an OPTIONAL takes the next word only when `reader` accepts it, else it gives
    `constant`; a LIST gives its first word, or all joined by `separator`. `append` keeps every value in order
    (as texts), else the last one wins. `parts` are the listed keys of a JSON value, and of dotted spellings
    (`--speculative-config.method`). `env` are variables that say the same and that the command line
    overrides.
    """

    name: str
    spellings: tuple[str, ...]
    reader: Reader = boolean
    arity: Arity = Arity.VALUE
    constant: Value = True
    append: bool = False
    separator: str = ""
    parts: Mapping[str, tuple[str, Reader]] = field(default_factory=dict)
    env: tuple[str, ...] = ()


def value(name: str, reader: Reader, *spellings: str, env: Sequence[str] = ()) -> Flag:
    """A flag with one value; the last one on the line wins."""
    return Flag(name, spellings, reader, env=tuple(env))


def switch(name: str, *spellings: str, constant: Value = True, env: Sequence[str] = ()) -> Flag:
    """A flag without a value."""
    return Flag(name, spellings, arity=Arity.SWITCH, constant=constant, env=tuple(env))


def toggles(name: str, spelling: str, *short: str, env: Sequence[str] = ()) -> tuple[Flag, Flag]:
    """`--x` and `--no-x` (argparse.BooleanOptionalAction)."""
    off = f"--no-{spelling.removeprefix('--')}"
    return switch(name, spelling, *short, env=env), switch(name, off, constant=False)


def first_of(name: str, reader: Reader, *spellings: str, env: Sequence[str] = ()) -> Flag:
    """A flag with several values, of which the first counts."""
    return Flag(name, spellings, reader, Arity.LIST, env=tuple(env))


def optional(name: str, reader: Reader, constant: Value, *spellings: str, env: Sequence[str] = ()) -> Flag:
    """A flag whose value may be left out."""
    return Flag(name, spellings, reader, Arity.OPTIONAL, constant, env=tuple(env))


def appended(name: str, reader: Reader, separator: str, *spellings: str, env: Sequence[str] = ()) -> Flag:
    """A flag that may be repeated; every value is cut at `separator`."""
    return Flag(name, spellings, reader, append=True, separator=separator, env=tuple(env))


def json_object(name: str, parts: Mapping[str, tuple[str, Reader]], *spellings: str) -> Flag:
    """A flag with a JSON object, of which the listed keys are read."""
    return Flag(name, spellings, parts=parts)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The other flags of a parser by name: how many words each takes, and which did not exist earlier or are
    gone. Only names: nothing of what they hold is read.
    """

    arity: Mapping[str, Arity]
    recent: frozenset[str]
    retired: frozenset[str]


NO_VOCABULARY = Vocabulary({}, frozenset(), frozenset())


@lru_cache(maxsize=8)
def vocabulary(name: str) -> Vocabulary:
    """A table of data/, read once."""
    groups = tomllib.loads(files("exporter.engines.launch.data").joinpath(f"{name}.toml").read_text("utf-8"))
    kinds = {"values": Arity.VALUE, "switches": Arity.SWITCH, "lists": Arity.LIST}
    names = {
        age: {kind: frozenset(f"--{one}" for one in row.get(kind, "").split()) for kind in kinds}
        for age, row in groups.items()
    }
    return Vocabulary(
        {name: kinds[kind] for rows in names.values() for kind, group in rows.items() for name in group},
        frozenset().union(*names.get("recent", {}).values()),
        frozenset().union(*names.get("retired", {}).values()),
    )


@dataclass(frozen=True, slots=True)
class Dialect:
    """A kind of parser.

    `abbreviates`: unambiguous beginnings of long flags are taken. `equals`: `--flag=value` is.
    `takes_dashes`: a value may begin with a dash. `one_dash`: `-flag` is `--flag`. `normal` gives the
    spelling under which a flag is listed.
    """

    abbreviates: bool = False
    equals: bool = True
    takes_dashes: bool = False
    one_dash: bool = False
    normal: Callable[[str], str] = str


def underscored(flag: str) -> str:
    """`--max_model_len` is `--max-model-len`, up to the first dot (vLLM utils/argparse_utils.py)."""
    if not flag.startswith("--"):
        return flag
    name, dot, key = flag.partition(".")
    return "--" + name[2:].replace("_", "-") + dot + key


ARGPARSE = Dialect(abbreviates=True)
FLEXIBLE = Dialect(abbreviates=True, normal=underscored)
CLICK = Dialect(takes_dashes=True, normal=underscored)
CLAP = Dialect()
GO = Dialect(one_dash=True)
LLAMA_CPP = Dialect(equals=False, takes_dashes=True, normal=underscored)


@dataclass(frozen=True, slots=True)
class Grammar:
    """A program's command line: its dialect, the listed flags, the fields of its positional arguments, and
    what is known of its other flags.
    """

    dialect: Dialect
    flags: tuple[Flag, ...]
    positionals: tuple[Flag, ...] = ()
    others: Vocabulary = NO_VOCABULARY

    def __post_init__(self) -> None:
        if len({name for flag in self.flags for name in flag.spellings}) != sum(
            len(flag.spellings) for flag in self.flags
        ):
            raise ValueError("a spelling is listed twice")


@dataclass(frozen=True, slots=True)
class Readings:
    """What the listed flags said, by field, and which could not be read: `unread` fields, and the reasons."""

    values: Mapping[str, Value | tuple[Value, ...]]
    problems: tuple[str, ...]
    unread: frozenset[str] = frozenset()

    def integer(self, name: str) -> int | None:
        found = self.values.get(name)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def number(self, name: str) -> float | None:
        found = self.values.get(name)
        return found if isinstance(found, int | float) and not isinstance(found, bool) else None

    def text(self, name: str) -> str | None:
        found = self.values.get(name)
        return found if isinstance(found, str) else None

    def flag(self, name: str) -> bool | None:
        found = self.values.get(name)
        return found if isinstance(found, bool) else None

    def texts(self, name: str) -> tuple[str, ...]:
        found = self.values.get(name)
        return tuple(one for one in found if isinstance(one, str)) if isinstance(found, tuple) else ()

    def layers(self, name: str) -> int | str | None:
        found = self.values.get(name)
        return found if isinstance(found, int | str) and not isinstance(found, bool) else None


_NEGATIVE_NUMBER = re.compile(r"-\d+|-\d*\.\d+", re.ASCII)
_SWITCH_LIKE = re.compile(r"-[A-Za-z]\d|--(?:no|enable|disable|use|skip|trust|allow|force|is)[-_]", re.ASCII)


def read_flags(arguments: Sequence[str], environment: Mapping[str, str], grammar: Grammar) -> Readings:
    """What the listed flags of `grammar` say in these arguments and variables; everything else is dropped
    here.
    """
    reading = _Reading(grammar)
    for flag in grammar.flags:
        for variable in flag.env:
            if environment.get(variable):
                reading.take_variable(flag, environment[variable])
                break
    reading.take_line(arguments)
    return Readings(
        reading.found, tuple(dict.fromkeys(reading.problems.values())), frozenset(reading.problems)
    )


class _Reading:
    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.dialect = grammar.dialect
        self.by_spelling = _by_spelling(grammar)
        self.found: dict[str, Value | tuple[Value, ...]] = {}
        self.problems: dict[str, str] = {}
        self.appended: set[str] = set()

    def take_variable(self, flag: Flag, text: str) -> None:
        """The variable of a flag; of a switch it says yes or no."""
        if flag.arity is Arity.SWITCH:
            try:
                said = boolean(text)
            except ValueError:
                return
            if isinstance(flag.constant, bool):
                self.found[flag.name] = flag.constant is said
            return
        self._give(flag, text, flag.env[0])
        self.appended.discard(flag.name)

    def take_line(self, arguments: Sequence[str]) -> None:
        rest = list(arguments)
        rest.reverse()
        waiting = list(reversed(self.grammar.positionals))
        positional: list[tuple[Flag, str]] = []
        only_positionals = False
        while rest:
            token = rest.pop()
            if token == "--" and not only_positionals and self.dialect.abbreviates:
                only_positionals = True
            elif only_positionals or not self._is_flag(token):
                if waiting and token:
                    positional.append((waiting.pop(), token))
            else:
                self._take_flag(token, rest)
        for flag, text in positional:
            # A stray word must not displace what a flag says.
            if flag.name not in self.found:
                self._give(flag, text, flag.spellings[0])

    def _take_flag(self, token: str, rest: list[str]) -> None:
        spelling, equals, attached = token.partition("=") if self.dialect.equals else (token, "", "")
        name = self._normal(spelling)
        stem, dot, key = name.partition(".")
        flag = self._resolve(stem)
        if dot:
            text = attached if equals else self._next(rest)
            if isinstance(flag, Flag) and key in flag.parts and text is not None:
                part, reader = flag.parts[key]
                self._give(Flag(part, (stem,), reader), text, stem)
            return
        if isinstance(flag, Flag):
            self._take_listed(flag, stem, attached if equals else None, rest)
        elif not equals:
            self._skip(flag, stem, rest)

    def _take_listed(self, flag: Flag, name: str, attached: str | None, rest: list[str]) -> None:
        if flag.arity is Arity.SWITCH:
            self._take_switch(flag, attached)
        elif attached is not None:
            self._give(flag, attached, name)
        elif flag.arity is Arity.LIST:
            words = self._words(rest)
            if words:
                self._give(flag, flag.separator.join(words) if flag.separator else words[0], name)
        elif flag.arity is Arity.OPTIONAL:
            self.found[flag.name] = flag.constant
            if rest:
                try:
                    self.found[flag.name] = flag.reader(rest[-1])
                    rest.pop()
                except ValueError:
                    return
        else:
            text = self._next(rest)
            if text is not None:
                self._give(flag, text, name)

    def _take_switch(self, flag: Flag, attached: str | None) -> None:
        if attached is None:
            self.found[flag.name] = flag.constant
            return
        try:
            said = boolean(attached)
        except ValueError:
            return
        if isinstance(flag.constant, bool):
            self.found[flag.name] = flag.constant is said
        elif said:
            self.found[flag.name] = flag.constant

    def _skip(self, arity: Arity | None, name: str, rest: list[str]) -> None:
        """Step over the words of a flag that is not listed."""
        if arity is Arity.LIST:
            self._words(rest)
        elif arity is Arity.VALUE or (arity is None and not _SWITCH_LIKE.match(name)):
            # An unknown flag of llama.cpp's may stand alone, and its value may look like a flag only if it
            # is one: there are no positional arguments that could be mistaken for it.
            if self.grammar.positionals and rest and not self._is_flag(rest[-1]):
                rest.pop()
            elif arity is Arity.VALUE:
                self._next(rest)

    def _give(self, flag: Flag, text: str, name: str) -> None:
        try:
            if flag.parts:
                self.found.update(json_parts(text, flag.parts))
            elif flag.append:
                texts = tuple(flag.reader(part) for part in text.split(flag.separator) if part)
                before = self.found.get(flag.name, ()) if flag.name in self.appended else ()
                self.found[flag.name] = (*(before if isinstance(before, tuple) else ()), *texts)
                self.appended.add(flag.name)
            else:
                self.found[flag.name] = flag.reader(text)
        except ValueError as error:
            self.found.pop(flag.name, None)
            self.problems[flag.name] = f"{name}: {error}"
        else:
            self.problems.pop(flag.name, None)

    def _next(self, rest: list[str]) -> str | None:
        """The next word as a value; None when there is none, or when it is a flag."""
        if not rest or (not self.dialect.takes_dashes and self._is_flag(rest[-1])):
            return None
        return rest.pop()

    def _words(self, rest: list[str]) -> list[str]:
        words = []
        while rest and not self._is_flag(rest[-1]):
            words.append(rest.pop())
        return words

    def _is_flag(self, token: str) -> bool:
        if len(token) < 2 or not token.startswith("-") or _NEGATIVE_NUMBER.fullmatch(token):
            return False
        # argparse reads what begins with a dash and has a space in it as a value, unless it is a flag with
        # an attached value.
        return " " not in token.partition("=")[0]

    def _normal(self, spelling: str) -> str:
        if self.dialect.one_dash and not spelling.startswith("--"):
            spelling = f"-{spelling}"
        return self.dialect.normal(spelling)

    def _resolve(self, name: str) -> Flag | Arity | None:
        """The listed flag of a spelling, or how many words an unlisted one takes; None: unknown."""
        exact = self.by_spelling.get(name) or self.grammar.others.arity.get(name)
        if exact is not None or not self.dialect.abbreviates or not name.startswith("--") or len(name) < 4:
            return exact
        return _abbreviated(self.grammar, name)


_SPELLINGS: dict[int, tuple[Grammar, dict[str, Flag]]] = {}


def _by_spelling(grammar: Grammar) -> dict[str, Flag]:
    known = _SPELLINGS.get(id(grammar))
    if known is None or known[0] is not grammar:
        spelled = {name: flag for flag in grammar.flags for name in flag.spellings}
        known = _SPELLINGS[id(grammar)] = (grammar, spelled)
    return known[1]


def _abbreviated(grammar: Grammar, name: str) -> Flag | Arity | None:
    """The flag that a beginning stands for.

    Which release runs is not known, but its parser took the line: the newest vocabulary decides, where that
    is ambiguous the oldest, and where that is too the only listed flag.
    """
    others = grammar.others
    listed = {spelling: flag for spelling, flag in _by_spelling(grammar).items() if spelling.startswith(name)}
    unlisted = [spelling for spelling in others.arity if spelling.startswith(name)]
    for absent in (others.retired, others.recent):
        flags = _distinct(flag for spelling, flag in listed.items() if spelling not in absent)
        arities = {others.arity[spelling] for spelling in unlisted if spelling not in absent}
        if len(flags) + len(arities) == 1:
            return flags[0] if flags else arities.pop()
    flags = _distinct(listed.values())
    return flags[0] if len(flags) == 1 else None


def _distinct(flags: Iterable[Flag]) -> list[Flag]:
    found: list[Flag] = []
    for flag in flags:
        if not any(flag.name == one.name and flag.constant == one.constant for one in found):
            found.append(flag)
    return found
