"""`ctl`: what the running daemon is asked, and what a person reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from exporter.cli import main

Prepare = Callable[[dict[str, dict[str, Any]]], Path]

STATUS: dict[str, Any] = {
    "version": "1.2.3",
    "pid": 4711,
    "address": "127.0.0.1:9671",
    "healthy": True,
    "driver_released": False,
    "worker_pids": [4712],
    "configuration": {"successful": True, "problem": ""},
    "sources": {"nvml": "up", "host": "up"},
}


def ctl(socket: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["ctl", f"--state.control-socket={socket}", *arguments])


@pytest.mark.parametrize(
    "arguments", [["status"], ["release"], ["resume"], ["reload"], ["forget", "GPU-1"]], ids=" ".join
)
def test_without_a_daemon_it_ends_with_3_and_says_where_to_look(arguments: list[str], tmp_path: Path) -> None:
    done = ctl(tmp_path / "none.sock", *arguments)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "no daemon answers on" in done.stderr
    assert "systemctl status deepseek-exporter" in done.stderr


def test_the_socket_can_come_from_the_environment(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["ctl", "status"], env={"DEEPSEEK_EXPORTER_STATE_CONTROL_SOCKET": str(tmp_path / "mine.sock")}
    )
    assert "mine.sock" in done.stderr


def test_status_tells_how_the_daemon_is_doing(daemon: Prepare) -> None:
    done = ctl(daemon({"status": STATUS}), "status")
    assert done.output.splitlines() == [
        "deepseek-exporter 1.2.3, pid 4711, http://127.0.0.1:9671",
        "healthy: yes",
        "source nvml: up",
        "source host: up",
    ]


def test_status_tells_what_is_wrong(daemon: Prepare) -> None:
    bad = {
        **STATUS,
        "healthy": False,
        "driver_released": True,
        "configuration": {"successful": False, "problem": "config.toml: pol: unknown key"},
    }
    text = ctl(daemon({"status": bad}), "status").output
    assert "healthy: no, sampling stands still" in text
    assert "GPU driver: released; `ctl resume` takes it up again" in text
    assert "the old one is in force: config.toml: pol: unknown key" in text


def test_status_as_json_is_the_daemons_answer(daemon: Prepare) -> None:
    assert json.loads(ctl(daemon({"status": STATUS}), "status", "--json").output) == STATUS


def test_release_tells_when_the_driver_is_taken_up_again(daemon: Prepare) -> None:
    done = ctl(daemon({"release": {"released": True, "seconds": 600.0}}), "release")
    assert (done.exit_code, done.output) == (
        0,
        "released; taken up again with `ctl resume` or after 600 s\n",
    )


def test_a_driver_that_cannot_be_released_ends_with_1(daemon: Prepare) -> None:
    done = ctl(daemon({"release": {"released": False, "seconds": 600.0}}), "release")
    assert done.exit_code == 1
    assert "still held" in done.stderr


def test_a_reload_that_was_refused_ends_with_2_and_the_reason(daemon: Prepare) -> None:
    done = ctl(daemon({"reload": {"reloaded": False, "problem": "one\ntwo"}}), "reload")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "error: one",
        "error: two",
        "error: the old configuration stays in force",
    ]


def test_reload_resume_and_forget_confirm(daemon: Prepare) -> None:
    path = daemon(
        {"reload": {"reloaded": True}, "resume": {"resumed": True}, "forget": {"forgotten": "GPU-1"}}
    )
    assert [ctl(path, *one).output for one in (["reload"], ["resume"], ["forget", "GPU-1"])] == [
        "reloaded\n",
        "resumed\n",
        "forgotten: GPU-1\n",
    ]


def test_what_the_daemon_refuses_is_passed_on(daemon: Prepare) -> None:
    done = ctl(daemon({"forget": {"error": "no remembered device has uuid 'GPU-2'"}}), "forget", "GPU-2")
    assert (done.exit_code, done.stderr) == (3, "error: no remembered device has uuid 'GPU-2'\n")
