"""`status`: what a person and a script see of a host, with and without a daemon, once or for a while."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fixed_snapshot import EMPTY, FULL, GPUS, NOW_SECONDS, READING, UUIDS, declared, identity
from hostile_snapshot import hostile
from made_up_hosts import HOST_NAME, in_trouble
from page_browser import as_of_now
from rich.cells import cell_len
from rich.console import Console
from test_commands import shell

from exporter.capacity.assessment import Commitment, DeploymentStatus
from exporter.capacity.bounds import Bounds
from exporter.cli import main
from exporter.cli.status_view import plain_text, whole
from exporter.hardware.gpu import Gpu, GpuState
from exporter.snapshot import Snapshot, to_plain
from exporter.units import GIB
from exporter.views.facts import View
from exporter.views.look import look

Prepare = Callable[[dict[str, dict[str, Any]]], Path]


def view_of(snapshot: Snapshot) -> View:
    return look(to_plain(snapshot), now_seconds=NOW_SECONDS + 3, host_name=HOST_NAME)


def seen(snapshot: Snapshot) -> str:
    return plain_text(view_of(snapshot))


def on_terminal(snapshot: Snapshot, columns: int, *, colour: bool = False) -> str:
    console = Console(
        width=columns, force_terminal=True, color_system="standard", no_color=not colour, markup=False
    )
    with console.capture() as captured:
        console.print(whole(view_of(snapshot), console, bars=True))
    return captured.get()


def without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class TestForPeople:
    def test_the_full_snapshot_reads_like_this(self) -> None:
        assert seen(FULL).splitlines() == [
            "gpu-01 · pool production · version 0.1.0 · read 3 s ago",
            "Critical. GPU 1 is lost: the driver no longer has it (fell off the bus).",
            "",
            "critical  DeepSeekGpuLost, GPU 1, firing for 3 min",
            "          GPU 1 of gpu-01:9671 is lost: state lost. Deployments: r1.",
            "          docs/ALERTS.md#deepseekgpulost",
            "warning   DeepSeekVramOvercommitLikely, GPU 0, pending for 63 s",
            "          GPU 0 of gpu-01:9671 may be overcommitted.",
            "          docs/ALERTS.md#deepseekvramovercommitlikely",
            "warning   10.0 GiB on GPU 0 held by no deployment",
            "warning   r1 does not run as declared: max_model_len",
            "warning   v9: must be able to run, and does not",
            "warning   source engines is unreadable",
            "",
            "memory               state       used   capacity  committed  headroom",
            "GPU 0 H200           tight  120.0 GiB  140.4 GiB  137.5 GiB   2.9 GiB",
            "GPU 1 H200           lost           –          –          –         –",
            "GPU 1:3 MIG 3g.71gb  lost           –          –          –         –",
            "RAM                  up     136.0 GiB    1.5 TiB  150.0 GiB   1.4 TiB",
            "",
            "deployment  state                per GPU      RAM  full-length",
            "r1          warm           2 × 111.0 GiB  8.0 GiB         11.2",
            "v9          declared_only              –        –            –",
            "",
            "r1 on GPU 0, 1: deepseek-ai/DeepSeek-R1, fp8, fp8 KV cache, vLLM 0.33.0, TP 2,",
            "speculative (mtp)",
            "  holds what it should on 1 of 2 GPUs; at most 2.0 GiB less (−1.8 %), on GPU 0;",
            "  room for 4 more full-length requests (65,536 tokens each); 88 % of its mapped",
            "  weights are in RAM; may use 200.0 GiB of RAM (its cgroup), 96.0–104.0 GiB to",
            "  spare; may use 767.0 GiB of RAM (NUMA node 0), 663.0–671.0 GiB to spare; at",
            "  most 40.5 tokens/s for one sequence (11.4 GB of weights each; RAM gives 461",
            "  GB/s by what the processor has); not as declared: max_model_len; KV cache 25 %",
            "  in use; requests: 5 running, 2 waiting; link to its other nodes: mlx5_0:1, 400",
            "  Gb/s; 82 % sent, 81 % received in the last minute; allows 16,168 to 28,356",
            "  tokens a second, prompt and generated",
            "",
            "v9 on GPU 0, 1: deepseek-ai/DeepSeek-V9, fp8 KV cache, vLLM, TP 2",
            "  must be able to run, and does not; no expectation: unknown model",
            "  'deepseek-ai/DeepSeek-V9'",
            "",
            "store        state       free     size  DeepSeek",
            "huggingface  ok     900.0 GiB  3.4 TiB   1.6 TiB",
            "",
            "huggingface: 320.0 GiB still to be downloaded; 640.0 GiB orphaned; 4.0 GiB of",
            "downloads given up; 70.0 GiB of other models; deepseek-ai/DeepSeek-V3.1 bf16",
            "does not fit, 697.0 GiB too little; serves r1; deepseek-ai/DeepSeek-R1 642.0 GiB",
            "complete; deepseek-ai/DeepSeek-R1 640.0 GiB orphaned; deepseek-ai/DeepSeek-V3.2",
            "322.0 GiB downloading; other 66.0 GiB complete; other 4.0 GiB incomplete",
            "",
            "power    413 W now of 700 W allowed; measured by 1 of 2 GPUs; 27.4 kWh since the",
            "         drivers began to count",
            "sources  nvml: up, host: up, processes: up, engines: unreadable",
        ]

    def test_alerts_come_with_whom_they_are_about_how_long_and_where_help_is(self) -> None:
        text = seen(in_trouble())
        assert "critical  DeepSeekGpuLost, GPU 5, firing for 9 min" in text
        assert "          https://docs.example.org/ALERTS.md#deepseekgpulost" in text
        assert "warning   DeepSeekForeignVram, GPU 2, pending for 2 min" in text
        assert "firing for 31 min,\n          data missing, state kept" in text

    @pytest.mark.parametrize(
        ("committed", "verdict"),
        [(Bounds(90, 95), "up"), (Bounds(90, 101), "tight"), (Bounds(101, 102), "overcommitted")],
    )
    def test_the_two_bounds_of_the_headroom_give_the_verdict(self, committed: Bounds, verdict: str) -> None:
        here = dataclasses.replace(FULL.assessment, devices={UUIDS[0]: Commitment(100, committed)})
        text = seen(dataclasses.replace(FULL, assessment=here))
        line = next(one for one in text.splitlines() if one.startswith("GPU 0 H200"))
        assert line.split()[3] == verdict

    @pytest.mark.parametrize("state", list(GpuState))
    def test_it_fits_80_columns_with_long_names_and_problems(self, state: GpuState) -> None:
        device = dataclasses.replace(
            identity(0), index=15, name="NVIDIA RTX PRO 6000 Blackwell Server Edition"
        )
        over = Commitment(READING.memory_total_bytes or 0, Bounds(999 * GIB, 999 * GIB))
        wide = dataclasses.replace(
            FULL,
            gpus=(
                Gpu(device, GpuState.UP, reading=READING),
                Gpu(dataclasses.replace(device, uuid="x"), state),
            ),
            assessment=dataclasses.replace(
                FULL.assessment,
                devices={UUIDS[0]: over},
                deployments=(
                    DeploymentStatus(declared("n" * 64), "declared_only", frozenset()),
                    DeploymentStatus(declared("p" * 64, problem="why " * 60), "declared_only", frozenset()),
                ),
            ),
            sources=FULL.sources * 3,
        )
        for text in (seen(wide), without_styles(on_terminal(wide, 80))):
            assert max(cell_len(line) for line in text.splitlines()) <= 80

    def test_names_can_neither_command_the_terminal_nor_leave_their_place(self) -> None:
        for text in (seen(hostile()), without_styles(on_terminal(hostile(), 80))):
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", text)
            assert max(cell_len(line) for line in text.splitlines()) <= 80
            assert "<script>window.harmed=1</script>" in text


class TestBars:
    @pytest.mark.parametrize("columns", [80, 100, 200])
    def test_a_terminal_gets_bars_that_can_be_read_without_colour(self, columns: int) -> None:
        text = without_styles(on_terminal(in_trouble(), columns))
        bars = [line for line in text.splitlines() if re.search("[█▒░┃]", line)]
        full, crowded = (
            next(line for line in bars if line.startswith(name) and "█" in line)
            for name in ("GPU 2", "GPU 6")
        )
        assert re.search("█+▒+┃", full)
        assert re.search("█+░+┃░+", crowded)
        assert "█ deployments" in bars[-1]
        assert max(cell_len(line) for line in text.splitlines()) <= columns

    def test_colour_is_left_out_where_it_is_not_wanted(self) -> None:
        assert "\x1b[1;31m" in on_terminal(FULL, 80, colour=True)
        assert "\x1b[1;31m" not in on_terminal(FULL, 80)


KEYS_OF_SCHEMA_1 = {
    "schema",
    "taken_at_seconds",
    "duration_seconds",
    "gpus",
    "visible_gpus",
    "expected_gpus",
    "driver_version",
    "host",
    "network",
    "assessment",
    "sources",
    "thresholds",
    "pool",
    "reload",
    "workers_stuck",
    "clock_steps",
    "version",
    "alerts",
    "receivers",
    "stores",
    "demo",
}
"""Scripts read these: a key that goes or changes its meaning raises the schema."""


class TestThroughTheDaemon:
    def test_people_see_what_the_daemon_last_read(self, daemon: Prepare) -> None:
        path = daemon({"snapshot": to_plain(as_of_now(in_trouble()))})
        done = CliRunner().invoke(main, ["status", f"--state.control-socket={path}"])
        assert done.exit_code == 0
        # The first line tells the host's name and the time that went by.
        assert done.output.splitlines()[1:] == seen(in_trouble()).splitlines()[1:]

    def test_scripts_get_the_whole_snapshot(self, daemon: Prepare) -> None:
        path = daemon({"snapshot": to_plain(FULL)})
        done = CliRunner().invoke(main, ["status", "--json", f"--state.control-socket={path}"])
        answer = json.loads(done.output)
        assert answer["schema"] == 1
        assert answer.keys() == KEYS_OF_SCHEMA_1
        assert answer["gpus"][0]["reading"]["memory_used_bytes"] == 120 * GIB
        assert answer["gpus"][1]["reading"] is None
        assert answer["assessment"]["devices"][UUIDS[0]]["headroom"]["low"] > 0
        assert answer["host"]["numa"]["1"] == {
            "total_bytes": 768 * GIB,
            "free_bytes": 690 * GIB,
            "droppable_bytes": None,
        }

    def test_a_host_that_could_not_be_read_ends_with_3(self, daemon: Prepare) -> None:
        blind = dataclasses.replace(EMPTY, gpus=GPUS[1:])
        path = daemon({"snapshot": to_plain(blind)})
        done = CliRunner().invoke(main, ["status", f"--state.control-socket={path}"])
        assert (done.exit_code, done.stdout) == (3, "")
        assert "`deepseek-exporter doctor` says why" in done.stderr

    def test_a_daemon_of_another_form_is_not_guessed_at(self, daemon: Prepare) -> None:
        path = daemon({"snapshot": {**to_plain(FULL), "schema": 99}})
        done = CliRunner().invoke(main, ["status", f"--state.control-socket={path}"])
        assert (done.exit_code, done.stdout) == (3, "")
        assert "form 99 and this program reads form 1" in done.stderr

    def test_a_daemon_without_a_snapshot_yet_ends_with_3(self, daemon: Prepare) -> None:
        path = daemon({"snapshot": {"error": "no snapshot yet; try again in a moment"}})
        done = CliRunner().invoke(main, ["status", f"--state.control-socket={path}"])
        assert (done.exit_code, done.stderr) == (3, "error: no snapshot yet; try again in a moment\n")


class TestWithoutADaemon:
    @pytest.fixture
    def alone(self, tmp_path: Path) -> list[str]:
        return ["--nvml.enabled=false", f"--state.control-socket={tmp_path / 'none.sock'}"]

    def test_it_reads_the_host_itself(self, alone: list[str]) -> None:
        done = shell("status", "--json", *alone)
        assert (done.returncode, done.stderr) == (0, "")
        answer = json.loads(done.stdout)
        assert answer.keys() == KEYS_OF_SCHEMA_1
        assert answer["host"]["memory_total_bytes"] > answer["host"]["memory_available_bytes"] > 0

    def test_a_host_whose_memory_cannot_be_read_ends_with_3(self, alone: list[str], tmp_path: Path) -> None:
        done = shell("status", f"--host.proc-path={tmp_path}", *alone)
        assert (done.returncode, done.stdout) == (3, "")
        assert "neither host memory nor a GPU could be read" in done.stderr


class TestWatch:
    @pytest.fixture
    def answers(self) -> dict[str, dict[str, Any]]:
        """What the daemon answers; may change while it is watched."""
        return {"snapshot": to_plain(as_of_now(FULL))}

    @pytest.fixture
    def watching(
        self, daemon: Prepare, answers: dict[str, dict[str, Any]]
    ) -> Iterator[Callable[..., subprocess.Popen[str]]]:
        """Starts `status --watch` against that daemon."""
        path = daemon(answers)
        started: list[subprocess.Popen[str]] = []

        def start(stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
            clean = {key: value for key, value in os.environ.items() if not key.startswith("DEEPSEEK_")}
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "exporter",
                    "status",
                    "--watch",
                    "0.2",
                    f"--state.control-socket={path}",
                ],
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                # A test run in the background of a shell ignores SIGINT, and children inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                env={**clean, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "50"},
            )
            started.append(process)
            return process

        yield start
        for process in started:
            process.kill()
            process.communicate()

    def test_a_pipe_gets_one_view_after_the_other_until_ctrl_c(
        self, watching: Callable[..., subprocess.Popen[str]]
    ) -> None:
        process = watching()
        assert process.stdout is not None
        verdicts = 0
        while verdicts < 3:
            verdicts += process.stdout.readline().startswith("Critical. GPU 1 is lost")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")

    def test_a_terminal_keeps_the_last_view_when_it_ends(
        self, watching: Callable[..., subprocess.Popen[str]]
    ) -> None:
        ours, theirs = pty.openpty()
        process = watching(stdout=theirs)
        os.close(theirs)
        text = until(ours, lambda text: text.count("is lost") >= 3)
        assert "\x1b[?1049h" in text
        process.send_signal(signal.SIGINT)
        rest = until(
            ours, lambda text: "\x1b[?1049l" in text and "sources" in text.partition("\x1b[?1049l")[2]
        )
        assert "█" in rest
        _, errors = process.communicate(timeout=20)
        os.close(ours)
        assert (process.returncode, errors) == (0, "")

    def test_a_daemon_that_goes_away_is_told_and_what_it_last_said_stays(
        self, watching: Callable[..., subprocess.Popen[str]], answers: dict[str, dict[str, Any]]
    ) -> None:
        ours, theirs = pty.openpty()
        process = watching(stdout=theirs)
        os.close(theirs)
        until(ours, lambda text: "is lost" in text)
        answers["snapshot"] = {"error": "restarting"}
        until(ours, lambda text: "is lost" in text.partition("restarting")[2])
        answers["snapshot"] = to_plain(as_of_now(in_trouble()))
        until(ours, lambda text: "GPU 6 is overcommitted" in text)
        assert process.poll() is None
        os.close(ours)

    def test_json_and_watch_exclude_each_other(self) -> None:
        done = CliRunner().invoke(main, ["status", "--watch", "--json"])
        assert (done.exit_code, done.stdout) == (2, "")


def until(terminal: int, condition: Callable[[str], bool], seconds: float = 30.0) -> str:
    """What a terminal shows, read until the condition holds of it."""
    text, deadline = b"", time.monotonic() + seconds
    while not condition(text.decode(errors="replace")):
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, text.decode(errors="replace")[-3000:]
        text += os.read(terminal, 65_536)
    return text.decode(errors="replace")
