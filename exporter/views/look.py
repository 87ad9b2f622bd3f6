"""One look at a host: the whole view of a snapshot in its JSON form, with the verdict that comes first."""

from __future__ import annotations

from exporter.views import alerts as alerting
from exporter.views.deployments import deployments
from exporter.views.facts import AlertFacts, Finding, Level, Memory, SourceFacts, View, worst
from exporter.views.memory import devices, ram
from exporter.views.plain import Plain, gpu_count
from exporter.views.stores import stores
from exporter.views.words import PROSE_MOST, count, duration, kilowatt_hours, sentence, shown, size, watts

STALE_SECONDS = 60.0
"""Where the snapshot has no threshold `source_stale_seconds`"""

HEADLINES = 2
"""As many as can be taken in at one glance"""

_VERDICTS = {
    Level.CRITICAL: "Critical",
    Level.WARNING: "Needs attention",
    Level.INFO: "All well",
    Level.GOOD: "All well",
}


def look(plain: Plain, *, now_seconds: float, host_name: str, poll_seconds: float = 5.0) -> View:
    """The view of a snapshot, which is stale when three polls should have followed it.

    Raises KeyError for a document that is not of this schema.
    """
    memories, host = devices(plain), ram(plain)
    served = deployments(plain)
    told = alerting.alerts(plain, now_seconds)
    disks = stores(plain)
    found = alerting.findings(plain, memories, host, served, disks)
    age = max(0.0, now_seconds - plain["taken_at_seconds"])
    stale_after = max(plain["thresholds"].get("source_stale_seconds", STALE_SECONDS), 3 * poll_seconds)
    stale = age > stale_after
    if stale:
        text = f"nothing was read for {duration(age)}: what follows is old"
        found = (Finding(Level.CRITICAL, text), *found)
    firing = [one.level for one in told if one.state == "firing"]
    level = worst([*firing, *(one.level for one in found)])
    return View(
        host_name=shown(host_name),
        pool=shown(plain["pool"]),
        version=shown(plain.get("version", "")),
        demo=shown(plain.get("demo", "")),
        taken_at_seconds=plain["taken_at_seconds"],
        age_seconds=age,
        stale=stale,
        stale_after_seconds=stale_after,
        level=level,
        verdict=_VERDICTS[level],
        headline=_headline(level, told, found) or _all_well(plain, memories, host),
        alerts=told,
        findings=alerting.untold(plain, found),
        devices=memories,
        ram=host,
        deployments=served,
        sources=_sources(plain, now_seconds),
        energy=_energy(memories, plain),
        stores=disks,
    )


def _headline(level: Level, told: tuple[AlertFacts, ...], found: tuple[Finding, ...]) -> str:
    """What matters most, and how much else does; empty when nothing does."""
    if level.rank < Level.WARNING.rank:
        return ""
    facts = [alerting.as_sentence(one) for one in found if one.level is level]
    if not facts:
        facts = [one.summary or one.name for one in told if one.state == "firing" and one.level is level]
    sentences = [one if one.endswith((".", "…")) else f"{one}." for one in facts[:HEADLINES]]
    if len(facts) > HEADLINES:
        sentences.append(f"And {len(facts) - HEADLINES} more.")
    return " ".join(sentences)


def _all_well(plain: Plain, memories: tuple[Memory, ...], host: Memory | None) -> str:
    """What is served, and where the least is left."""
    running = sum(1 for one in plain["assessment"]["deployments"] if one["state"] != "declared_only")
    slices = len(memories) - gpu_count(plain)
    where = count(gpu_count(plain), "GPU") if memories else "a host without a GPU"
    if slices:
        where += f" and {count(slices, 'MIG slice')}"
    parts = [f"{count(running, 'deployment')} on {where}"]
    known = [one for one in (*memories, host) if one is not None and one.headroom_low_bytes is not None]
    if known:
        least = min(known, key=lambda one: one.headroom_low_bytes or 0)
        parts.append(f"least to spare: {size(least.headroom_low_bytes)} on {least.name}")
    return sentence("; ".join(parts)) + "."


def _sources(plain: Plain, now_seconds: float) -> tuple[SourceFacts, ...]:
    return tuple(
        SourceFacts(
            name=shown(one["name"]),
            state=shown(one["state"]),
            level=Level.GOOD if one["state"] == "up" else Level.WARNING if one["expected"] else Level.INFO,
            words=_source_words(one, now_seconds),
        )
        for one in plain["sources"]
    )


def _source_words(source: Plain, now_seconds: float) -> str:
    state = shown(source["state"], PROSE_MOST).replace("_", " ")
    parts = [state if source["expected"] or source["state"] == "up" else f"{state}, not expected here"]
    last = source["last_success_seconds"]
    if source["state"] != "up":
        parts.append("never read" if last is None else f"last read {duration(now_seconds - last)} ago")
    errors = sum((source["errors"] or {}).values())
    if errors:
        parts.append(count(errors, "error") + " since start")
    return ", ".join(parts)


def _energy(memories: tuple[Memory, ...], plain: Plain) -> str:
    powers = [one.power_watts for one in memories if one.power_watts is not None]
    if not powers:
        return ""
    limits = [one.power_limit_watts for one in memories if one.power_limit_watts is not None]
    parts = [f"{watts(sum(powers))} now"]
    if len(limits) == len(powers):
        parts[0] += f" of {watts(sum(limits))} allowed"
    if len(powers) < gpu_count(plain):
        parts.append(f"measured by {len(powers)} of {gpu_count(plain)} GPUs")
    readings = [gpu["reading"] for gpu in plain["gpus"] if gpu["reading"]]
    joules = [one["energy_joules"] for one in readings if one.get("energy_joules") is not None]
    if joules:
        parts.append(f"{kilowatt_hours(sum(joules))} since the drivers began to count")
    return "; ".join(parts)
