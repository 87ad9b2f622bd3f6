"""Devices that another exporter of this host tells of: Ascend, Gaudi and others that we have no driver for.

Experimental. The page is asked beside the polls; a poll takes what was said last, and nothing of an exporter
that did not answer. Loaded only where the configuration names one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from exporter import log
from exporter.hardware.foreign_map import MOST_DEVICES, ForeignDevice, ForeignMap, Page, map_of, read_page
from exporter.hardware.foreign_scrape import Unread, scrape
from exporter.hardware.gpu import HEALTHY, Gpu, GpuIdentity, GpuReading, GpuState
from exporter.hardware.inventory import Inventory
from exporter.hardware.sweep import Sweep
from exporter.settings.options import ForeignExporter
from exporter.units import MIB

_log = log.get(__name__)

FIRST_WORD_SECONDS = 0.25
"""How long a poll waits for an exporter that was never asked before."""
_FRESH_POLLS = 3
_STEADY_BYTES = 128 * MIB
"""What driver and firmware use is told anew when it has changed by this much: what deployments should need is
worked out again whenever the size of a device changes."""

ADVICE: Mapping[str, str] = {
    "refused": "nothing listens there: start the exporter, or correct url of its [[foreign_exporters]] entry",
    "timeout": "it does not answer in time: look at its log; its own driver may hang",
    "too_large": "its page is larger than any exporter's of accelerators; another program may have its port",
    "not_http": "it does not speak HTTP, or HTTPS only: compare its port and write https:// where it has TLS",
    "tls": "its certificate is not accepted, or it has no TLS: give its authority as ca_file, or http://",
    "key_required": "it wants a token: give bearer_token_file",
    "redirect": "it sends elsewhere, which is not followed: give the address that it sends to",
    "bad_status": "it has no page there: url should end with its path, mostly /metrics",
    "nonsense": "what it answers is no metrics page: url should end with its path, mostly /metrics",
    "loading": "it says that it is not ready yet",
    "no_device": "its page has no series of its kind: correct kind, or see why its driver finds no device",
    "no_memory": "it tells of devices, but not how much memory they have: correct metrics, or see its log",
    "stale": "all its values are older than max_age: it goes on telling what it knew; restart it",
    "not_this_host": "url is no address of this host any more: only exporters of the host itself are asked",
    "token_file": "bearer_token_file cannot be read, or does not hold one line of text",
    "ca_file": "ca_file cannot be read, or is not in PEM format",
    "address": "url of its [[foreign_exporters]] entry cannot be used",
}
"""What to do about a state of a source, for the log and `doctor`."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What one question to the exporter gave. ``page`` None: nothing, and ``state`` says why."""

    state: str
    page: Page | None
    at: float
    """monotonic"""
    at_seconds: float
    """Unix time"""
    seconds: float


async def hear(entry: ForeignExporter, by: ForeignMap) -> Heard:
    """Ask an exporter once. Never raises for what it does."""
    started = time.monotonic()
    page: Page | None = None
    try:
        samples = await scrape(entry, by)
        now = time.time()
        page = read_page(by, entry.source, samples, now=now, max_age=entry.max_age)
        state = _state(page)
    except Unread as error:
        state = str(error)
    except Exception as error:  # noqa: BLE001 (a fault of ours costs the one source; its text may hold theirs)
        _log.error(
            "another exporter's page could not be read", source=entry.source, fault=type(error).__name__
        )
        state = "nonsense"
    ended = time.monotonic()
    return Heard(state, page if state == "up" else None, ended, time.time(), ended - started)


def _state(page: Page) -> str:
    if not page.devices:
        return "up" if page.count == 0 else "no_device"
    if all(one.reading is None for one in page.devices):
        return "stale"
    told = [one.reading for one in page.devices if one.reading is not None]
    return "up" if any(one.memory_total_bytes is not None for one in told) else "no_memory"


class ForeignSource:
    """The devices that one configured exporter tells of."""

    def __init__(self, entry: ForeignExporter, inventory: Inventory, proc: Path) -> None:
        self.entry = entry
        self.name = entry.source
        self.errors: Counter[str] = Counter()
        self.seconds = 0.0
        self._by = map_of(entry)
        self._inventory = inventory
        self._proc = proc
        self._asking: asyncio.Task[Heard] | None = None
        self._heard: Heard | None = None
        self._last: dict[str, Gpu] = {}
        self._reserved: dict[str, int] = {}
        self._told_state = "starting"

    @property
    def vendor(self) -> str:
        return self._by.vendor

    @property
    def heard_at(self) -> float | None:
        """When it gave its last answer, or failed to (monotonic); None: not yet."""
        return self._heard.at if self._heard is not None else None

    async def ask(self) -> None:
        """Take what was said, and begin to ask again; waits only for a first word."""
        self._take()
        if self._asking is None:
            self._asking = asyncio.create_task(hear(self.entry, self._by))
        if self._heard is None:
            await asyncio.wait([self._asking], timeout=FIRST_WORD_SECONDS)
            self._take()

    def sweep(self, interval_seconds: float, before: Set[str], others: Set[str]) -> Sweep:
        """The devices as they were told last. ``before`` are the sources whose devices have lower numbers,
        ``others`` all that tell of devices beside this one."""
        heard = self._heard
        oldest = time.monotonic() - _FRESH_POLLS * interval_seconds - self.entry.timeout
        state = "starting" if heard is None else heard.state if heard.at >= oldest else "timeout"
        self._report(state)
        fresh: dict[str, Gpu] = {}
        if heard is not None and heard.page is not None and state == "up":
            numbers = Numbers(self._inventory.all(), self.name, before)
            for device in heard.page.devices:
                if self._is_ours(device, others):
                    fresh[device.uuid] = self._gpu(device, numbers.of(device), heard.at_seconds)
        version = next((one.identity.driver_version for one in fresh.values()), "")
        return Sweep(self._assemble(fresh, state), state, version, len(fresh))

    def stop(self) -> asyncio.Task[Heard] | None:
        """Ask no more; the question that has to be waited for until it has ended."""
        if self._asking is not None:
            self._asking.cancel()
        return self._asking

    def _take(self) -> None:
        if self._asking is None or not self._asking.done():
            return
        heard = self._heard = self._asking.result()
        self._asking = None
        self.seconds = heard.seconds
        if heard.state != "up":
            self.errors[heard.state] += 1
        self.errors.update(heard.page.errors if heard.page is not None else {})

    def _report(self, state: str) -> None:
        """One line in the log when the exporter begins to answer, or to fail in another way."""
        if state == self._told_state:
            return
        self._told_state = state
        if state == "up":
            _log.info("another exporter's devices are read", source=self.name)
        else:
            _log.warning(
                "another exporter is not read", source=self.name, state=state, advice=ADVICE.get(state)
            )

    def _is_ours(self, device: ForeignDevice, others: Set[str]) -> bool:
        """Whether a device is told of by no other source, and there is room to remember it."""
        remembered = self._inventory.all()
        known = next((one for one in remembered if one.uuid == device.uuid), None)
        if known is not None and known.source in others:
            self.errors["duplicate"] += 1
            return False
        is_new = known is None or known.source != self.name
        if is_new and sum(one.source == self.name for one in remembered) >= MOST_DEVICES:
            self.errors["too_many"] += 1
            return False
        return True

    def _gpu(self, device: ForeignDevice, index: int, at_seconds: float) -> Gpu:
        identity = GpuIdentity(
            uuid=device.uuid,
            index=index,
            name=device.name,
            vendor=self._by.vendor,
            pci_bus_id=device.pci_bus_id,
            memory_kind="dedicated",
            driver_version=device.driver_version,
            source=self.name,
        )
        self._inventory.remember(identity)
        if device.reading is None:
            return Gpu(identity, GpuState.STALLED, reason="all that its exporter tells of it is too old")
        reading = self._without_driver(device.uuid, self._with_processes(device.reading))
        return Gpu(identity, GpuState.UP, reading=reading, last_success_seconds=at_seconds)

    def _with_processes(self, reading: GpuReading) -> GpuReading:
        """The reading, without its processes where not one of them is a process of this host: they are then
        counted in another pid namespace, and would be taken for strangers."""
        if not reading.processes:
            return reading
        here = tuple(one for one in reading.processes if (self._proc / str(one.pid)).exists())
        if not here:
            self.errors["other_pids"] += 1
        return replace(reading, processes=here or None)

    def _without_driver(self, uuid: str, reading: GpuReading) -> GpuReading:
        """The reading, with what driver and firmware use told as reserved: what no process accounts for, up
        to the exporter's ``driver_share``. Where processes are not listed, only an idle device shows it."""
        used, share = reading.memory_used_bytes, self._by.driver_share
        if used is None or not share or reading.memory_total_bytes is None:
            return reading
        if reading.processes is not None:
            drivers = min(share, max(0, used - sum(one.used_bytes or 0 for one in reading.processes)))
        elif used <= share:
            drivers = used
        else:
            return reading
        before = self._reserved.get(uuid, drivers)
        if abs(before - drivers) < _STEADY_BYTES and before <= used:
            drivers = before
        self._reserved[uuid] = drivers
        return replace(reading, memory_used_bytes=used - drivers, memory_reserved_bytes=drivers)

    def _assemble(self, fresh: Mapping[str, Gpu], state: str) -> tuple[Gpu, ...]:
        """Every remembered device with its present state; one line in the log for each that changed."""
        result = []
        for identity in self._inventory.all():
            if identity.source != self.name:
                continue
            one = fresh.get(identity.uuid) or self._absent(identity, len(fresh), state)
            before = self._last.get(identity.uuid)
            if one.last_success_seconds is None and before is not None:
                one = replace(one, last_success_seconds=before.last_success_seconds)
            if before is None or before.state != one.state:
                write = _log.info if one.state in HEALTHY else _log.warning
                write(
                    "device state",
                    gpu=identity.index,
                    uuid=identity.uuid,
                    source=self.name,
                    state=one.state,
                    reason=one.reason,
                )
            result.append(one)
        self._last = {one.identity.uuid: one for one in result}
        return tuple(result)

    def _absent(self, identity: GpuIdentity, told: int, state: str) -> Gpu:
        """A remembered device that nothing was told of, and why. One that was lost stays so while its
        exporter is silent: nobody has said that it is back."""
        before = self._last.get(identity.uuid)
        if state == "up":
            return Gpu(identity, GpuState.LOST, reason=f"its exporter tells of {told} devices without it")
        if before is not None and before.state is GpuState.LOST:
            return Gpu(identity, GpuState.LOST, reason=before.reason)
        return Gpu(identity, GpuState.SOURCE_DOWN, reason=state)


class Numbers:
    """Numbers of one source's devices: the page's own, after those of our drivers and of the sources before.
    A device that the page does not number keeps what it once got."""

    def __init__(self, remembered: Sequence[GpuIdentity], source: str, before: Set[str]) -> None:
        self._first = 1 + max((one.index for one in remembered if one.source in before), default=-1)
        self._had = {
            one.uuid: one.index for one in remembered if one.source == source and one.index >= self._first
        }
        self._used = set(self._had.values())

    def of(self, device: ForeignDevice) -> int:
        """The number of a device."""
        if device.index is not None:
            return self._first + device.index
        number = self._had.get(device.uuid)
        if number is None:
            number = next(one for one in count(self._first) if one not in self._used)
        self._used.add(number)
        return number


class ForeignExporters:
    """Every configured exporter, in the order of the configuration."""

    def __init__(self, inventory: Inventory, proc: Path) -> None:
        self._inventory = inventory
        self._proc = proc
        self._sources: list[ForeignSource] = []
        self._ending: set[asyncio.Task[Heard]] = set()

    def apply(self, entries: Sequence[ForeignExporter]) -> None:
        """Use these entries from now on; an exporter whose entry stays goes on as it is."""
        if [one.entry for one in self._sources] == list(entries):
            return
        kept = {one.name: one for one in self._sources if one.entry in entries}
        for gone in self._sources:
            if gone.name not in kept and (asking := gone.stop()) is not None:
                self._ending.add(asking)
                asking.add_done_callback(self._ending.discard)
        self._sources = [
            kept.get(entry.source) or ForeignSource(entry, self._inventory, self._proc) for entry in entries
        ]

    @property
    def sources(self) -> tuple[ForeignSource, ...]:
        return tuple(self._sources)

    async def sweep(self, interval_seconds: float) -> list[tuple[ForeignSource, Sweep]]:
        """What each of them tells; waits a moment only for one that was never asked before."""
        await asyncio.gather(*(one.ask() for one in self._sources))
        names = {"", *(one.name for one in self._sources)}
        before, found = {""}, []
        for one in self._sources:
            found.append((one, one.sweep(interval_seconds, before, names - {one.name})))
            before.add(one.name)
        return found

    async def close(self) -> None:
        """Ask no more."""
        ending = [asking for one in self._sources if (asking := one.stop()) is not None]
        if ending or self._ending:
            await asyncio.wait([*ending, *self._ending])
