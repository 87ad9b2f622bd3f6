"""A deployment's part of RAM in words: what of it is missing, where it must stay, how fast it can be."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.units import MIB, format_bytes
from exporter.views.plain import Plain, runs
from exporter.views.words import between, ranges

_BASES = {
    "configured": "as configured",
    "dmi": "by its modules",
    "edac": "by the channels in use",
    "processor": "by what the processor has",
}
_WHOLE = 0.995
"""a ratio that people would call all of it"""
_SWAPPED = 64 * MIB
"""less than this are pages of its start-up"""


def in_ram(status: Plain, plain: Plain) -> tuple[str, bool]:
    """Sentences about RAM, empty where nothing is to say, and whether something in them is wrong."""
    name, judged = status["declared"]["name"], plain["assessment"]
    said = [*_pages(status, plain), *(_place(one) for one in judged["confined"].get(name, ()))]
    bound = judged["decode"].get(name)
    wrong = any(bad for _, bad in said)
    texts = [text for text, _ in said]
    if bound is not None:
        texts.append(_pace(bound))
    return "; ".join(texts), wrong


def _pages(status: Plain, plain: Plain) -> Iterator[tuple[str, bool]]:
    """What of a deployment that runs is not where it should be."""
    memory = plain["assessment"]["host_held"].get(status["declared"]["name"])
    footprint = status["declared"]["footprint"]
    if memory is None or not runs(status):
        return
    ratio = status["resident_ratio"]
    if ratio is not None and ratio < _WHOLE:
        yield f"{ratio * 100:.0f} % of its mapped weights are in RAM", False
    locked = footprint["host"]["locked_bytes"] if footprint else 0
    if locked and memory["locked"] < locked // 2:
        told = f"told to lock {format_bytes(locked)}, has locked {format_bytes(memory['locked'])}"
        yield f"{told}: raise LimitMEMLOCK of its unit", True
    if (memory["swapped"] or 0) >= _SWAPPED:
        yield f"{format_bytes(memory['swapped'])} of it are in swap", False


def _place(place: Plain) -> tuple[str, bool]:
    commitment = place["commitment"]
    nodes = f"NUMA node{'s' if len(place['nodes']) > 1 else ''} {ranges(place['nodes'])}"
    where = "its cgroup" if place["kind"] == "cgroup" else nodes
    low, high = (commitment["capacity"] - commitment["committed"][end] for end in ("low", "high"))
    room = f"{between(-low, -high)} too little" if low < 0 else f"{between(max(high, 0), low)} to spare"
    return f"may use {format_bytes(commitment['capacity'])} of RAM ({where}), {room}", low < 0


def _pace(bound: Plain) -> str:
    read, speed = (bound[key] / 10**9 for key in ("read_bytes_per_token", "bandwidth_bytes_per_second"))
    basis = _BASES.get(bound["basis"], "")
    return (
        f"at most {bound['tokens_per_second']:.1f} tokens/s for one sequence "
        f"({read:.1f} GB of weights each; RAM gives {speed:.0f} GB/s {basis})"
    )
