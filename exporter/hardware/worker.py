"""The worker process that reads NVIDIA devices; the protocol is that of `serving`.

Beside the sweeps, a thread waits for Xid events.
"""

from __future__ import annotations

import threading
import time

from exporter.hardware import nvidia, serving
from exporter.hardware.nvidia_calls import NOT_SUPPORTED, DriverError
from exporter.hardware.nvidia_events import XidEvents

_EVENT_WAIT_MILLISECONDS = 1000
_EVENT_RETRY_SECONDS = 60.0


def main() -> None:
    """Serve the supervisor until it closes stdin, a fatal error comes, or the process is killed."""
    channel = serving.open_channel()
    driver = serving.start(channel, nvidia.Driver)
    serving.serve(channel, driver, _EventThread(channel, driver).watch)


class _EventThread:
    """Waits for Xid events beside the sweeps, of every device that has answered one."""

    def __init__(self, channel: serving.Channel, driver: nvidia.Driver) -> None:
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
            except DriverError as error:
                self._channel.send("events_error", reason=error.reason)
            self._others_answer.wait(_EVENT_RETRY_SECONDS)

    def _wait_for_events(self) -> None:
        """Ends while no device answers. Raises DriverError when there are no events to be had."""
        if not self._answering:
            return
        events = XidEvents(self._driver.handle)
        asked: frozenset[int] = frozenset()
        try:
            while answering := self._answering:
                for index in sorted(answering - asked):
                    events.add(index)
                asked = answering
                if not events:
                    raise DriverError(NOT_SUPPORTED, call="nvmlDeviceRegisterEvents")
                event = events.wait(_EVENT_WAIT_MILLISECONDS)
                if event is not None:
                    self._channel.send("xid", uuid=event[0], xid=event[1], at=time.time())
        finally:
            events.close()


if __name__ == "__main__":
    main()
