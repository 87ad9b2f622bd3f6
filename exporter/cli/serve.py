"""`serve`: the daemon."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import click

from exporter import log
from exporter.cli.common import fail, flags_of, load, settings_flags


@click.command()
@settings_flags
def command(file: Path | None, **given: Any) -> None:
    """Run the daemon: poll this host and serve /metrics until stopped."""
    flags = flags_of(given)
    settings = load(file, flags)
    log.configure(settings.log.level, settings.log.format)
    from exporter.daemon.control import ControlError
    from exporter.daemon.service import Service
    from exporter.web.server import ListenError

    try:
        asyncio.run(Service(settings, file, flags).run())
    except (ListenError, ControlError) as error:
        fail(str(error))
    # A thread may still be inside a read that does not return; waiting for it would hang the stop.
    os._exit(0)
