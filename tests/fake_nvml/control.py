"""Drives the fake NVIDIA driver from a test: builds it, writes its control file, changes it while it runs.

The control file is text (README.md) and is replaced by rename, so a reader sees the old state or the new one.
The driver reads it again at every call, and every 10 ms inside a hang or a wait.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from fake_nvml.build import CompilerMissingError, build
from fake_nvml.devices import XID_EVENT, FakeDevice, FakeProcess, FieldError, FieldValue

__all__ = [
    "CompilerMissingError",
    "DriverState",
    "FakeDevice",
    "FakeDriver",
    "FakeEvent",
    "FakeProcess",
    "FieldError",
    "FieldValue",
]

_COUNTER = struct.Struct("=IIQ64s96s")
"""One record of the counters file; `counter` of driver.c."""
_COUNTERS = 4096
_NUMBERS = tuple(f.name for f in fields(FakeDevice) if f.type == "int | None")
"""The numbers of a device: the same words in Python, in the control file and in control.h."""


@dataclass(slots=True)
class FakeEvent:
    """An event for every set that has registered `uuid` and `type`; for an Xid, `data` is its number."""

    uuid: str
    data: int
    type: int = XID_EVENT


@dataclass(slots=True)
class DriverState:
    """Everything the control file says. Change it inside `FakeDriver.change()`.

    driver_version is the library's on disk, module_version the kernel module's; a process keeps the library
    that it has loaded, and where that and the module differ every call answers LIB_RM_VERSION_MISMATCH (18).
    count overrules the number of devices. `*_calls` hold for the driver's own calls and, where a device has
    no rule itself, for devices.
    """

    devices: list[FakeDevice] = field(default_factory=list)
    driver_version: str = "590.48.01"
    module_version: str = "590.48.01"
    nvml_version: str = "13.590.48.01"
    cuda_version: int | None = 13_010
    count: int | None = None
    events: list[FakeEvent] = field(default_factory=list)
    error_calls: dict[str, int] = field(default_factory=dict)
    delay_calls: dict[str, float] = field(default_factory=dict)
    hang_calls: set[str] = field(default_factory=set)
    signal_calls: dict[str, int] = field(default_factory=dict)


class FakeDriver:
    """A fake driver in one folder: its library, control file, call counters and device nodes.

    Give `env` to the child process that is to use it; every method takes effect at that process's next call.
    """

    def __init__(
        self, directory: Path, devices: Sequence[FakeDevice] = (), *, without: Iterable[str] = ()
    ) -> None:
        """Builds the library (see `build`) and writes the first control file, as `create` does."""
        self.directory = directory
        self.library_directory = build(without)
        self.control_file = directory / "nvml.control"
        self.nodes = directory / "dev"
        self.state = DriverState(devices=list(devices))
        self._calls_file = directory / "nvml.calls"
        self._written_nanoseconds = 0
        self.nodes.mkdir(parents=True, exist_ok=True)
        with self._calls_file.open("wb") as file:
            file.truncate(_COUNTER.size * _COUNTERS)
        self.write()

    @classmethod
    def create(
        cls, directory: Path, devices: Sequence[FakeDevice] = (), *, without: Iterable[str] = ()
    ) -> FakeDriver:
        """A driver with these devices; `without` names the symbols that it does not export.

        Raises CompilerMissingError (of `build`) on a machine without a C compiler.
        """
        return cls(directory, devices, without=without)

    @property
    def env(self) -> dict[str, str]:
        """What the environment of a process needs in order to load this driver instead of a real one."""
        searched = [str(self.library_directory), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {
            "LD_LIBRARY_PATH": ":".join(searched),
            "FAKE_NVML_CONTROL": str(self.control_file),
        }

    @contextlib.contextmanager
    def change(self) -> Iterator[DriverState]:
        """Change the state: the driver sees all of it at once when the block ends, nothing if it raises."""
        self._settle_energy()
        yield self.state
        self.write()

    def write(self) -> None:
        """Replaces the control file by the present state."""
        self._settle_energy()
        for device in self.state.devices:
            node = self.nodes / f"nvidia{device.minor_number}"
            if device.minor_number is not None:
                node.touch()
        (self.nodes / "nvidiactl").touch()
        fresh = self.control_file.with_suffix(".new")
        fresh.write_text("\n".join(self._lines()) + "\n")
        # A time that always grows: two changes within one tick of the kernel's clock stay distinct.
        self._written_nanoseconds = max(time.time_ns(), self._written_nanoseconds + 1)
        os.utime(fresh, ns=(self._written_nanoseconds, self._written_nanoseconds))
        fresh.replace(self.control_file)

    # What goes wrong, and right again

    def hang(self, index: int, call: str = "*") -> None:
        """Calls about this device do not return, until `release`."""
        with self.change() as state:
            state.devices[index].hang_calls.add(call)

    def release(self, index: int) -> None:
        """Ends the hangs of this device; calls that hang now return."""
        with self.change() as state:
            state.devices[index].hang_calls.clear()

    def lose(self, index: int) -> None:
        """The device falls off the bus: GPU_IS_LOST (15) from all its calls."""
        with self.change() as state:
            state.devices[index].lost = True

    def restore(self, index: int) -> None:
        """The lost device is back."""
        with self.change() as state:
            state.devices[index].lost = False

    def xid(self, index: int, code: int) -> None:
        """An Xid event of this device, for the event sets that have registered it by now."""
        with self.change() as state:
            state.events.append(FakeEvent(state.devices[index].uuid, code))

    def fail(self, call: str, code: int) -> None:
        """This call (or pattern) answers `code` on every device that has no rule of its own; 0 ends it."""
        with self.change() as state:
            state.error_calls.pop(call, None)
            if code:
                state.error_calls[call] = code

    def set_driver(
        self,
        *,
        init_error: int | None = None,
        init_delay_seconds: float | None = None,
        init_hang: bool | None = None,
        shutdown_hang: bool | None = None,
        version_mismatch: bool | None = None,
    ) -> None:
        """Driver-wide faults; None leaves one as it is, 0 and False end it.

        version_mismatch: another version of the kernel module is loaded than anybody's library expects; see
        `upgrade_library` and `load_module` for an upgrade as it happens.
        """
        with self.change() as state:
            if init_error is not None:
                state.error_calls["nvmlInit*"] = init_error
            if init_delay_seconds is not None:
                state.delay_calls["nvmlInit*"] = init_delay_seconds
            for call, hang in (("nvmlInit*", init_hang), ("nvmlShutdown", shutdown_hang)):
                if hang is not None:
                    (state.hang_calls.add if hang else state.hang_calls.discard)(call)
            if version_mismatch is not None:
                state.module_version = "535.183.01" if version_mismatch else state.driver_version

    def upgrade_library(self, version: str) -> None:
        """A package upgrade: processes that start now load `version`, and are refused until `load_module`."""
        with self.change() as state:
            state.driver_version = version

    def load_module(self, version: str) -> None:
        """The kernel module is reloaded: processes that hold another library are refused from now on."""
        with self.change() as state:
            state.module_version = version

    def unload(self) -> None:
        """No driver: the control file goes away and init answers DRIVER_NOT_LOADED (9), until a `write`."""
        self.control_file.unlink(missing_ok=True)

    # What was asked of it

    def calls(self, call: str, device: int | None = None) -> int:
        """How often all processes together have made this call, about one device or about any."""
        wanted = None if device is None else self.state.devices[device].uuid
        return sum(
            n for (name, uuid), n in self.call_counts().items() if name == call and wanted in (None, uuid)
        )

    def call_counts(self) -> dict[tuple[str, str], int]:
        """Calls made so far, by name of the call and uuid of the device ("" for the driver's own)."""
        counts: dict[tuple[str, str], int] = {}
        with (
            self._calls_file.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as table,
        ):
            for ready, _, count, call, uuid in _COUNTER.iter_unpack(table[:]):
                if ready == 2:
                    counts[call.rstrip(b"\0").decode(), uuid.rstrip(b"\0").decode()] = count
        return counts

    def wait_for_calls(
        self, call: str, more_than: int, device: int | None = None, timeout_seconds: float = 10
    ) -> int:
        """Waits until the call was made more than so many times; returns how many, else TimeoutError."""
        deadline = time.monotonic() + timeout_seconds
        while (count := self.calls(call, device)) <= more_than:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{call}: {count} calls after {timeout_seconds} s, not more than {more_than}"
                )
            time.sleep(0.01)
        return count

    def holders(self) -> set[int]:
        """Processes that hold a device node of this driver open, as a GPU reset would find them."""
        found = set()
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                if link.readlink().parent == self.nodes:
                    found.add(int(link.parts[2]))
        return found

    # The control file

    def _settle_energy(self) -> None:
        """Books the energy used until now, so that a change of power holds from now on only."""
        now = time.monotonic_ns()
        for device in self.state.devices:
            if not device.energy_advances or device.energy_millijoules is None:
                device.energy_since_nanoseconds = None
                continue
            if device.energy_since_nanoseconds is not None and device.power_average_milliwatts is not None:
                elapsed = now - device.energy_since_nanoseconds
                device.energy_millijoules += device.power_average_milliwatts * elapsed // 10**9
            device.energy_since_nanoseconds = now

    def _lines(self) -> Iterator[str]:
        state = self.state
        yield "# Fake NVIDIA driver: read again at every call. The language is in tests/fake_nvml/README.md."
        yield "[driver]"
        yield f"driver_version {state.driver_version}"
        yield f"module_version {state.module_version}"
        yield f"nvml_version {state.nvml_version}"
        yield f"nodes_directory {self.nodes}"
        yield f"calls_file {self._calls_file}"
        if state.cuda_version is not None:
            yield f"cuda_version {state.cuda_version}"
        if state.count is not None:
            yield f"count {state.count}"
        yield from _rules(state)
        for sequence, event in enumerate(state.events, start=1):
            yield f"event {sequence} {event.uuid} {event.type:#x} {event.data}"
        for device in state.devices:
            yield from _device_lines("[device]", device)
            for mig in device.migs:
                yield from _device_lines("[mig]", mig)


def _rules(of: DriverState | FakeDevice) -> Iterator[str]:
    yield from (f"error {call} {code}" for call, code in of.error_calls.items())
    yield from (f"delay {call} {seconds}" for call, seconds in of.delay_calls.items())
    yield from (f"hang {call}" for call in sorted(of.hang_calls))
    yield from (f"signal {call} {number}" for call, number in of.signal_calls.items())


def _process_line(process: FakeProcess) -> str:
    return f"process {process.kind} {process.pid} {-1 if process.used_bytes is None else process.used_bytes}"


def _scope(scope: int | None) -> str:
    return "*" if scope is None else str(scope)


def _device_lines(section: str, device: FakeDevice) -> Iterator[str]:
    yield ""
    yield section
    for word in ("uuid", "name", "pci_bus_id", "serial"):
        if (text := getattr(device, word)) is not None:
            yield f"{word} {text}"
    for word in _NUMBERS:
        if (number := getattr(device, word)) is not None:
            yield f"{word} {number}"
    if device.lost:
        yield "lost 1"
    if device.process_growth:
        yield f"process_growth {device.process_growth} {device.process_growth_calls}"
    yield from (_process_line(process) for process in device.processes)
    # Errors before values: the driver takes the first line that matches a field.
    yield from (f"field_error {e.field_id} {_scope(e.scope)} {e.code}" for e in device.field_errors)
    yield from (f"field {f.field_id} {_scope(f.scope)} {f.type} {f.value}" for f in device.fields)
    yield from _rules(device)
