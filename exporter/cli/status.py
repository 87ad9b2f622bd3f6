"""`status`: one look at this host, through the running daemon or, without one, by a reading of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from exporter import log
from exporter.cli.common import NOTHING_READ, fail, flags_of, load, print_json, settings_flags, table
from exporter.daemon import paths
from exporter.daemon.control import ControlError, ask, is_alive
from exporter.settings.options import Settings
from exporter.units import format_bytes


@click.command()
@settings_flags
@click.option("--json", "as_json", is_flag=True, help="The whole snapshot as JSON.")
def command(file: Path | None, as_json: bool, **given: Any) -> None:
    """One look at this host: devices, deployments, expected and observed, headroom."""
    settings = load(file, flags_of(given))
    socket = paths.control_socket(settings.state)
    if is_alive(socket):
        try:
            snapshot = ask(socket, {"command": "snapshot"})
        except ControlError as error:
            fail(str(error), NOTHING_READ)
    else:
        snapshot = asyncio.run(_read(settings))
    if snapshot["host"] is None and not any(gpu["reading"] for gpu in snapshot["gpus"]):
        fail("neither host memory nor a GPU could be read; `deepseek-exporter doctor` says why", NOTHING_READ)
    if as_json:
        print_json(snapshot)
    else:
        click.echo(render(snapshot))


async def _read(settings: Settings) -> dict[str, Any]:
    from exporter.daemon.poller import Poller
    from exporter.hardware.inventory import Inventory
    from exporter.snapshot import to_plain

    log.configure("error", settings.log.format)
    poller = Poller(settings, Inventory(None))
    try:
        await poller.poll()
        for _ in range(20):
            # The driver may still be initialising at the first look; declared deployments want its sizes.
            snapshot = await poller.poll()
            if all(source.state != "initialising" for source in snapshot.sources):
                break
        return to_plain(snapshot)
    finally:
        await poller.nvml.close()


def render(snapshot: dict[str, Any]) -> str:
    """The snapshot for a terminal of 80 columns, without colour."""
    parts = [_memory(snapshot), _deployments(snapshot), _sources(snapshot)]
    return "\n\n".join(part for part in parts if part)


def _memory(snapshot: dict[str, Any]) -> str:
    rows = []
    judged = snapshot["assessment"]["devices"]
    for gpu in snapshot["gpus"]:
        identity, reading = gpu["identity"], gpu["reading"] or {}
        used = reading.get("memory_used_bytes")
        name = f"GPU {identity['index']} {identity['name'].removeprefix('NVIDIA ')[:20]}"
        rows.append((name, gpu["state"], _size(used), *_judgement(judged.get(identity["uuid"]))))
    host = snapshot["host"]
    if host is not None:
        used = host["memory_total_bytes"] - host["memory_available_bytes"]
        rows.append(("RAM", "up", _size(used), *_judgement(snapshot["assessment"]["host"])))
    heads = ("memory", "state", "used", "capacity", "committed", "headroom", "")
    return table(heads, rows, right=(2, 3, 4, 5))


def _judgement(commitment: dict[str, Any] | None) -> tuple[str, ...]:
    """Capacity, committed and headroom at the low bound, on which pages are decided."""
    if commitment is None:
        return "–", "–", "–", ""
    headroom = commitment["headroom"]
    verdict = "overcommitted" if headroom["low"] < 0 else "tight" if headroom["high"] < 0 else ""
    sizes = (commitment["capacity"], commitment["committed"]["low"], headroom["low"])
    return (*(_size(size) for size in sizes), verdict)


def _deployments(snapshot: dict[str, Any]) -> str:
    rows, problems = [], []
    for status in snapshot["assessment"]["deployments"]:
        declared = status["declared"]
        footprint = declared["footprint"]
        if footprint is None:
            problems.append(f"{declared['name']}: {declared['problem']}")
            continue
        on_gpu = [rank["total"]["low_bytes"] for rank in footprint["devices"]]
        in_ram = sum(term["low_bytes"] for term in footprint["host"]["components"].values())
        fit = footprint["kv_cache"]["full_length_sequences"]
        rows.append(
            (
                declared["name"],
                footprint["model_id"].rpartition("/")[2],
                footprint["quantization"],
                status["state"],
                f"{len(on_gpu)} × {_size(max(on_gpu))}" if on_gpu else "–",
                _size(in_ram),
                "–" if fit is None else f"{fit:.1f}",
            )
        )
    heads = ("deployment", "model", "quant", "state", "per GPU", "RAM", "full-length")
    text = table(heads, rows, right=(4, 5, 6)) if rows else ""
    return "\n".join(part for part in (text, *problems) if part)


def _sources(snapshot: dict[str, Any]) -> str:
    states = [f"{one['name']}: {one['state']}" for one in snapshot["sources"]]
    return "sources  " + ", ".join(states)


def _size(size_bytes: int | None) -> str:
    return "–" if size_bytes is None else format_bytes(size_bytes)
