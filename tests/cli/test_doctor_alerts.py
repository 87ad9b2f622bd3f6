"""`doctor` on whom the daemon is to tell of its alerts."""

from __future__ import annotations

from prometheus_process import free_port
from webhook import Webhook

from exporter.cli.doctor_alerts import alertmanagers
from exporter.settings.options import Alertmanager, Settings


def settings(*urls: str) -> Settings:
    return Settings(alertmanagers=[Alertmanager(url=url, timeout=2.0) for url in urls])


def test_one_that_answers_is_told_by_its_version() -> None:
    with Webhook(answer=b'{"versionInfo": {"version": "0.25.0"}}') as receiver:
        [check] = alertmanagers(settings(receiver.url))
    assert (check.id, check.verdict) == (f"alertmanager 127.0.0.1:{receiver.port}", "ok")
    assert check.found == "version 0.25.0"


def test_one_that_does_not_is_a_problem_with_its_reason_and_a_remedy() -> None:
    [check] = alertmanagers(settings(f"http://127.0.0.1:{free_port()}"))
    assert (check.verdict, check.found) == ("problem", "connection refused")
    assert "[[alertmanagers]]" in check.advice


def test_without_any_there_is_nothing_to_say() -> None:
    assert alertmanagers(settings()) == []
