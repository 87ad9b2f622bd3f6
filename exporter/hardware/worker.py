"""The worker process of one GPU vendor library: reads requests on stdin, answers one JSON object a line.

Driver calls can block for minutes and cannot be cancelled, so they happen here, where the supervisor can
abandon them. Each device is announced before it is read: whoever watches knows which one is stuck.

Requests: {"sweep": N, "skip": [index …], "links": whether to read their traffic}. Answers, in order: `init`
or `init_error`; for each sweep `begin`, then `start` and `device` or `device_error` for each device, then
`end`; at any time `xid`; `fatal` before the process ends because only a new one can go on.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from typing import Any, TextIO

from exporter.hardware import nvidia

_PR_SET_PDEATHSIG = 1  # prctl(2)
_EVENT_WAIT_MILLISECONDS = 1000
_EVENT_RETRY_SECONDS = 60.0


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


def main() -> None:
    """Serve the supervisor until it closes stdin, a fatal error comes, or the process is killed."""
    _die_with_parent()
    channel = Channel(_private_stdout())
    try:
        driver = nvidia.Driver()
    except nvidia.DriverError as error:
        channel.send("init_error", reason=error.reason, code=error.code)
        os._exit(0)
    channel.send("init", driver_version=driver.version)
    events = _EventThread(channel, driver)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answering = sweep(
                driver, channel, request["sweep"], set(request["skip"]), links=request.get("links", False)
            )
        except nvidia.DriverError as error:
            channel.send("fatal", reason=error.reason, code=error.code)
            os._exit(0)
        events.watch(answering)
    os._exit(0)  # a thread may be inside the driver: a normal exit would wait for it


def sweep(
    driver: nvidia.Driver, channel: Channel, number: int, skip: set[int], *, links: bool = False
) -> frozenset[int]:
    """Read every device but those in `skip`; which of them answered. Raises DriverError when the library as a
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
        except nvidia.DriverError as error:
            if error.fatal:
                raise
            channel.send(
                "device_error",
                sweep=number,
                index=index,
                state=nvidia.device_state(error),
                reason=error.reason,
                call=error.call,
            )
        else:
            channel.send("device", sweep=number, index=index, **reading)
            answered.add(index)
    channel.send("end", sweep=number)
    return frozenset(answered)


class _EventThread:
    """Waits for Xid events beside the sweeps, of every device that has answered one."""

    def __init__(self, channel: Channel, driver: nvidia.Driver) -> None:
        self._channel = channel
        self._driver = driver
        self._answering: frozenset[int] = frozenset()
        self._others_answer = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, answering: frozenset[int]) -> None:
        """These are the devices that answered the last sweep."""
        if answering != self._answering:
            self._answering = answering
            self._others_answer.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            self._others_answer.clear()
            try:
                self._wait_for_events()
            except nvidia.DriverError as error:
                self._channel.send("events_error", reason=error.reason)
            self._others_answer.wait(_EVENT_RETRY_SECONDS)

    def _wait_for_events(self) -> None:
        """Ends while no device answers. Raises DriverError when there are no events to be had."""
        if not self._answering:
            return
        events = nvidia.XidEvents(self._driver)
        asked: frozenset[int] = frozenset()
        try:
            while answering := self._answering:
                for index in sorted(answering - asked):
                    events.add(index)
                asked = answering
                if not events:
                    raise nvidia.DriverError(nvidia.NOT_SUPPORTED, call="nvmlDeviceRegisterEvents")
                event = events.wait(_EVENT_WAIT_MILLISECONDS)
                if event is not None:
                    self._channel.send("xid", uuid=event[0], xid=event[1], at=time.time())
        finally:
            events.close()


def _private_stdout() -> TextIO:
    """The answers' stream; file descriptor 1 becomes stderr, in case a vendor library prints."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's ^C is the supervisor's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


if __name__ == "__main__":
    main()
