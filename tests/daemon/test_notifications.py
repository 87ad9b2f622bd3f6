"""How Alertmanagers are told: at once, again, after failures, each for itself, and of the end."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from alertmanager_process import RunningAlertmanager
from fixed_snapshot import FULL
from prometheus_process import free_port
from webhook import Received, Webhook

from exporter.capacity.alert import Alert
from exporter.daemon.notifications import Notifications
from exporter.settings.options import Alertmanager

LABELS = {"instance": "gpu-01:9671", "job": "deepseek"}
FIRING, PENDING = FULL.alerts


def fresh(alert: Alert) -> Alert:
    """As if it had begun a moment ago: an Alertmanager takes nothing that ended before it began."""
    now = time.time()
    return dataclasses.replace(alert, active_since_seconds=now - 60, firing_since_seconds=now - 30)


def to(*urls: str, resend_seconds: float = 60.0, **options: Any) -> Notifications:
    entries = [Alertmanager(url=url, timeout=1.0, **options) for url in urls]
    return Notifications(entries, LABELS, resend_seconds)


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await body()

    asyncio.run(bounded())


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.02)


def rows(request: Received) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = request.json
    return found


def test_what_fires_is_told_at_once_with_the_labels_that_prometheus_would_give() -> None:
    async def body() -> None:
        notifications = to(receiver.url, labels={"cluster": "north"})
        notifications.start()
        notifications.publish((FIRING, PENDING), ())
        await until(lambda: receiver.received)
        await notifications.stop(resolve=False)

    with Webhook() as receiver:
        run(body)
    [row] = rows(receiver.received[0])
    assert row["labels"] == {
        "alertname": "DeepSeekGpuLost",
        "severity": "critical",
        "gpu": "1",
        "uuid": FIRING.subject["uuid"],
        "cluster": "north",
        **LABELS,
    }
    assert row["annotations"]["summary"] == FIRING.summary
    assert row["annotations"]["runbook_url"].endswith("#deepseekgpulost")
    assert row["startsAt"] < row["endsAt"]


def test_what_goes_on_is_told_again_and_nothing_is_told_while_nothing_fires() -> None:
    async def body() -> None:
        notifications = to(receiver.url, resend_seconds=0.2)
        notifications.start()
        notifications.publish((PENDING,), ())
        await asyncio.sleep(0.5)
        assert receiver.received == []
        notifications.publish((FIRING,), ())
        await until(lambda: len(receiver.received) >= 3)
        await notifications.stop(resolve=False)

    with Webhook() as receiver:
        run(body)


def test_a_failed_push_is_tried_again_and_counted() -> None:
    async def body() -> None:
        notifications = to(receiver.url)
        notifications.start()
        notifications.publish((FIRING,), ())
        await until(lambda: not notifications.receivers()[0].up)
        await until(lambda: notifications.receivers()[0].up)
        [one] = notifications.receivers()
        assert (one.name, one.sent, one.failed) == (f"127.0.0.1:{receiver.port}", 1, 1)
        await notifications.stop(resolve=False)

    with Webhook(statuses=[503, 200]) as receiver:
        run(body)
    assert len(receiver.received) == 2


def test_one_that_is_silent_or_gone_keeps_no_other_waiting() -> None:
    silent = threading.Event()
    silent.set()

    async def body() -> None:
        notifications = to(stuck.url, f"http://127.0.0.1:{free_port()}", well.url)
        notifications.start()
        began = time.monotonic()
        notifications.publish((FIRING,), ())
        await until(lambda: well.received)
        assert time.monotonic() - began < 0.9  # less than the silent one's time
        await until(lambda: [one.up for one in notifications.receivers()] == [False, False, True])
        await notifications.stop(resolve=False)

    with Webhook(silent=silent) as stuck, Webhook() as well:
        run(body)


def test_an_end_is_told_with_its_time_and_stopping_ends_all() -> None:
    async def body() -> None:
        notifications = to(receiver.url)
        notifications.start()
        first, second = fresh(FIRING), fresh(dataclasses.replace(PENDING, firing=True))
        notifications.publish((first, second), ())
        await until(lambda: receiver.received)
        notifications.publish((first,), (second,))
        await until(lambda: len(receiver.received) == 2)
        await notifications.stop(resolve=True)

    with Webhook() as receiver:
        run(body)
    ends = [{row["labels"]["alertname"]: row["endsAt"] for row in rows(one)} for one in receiver.received]
    assert ends[1]["DeepSeekVramOvercommitLikely"] < ends[0]["DeepSeekVramOvercommitLikely"]
    assert ends[2]["DeepSeekGpuLost"] < ends[1]["DeepSeekGpuLost"]
    assert ends[2].keys() == {"DeepSeekGpuLost", "DeepSeekVramOvercommitLikely"}


def test_an_alert_that_fires_again_is_no_longer_told_to_have_ended() -> None:
    async def body() -> None:
        notifications = to(receiver.url)
        notifications.start()
        notifications.publish((FIRING,), ())
        await until(lambda: receiver.received)
        notifications.publish((), (FIRING,))
        await until(lambda: len(receiver.received) == 2)
        notifications.publish((FIRING,), ())
        await until(lambda: len(receiver.received) == 3)
        await notifications.stop(resolve=False)

    with Webhook() as receiver:
        run(body)
    assert len(rows(receiver.received[2])) == 1


def test_a_real_alertmanager_takes_fires_and_resolves(tmp_path: Path) -> None:
    alert = fresh(FIRING)

    async def body() -> None:
        notifications = to(manager.url)
        notifications.start()
        notifications.publish((alert,), ())
        await until(lambda: manager.names() == {"DeepSeekGpuLost"})
        notifications.publish((), (alert,))
        await until(lambda: manager.names() == set())
        notifications.publish((alert,), ())
        await until(lambda: manager.names() == {"DeepSeekGpuLost"})
        await notifications.stop(resolve=True)
        await until(lambda: manager.names() == set())

    with Webhook() as receiver, RunningAlertmanager.start(tmp_path, receiver.url) as manager:
        run(body)
        told = receiver.wait_for(lambda seen: any(one.json["status"] == "resolved" for one in seen))
    assert {one.path for one in told} == {"/page"}
