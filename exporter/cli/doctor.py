"""`doctor`: can every source be read here, and if not, what to do."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from exporter import log
from exporter.cli.checks import Check
from exporter.cli.common import NO, flags_of, load, print_json, settings_flags, table
from exporter.cli.doctor_alerts import alertmanagers
from exporter.cli.doctor_engines import engines
from exporter.cli.doctor_foreign import foreign
from exporter.cli.doctor_gpus import gpus
from exporter.cli.doctor_stores import stores
from exporter.daemon import paths
from exporter.daemon.control import is_alive
from exporter.hardware.host import HostSource, HostUnreadable
from exporter.settings.options import Settings
from exporter.units import format_bytes


@click.command()
@settings_flags
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def command(file: Path | None, as_json: bool, **given: Any) -> None:
    """Check that every source can be read; exit 1 when something wants doing."""
    settings = load(file, flags_of(given))
    log.configure("error", settings.log.format)
    checks = [
        Check("config", "ok", f"deployments declared: {len(settings.deployments)}"),
        *_host(settings),
        _processes(settings),
        *engines(settings.host.proc_path),
        *gpus(settings),
        *foreign(settings),
        *stores(settings),
        *alertmanagers(settings),
        _state(settings),
        _daemon(settings),
    ]
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        click.echo(table(("check", "", "found"), [(one.id, one.verdict, one.found) for one in checks]))
        for check in checks:
            if check.advice:
                click.echo(f"\n{check.id}: {check.advice}")
    if any(check.verdict == "problem" for check in checks):
        raise SystemExit(NO)


def _host(settings: Settings) -> list[Check]:
    options = settings.host
    try:
        read = HostSource(
            options.proc_path, options.sys_path, cgroup_limit=options.cgroup_limit == "auto"
        ).read()
    except HostUnreadable as error:
        return [Check("host.memory", "problem", str(error), "mount /proc, or set host.proc_path")]
    total = f"{format_bytes(read.memory_total_bytes)}, {format_bytes(read.memory_available_bytes)} available"
    if read.limit_bytes is not None:
        total += " (limit of this container)"
    checks = [Check("host.memory", "ok", total)]
    if read.pressure_full_seconds is None:
        advice = "the kernel gives no /proc/pressure/memory: boot with psi=1 to see memory pressure"
        checks.append(Check("host.pressure", "note", "absent", advice))
    else:
        checks.append(Check("host.pressure", "ok", "readable"))
    nodes = len(read.numa)
    checks.append(Check("host.numa", "ok" if nodes else "note", f"nodes: {nodes}"))
    return checks


def _processes(settings: Settings) -> Check:
    """Other users' processes are seen unless /proc is mounted with hidepid."""
    proc = settings.host.proc_path
    try:
        (proc / "1" / "cmdline").read_bytes()
    except OSError as error:
        return Check(
            "processes",
            "problem",
            f"processes of other users cannot be seen ({error.strerror})",
            "mount /proc without hidepid, or give the service the group that may see it (gid= of the mount): "
            "without it a running deployment counts as not running",
        )
    return Check("processes", "ok", "visible")


def _state(settings: Settings) -> Check:
    folder = paths.inventory_file(settings.state).parent
    existing = next((one for one in (folder, *folder.parents) if one.exists()), Path("/"))
    if os.access(existing, os.W_OK | os.X_OK):
        return Check("state", "ok", f"{folder} can be written")
    advice = (
        "set state.directory to a folder that the daemon may write; without it a GPU that is lost across a "
    )
    return Check(
        "state", "problem", f"{folder} cannot be written", advice + "restart would be absent, not down"
    )


def _daemon(settings: Settings) -> Check:
    path = paths.control_socket(settings.state)
    running = is_alive(path)
    return Check("daemon", "ok" if running else "note", "running" if running else f"not running (no {path})")
