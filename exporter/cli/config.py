"""`config`: show, check and write the configuration."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from exporter.cli.common import fail, flags_of, load, print_json, settings_flags
from exporter.settings import options
from exporter.settings.options import Settings
from exporter.settings.resolve import plain


@click.group()
def command() -> None:
    """Show, check and write the configuration."""


@command.command("print")
@settings_flags
@click.option("--json", "as_json", is_flag=True, help="JSON instead of TOML.")
def print_(file: Path | None, as_json: bool, **given: Any) -> None:
    """The effective configuration: file < environment < flags."""
    settings = load(file, flags_of(given))
    if as_json:
        print_json(plain(settings))
    else:
        click.echo(to_toml(settings), nl=False)


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check FILE, with the environment applied; exit 2 with one line per problem."""
    from exporter.web.server import ListenError, parse_address

    settings = load(file, {})
    try:
        parse_address(settings.web.listen_address)
    except ListenError as error:
        fail(str(error))
    click.echo(f"{file}: fine, deployments declared: {len(settings.deployments)}")


@command.command()
def default() -> None:
    """A configuration file with every option, its default and its meaning."""
    click.echo(to_toml(Settings(), comments=True), nl=False)


def to_toml(settings: Settings, *, comments: bool = False) -> str:
    """The settings as TOML; with `comments`, each option has its meaning and stands commented out."""
    lines: list[str] = []
    for one in dataclasses.fields(settings):
        if one.name not in options.sections() and one.name not in options.TABLES:
            lines += _option(one, getattr(settings, one.name), comments)
    for section in options.sections():
        table = getattr(settings, section)
        lines += ["", f"[{section}]"]
        for one in dataclasses.fields(table):
            lines += _option(one, getattr(table, one.name), comments)
    for name in options.TABLES:
        for entry in getattr(settings, name):
            lines += ["", f"[[{name}]]"]
            for one in dataclasses.fields(entry):
                lines += _option(one, getattr(entry, one.name), comments)
    if comments:
        lines += ["", *_EXAMPLE.splitlines(), "#", "# Every key of a deployment:", *_keys(options.Deployment)]
        lines += ["#", "# and of its `match`:", *_keys(options.Match)]
        lines += ["#", *_ALERTMANAGER_EXAMPLE.splitlines(), "#", *_keys(options.Alertmanager)]
        lines += ["#", *_FOREIGN_EXAMPLE.splitlines(), "#", *_keys(options.ForeignExporter)]
        lines += ["# of its `labels`:", *_keys(options.ForeignLabels)]
        lines += ["# of its `metrics`:", *_keys(options.ForeignMetrics)]
        lines += ["# and of each of these:", *_keys(options.ForeignMetric)]
        lines += ["#", *_STORE_EXAMPLE.splitlines(), "#", *_keys(options.Store)]
    return "\n".join(lines).lstrip("\n") + "\n"


_EXAMPLE = """\
# What this host serves, one entry a deployment:
# [[deployments]]
# name = "r1"
# model = "deepseek-ai/DeepSeek-R1"
# engine = "vllm"
# devices = [0, 1, 2, 3, 4, 5, 6, 7]
# tp = 8
# max_model_len = 32768
# max_num_seqs = 64"""

_ALERTMANAGER_EXAMPLE = """\
# Whom the daemon tells of its own alerts, for hosts whose Prometheus has no rules or is down:
# [[alertmanagers]]
# url = "http://127.0.0.1:9093"
#
# Every key of it:"""


_FOREIGN_EXAMPLE = """\
# Another exporter of this host that tells of devices which are not NVIDIA's or AMD's; experimental,
# docs/FOREIGN.md:
# [[foreign_exporters]]
# kind = "ascend"
# url = "http://127.0.0.1:8082/metrics"
#
# Every key of it:"""

_STORE_EXAMPLE = """\
# Folders of checkpoints to watch, whatever runs; those of running engines are found where they may be seen:
# [[stores]]
# path = "/models"
#
# Every key of it:"""


def _keys(kind: type) -> list[str]:
    return [f"#   {one.name}: {one.metadata['meaning']}" for one in dataclasses.fields(kind)]


def _option(one: dataclasses.Field[Any], value: Any, comments: bool) -> list[str]:
    text = _value(value)
    if not comments:
        return [] if text is None else [f"{one.name} = {text}"]
    restart = "" if one.metadata.get("reloadable", True) else " (needs a restart)"
    return [f"# {one.metadata['meaning']}{restart}", f"# {one.name} = {text if text is not None else '…'}"]


def _value(value: Any) -> str | None:
    """A TOML value; None has none."""
    if value is None:
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = [(one.name, _value(getattr(value, one.name))) for one in dataclasses.fields(value)]
        return "{ " + ", ".join(f"{name} = {text}" for name, text in pairs if text is not None) + " }"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_value(name)} = {_value(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(text for item in value if (text := _value(item)) is not None) + "]"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    # A TOML basic string escapes as JSON does, and DEL too (TOML 1.0, String).
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
