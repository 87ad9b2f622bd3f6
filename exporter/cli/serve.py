"""`serve`: the daemon, on this host or, with `--demo`, on a recorded one."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from exporter import log
from exporter.cli.common import fail, flags_of, load, settings_flags
from exporter.settings.options import Settings

if TYPE_CHECKING:
    from exporter.demo.stage import Stage

_log = log.get(__name__)

Flags = dict[str, dict[str, Any]]


@click.command()
@click.option(
    "--demo", metavar="PROFILE", help="Play a recorded host in the place of this one; `list` names them."
)
@click.option("--demo-incident", metavar="NAME", help="Of its incidents play this one alone, each minute.")
@settings_flags
def command(file: Path | None, demo: str | None, demo_incident: str | None, **given: Any) -> None:
    """Run the daemon: poll this host and serve /metrics until stopped."""
    flags = flags_of(given)
    if demo == "list":
        _list()
    elif demo is not None:
        _play(demo, demo_incident, file, flags)
    elif demo_incident is not None:
        fail("--demo-incident needs --demo PROFILE; `serve --demo list` names both")
    else:
        _run(load(file, flags), file, flags)


def _list() -> None:
    from exporter.demo import profile

    for name in profile.names():
        host = profile.load(name)
        click.echo(f"{name}: {host.title}")
        for incident in host.incidents:
            click.echo(f"  {incident.name}: {incident.meaning}")


def _play(name: str, incident: str | None, file: Path | None, flags: Flags) -> NoReturn:
    """The daemon on a recorded host, with a configuration of its own unless one is named."""
    from exporter.demo.profile import UnknownProfile
    from exporter.demo.stage import stage

    try:
        with stage(name, incident) as played:
            file = file or played.configuration
            flags = _with_stage(flags, played)
            _run(load(file, flags), file, flags, played)
    except UnknownProfile as error:
        fail(str(error))
    except OSError as error:
        fail(f"no place for the files of the demo: {error.strerror or error}; TMPDIR names another one")


def _with_stage(flags: Flags, played: Stage) -> Flags:
    """The flags with those of the stage, which may not be given; the control socket may."""
    merged = {section: dict(values) for section, values in flags.items()}
    for section, values in played.flags.items():
        for key, value in values.items():
            if key == "control_socket" and key in merged.get(section, {}):
                continue
            if key in merged.get(section, {}):
                fail(f"--{section}.{key.replace('_', '-')} is what --demo sets: leave it out")
            merged.setdefault(section, {})[key] = value
    return merged


def _run(settings: Settings, file: Path | None, flags: Flags, played: Stage | None = None) -> NoReturn:
    """The daemon, until it is stopped."""
    log.configure(settings.log.level, settings.log.format)
    from exporter.daemon.control import ControlError
    from exporter.daemon.service import Service
    from exporter.web.server import ListenError

    if played is not None:
        _log.warning(
            "demo: a recorded host is played, nothing shown is this machine's",
            profile=played.name,
            ask=f"deepseek-exporter status --state.control-socket {settings.state.control_socket}",
        )
    try:
        asyncio.run(Service(settings, file, flags, stage=played).run())
    except (ListenError, ControlError) as error:
        fail(str(error))
    if played is not None:
        played.strike()
    # A thread may still be inside a read that does not return; waiting for it would hang the stop.
    os._exit(0)
