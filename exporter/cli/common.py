"""What the commands share: the configuration flags, errors and how answers are printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

import click

from exporter.settings.errors import ConfigurationError
from exporter.settings.options import DEFAULT_FILE, Settings, scalar_options
from exporter.settings.resolve import plain, resolve

USAGE = 2
NOTHING_READ = 3
NO = 1

Command = TypeVar("Command", bound=Callable[..., Any])


def fail(message: str, code: int = USAGE) -> NoReturn:
    """End with one message per line on stderr."""
    for line in message.splitlines():
        click.echo(f"error: {line}", err=True)
    raise SystemExit(code)


def settings_flags(command: Command) -> Command:
    """Give a command `--config.file` and every option as an exporter-style flag, as `file` and `flags`."""
    for section, key, kind, metadata in reversed(scalar_options()):
        flag = f"--{section}.{key.replace('_', '-')}"
        choices = [one for one in get_args(kind) if isinstance(one, str)]
        shape = "[true|false]" if kind is bool else f"[{'|'.join(choices)}]" if choices else "VALUE"
        default = plain(Settings())[section][key]
        meaning = metadata["meaning"] + ("" if default is None else f"; default {json.dumps(default)}")
        command = click.option(flag, f"{section}__{key}", metavar=shape, help=meaning)(command)
    return click.option(
        "--config.file",
        "file",
        type=click.Path(path_type=Path),
        help=f"TOML file with the configuration; default {DEFAULT_FILE}, when there is one",
    )(command)


def flags_of(given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Flags by section and key, without those that were not given."""
    flags: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        section, separator, key = name.partition("__")
        if separator and value is not None:
            flags.setdefault(section, {})[key] = value
    return flags


def load(file: Path | None, flags: dict[str, dict[str, Any]]) -> Settings:
    """The effective settings, or the end with exit code 2."""
    try:
        return resolve(file, flags)
    except ConfigurationError as error:
        fail(str(error))


def print_json(answer: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Aligned columns for a terminal or a pipe; the columns in `right` are numbers."""
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.rjust(widths[at]) if at in right else cell.ljust(widths[at]) for at, cell in enumerate(row)
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(line(row) for row in (heads, *rows))
