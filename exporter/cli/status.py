"""`status`: one look at this host, through the running daemon or, without one, by a reading of its own."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from exporter import log
from exporter.cli.common import NOTHING_READ, fail, flags_of, load, print_json, settings_flags
from exporter.daemon import paths
from exporter.daemon.control import ControlError, ask, is_alive
from exporter.settings.options import Settings

if TYPE_CHECKING:
    from exporter.daemon.poller import Poller
    from exporter.views.facts import View

WATCH_SECONDS = 2.0
STORES_SECONDS = 5.0
"""How long a look of our own waits for the files of the stores."""


@click.command()
@settings_flags
@click.option("--json", "as_json", is_flag=True, help="The whole snapshot as JSON (docs/API.md).")
@click.option(
    "--watch",
    type=click.FloatRange(0.2, 3600),
    is_flag=False,
    flag_value=WATCH_SECONDS,
    metavar="[SECONDS]",
    help=f"Look again every so often until Ctrl-C; {WATCH_SECONDS:g} s when no number follows.",
)
def command(file: Path | None, as_json: bool, watch: float | None, **given: Any) -> None:
    """One look at this host: what is wrong, memory and its headroom, deployments and how they compare."""
    if watch is not None and as_json:
        fail("--watch is for people; ask for --json again and again instead")
    settings = load(file, flags_of(given))
    with _source(settings) as source:
        if watch is not None:
            _watch(source, settings, watch)
            return
        snapshot = _read(source)
    if snapshot["host"] is None and not any(gpu["reading"] for gpu in snapshot["gpus"]):
        fail("neither host memory nor a GPU could be read; `deepseek-exporter doctor` says why", NOTHING_READ)
    if as_json:
        print_json(snapshot)
    else:
        _print(_look(snapshot, settings))


class _Source(Protocol):
    def read(self) -> dict[str, Any]:
        """The JSON form of the latest snapshot. Raises ControlError."""


class _Daemon:
    """The running daemon's word."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Any]:
        return ask(self._path, {"command": "snapshot"})


class _Own:
    """Readings of our own, one after the other."""

    def __init__(self, runner: asyncio.Runner, poller: Poller) -> None:
        self._runner = runner
        self._poller = poller
        self._settled = False

    def read(self) -> dict[str, Any]:
        from exporter.snapshot import to_plain

        snapshot = self._runner.run(self._poller.poll())
        if not self._settled and self._poller.stores.is_watching:
            self._runner.run(self._poller.stores.scan(STORES_SECONDS))
            snapshot = self._runner.run(self._poller.poll())
        for _ in range(0 if self._settled else 20):
            # The driver may still be initialising at the first look; declared deployments want its sizes.
            snapshot = self._runner.run(self._poller.poll())
            if all(source.state != "initialising" for source in snapshot.sources):
                break
        self._settled = True
        return to_plain(snapshot)


@contextmanager
def _source(settings: Settings) -> Iterator[_Source]:
    """The daemon if one runs now, for as long as we look; else our own reading."""
    path = paths.control_socket(settings.state)
    if is_alive(path):
        yield _Daemon(path)
        return
    from exporter.daemon.poller import Poller
    from exporter.hardware.inventory import Inventory

    log.configure("error", settings.log.format)
    with asyncio.Runner() as runner:

        async def made() -> Poller:
            return Poller(settings, Inventory(None))

        poller = runner.run(made())
        try:
            yield _Own(runner, poller)
        finally:
            runner.run(poller.close())


def _read(source: _Source) -> dict[str, Any]:
    try:
        return source.read()
    except ControlError as error:
        fail(str(error), NOTHING_READ)


def _look(snapshot: dict[str, Any], settings: Settings) -> View:
    from exporter.snapshot import SCHEMA
    from exporter.views.look import look

    if snapshot.get("schema") != SCHEMA:
        fail(
            f"the daemon answers in form {snapshot.get('schema')} and this program reads form {SCHEMA}; "
            "use the program of the daemon's version, or restart the daemon",
            NOTHING_READ,
        )
    return look(
        snapshot,
        now_seconds=time.time(),
        host_name=snapshot["demo"] or socket.gethostname(),
        poll_seconds=settings.poll.interval,
    )


def _print(view: View) -> None:
    """Tables and bars on a terminal; without colour and bars, 80 columns wide, elsewhere."""
    from exporter.cli import status_view

    if not sys.stdout.isatty():
        click.echo(status_view.plain_text(view))
        return
    console = status_view.terminal()
    console.print(status_view.whole(view, console, bars=True))


def _watch(source: _Source, settings: Settings, seconds: float) -> None:
    """Until Ctrl-C. A daemon that goes away is told, and what it last said stays."""
    snapshot = _read(source)
    try:
        if sys.stdout.isatty():
            _watch_terminal(source, snapshot, settings, seconds)
        else:
            _watch_pipe(source, snapshot, settings, seconds)
    except KeyboardInterrupt:
        pass


def _watch_terminal(source: _Source, snapshot: dict[str, Any], settings: Settings, seconds: float) -> None:
    from rich.live import Live

    from exporter.cli import status_view

    console, trouble = status_view.terminal(), ""
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                view = _look(snapshot, settings)
                live.update(status_view.whole(view, console, bars=True, trouble=trouble), refresh=True)
                time.sleep(seconds)
                try:
                    snapshot, trouble = source.read(), ""
                except ControlError as error:
                    trouble = str(error)
    finally:
        # The screen that was before has come back: what was seen last stays on it.
        console.print(status_view.whole(_look(snapshot, settings), console, bars=True, trouble=trouble))


def _watch_pipe(source: _Source, snapshot: dict[str, Any], settings: Settings, seconds: float) -> None:
    from exporter.cli import status_view

    while True:
        click.echo(status_view.plain_text(_look(snapshot, settings)) + "\n")
        time.sleep(seconds)
        try:
            snapshot = source.read()
        except ControlError as error:
            click.echo(f"error: {error}\n", err=True)
