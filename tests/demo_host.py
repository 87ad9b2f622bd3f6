"""Recorded hosts through the real pipeline in this process: discovery, telemetry, arithmetic, rendering.

Only time is chosen: a test begins where in the script it likes, instead of waiting for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

from daemon_process import Metrics
from prometheus_client.parser import text_string_to_metric_families

from exporter.daemon.poller import Poller
from exporter.demo import profile
from exporter.demo.stage import Stage
from exporter.demo.timeline import ALONE_LASTS, ALONE_STARTS_AT
from exporter.exposition.collect import samples
from exporter.exposition.render import Renderer
from exporter.hardware.inventory import Inventory
from exporter.settings.options import Amd, Host, Nvml, Poll, Settings
from exporter.snapshot import Snapshot

IN_FULL = ALONE_STARTS_AT + ALONE_LASTS / 3
"""Seconds at which an incident that was asked for is fully there, and stays for a while."""
_POLLS = 60


@dataclass(frozen=True)
class Seen:
    """What one host was seen as."""

    snapshot: Snapshot
    metrics: Metrics
    text: str


def cases() -> list[tuple[str, str]]:
    """(profile, incident) of all that there are."""
    return [(name, one.name) for name in profile.names() for one in profile.load(name).incidents]


def see(directory: Path, name: str, incident: str | None = None) -> Seen:
    """One profile as the exporter sees it, when it has found what there is to find; an incident in full.

    A device must have been there before it can be lost: such an incident is waited for.
    """
    loses = incident is not None and profile.load(name).incident(incident).lost_gpus
    at_seconds = ALONE_STARTS_AT - 1 if loses else IN_FULL if incident else 0.0
    return asyncio.run(_see(directory, name, incident, at_seconds))


async def _see(directory: Path, name: str, incident: str | None, at_seconds: float) -> Seen:
    directory.mkdir()
    stage = Stage(profile.load(name), incident, directory, begin_at_seconds=at_seconds)
    vendor = stage.profile.devices.vendor if stage.profile.devices else ""
    settings = Settings(
        poll=Poll(interval=1),
        host=Host(proc_path=directory / "proc", sys_path=directory / "sys"),
        nvml=Nvml(enabled=vendor == "nvidia"),
        amd=Amd(enabled=vendor == "amd"),
        pool="demo",
    )
    playing = asyncio.create_task(stage.play())
    poller = Poller(settings, Inventory(None), demo=name, gpu_worker=stage.worker_command)
    try:
        snapshot = await _settled(poller, stage)
        if at_seconds and at_seconds < ALONE_STARTS_AT:
            snapshot = await _lost(poller)
        if incident is not None and stage.profile.incident(incident).busy_interfaces:
            snapshot = await _full(poller)
    finally:
        await poller.close()
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
    text = Renderer().render(samples(snapshot)).text.decode()
    metrics: Metrics = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            metrics.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return Seen(snapshot, metrics, text)


async def _settled(poller: Poller, stage: Stage) -> Snapshot:
    """Polls until driver and engines have answered, and once more."""
    answering = sum(one.answers and not one.during for one in stage.profile.engines)
    for _ in range(_POLLS):
        await poller.scan_processes()
        snapshot = await poller.poll()
        found = [one.running_as for one in snapshot.assessment.deployments if one.running_as is not None]
        heard = sum(one.answered is not None for one in found)
        if snapshot.sources[0].state in ("up", "disabled") and found and heard >= answering:
            return await poller.poll()
        await asyncio.sleep(0.1)
    raise AssertionError(f"{stage.name} did not settle: {snapshot.sources}")


async def _full(poller: Poller) -> Snapshot:
    """Polls until a link is as full as it is, which takes two readings and the rhythm of the played files."""
    for _ in range(_POLLS):
        snapshot = await poller.poll()
        links = [one.link for one in snapshot.assessment.deployments if one.link is not None]
        if any(link.usage_ratio.get("sent", 0) > 0.9 for link in links):
            return snapshot
        await asyncio.sleep(0.1)
    raise AssertionError("no link was full")


async def _lost(poller: Poller) -> Snapshot:
    """Polls until a device is missing."""
    for _ in range(_POLLS):
        snapshot = await poller.poll()
        if any(one.reading is None for one in snapshot.gpus):
            return await poller.poll()
        await asyncio.sleep(0.1)
    raise AssertionError("no device was lost")
