"""The daemon's own alerts: judged at each snapshot, remembered across restarts, told to Alertmanagers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from exporter import log, statefile
from exporter.alerting.evaluation import Evaluation, Links
from exporter.capacity.alert import Alert
from exporter.daemon.notifications import Notifications
from exporter.exposition.collect import Sample
from exporter.settings.options import Settings
from exporter.snapshot import Receiver

_log = log.get(__name__)

_SAVE_SECONDS = 60.0
"""How often what stands is written down beside its changes, so that a restart knows how long ago that was."""


class Alerts:
    """One per daemon. `host` is what this host is called where `alerting.instance` does not say; `file` None:
    nothing is remembered.
    """

    def __init__(self, settings: Settings, host: str, file: Path | None) -> None:
        self._host = host
        self._file = file
        self._saved_at = float("-inf")
        self._problem: str | None = None
        # A disk that hangs must not hold up the polls.
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="alerts-file")
        self._evaluation: Evaluation | None = None
        if settings.alerting.evaluate:
            self._evaluation = Evaluation(self._links(settings), time_scale=settings.alerting.time_scale)
        self._notifications: Notifications | None = None
        self._basis: object = None
        self._restore()

    def start(self, settings: Settings) -> None:
        """Begin to tell the configured Alertmanagers; needs a running event loop."""
        self._basis = _basis(settings)
        if settings.alertmanagers and self._evaluation is not None:
            labels = {"instance": self._instance(settings), "job": settings.alerting.job}
            self._notifications = Notifications(
                settings.alertmanagers, labels, settings.alerting.resend_interval
            )
            self._notifications.start()

    async def apply(self, settings: Settings) -> None:
        """Use other settings from now on."""
        if self._evaluation is not None:
            self._evaluation.links = self._links(settings)
        if _basis(settings) == self._basis:
            return
        if self._notifications is not None:
            await self._notifications.stop(resolve=not settings.alertmanagers)
            self._notifications = None
        self.start(settings)

    def judge(self, samples: Iterable[Sample]) -> tuple[Alert, ...]:
        """The alerts that stand after a snapshot with these samples."""
        if self._evaluation is None:
            return ()
        now, now_seconds = time.monotonic(), time.time()
        readings = ((family.name, family.labels, labels, value) for family, labels, value in samples)
        judgement = self._evaluation.evaluate(readings, now, now_seconds)
        if self._notifications is not None:
            self._notifications.publish(judgement.alerts, judgement.ended)
        if judgement.changed or (judgement.alerts and now - self._saved_at >= _SAVE_SECONDS):
            self._saved_at = now
            standing = self._evaluation.standing(now, now_seconds)
            self._writer.submit(self._save, standing)
        return judgement.alerts

    def receivers(self) -> tuple[Receiver, ...]:
        """How each Alertmanager took what it was told."""
        return self._notifications.receivers() if self._notifications is not None else ()

    async def stop(self) -> None:
        """Write down what stands, and tell Alertmanagers that nothing more will come."""
        if self._evaluation is not None:
            self._writer.submit(self._save, self._evaluation.standing(time.monotonic(), time.time()))
        self._writer.shutdown(wait=False)
        if self._notifications is not None:
            await self._notifications.stop(resolve=True)

    def _links(self, settings: Settings) -> Links:
        return Links(self._instance(settings), settings.alerting.runbook_base)

    def _instance(self, settings: Settings) -> str:
        return settings.alerting.instance or self._host

    def _save(self, standing: dict[str, Any]) -> None:
        if self._file is None:
            return
        try:
            statefile.write(self._file, standing)
        except OSError as error:
            if self._problem is None:
                _log.warning("alerts not saved; after a restart they wait their time again", error=str(error))
            self._problem = str(error)
        else:
            self._problem = None

    def _restore(self) -> None:
        if self._file is None or self._evaluation is None:
            return
        try:
            saved = statefile.read(self._file)
            self._evaluation.restore(saved, time.monotonic(), time.time())
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            _log.warning("alerts not readable; starting without", path=str(self._file), error=str(error))


def _basis(settings: Settings) -> object:
    return repr(settings.alertmanagers), repr(settings.alerting)
