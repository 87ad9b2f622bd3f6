"""`ctl`: talk to the running daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exporter.cli.common import NO, NOTHING_READ, fail, print_json
from exporter.daemon import paths
from exporter.daemon.control import ControlError, ask
from exporter.settings.options import State


@click.group()
@click.option(
    "--state.control-socket",
    "socket",
    type=click.Path(path_type=Path),
    envvar="DEEPSEEK_EXPORTER_STATE_CONTROL_SOCKET",
    help="The daemon's control socket.",
)
@click.pass_context
def command(context: click.Context, socket: Path | None) -> None:
    """Talk to the running daemon."""
    context.obj = socket or paths.control_socket(State())


def _ask(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return ask(path, request)
    except ControlError as error:
        fail(str(error), NOTHING_READ)


@command.command()
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@click.pass_obj
def status(path: Path, as_json: bool) -> None:
    """How the daemon itself is doing."""
    answer = _ask(path, {"command": "status"})
    if as_json:
        print_json(answer)
        return
    configuration = answer["configuration"]
    click.echo(f"deepseek-exporter {answer['version']}, pid {answer['pid']}, http://{answer['address']}")
    click.echo(f"healthy: {'yes' if answer['healthy'] else 'no, sampling stands still'}")
    for source, state in answer["sources"].items():
        click.echo(f"source {source}: {state}")
    if answer["driver_released"]:
        click.echo("GPU driver: released; `ctl resume` takes it up again")
    if not configuration["successful"]:
        click.echo(f"configuration: last reload failed, the old one is in force: {configuration['problem']}")


@command.command()
@click.pass_obj
def release(path: Path) -> None:
    """Let go of the GPU driver, for a reset, a MIG change or an upgrade; comes back by itself."""
    answer = _ask(path, {"command": "release"})
    if not answer["released"]:
        fail("a worker sleeps inside the driver and cannot be ended; the driver is still held", NO)
    click.echo(f"released; taken up again with `ctl resume` or after {answer['seconds']:.0f} s")


@command.command()
@click.pass_obj
def resume(path: Path) -> None:
    """Take the GPU driver up again."""
    _ask(path, {"command": "resume"})
    click.echo("resumed")


@command.command()
@click.pass_obj
def reload(path: Path) -> None:
    """Read the configuration again, as SIGHUP does; exit 2 when the old one stays in force."""
    answer = _ask(path, {"command": "reload"})
    if not answer["reloaded"]:
        fail(f"{answer['problem']}\nthe old configuration stays in force")
    click.echo("reloaded")


@command.command()
@click.argument("uuid")
@click.pass_obj
def forget(path: Path, uuid: str) -> None:
    """Drop a device from the inventory that was taken out for good."""
    _ask(path, {"command": "forget", "uuid": uuid})
    click.echo(f"forgotten: {uuid}")
