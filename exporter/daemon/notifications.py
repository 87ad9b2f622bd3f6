"""Tells Alertmanagers of the daemon's own alerts: at once when something changes, and again while it fires.

Each Alertmanager has a thread and a pace of its own, so that one that is down or slow keeps no other waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from exporter import log
from exporter.capacity.alert import Alert
from exporter.settings.options import Alertmanager
from exporter.snapshot import Receiver

if TYPE_CHECKING:
    from exporter.alerting.alertmanager import AlertmanagerClient

_log = log.get(__name__)

ENDED_KEPT_SECONDS = 900.0
"""An end is told again for this long, as Prometheus does (resolvedRetention): a receiver may be down."""
_RETRY_FIRST_SECONDS = 1.0
_STOP_SECONDS = 3.0


class Notifications:
    """All configured Alertmanagers. `labels` are those of every alert: instance and job."""

    def __init__(
        self, entries: Iterable[Alertmanager], labels: Mapping[str, str], resend_seconds: float
    ) -> None:
        self._firing: tuple[Alert, ...] = ()
        self._ended: dict[tuple[str, str, tuple[str, ...]], tuple[Alert, float]] = {}
        self._lines = [_Line(entry, {**labels, **entry.labels}, resend_seconds) for entry in entries]

    def start(self) -> None:
        """Begin to tell; needs a running event loop."""
        for line in self._lines:
            line.start()

    def publish(self, alerts: Iterable[Alert], ended: tuple[Alert, ...]) -> None:
        """What stands after a snapshot, and what has just ended; only what fires is told."""
        now = time.time()
        before = {_identity(one) for one in self._firing}
        self._firing = tuple(one for one in alerts if one.firing)
        self._ended = {key: one for key, one in self._ended.items() if now - one[1] < ENDED_KEPT_SECONDS}
        for alert in ended:
            self._ended[_identity(alert)] = (alert, now)
        standing = {_identity(one) for one in self._firing}
        for key in standing:
            self._ended.pop(key, None)
        news = standing != before or bool(ended)
        for line in self._lines:
            line.hand_over(self._firing, tuple(self._ended.values()), at_once=news)

    def receivers(self) -> tuple[Receiver, ...]:
        """How each Alertmanager took what it was told."""
        return tuple(line.receiver for line in self._lines)

    async def stop(self, *, resolve: bool) -> None:
        """End; with `resolve`, what fires is told to have ended, since nobody will tell of it any more."""
        now = time.time()
        if resolve:
            ended = (*self._ended.values(), *((alert, now) for alert in self._firing))
            for line in self._lines:
                line.hand_over((), ended, at_once=bool(self._firing))
        await asyncio.gather(*(line.stop(tell=resolve) for line in self._lines))


def _identity(alert: Alert) -> tuple[str, str, tuple[str, ...]]:
    return alert.name, alert.severity, tuple(sorted(alert.subject.values()))


class _Line:
    """The way to one Alertmanager."""

    def __init__(self, entry: Alertmanager, labels: Mapping[str, str], resend_seconds: float) -> None:
        from exporter.alerting.alertmanager import AlertmanagerClient

        self._client: AlertmanagerClient = AlertmanagerClient(entry)
        self._labels = labels
        self._resend_seconds = resend_seconds
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="alertmanager")
        self._firing: tuple[Alert, ...] = ()
        self._ended: tuple[tuple[Alert, float], ...] = ()
        self._news = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self.receiver = Receiver(self._client.name, True, 0, 0)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def hand_over(
        self, firing: tuple[Alert, ...], ended: tuple[tuple[Alert, float], ...], *, at_once: bool
    ) -> None:
        self._firing, self._ended = firing, ended
        if at_once:
            self._news.set()

    async def stop(self, *, tell: bool) -> None:
        """End; with `tell`, what was handed over last is sent before, within a bounded time."""
        self._stopping = True
        self._news.set()
        if self._task is not None:
            if tell:
                await asyncio.wait([self._task], timeout=_STOP_SECONDS)
            self._task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        retry = _RETRY_FIRST_SECONDS
        while True:
            self._news.clear()
            sent = not (self._firing or self._ended) or await self._send()
            if self._stopping:
                return
            wait = self._resend_seconds if sent else min(retry, self._resend_seconds)
            retry = _RETRY_FIRST_SECONDS if sent else retry * 2
            try:
                async with asyncio.timeout(wait):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _send(self) -> bool:
        from exporter.alerting.alertmanager import NotSent
        from exporter.alerting.notification import VALID_RESENDS, payload

        body = payload(
            self._firing,
            self._ended,
            self._labels,
            now_seconds=time.time(),
            valid_seconds=VALID_RESENDS * self._resend_seconds,
        )
        sent, failed = self.receiver.sent, self.receiver.failed
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._client.post, body)
        except NotSent as error:
            if str(error) != self._problem:
                _log.warning("alerts not sent", alertmanager=self._client.name, problem=str(error))
            self._problem = str(error)
            self.receiver = Receiver(self._client.name, False, sent, failed + 1)
            return False
        if self._problem is not None:
            _log.info("alerts sent again", alertmanager=self._client.name)
        self._problem = None
        self.receiver = Receiver(self._client.name, True, sent + 1, failed)
        return True
