"""What the service manager is told, and how often."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Protocol

import pytest

from exporter.daemon import notify


class Manager(Protocol):
    address: str

    def receive(self, seconds: float) -> dict[str, str]: ...


def test_ready_with_a_status(any_service_manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", any_service_manager.address)
    notify.ready("400 series, 8 GPUs")
    assert any_service_manager.receive(1) == {"READY": "1", "STATUS": "400 series, 8 GPUs"}


def test_a_reload_begins_with_the_monotonic_time(
    any_service_manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", any_service_manager.address)
    before = time.monotonic() * 1e6
    notify.reloading()
    message = any_service_manager.receive(1)
    assert message.keys() == {"RELOADING", "MONOTONIC_USEC"}
    assert before - 1 <= int(message["MONOTONIC_USEC"]) <= time.monotonic() * 1e6


def test_stopping(any_service_manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", any_service_manager.address)
    notify.stopping()
    assert any_service_manager.receive(1) == {"STOPPING": "1"}


def test_without_a_service_manager_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert notify.send("READY=1") is False
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert notify.send("READY=1") is False


@pytest.mark.parametrize(
    ("microseconds", "pid", "expected"),
    [
        ("60000000", None, 20.0),
        pytest.param("60000000", str(os.getpid()), 20.0, id="60000000-ours-20.0"),
        ("60000000", "1", None),
        ("", None, None),
        ("0", None, None),
        ("-5", None, None),
        ("soon", None, None),
        ("²", None, None),
    ],
)
def test_three_signs_of_life_in_the_time_that_the_watchdog_gives(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, pid: str | None, expected: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    if pid is None:
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
    else:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    assert notify.watchdog_seconds() == expected
