"""The command line; one file per command, loaded when it is called."""

from __future__ import annotations

import importlib

import click

from exporter import __version__

COMMANDS = {
    "serve": "exporter.cli.serve",
    "status": "exporter.cli.status",
    "footprint": "exporter.cli.footprint",
    "models": "exporter.cli.models",
    "doctor": "exporter.cli.doctor",
    "config": "exporter.cli.config",
    "ctl": "exporter.cli.ctl",
    "rules": "exporter.cli.rules",
}
"""Command → module; each has a click command named `command`."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = importlib.import_module(module).command
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="deepseek-exporter")
def main() -> None:
    """What DeepSeek models need of this host's GPU memory and RAM, and how close it is to running out.

    Exit codes: 0 fine, 1 the answer is no, 2 usage or configuration error, 3 nothing could be read.
    """
