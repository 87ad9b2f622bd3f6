"""Two generations of one deployment on a device: while a new one starts, the old one still holds its memory.

For a while that is a roll-out and no shortage. A second replica that is meant to stay looks the same at
first, so the excuse ends when the younger one is old enough.
"""

from __future__ import annotations

from collections.abc import Iterable

from exporter.capacity.observation import Declared, Observation, Running

Generation = tuple[str, str, str]
"""Engine, model and served name: what two generations have in common."""


def outgoing(observation: Observation, within_seconds: float) -> dict[str, frozenset[str]]:
    """Device → deployments on it that a younger generation of themselves is about to replace.

    Only while the youngest is at most ``within_seconds`` old, and only where each one's start is known.
    """
    generations: dict[Generation, list[tuple[float, Declared]]] = {}
    for deployment in observation.declared:
        running = observation.running.get(deployment.name)
        if deployment.name not in observation.owned or running is None or running.started_seconds is None:
            continue
        key = _generation(running)
        if key is not None:
            generations.setdefault(key, []).append((running.started_seconds, deployment))
    found: dict[str, set[str]] = {}
    for group in generations.values():
        for uuid, old in _replaced(group, observation.taken_at_seconds - within_seconds):
            found.setdefault(uuid, set()).add(old)
    return {uuid: frozenset(names) for uuid, names in found.items()}


def _generation(running: Running) -> Generation | None:
    if running.model is None or running.orphaned:
        return None
    return running.engine, running.model, running.served_model or running.model


def _replaced(group: list[tuple[float, Declared]], since_seconds: float) -> Iterable[tuple[str, str]]:
    """(device, older deployment) wherever a younger one, started after ``since_seconds``, shares it."""
    by_device: dict[str, list[tuple[float, str]]] = {}
    for started, deployment in group:
        for uuid in {one for one in deployment.ranks if one}:
            by_device.setdefault(uuid, []).append((started, deployment.name))
    for uuid, members in by_device.items():
        youngest = max(members)
        if youngest[0] >= since_seconds:
            yield from ((uuid, name) for started, name in members if started < youngest[0])
