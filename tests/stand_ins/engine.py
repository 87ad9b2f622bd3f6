"""A stand-in engine: its processes, its answers and the memory it holds on fake devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from fake_nvml.control import FakeDriver

from stand_ins.answers import Answer, Answers, State
from stand_ins.tree import Plan, Tree

Speaks = Callable[[State], Answers]


class StandIn:
    """One running engine. `holders`: title or argv of the processes that hold GPU memory, one per device."""

    def __init__(
        self, directory: Path, plan: Plan, state: State, speaks: Speaks, holders: str, answers: Path
    ) -> None:
        self.state = state
        self._speaks = speaks
        self._answers = answers
        self._overruled: dict[str, Answer] = {}
        self._held: list[tuple[FakeDriver, int, int]] = []
        self._write()
        self.tree = Tree.start(directory, plan)
        self.worker_pids = self.tree.pids_titled(holders)

    # What it answers

    def update(self, **changes: Any) -> None:
        """Other values of its State from the next request on: `kv_usage=0.9`."""
        self.state = replace(self.state, **changes)
        self._write()

    def answer(self, path: str, answer: Answer) -> None:
        """Another response at one path."""
        self._overruled[path] = answer
        self._write()

    def unavailable(self, status: int = 503) -> None:
        """Every path answers this status, until `available`."""
        failing = Answer('{"error": {"message": "Loading model"}}', status=status)
        self._overruled = dict.fromkeys(self._speaks(self.state), failing)
        self._write()

    def available(self) -> None:
        self._overruled = {}
        (self._answers / "hang").unlink(missing_ok=True)
        self._write()

    def hang(self) -> None:
        """Connections are taken and never answered, until `available`."""
        (self._answers / "hang").touch()

    @property
    def requests(self) -> str:
        """Heads of all requests so far."""
        collected = self._answers / "requests"
        return collected.read_text(errors="replace") if collected.exists() else ""

    def asked(self) -> set[str]:
        """Paths that were asked for."""
        heads = (line.split() for line in self.requests.splitlines())
        return {words[1].split("?")[0] for words in heads if len(words) == 3 and words[2] == "HTTP/1.1"}

    def _write(self) -> None:
        for path, answer in {**self._speaks(self.state), **self._overruled}.items():
            fresh = self._answers / "fresh"
            fresh.write_bytes(answer.encode())
            fresh.replace(self._answers / path.replace("/", "_"))

    # What it holds

    def hold(self, driver: FakeDriver, size_bytes: int, devices: Sequence[int] | None = None) -> None:
        """Each worker takes memory of its device: the first of the first in `devices` (default 0, 1, …)."""
        on = range(len(self.worker_pids)) if devices is None else devices
        with driver.change() as state:
            for pid, index in zip(self.worker_pids, on, strict=True):
                state.devices[index].occupy(pid, size_bytes)
                self._held.append((driver, index, pid))

    def release(self, pids: frozenset[int] | None = None) -> None:
        """The memory of these processes is given back, as the driver does when they have ended."""
        gone = self.tree.pids if pids is None else pids
        for driver, index, pid in [one for one in self._held if one[2] in gone]:
            with driver.change() as state:
                state.devices[index].vacate(pid)
        self._held = [one for one in self._held if one[2] not in gone]

    @property
    def devices(self) -> list[int]:
        """Where it holds memory, the first worker's device first."""
        return [index for _, index, _ in self._held]

    # How it ends

    def kill(self) -> None:
        """The whole engine dies, and its memory is free."""
        self.tree.stop()
        self.release()

    def __enter__(self) -> StandIn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def folder_in(directory: Path, name: str) -> Path:
    """A new folder for an engine's files."""
    number = 0
    while True:
        folder = directory / f"{name}-{number}"
        if not folder.exists():
            (folder / "answers").mkdir(parents=True)
            return folder
        number += 1
