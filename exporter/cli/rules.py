"""`rules`: print or install the rules and dashboards that belong to this version."""

from __future__ import annotations

from pathlib import Path

import click

from exporter.cli.common import NOTHING_READ, fail

_PATTERNS = ("rules/*.yml", "dashboards/*.json", "dashboards/*.yml")


def shipped() -> dict[str, Path]:
    """Name → file: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for root in (package / "_files", package.parent):
        found = {
            path.relative_to(root).as_posix(): path
            for pattern in _PATTERNS
            for path in sorted(root.glob(pattern))
        }
        if found:
            return found
    return {}


@click.group()
def command() -> None:
    """Print or install the Prometheus rules and Grafana dashboards of this version."""


@command.command("list")
def list_() -> None:
    """The files there are."""
    for name in _files():
        click.echo(name)


@command.command("print")
@click.argument("name", default="rules/deepseek.rules.yml")
def print_(name: str) -> None:
    """Print one file; by default the Prometheus rules."""
    files = _files()
    if name not in files:
        fail(f"no file {name!r}; there are: {', '.join(files)}")
    click.echo(files[name].read_text(encoding="utf-8"), nl=False)


@command.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--force", is_flag=True, help="Overwrite files that differ.")
def install(folder: Path, force: bool) -> None:
    """Copy every file below FOLDER; a file that differs is kept unless --force is given."""
    files = _files()
    differing = [
        name
        for name, source in files.items()
        if (folder / name).exists() and (folder / name).read_bytes() != source.read_bytes()
    ]
    if differing and not force:
        fail(f"would overwrite {', '.join(differing)} in {folder}; give --force to do so")
    try:
        for name, source in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(source.read_bytes())
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    click.echo(f"{len(files)} files in {folder}")


def _files() -> dict[str, Path]:
    files = shipped()
    if not files:
        fail("this installation carries no rules; reinstall the package", NOTHING_READ)
    return files
