"""Help, version and exit codes, as a person or a script at the shell sees them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporter import __version__
from exporter.cli import COMMANDS, main


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own, without options from the environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DEEPSEEK_EXPORTER_")}
    return subprocess.run(
        [sys.executable, "-m", "exporter", *arguments],
        capture_output=True,
        text=True,
        env={**clean, "COLUMNS": "80", **environment},
        timeout=60,
        check=False,
    )


def groups() -> list[tuple[str, ...]]:
    """Every command and subcommand."""
    found: list[tuple[str, ...]] = [()]
    for name in COMMANDS:
        found.append((name,))
        help_text = CliRunner().invoke(main, [name, "--help"]).output
        below = help_text.partition("Commands:")[2].splitlines()
        found += [(name, line.split()[0]) for line in below if line.startswith("  ") and line[2] != " "]
    return found


@pytest.mark.parametrize("command", groups(), ids=" ".join)
def test_every_command_has_help_that_fits_80_columns(command: tuple[str, ...]) -> None:
    for flag in ("--help", "-h"):
        done = CliRunner().invoke(main, [*command, flag], terminal_width=80)
        assert done.exit_code == 0
        assert done.output.startswith("Usage: ")
        assert max(len(line) for line in done.output.splitlines()) <= 80


def test_the_subcommands_are_among_them() -> None:
    assert {("config", "check"), ("ctl", "release"), ("rules", "install")} <= set(groups())


def test_help_names_the_exit_codes() -> None:
    text = " ".join(CliRunner().invoke(main, ["--help"]).output.split())
    assert "0 fine, 1 the answer is no, 2 usage or configuration error, 3 nothing could be read" in text


def test_version_tells_program_and_version() -> None:
    done = shell("--version")
    assert (done.returncode, done.stdout) == (0, f"deepseek-exporter, version {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["footprints"], "No such command"),
        (["serve", "--pol.interval", "3"], "'--poll.interval'"),
        (["serve", "--poll.interval"], "requires an argument"),
        (["serve", "--poll.interval", "often"], "--poll.interval: input should be a valid number"),
        (["serve", "--nvml.enabled", "perhaps"], "--nvml.enabled: input should be a valid boolean"),
        (
            ["serve", "--log.level", "loud"],
            "--log.level: input should be 'debug', 'info', ",
        ),
        (["serve", "--config.file", "/nonexistent/config.toml"], "no such file"),
        (["serve", "--web.listen-address", "nonsense"], "such as 127.0.0.1:9671"),
        (["status", "--config.file", "/nonexistent/config.toml"], "no such file"),
        (["doctor", "--config.file", "/nonexistent/config.toml"], "no such file"),
        (["ctl"], "Commands:"),
        (["rules", "print", "rules/none.yml"], "there are: rules/"),
    ],
)
def test_a_mistake_of_the_user_ends_with_2_and_says_what_is_wrong(
    arguments: list[str], advice: str, tmp_path: Path
) -> None:
    done = shell(*arguments, XDG_STATE_HOME=str(tmp_path), RUNTIME_DIRECTORY=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert advice in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        socket_path = str(tmp_path / "control.sock")
        done = shell("serve", "--web.listen-address", address, "--state.control-socket", socket_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: --web.listen-address {address}: cannot listen: another program listens there; "
        "stop it or choose another address\n"
    )
