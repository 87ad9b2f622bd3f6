"""Joins what was declared with what runs, names what nobody declared, and says where the two differ.

A declared deployment takes the instance of its engine that fits its program, unit and devices, first of all
one that serves its model. Where no launch could be read, its processes are found by their program alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from exporter.capacity.attribution import devices_of_pids, owners
from exporter.capacity.observation import Declared, Running
from exporter.engines.discovery import Instance
from exporter.engines.process import PROGRAMS, Process
from exporter.hardware.gpu import Gpu, Number

_KIN = (
    frozenset({"llama.cpp", "ik_llama.cpp"}),
    frozenset({"sglang", "ktransformers"}),
)
"""Engines whose processes are told apart by a flag at most."""

_WITHOUT_RANKS = frozenset({"llama.cpp", "ik_llama.cpp", "llama-cpp-python", "ollama"})
_FIELDS = ("tp", "pp", "dp")


@dataclass(frozen=True, slots=True)
class Joined:
    """Which instance each declared deployment is, and which processes it has; and what nobody declared."""

    instances: Mapping[str, Instance]
    owned: Mapping[str, frozenset[int]]
    undeclared: tuple[Instance, ...]


def join(
    declared: Sequence[Declared],
    instances: Sequence[Instance],
    processes: Mapping[int, Process],
    gpus: Iterable[Gpu],
    model_of: Callable[[Instance], str | None],
    roles: Mapping[int, str],
) -> Joined:
    """``model_of`` gives the catalogue's id of what an instance serves, where that is known; ``roles`` are
    those of the processes whose launch could be read.
    """
    gpus = tuple(gpus)
    on_devices = devices_of_pids(gpus)
    free = {one.key: one for one in instances}
    taken: dict[str, Instance] = {}
    for by_model in (True, False):
        for deployment in declared:
            if deployment.name in taken:
                continue
            for instance in free.values():
                if by_model and model_of(instance) != wanted_model(deployment):
                    continue
                if fits(deployment, instance, processes, on_devices):
                    taken[deployment.name] = free.pop(instance.key)
                    break
    owned = {name: instance.pids for name, instance in taken.items()}
    seen = frozenset(pid for one in instances for pid in one.pids)
    strangers = {pid: process for pid, process in processes.items() if pid not in seen}
    rest = [one for one in declared if one.name not in taken]
    owned |= owners([one for one in rest if _by_program(one)], strangers, gpus)
    # Of a process whose launch was read it is known that it serves nothing.
    known = frozenset(roles).union(*owned.values())
    unread = {pid: process for pid, process in strangers.items() if pid not in known}
    owned |= owners([one for one in rest if one.name not in owned], unread, gpus)
    return Joined(taken, owned, tuple(free.values()))


def fits(
    deployment: Declared,
    instance: Instance,
    processes: Mapping[int, Process],
    on_devices: Mapping[int, set[str]],
) -> bool:
    """Whether an instance may be this declared deployment, whatever model it serves."""
    names = {instance.engine, instance.launch.variant or instance.engine}
    if deployment.engine not in names and not any(
        deployment.engine in kin and not names.isdisjoint(kin) for kin in _KIN
    ):
        return False
    tree = [processes[pid] for pid in instance.pids if pid in processes]
    if deployment.unit is not None and not any(deployment.unit in process.units for process in tree):
        return False
    if _by_program(deployment) and not any(
        fnmatchcase(name, pattern)
        for process in tree
        for name in process.programs
        for pattern in deployment.programs
    ):
        return False
    on = {uuid for pid in instance.pids for uuid in on_devices.get(pid, ())}
    return not on or not on.isdisjoint(uuid for uuid in deployment.ranks if uuid)


def _by_program(deployment: Declared) -> bool:
    """Whether its programs are others than those of its engine."""
    return tuple(deployment.programs) != PROGRAMS.get(deployment.engine, ())


def wanted_model(deployment: Declared) -> str:
    """The catalogue's id of the declared model, else the name as it was declared."""
    return deployment.footprint.model_id if deployment.footprint is not None else deployment.model


def differences(declared: Declared, running: Running) -> dict[str, bool]:
    """Field → whether what runs is what was declared, for the fields that both state."""
    found: dict[str, bool] = {}
    if running.model is not None and (running.model_known or declared.footprint is not None):
        found["model"] = running.model.lower() == wanted_model(declared).lower()
    if declared.footprint is not None and running.quantization is not None:
        found["quantization"] = declared.footprint.quantization.lower() == running.quantization.lower()
    if running.engine not in _WITHOUT_RANKS and not running.orphaned:
        for field in _FIELDS:
            # What a launch does not say of these is 1 in every engine.
            found[field] = getattr(declared, field) == (getattr(running, field) or 1)
    for field in ("max_model_len", "max_num_seqs"):
        said, runs = getattr(declared, field), getattr(running, field)
        if said is not None and runs is not None:
            found[field] = said == runs
    return found


class Names:
    """Names of discovered deployments: `<engine>:<served model>`, with more only where two would collide.

    Names that have collided keep their additions as long as one of them is there: none must change when the
    other restarts.
    """

    def __init__(self) -> None:
        self._collided: set[str] = set()

    def of(
        self,
        instances: Sequence[tuple[Instance, str, Number | None]],
        reserved: Iterable[str] = (),
    ) -> dict[tuple[int, int], str]:
        """Instance → name; each comes with its served model and its first device's number."""
        bases: dict[str, list[tuple[Instance, Number | None]]] = {}
        for instance, served, device in instances:
            bases.setdefault(f"{_label(instance)}:{served}", []).append((instance, device))
        self._collided &= bases.keys()
        used = set(reserved)
        result: dict[tuple[int, int], str] = {}
        for base, group in sorted(bases.items()):
            ports = {_port(instance) for instance, _ in group}
            if base in used or (len(group) > 1 and len(ports) > 1):
                self._collided.add(base)
            # The youngest first: an older one on the same port is on its way out.
            for instance, device in sorted(group, key=lambda one: one[0].root.start_ticks, reverse=True):
                name = next(one for one in self._tried(base, instance, device) if one not in used)
                used.add(name)
                result[instance.key] = name
        return result

    def _tried(self, base: str, instance: Instance, device: Number | None) -> Iterable[str]:
        port = _port(instance)
        if base not in self._collided:
            yield base
        if port is not None:
            yield f"{base}:{port}"
        if device is not None:
            yield f"{base}@{device}"
        yield base
        yield from (f"{base}#{number}" for number in range(2, 1 << 16))


def _label(instance: Instance) -> str:
    return instance.launch.variant or instance.engine


def _port(instance: Instance) -> int | None:
    if instance.orphaned:
        return None
    if instance.door is not None and instance.root is instance.server:
        return instance.door.port
    return instance.launch.port
