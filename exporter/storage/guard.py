"""Calls that may never return, each in a thread of its own that nobody waits for.

A thread that sleeps in the kernel cannot be ended. It is left there, and what it was to do is not begun again
before it returns, so that a mount that hangs costs one thread and no more (node_exporter's stuckMounts,
collector/filesystem_linux.go). The threads are daemons: the interpreter does not wait for them at its end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_CALLS = 24
"""Calls under way at once; TasksMax= of the systemd unit is 64, workers and their threads included."""


class Guard(Generic[T]):
    """Calls by key."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, tuple[float, Future[T]]] = {}

    def begin(self, key: Hashable, work: Callable[[], T]) -> Future[T] | None:
        """Begin a call; None when that key's last one has not returned, or too many have not."""
        self._calls = {one: call for one, call in self._calls.items() if not call[1].done()}
        if key in self._calls or len(self._calls) >= MOST_CALLS:
            return None
        future: Future[T] = Future()
        self._calls[key] = (time.monotonic(), future)
        thread = threading.Thread(target=_run, args=(future, work), name="store", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads: as if it did not return
            del self._calls[key]
            return None
        return future

    def under_way(self, key: Hashable) -> float | None:
        """For how many seconds a call has not returned; None when none is under way."""
        call = self._calls.get(key)
        return None if call is None or call[1].done() else time.monotonic() - call[0]


def _run(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 (it belongs to whoever asks for the result)
        future.set_exception(error)
