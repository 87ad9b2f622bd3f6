"""`status`: one look at this host, through the running daemon or, without one, by a reading of its own."""

from __future__ import annotations

import asyncio
import textwrap
from pathlib import Path
from typing import Any

import click

from exporter import log
from exporter.cli.common import NOTHING_READ, fail, flags_of, load, print_json, settings_flags, table
from exporter.daemon import paths
from exporter.daemon.control import ControlError, ask, is_alive
from exporter.settings.options import Settings
from exporter.units import format_bytes

COLUMNS = 80

_NOTICEABLE_BYTES = 2**30
"""What others may hold on a device without being mentioned; the same as of DeepSeekForeignVram."""


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
        await poller.close()


def render(snapshot: dict[str, Any]) -> str:
    """The snapshot for a terminal of `COLUMNS`, without colour."""
    parts = [_demo(snapshot), _memory(snapshot), _deployments(snapshot), _sources(snapshot)]
    return "\n\n".join(part for part in parts if part)


def _demo(snapshot: dict[str, Any]) -> str:
    if not snapshot.get("demo"):
        return ""
    name = snapshot["demo"]
    return _wrapped(f"demo: the recorded host {name} is played; nothing here is this machine's", "")


def _memory(snapshot: dict[str, Any]) -> str:
    rows = []
    judged = snapshot["assessment"]["devices"]
    for gpu in snapshot["gpus"]:
        identity, reading = gpu["identity"], gpu["reading"] or {}
        short = identity["name"].removeprefix("NVIDIA ").removeprefix("GeForce ")
        name = _cut(f"GPU {identity['index']} {short}", 20)
        rows.append(
            _judged(name, gpu["state"], reading.get("memory_used_bytes"), judged.get(identity["uuid"]))
        )
    host = snapshot["host"]
    if host is not None:
        used = host["memory_total_bytes"] - host["memory_available_bytes"]
        rows.append(_judged("RAM", "up", used, snapshot["assessment"]["host"]))
    heads = ("memory", "state", "used", "capacity", "committed", "headroom")
    return "\n".join([table(heads, rows, right=(2, 3, 4, 5)), *_strangers(snapshot)])


def _strangers(snapshot: dict[str, Any]) -> list[str]:
    """A line for each device on which no deployment holds a noticeable part."""
    lines = []
    for gpu in snapshot["gpus"]:
        holdings = snapshot["assessment"]["held"].get(gpu["identity"]["uuid"], ())
        strange = sum(one["size_bytes"] for one in holdings if one["kind"] != "deployment")
        if strange > _NOTICEABLE_BYTES:
            lines.append(f"GPU {gpu['identity']['index']}: {_size(strange)} held by no deployment")
    return lines


def _judged(name: str, state: str, used: int | None, commitment: dict[str, Any] | None) -> tuple[str, ...]:
    """One row: committed and headroom at the low bound, on which pages are decided."""
    if commitment is None:
        return name, state, _size(used), "–", "–", "–"
    headroom = commitment["headroom"]
    verdict = "overcommitted" if headroom["low"] < 0 else "tight" if headroom["high"] < 0 else state
    sizes = (used, commitment["capacity"], commitment["committed"]["low"], headroom["low"])
    return name, verdict, *(_size(size) for size in sizes)


def _deployments(snapshot: dict[str, Any]) -> str:
    """Two lines a deployment: its numbers, and below them what it is."""
    rows, below = [], []
    for status in snapshot["assessment"]["deployments"]:
        declared = status["declared"]
        footprint = declared["footprint"]
        name = _cut(declared["name"], 24)
        if footprint is None:
            rows.append((name, status["state"], "–", "–", "–"))
            below.append(_wrapped(f"no expectation: {declared['problem']}", "  "))
            continue
        on_gpu = [rank["total"]["low_bytes"] for rank in footprint["devices"]]
        in_ram = sum(term["low_bytes"] for term in footprint["host"]["components"].values())
        fit = footprint["kv_cache"]["full_length_sequences"]
        per_gpu = f"{len(on_gpu)} × {_size(max(on_gpu))}" if on_gpu else "–"
        rows.append((name, status["state"], per_gpu, _size(in_ram), "–" if fit is None else f"{fit:.1f}"))
        below.append(_wrapped(f"{footprint['model_id']}, {footprint['quantization']}", "  "))
    if not rows:
        return ""
    head, *lines = table(
        ("deployment", "state", "per GPU", "RAM", "full-length"), rows, right=(2, 3, 4)
    ).splitlines()
    return "\n".join([head, *(text for pair in zip(lines, below, strict=True) for text in pair)])


def _sources(snapshot: dict[str, Any]) -> str:
    states = [f"{one['name']}: {one['state']}" for one in snapshot["sources"]]
    return _wrapped("sources  " + ", ".join(states), "")


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(text, COLUMNS, initial_indent=indent, subsequent_indent=indent)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _size(size_bytes: int | None) -> str:
    return "–" if size_bytes is None else format_bytes(size_bytes)
