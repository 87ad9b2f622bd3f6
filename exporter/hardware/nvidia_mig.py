"""MIG: GPUs that are divided into slices, and the slices; runs only inside the worker process.

What NVML calls a MIG device is a compute instance, and the compute instances of one GPU instance share its
memory (CUPTI, "Multi-Instance GPU"; nvidia-smi calls it "Shared Memory-Usage"). A slice here is a GPU
instance, so that no byte is told twice. One without a compute instance has no handle and cannot be seen.

Handles are asked for anew at every reading: those of a slice that was removed are stale, and may come to
stand for another one (nvml.h, nvmlDeviceGetMigDeviceHandleByIndex; libcudacxx#224).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import pynvml as nvml

from exporter.hardware.driver import Reading
from exporter.hardware.nvidia_calls import DEVICE_SCOPED, Device, DriverError, call, text
from exporter.hardware.nvidia_values import larger, memory, processes

SLICE = "mig"
_EMPTY = {nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT}
"""What a place without a slice answers, and a handle whose slice was removed."""
_PLACES_MOST = 64
"""Places that are looked at; today's GPUs have 7 (NVIDIA, MIG user guide)."""
_INSTANCES_MOST = 2**16
"""Above lies 0xFFFFFFFF, which NVML gives where there is no instance."""
_PROFILE = re.compile(r"\bMIG (?:\d{1,2}c\.)?([\w.+-]{1,32})$", re.ASCII)
"""The end of a slice's name; `1c.` says that the compute instance is a part of it."""


class Mode(NamedTuple):
    """Whether the GPU is divided, now and after its next reset."""

    current: bool
    pending: bool


class _Slice(Device):
    """A slice during one reading; that it was removed meanwhile condemns it."""

    condemning = frozenset({*DEVICE_SCOPED, *_EMPTY})


class _Place(NamedTuple):
    """A compute instance as it is enumerated: `place` is its MIG index, `instance` its GPU instance."""

    instance: int
    part: int
    place: int
    device: _Slice


class Mig:
    """Reads divided GPUs; keeps what stays the same about them."""

    def __init__(self, refused: dict[tuple[str, str], float]) -> None:
        self._refused = refused
        self._modes: dict[str, Mode] = {}
        self._names: dict[str, dict[str, tuple[str, str]]] = {}
        """GPU → MIG uuid → (name, profile)"""

    def mode(self, device: Device) -> Mode | None:
        """None where the device cannot be divided; the last answer where it does not answer."""
        answer = device.ask(nvml.nvmlDeviceGetMigMode)
        if answer is None:
            return self._modes.get(device.uuid)
        mode = self._modes[device.uuid] = Mode(*(bool(one) for one in answer))
        return mode

    def slices(self, gpu: Device, identity: Reading) -> tuple[list[Reading], str]:
        """Every slice of a divided GPU, and why the list may lack some, else "".

        Raises DriverError when the GPU as a whole does not answer.
        """
        places, problem = self._places(gpu)
        found = []
        for instance in sorted({one.instance for one in places}):
            parts = sorted((one for one in places if one.instance == instance), key=lambda one: one.part)
            try:
                found.append(self._read(gpu, identity, parts))
            except DriverError as error:
                if error.fatal or error.code in DEVICE_SCOPED:
                    raise
                self._forget(gpu, {one.device.uuid for one in parts})
        if not problem:
            here = {one.device.uuid for one in places}
            if gone := self._names.get(gpu.uuid, {}).keys() - here:
                self._forget(gpu, gone)
        return found, problem

    def _places(self, gpu: Device) -> tuple[list[_Place], str]:
        """The compute instances that can be seen, and why others may be missing."""
        try:
            most = int(call(nvml.nvmlDeviceGetMaxMigDeviceCount, gpu.handle))
        except DriverError as error:
            return [], _noted(gpu, error)
        found: list[_Place] = []
        problem = ""
        for place in range(min(most, _PLACES_MOST)):
            try:
                found.append(self._place(gpu, place))
            except DriverError as error:
                if error.code not in _EMPTY:
                    problem = _noted(gpu, error)
        return found, problem

    def _place(self, gpu: Device, place: int) -> _Place:
        """Raises DriverError when there is none."""
        handle = call(nvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu.handle, place)
        uuid = text(call(nvml.nvmlDeviceGetUUID, handle))
        instance = int(call(nvml.nvmlDeviceGetGpuInstanceId, handle))
        part = int(call(nvml.nvmlDeviceGetComputeInstanceId, handle))
        if instance >= _INSTANCES_MOST or uuid == gpu.uuid:
            raise DriverError(nvml.NVML_ERROR_UNKNOWN, call="nvmlDeviceGetGpuInstanceId")
        return _Place(instance, part, place, _Slice(handle, uuid, self._refused))

    def _read(self, gpu: Device, identity: Reading, parts: list[_Place]) -> Reading:
        """One slice, by the first of its compute instances. Raises DriverError when it is gone."""
        first = parts[0]
        (name, profile), *_ = [self._name(gpu, one.device, str(identity["name"])) for one in parts]
        reading = {
            "identity": {
                **identity,
                "uuid": first.device.uuid,
                "name": name,
                "memory_kind": SLICE,
                "mig": {
                    "parent_uuid": gpu.uuid,
                    "instance": first.instance,
                    "profile": profile,
                    "uuids": [one.device.uuid for one in parts],
                    "places": [one.place for one in parts],
                },
            },
            "values": memory(first.device),
            "processes": _processes(gpu, parts),
            "errors": {call: reason for one in parts for call, reason in one.device.errors.items()},
        }
        for one in parts:  # a handle whose slice was replaced meanwhile answers for the new one
            if text(call(nvml.nvmlDeviceGetUUID, one.device.handle)) != one.device.uuid:
                raise DriverError(nvml.NVML_ERROR_NOT_FOUND, call="nvmlDeviceGetUUID")
        return reading

    def _name(self, gpu: Device, device: _Slice, of_gpu: str) -> tuple[str, str]:
        """Its name and profile, such as "3g.40gb"; "" where nothing tells the profile."""
        known = self._names.setdefault(gpu.uuid, {})
        if device.uuid not in known:
            name = text(device.ask(nvml.nvmlDeviceGetName) or "")
            told = _PROFILE.search(name)
            profile = told[1] if told else ""
            known[device.uuid] = (name or f"{of_gpu} MIG {profile}".rstrip(), profile)
        return known[device.uuid]

    def _forget(self, gpu: Device, uuids: set[str]) -> None:
        """A slice that is created again where one was has the same uuid, and may answer otherwise."""
        for uuid in uuids:
            self._names.get(gpu.uuid, {}).pop(uuid, None)
        for key in [key for key in self._refused if key[0] in uuids]:
            del self._refused[key]


def _processes(gpu: Device, parts: list[_Place]) -> list[list[int | None]] | None:
    """[pid, bytes or None] of all compute instances; None when they cannot be read.

    Where slices are not asked (vGPU hosts: nvml.h), the GPU's own list tells them by their instance.
    """
    found: dict[int, int | None] = {}
    for one in parts:
        of_part = processes(one.device)
        if of_part is None:
            of_gpu = processes(gpu, one.instance)
            return None if of_gpu is None else [[pid, used] for pid, used in of_gpu.items()]
        for pid, used in of_part.items():
            found[pid] = larger(used, found.get(pid))
    return [[pid, used] for pid, used in found.items()]


def _noted(gpu: Device, error: DriverError) -> str:
    """The reason of an error that concerns the list alone. Raises the error when it does not."""
    if error.fatal or error.code in DEVICE_SCOPED:
        raise error
    gpu.errors[error.call] = error.reason
    return error.reason
