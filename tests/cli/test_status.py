"""`status`: what a person and a script see of a host, with and without a daemon."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fixed_snapshot import EMPTY, FULL, GPUS, READING, UUIDS, declared, identity
from test_commands import shell

from exporter.capacity.assessment import Bounds, Commitment, DeploymentStatus
from exporter.cli import main
from exporter.cli.status import render
from exporter.hardware.gpu import Gpu, GpuState
from exporter.snapshot import Snapshot, to_plain
from exporter.units import GIB

Prepare = Callable[[dict[str, dict[str, Any]]], Path]


def seen(snapshot: Snapshot) -> str:
    return render(to_plain(snapshot))


class TestForPeople:
    def test_the_full_snapshot_reads_like_this(self) -> None:
        assert seen(FULL).splitlines() == [
            "memory      state       used   capacity  committed  headroom",
            "GPU 0 H200  tight  120.0 GiB  140.4 GiB  137.5 GiB   2.9 GiB",
            "GPU 1 H200  lost           –          –          –         –",
            "RAM         up     136.0 GiB    1.5 TiB  150.0 GiB   1.4 TiB",
            "GPU 0: 10.0 GiB held by no deployment",
            "",
            "deployment  state                per GPU      RAM  full-length",
            "r1          warm           2 × 111.0 GiB  8.0 GiB         11.2",
            "  deepseek-ai/DeepSeek-R1, fp8",
            "v9          declared_only              –        –            –",
            "  no expectation: unknown model 'deepseek-ai/DeepSeek-V9'",
            "",
            "sources  nvml: up, host: up, processes: up, engines: unreadable",
        ]

    @pytest.mark.parametrize(
        ("committed", "verdict"),
        [(Bounds(90, 95), "up"), (Bounds(90, 101), "tight"), (Bounds(101, 102), "overcommitted")],
    )
    def test_the_two_bounds_of_the_headroom_give_the_verdict(self, committed: Bounds, verdict: str) -> None:
        here = dataclasses.replace(FULL.assessment, devices={UUIDS[0]: Commitment(100, committed)})
        line = seen(dataclasses.replace(FULL, assessment=here)).splitlines()[1]
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
        assert max(len(line) for line in seen(wide).splitlines()) <= 80


KEYS_OF_SCHEMA_1 = {
    "schema",
    "taken_at_seconds",
    "duration_seconds",
    "gpus",
    "visible_gpus",
    "expected_gpus",
    "driver_version",
    "host",
    "assessment",
    "sources",
    "thresholds",
    "pool",
    "reload",
    "workers_stuck",
    "clock_steps",
    "alerts",
    "receivers",
    "demo",
}
"""Scripts read these: a key that goes or changes its meaning raises the schema."""


class TestThroughTheDaemon:
    def test_people_see_what_the_daemon_last_read(self, daemon: Prepare) -> None:
        path = daemon({"snapshot": to_plain(FULL)})
        done = CliRunner().invoke(main, ["status", f"--state.control-socket={path}"])
        assert (done.exit_code, done.output) == (0, seen(FULL) + "\n")

    def test_scripts_get_the_whole_snapshot(self, daemon: Prepare) -> None:
        path = daemon({"snapshot": to_plain(FULL)})
        done = CliRunner().invoke(main, ["status", "--json", f"--state.control-socket={path}"])
        answer = json.loads(done.output)
        assert answer["schema"] == 1
        assert answer.keys() == KEYS_OF_SCHEMA_1
        assert answer["gpus"][0]["reading"]["memory_used_bytes"] == 120 * GIB
        assert answer["gpus"][1]["reading"] is None
        assert answer["assessment"]["devices"][UUIDS[0]]["headroom"]["low"] > 0
        assert answer["host"]["numa"]["1"] == {"total_bytes": 768 * GIB, "free_bytes": 690 * GIB}

    def test_a_host_that_could_not_be_read_ends_with_3(self, daemon: Prepare) -> None:
        blind = dataclasses.replace(EMPTY, gpus=GPUS[1:])
        path = daemon({"snapshot": to_plain(blind)})
        done = CliRunner().invoke(main, ["status", f"--state.control-socket={path}"])
        assert (done.exit_code, done.stdout) == (3, "")
        assert "`deepseek-exporter doctor` says why" in done.stderr

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
