"""A worker process seen from the supervisor: started, asked, abandoned, ended. Knows nothing of GPUs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from exporter import log

_log = log.get(__name__)

Message = dict[str, Any]

_LINE_LIMIT_BYTES = 2**20
_TERMINATE_SECONDS = 5.0
_REAP_SECONDS = 5.0
KINDS = {
    "init",
    "init_error",
    "begin",
    "start",
    "device",
    "device_error",
    "end",
    "xid",
    "events_error",
    "fatal",
}
COMMAND = (
    sys.executable,
    "-I",
    "-OO",  # no docstrings in memory: the binding alone has 8,000 lines
    "-m",
    "exporter.hardware.worker",
)


class WorkerProcess:
    """One child running `python -m exporter.hardware.worker`. Its messages come out of `next()`."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(maxsize=4096)
        self._reader = asyncio.create_task(self._read())
        self.stuck = False
        """inside a driver call that does not return, as far as its owner knows"""
        self.unreapable = False
        """asleep in the kernel: not even SIGKILL has ended it yet"""

    @classmethod
    async def start(cls, command: Sequence[str] = COMMAND) -> WorkerProcess:
        """Start a child that speaks the worker's protocol. Raises OSError when the system cannot."""
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_LIMIT_BYTES,
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},
        )
        return cls(child)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.returncode is None

    def ask(self, request: Message) -> None:
        """Send a request; a dead child shows at the next `next()`."""
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, RuntimeError):
            self._child.stdin.write(json.dumps(request).encode() + b"\n")

    async def next(self, deadline_seconds: float | None) -> Message | None:
        """The next message, None when the child is gone. Raises TimeoutError."""
        async with asyncio.timeout(deadline_seconds):
            return await self._messages.get()

    async def stop(self, *, grace_seconds: float = 1.0) -> bool:
        """End the child: close its stdin, then SIGTERM, then SIGKILL. False when it cannot be reaped
        (asleep in the kernel); it then still holds what it held."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        for wait, number in (
            (grace_seconds, signal.SIGTERM),
            (_TERMINATE_SECONDS, signal.SIGKILL),
            (_REAP_SECONDS, None),
        ):
            try:
                async with asyncio.timeout(wait):
                    await self._child.wait()
                self.unreapable = False
                return True
            except TimeoutError:
                if number is not None:
                    with contextlib.suppress(ProcessLookupError):
                        self._child.send_signal(number)
        self.unreapable = True
        _log.error("worker cannot be ended; it sleeps inside the driver", pid=self.pid)
        return False

    async def _read(self) -> None:
        assert self._child.stdout is not None
        try:
            while line := await self._child.stdout.readline():
                message = json.loads(line)
                if not isinstance(message, dict) or message.get("kind") not in KINDS:
                    raise ValueError("not a message")
                await self._messages.put(message)
        except (ValueError, RecursionError) as error:  # also an over-long line, and half a line at the end
            _log.error(
                "worker sent something that is no message; ending it", pid=self.pid, error=str(error)[:80]
            )
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
        await self._messages.put(None)
