"""Alerts of the daemon's own evaluation, and what a snapshot shows to be wrong before an alert tells it."""

from __future__ import annotations

import re

from exporter.units import GIB
from exporter.views import stores
from exporter.views.facts import AlertFacts, DeploymentFacts, Finding, Level, Memory, StoreFacts
from exporter.views.plain import Plain, device_names, gpu_count, strangers_bytes
from exporter.views.words import PROSE_MOST, duration, lowered, sentence, shown, size

_LEVELS = {"critical": Level.CRITICAL, "warning": Level.WARNING}
_LINK = re.compile(r"(https?://[^\s/@\\]+(/[^\s\\]*)?|[A-Za-z0-9_][\w./-]*(#[\w.-]*)?)", re.ASCII)
"""http(s) without credentials, or a path below this page; no other scheme has its colon after a letter."""
_KEYS = ("uuid", "deployment", "source", "store")
"""Labels of an alert's subject that a finding's key may equal"""
_STRANGERS_BYTES = GIB
"""Where the snapshot has no threshold `foreign_vram_bytes`"""


def alerts(plain: Plain, now_seconds: float) -> tuple[AlertFacts, ...]:
    """Firing before pending, critical first, then the one that has lasted longest."""
    devices = device_names(plain)
    found = sorted(
        plain.get("alerts", ()),
        key=lambda one: (
            not one["firing"],
            -_LEVELS.get(one["severity"], Level.INFO).rank,
            one["active_since_seconds"],
            one["name"],
        ),
    )
    return tuple(_alert(one, devices, now_seconds) for one in found)


def _alert(alert: Plain, devices: dict[str, str], now_seconds: float) -> AlertFacts:
    since = alert["firing_since_seconds"] if alert["firing"] else None
    started = since if since is not None else alert["active_since_seconds"]
    return AlertFacts(
        name=shown(alert["name"]),
        severity=shown(alert["severity"]),
        level=_LEVELS.get(alert["severity"], Level.INFO),
        state="firing" if alert["firing"] else "pending",
        held=bool(alert["held"]),
        subject=_subject(alert["subject"], devices),
        summary=shown(alert["summary"], PROSE_MOST),
        description=shown(alert["description"], PROSE_MOST * 2),
        since=f"for {duration(now_seconds - started)}",
        runbook_link=runbook_link(alert["runbook_url"]),
        runbook_text=shown(alert["runbook_url"], 200),
    )


def runbook_link(address: str) -> str | None:
    """The address when it can be followed without harm: http(s), or a path relative to the page."""
    return address if len(address) <= 2000 and _LINK.fullmatch(address) else None


def _subject(labels: Plain, devices: dict[str, str]) -> tuple[str, ...]:
    """Whom it is about. A device known here is named as everywhere else, without its uuid."""
    known = devices.get(labels.get("uuid", ""))
    parts = [known] if known else []
    parts += [
        f"{shown(key)} {shown(value)}"
        for key, value in labels.items()
        if value and not (known and key in ("gpu", "uuid"))
    ]
    return tuple(parts)


def findings(
    plain: Plain,
    devices: tuple[Memory, ...],
    ram: Memory | None,
    deployments: tuple[DeploymentFacts, ...],
    disks: tuple[StoreFacts, ...] = (),
) -> tuple[Finding, ...]:
    """What is not as it should be, worst first; in the order of devices, deployments, stores, sources."""
    found = [
        *_of_memory(plain, devices, ram),
        *_of_deployments(deployments),
        *stores.findings(disks),
        *_of_sources(plain),
    ]
    if ram is None and not any(one.used_bytes is not None for one in devices):
        found.insert(0, Finding(Level.CRITICAL, "nothing is known of this host: no memory could be read"))
    return tuple(sorted(found, key=lambda one: -one.level.rank))


def untold(plain: Plain, found: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Findings that none of the alerts tells already."""
    told = {
        (one["name"], key)
        for one in plain.get("alerts", ())
        for key in [one["subject"][label] for label in _KEYS if label in one["subject"]] or [""]
    }
    return tuple(one for one in found if (one.alert, one.key) not in told)


def _of_memory(plain: Plain, devices: tuple[Memory, ...], ram: Memory | None) -> list[Finding]:
    found = []
    limit = plain["thresholds"].get("foreign_vram_bytes", _STRANGERS_BYTES)
    silenced = _below_silent(plain)
    for one in devices:
        if one.level in (Level.CRITICAL, Level.WARNING):
            if one.key in silenced:
                continue
            alert = "DeepSeekGpuLost" if one.state != "up" else ""
            if one.capacity_bytes is not None:
                over = one.level is Level.CRITICAL
                alert = "DeepSeekVramOvercommitted" if over else "DeepSeekVramOvercommitLikely"
            found.append(Finding(one.level, f"{one.name} is {one.verdict}: {one.headroom}", alert, one.key))
        strange = strangers_bytes(plain, one.key)
        serves = any(piece.kind not in ("other", "unattributed") for piece in one.expected)
        if serves and strange > limit:
            text = f"{size(strange)} on {one.name} held by no deployment"
            found.append(Finding(Level.WARNING, text, "DeepSeekForeignVram", one.key))
    missing = plain["expected_gpus"] - gpu_count(plain)
    if missing > 0:
        text = f"{missing} of {plain['expected_gpus']} GPUs that should be here were never seen"
        found.append(Finding(Level.CRITICAL, text))
    if ram is not None and ram.level in (Level.CRITICAL, Level.WARNING):
        alert = "DeepSeekHostMemoryOvercommitted" if ram.level is Level.CRITICAL else ""
        found.append(Finding(ram.level, f"RAM is {ram.verdict}: {ram.headroom}", alert))
    return found


def _below_silent(plain: Plain) -> set[str]:
    """MIG slices whose GPU does not answer: that is told of the GPU, once."""
    silent = {gpu["identity"]["uuid"] for gpu in plain["gpus"] if gpu["state"] not in ("up", "suspended")}
    return {
        gpu["identity"]["uuid"]
        for gpu in plain["gpus"]
        if (gpu["identity"].get("mig") or {}).get("parent_uuid") in silent
    }


def _of_deployments(deployments: tuple[DeploymentFacts, ...]) -> list[Finding]:
    found = []
    for one in deployments:
        if one.level is not Level.WARNING:
            continue
        if one.state != "warm":
            text = f"{one.name}: {one.state_words}"
        elif one.differs:
            text = f"{one.name} does not run as declared: {', '.join(one.differs)}"
        else:
            text = f"{one.name}: {lowered(one.comparison)}"
        found.append(Finding(Level.WARNING, text, key=one.name))
    return found


def _of_sources(plain: Plain) -> list[Finding]:
    found = [
        Finding(
            Level.WARNING,
            f"source {shown(one['name'])} is {shown(one['state']).replace('_', ' ')}",
            "DeepSeekMonitoringBlind",
            one["name"],
        )
        for one in plain["sources"]
        if one["expected"] and one["state"] != "up"
    ]
    if not plain["reload"]["successful"]:
        text = "the configuration was not reloaded, the old one stays in force; the log says why"
        found.append(Finding(Level.WARNING, text, "DeepSeekConfigReloadFailed"))
    return found


def as_sentence(finding: Finding) -> str:
    """The finding as a headline."""
    return sentence(finding.text)
