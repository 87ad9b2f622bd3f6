"""The short-lived reader of the configuration, and what the daemon makes of its answers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.settings import resolve
from exporter.settings.errors import ConfigurationError
from exporter.settings.options import Settings

Write = Callable[[str], Path]
Resolve = Callable[[Path | None, dict[str, dict[str, str]]], Settings]


def in_a_loop(file: Path | None, flags: dict[str, dict[str, str]]) -> Settings:
    return asyncio.run(resolve.resolve_async(file, flags))


both = pytest.mark.parametrize("read", [resolve.resolve, in_a_loop])


def use_child(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Put another program in the reader's place."""
    monkeypatch.setattr(resolve, "command", lambda: list(arguments))


@both
def test_file_and_flags_reach_the_child_and_settings_come_back(read: Resolve, write: Write) -> None:
    path = write('pool = "r&d – größer"\n[[deployments]]\nname = "a"\nmodel = "b"\ndevices = [3]\n')
    settings = read(path, {"poll": {"interval": "2.5"}})
    assert (settings.pool, settings.poll.interval) == ("r&d – größer", 2.5)
    assert settings.deployments[0].devices == [3]


@both
def test_an_error_in_the_file_is_raised_with_its_text(read: Resolve, write: Write) -> None:
    with pytest.raises(ConfigurationError, match=r"poll\.intervall: unknown key; did you mean 'interval'"):
        read(write("poll.intervall = 3"), {})


@both
@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit('no module named x')", "ended with 1: no module named x"),
        ("import os; os.kill(os.getpid(), 9)", "ended with -9: no answer"),
        ("print('not json')", "ended with 0: no answer"),
        ("print('[1, 2]')", "ended with 0"),
        ("print('null')", "ended with 0"),
        ("print('{}')", "ended with 0"),
        ('print(\'{"settings": {"nonsense": 1}}\')', "ended with 0"),
        ("print('[' * 100000)", "ended with 0"),
    ],
)
def test_a_child_that_fails_is_a_configuration_error(
    read: Resolve, program: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_child(monkeypatch, sys.executable, "-c", program)
    with pytest.raises(ConfigurationError, match=message):
        read(None, {})


@both
def test_a_child_that_cannot_start_is_a_configuration_error(
    read: Resolve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_child(monkeypatch, str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="could not run: No such file"):
        read(None, {})


@both
def test_a_child_that_never_ends_is_given_up(read: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    use_child(monkeypatch, sys.executable, "-c", "import time; time.sleep(600)")
    monkeypatch.setattr(resolve, "DEADLINE_SECONDS", 0.3)
    with pytest.raises(ConfigurationError, match="did not end in time"):
        read(None, {})


def test_the_daemon_never_loads_the_validator() -> None:
    program = (
        "import sys, exporter.cli.serve, exporter.daemon.service\n"
        "print([name for name in sys.modules if name.split('.')[0].startswith('pydantic')])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
