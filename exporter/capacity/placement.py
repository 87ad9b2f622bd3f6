"""Which devices an engine has: by what their drivers list, else by what its launch lets it see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from exporter.engines.discovery import Instance
from exporter.hardware.driver import DIVIDED
from exporter.hardware.gpu import Gpu, GpuIdentity, Number, by_number

_ON_PROCESSORS = frozenset({"llama.cpp", "llama-cpp-python", "ollama", "transformers"})


def devices_of(instance: Instance, gpus: Sequence[Gpu]) -> tuple[Number, ...] | None:
    """Numbers of an instance's devices: those it holds, else those it may see, else the only ones that it can
    have; None: not known yet.

    Engines that also run on the processor have none while they hold none.
    """
    held = {
        gpu.identity.number
        for gpu in gpus
        for process in (gpu.reading.processes or () if gpu.reading else ())
        if process.pid in instance.pids
    }
    launch = instance.launch
    wanted = (launch.gpus or 0) // launch.node[1]
    if len(held) >= max(1, wanted):
        return _sorted(held)
    if launch.engine in _ON_PROCESSORS:
        return _sorted(held)
    silent = {one.number for one in _places(gpus, answering=False)} - held
    if held and len(held) + len(silent) == wanted:
        return _sorted(held | silent)  # a device that was lost is still the engine's
    visible = _visible(instance, gpus)
    if visible and held <= set(visible) and len(visible) >= wanted:
        return visible[: wanted or len(visible)]
    unlisted = _unlisted(gpus)
    if not held and len(unlisted) == max(1, wanted):
        return unlisted  # nobody tells who holds them, and there is no choice
    return _sorted(held) or None


def _unlisted(gpus: Sequence[Gpu]) -> tuple[Number, ...]:
    """Devices whose exporter tells of no processes."""
    return _sorted(
        gpu.identity.number
        for gpu in gpus
        if gpu.identity.source and (gpu.reading is None or gpu.reading.processes is None)
    )


def _sorted(numbers: Iterable[Number]) -> tuple[Number, ...]:
    return tuple(sorted(numbers, key=by_number))


def _places(gpus: Iterable[Gpu], *, answering: bool = True) -> list[GpuIdentity]:
    """What engines can be placed on: devices and slices, not GPUs that are divided. Not `answering`: of
    those, the silent ones."""
    return [
        gpu.identity
        for gpu in gpus
        if gpu.identity.memory_kind != DIVIDED and (answering or gpu.reading is None)
    ]


def _visible(instance: Instance, gpus: Sequence[Gpu]) -> tuple[Number, ...]:
    """The devices that a launch may see, by what its variables list: an index, a uuid or its beginning, or a
    MIG index on a GPU ("0:1", NVIDIA_VISIBLE_DEVICES). Of a divided GPU, the index means its first slice to
    CUDA (MIG user guide), which is known where it is the only one.
    """
    places = _places(gpus)
    found: list[Number] = []
    for part in instance.visible_devices or ():
        gpu, colon, place = part.partition(":")
        if gpu.isdecimal() and colon:
            found += [
                one.number
                for one in places
                if one.mig is not None and one.index == int(gpu) and place in map(str, one.mig.places)
            ]
        elif part.isdecimal():
            here = [one.number for one in places if one.index == int(part)]
            found += here if len(here) == 1 else []
        elif len(part) > 7:
            found += [one.number for one in places if any(uuid.startswith(part) for uuid in one.uuids)]
    return tuple(dict.fromkeys(found))
