"""Where state and control socket lie: as configured, as systemd says, else in the user's folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exporter.daemon import paths
from exporter.settings.options import State


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")


def test_the_configured_places_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/deepseek-exporter")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/deepseek-exporter")
    state = State(directory=Path("/srv/state"), control_socket=Path("/srv/socket"))
    assert paths.inventory_file(state) == Path("/srv/state/inventory.json")
    assert paths.control_socket(state) == Path("/srv/socket")


def test_the_service_s_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/deepseek-exporter:/var/lib/other")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/deepseek-exporter:/run/other")
    assert paths.inventory_file(State()) == Path("/var/lib/deepseek-exporter/inventory.json")
    assert paths.control_socket(State()) == Path("/run/deepseek-exporter/control.sock")


def test_root_by_hand_finds_the_service_s_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert paths.control_socket(State()) == Path("/run/deepseek-exporter/control.sock")


def test_a_user_by_hand_has_it_in_the_user_s_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    state = Path("/home/somebody/.local/state/deepseek-exporter")
    assert paths.inventory_file(State()) == state / "inventory.json"
    assert paths.control_socket(State()) == state / "control.sock"
    monkeypatch.setenv("XDG_STATE_HOME", "/home/somebody/state")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert paths.inventory_file(State()) == Path("/home/somebody/state/deepseek-exporter/inventory.json")
    assert paths.control_socket(State()) == Path("/run/user/1000/deepseek-exporter/control.sock")
