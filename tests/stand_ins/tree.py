"""Real processes that look like an engine's to anybody who reads /proc: command lines, titles, short names,
parents. What each of them does is in stand_in.c.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType

import psutil

from stand_ins.build import build

START_SECONDS = 10.0
END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Door:
    """Where a process listens, and the folder that holds its answers."""

    port: int
    answers: Path
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Plan:
    """A process to be. A `title` replaces argv and environment, as setproctitle does.

    `comm`: default the program's name. `namespace`: its children live in a pid namespace of their own, where
    this user may make one. `outlives`: it goes on when its parent is killed, and so do those below it.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    comm: str = ""
    door: Door | None = None
    children: tuple[Plan, ...] = ()
    namespace: bool = False
    outlives: bool = False

    def wrapped(self, *argv: str, namespace: bool = False) -> Plan:
        """This plan as the only child of another process, which stays."""
        return Plan(argv, children=(self,), namespace=namespace)

    def named(self) -> str:
        """The short name that the kernel shows: 15 bytes."""
        return (self.comm or self.title or PurePosixPath(self.argv[0]).name)[:15]


class Tree:
    """Running processes, ended with the block."""

    def __init__(self, root: subprocess.Popen[bytes]) -> None:
        self._root = root
        self._processes: dict[int, psutil.Process] = {root.pid: psutil.Process(root.pid)}
        self._titles: list[tuple[str, int]] = []

    @classmethod
    def start(cls, directory: Path, plan: Plan) -> Tree:
        """Start them all and wait until each has its title and listens. AssertionError when one does not."""
        folders = dict(_write(directory, plan))
        root = next(iter(folders))
        with (directory / "stderr").open("ab") as errors:
            process = subprocess.Popen(
                plan.argv,
                executable=build(),
                env={**plan.env, "STAND_IN": str(root)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        tree = cls(process)
        try:
            for folder, one in folders.items():
                pid = _pid_in(folder)
                tree._processes[pid] = psutil.Process(pid)
                tree._titles.append((one.title or " ".join(one.argv), pid))
        except AssertionError as error:
            tree.stop()
            raise AssertionError(f"{error}: {(directory / 'stderr').read_text()}") from None
        return tree

    @property
    def pid(self) -> int:
        """The root."""
        return self._root.pid

    def pids_titled(self, start: str) -> list[int]:
        """Pids of the processes whose title begins so, in the order of the plan."""
        return [pid for title, pid in self._titles if title.startswith(start)]

    @property
    def pids(self) -> frozenset[int]:
        """Every process, as the host numbers them."""
        return frozenset(self._processes)

    def kill(self, pid: int) -> None:
        """SIGKILL to one process, and wait until it is gone; what does not outlive it goes with it."""
        process = self._processes[pid]
        process.kill()
        if pid == self._root.pid:
            self._root.wait(END_SECONDS)
        _wait_gone(process)

    def stop(self) -> None:
        """End every process of the tree that is still there."""
        for process in self._processes.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # psutil looks first whether the pid is still the same process
        self._root.wait(END_SECONDS)
        for process in self._processes.values():
            _wait_gone(process)

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _pid_in(folder: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while not (folder / "pid").exists():
        assert time.monotonic() < deadline, "a stand-in process did not come up"
        time.sleep(0.002)
    return int((folder / "pid").read_text())


def _wait_gone(process: psutil.Process) -> None:
    deadline = time.monotonic() + END_SECONDS
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {process.pid} does not end"
            time.sleep(0.002)


def _write(directory: Path, plan: Plan) -> Iterator[tuple[Path, Plan]]:
    """The folders that stand_in.c reads, the root's first."""
    folder = Path(tempfile.mkdtemp(dir=directory))
    below = [list(_write(folder, child)) for child in plan.children]
    lines = [f"comm {plan.named()}"]
    lines += [f"title {plan.title}"] if plan.title else []
    lines += [f"listen {plan.door.address} {plan.door.port} {plan.door.answers}"] if plan.door else []
    lines += ["namespace"] if plan.namespace else []
    lines += [f"child {found[0][0]}" for found in below]
    lines += ["outlive"] if plan.outlives else []
    (folder / "setup").write_text("\n".join(lines) + "\n")
    (folder / "argv").write_bytes(b"".join(word.encode() + b"\0" for word in plan.argv))
    variables = (f"{name}={value}" for name, value in plan.env.items())
    (folder / "environ").write_bytes(b"".join(one.encode() + b"\0" for one in variables))
    yield folder, plan
    for found in below:
        yield from found
