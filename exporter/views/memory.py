"""The memory of each device and of RAM: what is expected of it, what is in use, and what is left."""

from __future__ import annotations

from exporter.views.facts import Level, Memory, Piece
from exporter.views.plain import (
    COMPONENT_LABELS,
    Plain,
    counts,
    expected_bytes,
    in_use_bytes,
    number,
    ranks,
)
from exporter.views.words import PROSE_MOST, between, count, kilowatt_hours, shown, size, watts

_Verdict = tuple[Level, str, str]
"""Level, verdict and sentence"""
_LABELS = {"other": "other processes", "unattributed": "no process"}
_STATE_LEVELS = {
    "up": Level.GOOD,
    "suspended": Level.INFO,
    "released": Level.WARNING,
    "no_permission": Level.WARNING,
    "source_down": Level.WARNING,
}
_STATE_MEANINGS = {
    "stalled": "a call to it does not return, so it is left alone",
    "lost": "the driver no longer has it",
    "error": "the driver answers with an error",
    "no_permission": "the driver refuses to tell",
    "released": "the driver was let go on request",
    "driver_down": "no driver answers",
    "source_down": "the exporter that tells of it does not answer",
    "initialising": "not read yet",
    "suspended": "powered down because nobody uses it",
}


def devices(plain: Plain) -> tuple[Memory, ...]:
    """Every device that is here or remembered, by index; MIG slices below their GPU."""
    gpus = sorted(plain["gpus"], key=lambda gpu: _order(gpu["identity"]))
    return tuple(_device(gpu, plain) for gpu in gpus)


def _order(identity: Plain) -> tuple[int, int]:
    mig = identity.get("mig")
    return int(identity["index"]), -1 if mig is None else int(mig["instance"])


def _device(gpu: Plain, plain: Plain) -> Memory:
    identity, reading = gpu["identity"], gpu["reading"] or {}
    uuid, state = identity["uuid"], gpu["state"]
    commitment = plain["assessment"]["devices"].get(uuid)
    held = tuple(
        Piece(one["kind"], _LABELS.get(one["kind"], shown(one["holder"])), "", one["size_bytes"])
        for one in plain["assessment"]["held"].get(uuid, ())
        if one["size_bytes"] > 0
    )
    expected = _expected_on(plain, uuid)
    strangers = sum(piece.size_bytes for piece in held if piece.kind != "deployment")
    if strangers:
        expected = (*expected, Piece("other", "others", "", strangers))
    product = shown(identity["name"])
    for vendor in ("NVIDIA ", "GeForce ", "AMD "):
        product = product.removeprefix(vendor)
    if (mig := identity.get("mig")) is not None and mig["profile"]:
        product = f"MIG {shown(mig['profile'])}"
    used = reading.get("memory_used_bytes")
    if used is None and identity["memory_kind"] == "unified" and uuid in plain["assessment"]["held"]:
        used = sum(piece.size_bytes for piece in held)  # what processes hold: the driver tells no more
    judged = _judge(state, _why_not(state, gpu.get("reason", "")), commitment)
    if identity["memory_kind"] == "divided" and state == "up":
        judged = _judge_divided(reading)
    if identity["memory_kind"] == "unified" and (in_ram := plain["assessment"]["host"]) is not None:
        level, verdict, sentence = judged
        judged = level, verdict, f"{sentence}; of RAM, which it shares: {_judge('up', '', in_ram)[2]}"
    return _memory(
        (uuid, f"GPU {number(identity)}", product),
        (state, judged, commitment),
        (reading.get("memory_total_bytes"), used),
        expected,
        held,
        power=(reading.get("power_watts"), reading.get("power_limit_watts")),
        facts=_device_facts(gpu, reading),
    )


def ram(plain: Plain) -> Memory | None:
    """The host's memory, or the container's; None while it cannot be read."""
    host = plain["host"]
    if host is None:
        return None
    judged = plain["assessment"]
    held: list[Piece] = []
    mapped: list[Piece] = []
    for status in judged["deployments"]:
        name = shown(status["declared"]["name"])
        memory = judged["host_held"].get(status["declared"]["name"])
        if memory is None:
            continue
        held.append(Piece("deployment", name, "", in_use_bytes(memory)))
        footprint = status["declared"]["footprint"]
        pages = min(memory["file"], footprint["host"]["mapped_bytes"]) if footprint else 0
        if pages:
            mapped.append(Piece("mapped", "mapped weights", name, pages))
    other = judged["host_other"] or 0
    strangers = (Piece("other", "other processes", "", other),) if other else ()
    return _memory(
        ("ram", "RAM", "of the container" if host.get("limit_bytes") else ""),
        ("up", _judge("up", "", judged["host"]), judged["host"]),
        (host["memory_total_bytes"], host["memory_total_bytes"] - host["memory_available_bytes"]),
        (*_expected_in_ram(plain), *(Piece("other", "others", "", piece.size_bytes) for piece in strangers)),
        (*(piece for piece in held if piece.size_bytes), *mapped, *strangers),
        facts=_ram_facts(host),
    )


def _memory(
    names: tuple[str, str, str],
    judged: tuple[str, _Verdict, Plain | None],
    sizes: tuple[int | None, int | None],
    expected: tuple[Piece, ...],
    held: tuple[Piece, ...],
    *,
    power: tuple[float | None, float | None] = (None, None),
    facts: tuple[tuple[str, str], ...] = (),
) -> Memory:
    key, name, product = names
    state, (level, verdict, headroom), commitment = judged
    total, used = sizes
    committed = commitment["committed"] if commitment else {"low": None, "high": None}
    extent = [total or 0, used or 0, *(sum(one.size_bytes for one in row) for row in (expected, held))]
    return Memory(
        key=shown(key),
        name=name,
        product=product,
        state=state,
        level=level,
        verdict=verdict,
        headroom=headroom,
        total_bytes=total,
        used_bytes=used,
        capacity_bytes=commitment["capacity"] if commitment else None,
        committed_low_bytes=committed["low"],
        committed_high_bytes=committed["high"],
        headroom_low_bytes=commitment["headroom"]["low"] if commitment else None,
        expected=expected,
        held=held,
        scale_bytes=max(1, *extent),
        power_watts=power[0],
        power_limit_watts=power[1],
        facts=facts,
    )


def _judge_divided(reading: Plain) -> _Verdict:
    """A GPU in MIG mode gives its memory to its slices, and without any to nobody."""
    slices = reading.get("mig_slices")
    if slices is None:
        return Level.WARNING, "divided", "its MIG slices cannot be listed, so what they hold is not known"
    if slices == 0:
        return (
            Level.WARNING,
            "without slices",
            "it is in MIG mode, and nothing can be served on it until a slice is created",
        )
    return Level.GOOD, "divided", f"divided into {count(slices, 'MIG slice')}, which have its memory"


def _judge(state: str, why_not: str, commitment: Plain | None) -> _Verdict:
    """Pages are decided on the low end, tickets on the high end."""
    if state != "up":
        return _STATE_LEVELS.get(state, Level.CRITICAL), shown(state).replace("_", " "), why_not
    if commitment is None:
        return Level.INFO, state, "what it can give is not known"
    low, high = commitment["headroom"]["low"], commitment["headroom"]["high"]
    if low < 0:
        return Level.CRITICAL, "overcommitted", f"{between(-low, -high)} more promised than it can give"
    if high < 0:
        return (
            Level.WARNING,
            "tight",
            f"{size(low)} to spare at best, {size(-high)} short if every estimate comes out high",
        )
    return Level.GOOD, state, f"{between(high, low)} to spare"


def _why_not(state: str, reason: str) -> str:
    meaning = _STATE_MEANINGS.get(state, "its memory cannot be read")
    return meaning + (f" ({shown(reason, PROSE_MOST)})" if reason else "")


def _expected_on(plain: Plain, uuid: str) -> tuple[Piece, ...]:
    pieces: dict[tuple[str, str], int] = {}
    for status in plain["assessment"]["deployments"]:
        if not counts(status):
            continue
        for at, rank in ranks(status):
            if at != uuid:
                continue
            for component, term in rank["components"].items():
                key = (component, shown(status["declared"]["name"]))
                pieces[key] = pieces.get(key, 0) + expected_bytes(term)
    return _pieces(pieces)


def _expected_in_ram(plain: Plain) -> tuple[Piece, ...]:
    return _pieces(
        {
            (component, shown(status["declared"]["name"])): expected_bytes(term)
            for status in plain["assessment"]["deployments"]
            if counts(status) and status["declared"]["footprint"] is not None
            for component, term in status["declared"]["footprint"]["host"]["components"].items()
        }
    )


def _pieces(sizes: dict[tuple[str, str], int]) -> tuple[Piece, ...]:
    return tuple(
        Piece(component, COMPONENT_LABELS.get(component, shown(component)), owner, size_bytes)
        for (component, owner), size_bytes in sizes.items()
        if size_bytes > 0
    )


def _device_facts(gpu: Plain, reading: Plain) -> tuple[tuple[str, str], ...]:
    """What else the device says, as name and value."""
    found: list[tuple[str, str]] = [("uuid", shown(gpu["identity"]["uuid"]))]
    if gpu["identity"]["memory_kind"] == "unified":
        found.append(("memory", "unified: it is the host's RAM, and promised there too"))
    if modes := reading.get("mig_enabled"):
        words = {True: "on", False: "off"}
        later = "" if modes["current"] == modes["pending"] else f", {words[modes['pending']]} after a reset"
        found.append(("MIG mode", words[modes["current"]] + later))
    if (power := reading.get("power_watts")) is not None:
        limit = reading.get("power_limit_watts")
        found.append(("power", watts(power) + (f" of {watts(limit)}" if limit else "")))
    if (energy := reading.get("energy_joules")) is not None:
        found.append(("energy so far", kilowatt_hours(energy)))
    if (busy := reading.get("utilization_ratio")) is not None:
        found.append(("busy", f"{busy:.0%}".replace("%", " %")))
    if degrees := reading.get("temperature_celsius"):
        parts = [f"{shown(part)} {value:.0f} °C" for part, value in degrees.items()]
        found.append(("temperature", ", ".join(parts)))
    limits = [why for why, on in (reading.get("clocks_limited") or {}).items() if on]
    if limits:
        found.append(("clocks limited by", ", ".join(shown(why).replace("_", " ") for why in limits)))
    uncorrected = (reading.get("ecc_errors") or {}).get("uncorrected")
    if uncorrected:
        found.append(("uncorrected ECC errors", f"{uncorrected:,}"))
    if xids := gpu.get("xid_errors"):
        found.append(("Xid errors", ", ".join(f"{code} × {seen[0]}" for code, seen in xids.items())))
    return tuple(found)


def _ram_facts(host: Plain) -> tuple[tuple[str, str], ...]:
    found = []
    if host.get("swap_total_bytes"):
        found.append(("swap", f"{size(host['swap_used_bytes'])} of {size(host['swap_total_bytes'])}"))
    if host.get("hugepages_total_bytes"):
        free = host.get("hugepages_free_bytes")
        found.append(("huge pages", f"{size(free)} free of {size(host['hugepages_total_bytes'])}"))
    if host.get("oom_kills"):
        found.append(("out-of-memory kills since boot", f"{host['oom_kills']:,}"))
    return tuple(found)
