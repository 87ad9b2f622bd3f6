"""The worker's side of the protocol between a driver's process and its supervisor: one JSON object a line.

Driver calls can block for minutes and cannot be cancelled, so they happen in a process that the supervisor
can abandon. Each device is announced before it is read: whoever watches knows which one is stuck.

Requests: {"sweep": N, "skip": [index …], "links": whether to read their traffic}. Answers, in order: `init`
or `init_error`; for each sweep `begin`, then `start` and `device` or `device_error` for each device, then
`end`; at any time `xid`; `fatal` before the process ends because only a new one can go on. A `device` that is
divided carries its `slices`, each as a device is, and in `slices_problem` why some may be missing.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO, TypeVar

from exporter.hardware.driver import Driver, Unreadable

_PR_SET_PDEATHSIG = 1  # prctl(2)
_Driver = TypeVar("_Driver", bound=Driver)


class Channel:
    """The way to the supervisor: whole lines, from any thread."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, kind: str, **fields: Any) -> None:
        """Send one message; ends the process when nobody listens any more."""
        line = json.dumps({"kind": kind, **fields}, separators=(",", ":"))
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except (BrokenPipeError, ValueError):
            os._exit(0)


def open_channel() -> Channel:
    """The channel of this process, which dies with its parent from now on."""
    _die_with_parent()
    return Channel(_private_stdout())


def start(channel: Channel, make: Callable[[], _Driver]) -> _Driver:
    """The driver, announced; the process ends when there is none."""
    try:
        driver = make()
    except Unreadable as error:
        channel.send("init_error", reason=error.reason, code=error.code)
        os._exit(0)
    channel.send("init", driver_version=driver.version)
    return driver


def serve(
    channel: Channel, driver: Driver, after_sweep: Callable[[frozenset[int]], None] = lambda answering: None
) -> None:
    """Answer the supervisor until it closes stdin, a fatal error comes, or the process is killed.
    `after_sweep` is told which devices answered."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answering = sweep(
                driver, channel, request["sweep"], set(request["skip"]), links=request.get("links", False)
            )
        except Unreadable as error:
            channel.send("fatal", reason=error.reason, code=error.code)
            os._exit(0)
        after_sweep(answering)
    os._exit(0)  # a thread may be inside the driver: a normal exit would wait for it


def sweep(
    driver: Driver, channel: Channel, number: int, skip: set[int], *, links: bool = False
) -> frozenset[int]:
    """Read every device but those in `skip`; which of them answered. Raises Unreadable when the driver as a
    whole fails."""
    count = driver.count()
    answered = set()
    channel.send("begin", sweep=number, count=count)
    for index in range(count):
        if index in skip:
            continue
        channel.send("start", sweep=number, index=index)
        try:
            reading = driver.read(index, links=links)
        except Unreadable as error:
            if error.fatal:
                raise
            channel.send(
                "device_error",
                sweep=number,
                index=index,
                state=error.state,
                reason=error.reason,
                call=error.call,
                **({} if error.identity is None else {"identity": error.identity}),
            )
        else:
            channel.send("device", sweep=number, index=index, **reading)
            answered.add(index)
    channel.send("end", sweep=number)
    return frozenset(answered)


def _private_stdout() -> TextIO:
    """The answers' stream; file descriptor 1 becomes stderr, in case a vendor library prints."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's ^C is the supervisor's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
