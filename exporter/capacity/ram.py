"""What is promised of a host's RAM: by deployments, and in use by everything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from exporter.capacity.bounds import ZERO, Bounds, sum_bounds
from exporter.capacity.observation import Declared, Observation
from exporter.engines.process import ProcessMemory
from exporter.hardware.host import HostReading


def expected(deployment: Declared) -> Bounds:
    """What a deployment should hold in RAM once warm, mapped weights included."""
    if deployment.footprint is None:
        return ZERO
    return sum_bounds([deployment.footprint.host.total])


def claim(deployment: Declared, memory: ProcessMemory | None) -> Bounds:
    """What a deployment that runs counts for in RAM: what it should hold, and no less than it cannot give
    back. Of weights that should be locked and are not, the pages behind rearranged copies can go.
    """
    need = expected(deployment)
    if memory is None or deployment.footprint is None:
        return need.at_least(memory.pinned if memory else 0)
    host = deployment.footprint.host
    if host.mapped_bytes and memory.locked < host.locked_bytes // 2:
        need = Bounds(need.low - (host.locked_bytes - host.mapped_bytes), need.high)
    return need.at_least(memory.pinned)


def others(host: HostReading, held: Mapping[str, ProcessMemory]) -> int:
    """RAM in use that no deployment holds. Page cache is not in use: the kernel gives it back, unless it is
    locked.
    """
    in_use = host.memory_total_bytes - host.memory_available_bytes
    return max(0, in_use - sum(one.pinned for one in held.values()))


def spare_hugepages(observation: Observation, held: Mapping[str, ProcessMemory]) -> int:
    """Of the huge pages that are set aside and free, what deployments that use such pages have yet to take:
    it is in use by nobody else, and promised to them already.
    """
    assert observation.host is not None
    missing = sum(
        expected(one).beyond(held[one.name].pinned).high
        for one in observation.declared
        if one.name in held and held[one.name].hugepages
    )
    return min(observation.host.hugepages_free_bytes or 0, missing)


def committed(declared: Iterable[Declared], held: Mapping[str, ProcessMemory], running: set[str]) -> Bounds:
    """What deployments claim of RAM: those that run, and the room of required ones that do not."""
    total = ZERO
    for deployment in declared:
        if deployment.name in running:
            total += claim(deployment, held.get(deployment.name))
        elif deployment.required:
            total += expected(deployment)
    return total
