"""The devices of one vendor: which were ever seen here, what each said last, in which state it is now.

MIG slices stand below their GPU. They are remembered while the GPU does not answer, and dropped as soon as it
answers without them: who removed one meant to.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from exporter import log
from exporter.hardware import gpu
from exporter.hardware.backend import Backend
from exporter.hardware.gpu import Gpu, GpuIdentity, GpuState
from exporter.hardware.inventory import Inventory
from exporter.hardware.process import Message
from exporter.hardware.sweep import Pass, Slices

_log = log.get(__name__)

_MALFORMED = (KeyError, TypeError, ValueError, OverflowError)
"""What an answer that is none raises when it is taken apart: a JSON number may be infinite, too."""

Absence = tuple[GpuState, str]
"""The state of a device that gave no answer, and the reason."""


class Roster:
    """`errors` counts what the devices' answers lacked, by reason."""

    def __init__(self, backend: Backend, inventory: Inventory, errors: Counter[str]) -> None:
        self._backend = backend
        self._inventory = inventory
        self._errors = errors
        self._first = self._first_index()
        self._uuid_at = {one.index - self._first: one.uuid for one in self.remembered()}
        """by the driver's own index"""
        self._last: dict[str, Gpu] = {}
        self._slices: dict[str, dict[str, Gpu]] = {}
        """GPU → uuid → slice, as last listed"""
        self._xid: dict[str, dict[int, tuple[int, float]]] = {}

    def remembered(self) -> list[GpuIdentity]:
        """Every device of this vendor that was ever seen here, by index; without slices."""
        return [one for one in self._inventory.all() if one.vendor == self._backend.vendor]

    def uuid_at(self, index: int) -> str | None:
        """The device that was last seen at one of the driver's indices."""
        return self._uuid_at.get(index)

    def index_of(self, identity: GpuIdentity) -> int:
        """The driver's own index."""
        return identity.index - self._first

    def begin(self) -> None:
        """A sweep begins: the vendors that come first may have more devices by now."""
        self._first = self._first_index()

    def take(self, message: Message, driver_version: str, progress: Pass) -> None:
        """One device's answer, good or bad. A malformed one is counted, and left out."""
        index = int(message["index"])
        if message["kind"] == "device":
            try:
                one = self._reading(message, driver_version)
            except _MALFORMED:
                self._errors["malformed_reading"] += 1
                return
            self._know(index, one.identity)
            progress.fresh[one.identity.uuid] = one
            if "slices" in message:
                progress.slices[one.identity.uuid] = self._listed(message, one, driver_version)
            return
        state = GpuState(message["state"])
        if state is not GpuState.SUSPENDED:
            self._errors[str(message["reason"])] += 1
        if "identity" in message:
            self._know(index, self._identify(message, driver_version))
        known = self._identity_at(index)
        if known is not None:
            progress.fresh[known.uuid] = Gpu(known, state, reason=str(message["reason"]))

    def count_xid(self, message: Message) -> None:
        """Raises KeyError, TypeError or ValueError on a malformed message."""
        uuid, xid, at = str(message["uuid"]), int(message["xid"]), float(message["at"])
        times, _ = self._xid.setdefault(uuid, {}).get(xid, (0, 0.0))
        self._xid[uuid][xid] = (times + 1, at)
        _log.warning("Xid error", uuid=uuid, xid=xid)

    def assemble(self, progress: Pass, absence: Callable[[GpuIdentity], Absence]) -> tuple[Gpu, ...]:
        """Every known device with its present state; one line in the log for each that changed."""
        result: list[Gpu] = []
        last: dict[str, Gpu] = {}
        slices: dict[str, dict[str, Gpu]] = {}
        for identity in self.remembered():
            uuid, before = identity.uuid, self._last.get(identity.uuid)
            one = progress.fresh.get(uuid) or Gpu(identity, *absence(identity))
            if one.last_success_seconds is None and before is not None:
                one = replace(one, last_success_seconds=before.last_success_seconds)
            one = replace(one, xid_errors=dict(self._xid.get(uuid, {})))
            _log_change(before, one)
            last[uuid] = one
            known = self._slices.get(uuid, {})
            now = {of.identity.uuid: of for of in _slices(one, known, progress.slices.get(uuid))}
            if now:
                slices[uuid] = now
            if now.keys() != known.keys():
                _log_slices(one, now)
            result += [one, *now.values()]
        self._last, self._slices = last, slices
        return tuple(result)

    def _reading(self, message: Message, driver_version: str) -> Gpu:
        """Raises KeyError, TypeError or ValueError on a malformed answer."""
        identity = self._identify(message, driver_version)
        reading = gpu.reading_from(message)
        for reason in dict(message.get("errors", {})).values():
            self._errors[str(reason)] += 1
        return Gpu(identity, GpuState.UP, reading=reading, last_success_seconds=time.time())

    def _listed(self, message: Message, of: Gpu, driver_version: str) -> Slices:
        """The slices that a GPU's answer lists; a malformed one costs itself alone."""
        found: list[Gpu] = []
        problem = str(message.get("slices_problem", ""))
        for plain in message["slices"] if isinstance(message["slices"], list) else ({},):
            try:
                one = self._reading(plain, driver_version)
                if one.identity.mig is None or one.identity.mig.parent_uuid != of.identity.uuid:
                    raise ValueError("no slice of this device")
                found.append(one)
            except _MALFORMED:
                self._errors["malformed_reading"] += 1
                problem = problem or "malformed_answer"
        return Slices(tuple(sorted(found, key=lambda one: one.identity.order)), problem)

    def _identify(self, message: Message, driver_version: str) -> GpuIdentity:
        """Whose answer it is. Raises KeyError, TypeError or ValueError on a malformed one."""
        return gpu.identity_from(
            message["identity"],
            vendor=self._backend.vendor,
            driver_version=driver_version,
            first_index=self._first,
        )

    def _know(self, index: int, identity: GpuIdentity) -> None:
        self._uuid_at[index] = identity.uuid
        self._inventory.remember(identity)

    def _identity_at(self, index: int) -> GpuIdentity | None:
        uuid = self._uuid_at.get(index)
        return next((one for one in self.remembered() if one.uuid == uuid), None)

    def _first_index(self) -> int:
        """The index of the driver's first device: after those of the vendors that come before."""
        before = [one.index for one in self._inventory.all() if one.vendor in self._backend.after_vendors]
        return max(before, default=-1) + 1


def _slices(of: Gpu, known: dict[str, Gpu], listed: Slices | None) -> Iterator[Gpu]:
    """The slices of a GPU now. While it does not answer, or not for its slices, those that it had share the
    reason; one that answers without MIG mode has none."""
    if of.state is not GpuState.UP:
        for one in known.values():
            yield _silent(one, of, of.state, f"its GPU: {of.reason}")
    elif listed is not None:
        yield from listed.gpus
        state = GpuState.NO_PERMISSION if listed.problem == "no_permission" else GpuState.ERROR
        uuids = {one.identity.uuid for one in listed.gpus}
        places = {one.identity.number for one in listed.gpus}
        for uuid, one in known.items() if listed.problem else ():
            if uuid not in uuids and one.identity.number not in places:
                yield _silent(one, of, state, f"its GPU does not list it: {listed.problem}")


def _silent(one: Gpu, of: Gpu, state: GpuState, reason: str) -> Gpu:
    identity = replace(one.identity, index=of.identity.index)
    return Gpu(identity, state, reason=reason, last_success_seconds=one.last_success_seconds)


def _log_change(before: Gpu | None, now: Gpu) -> None:
    if before is None or before.state != now.state:
        write = _log.info if now.state in gpu.HEALTHY else _log.warning
        one = now.identity
        write("device state", gpu=one.index, uuid=one.uuid, state=now.state, reason=now.reason)


def _log_slices(of: Gpu, now: dict[str, Gpu]) -> None:
    named = [f"{one.identity.number} {one.identity.mig.profile}" for one in now.values() if one.identity.mig]
    _log.info("MIG slices", gpu=of.identity.index, uuid=of.identity.uuid, slices=", ".join(named) or "none")
