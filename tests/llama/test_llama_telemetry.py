"""What is read of a real llama.cpp server, against its own answers (`make e2e-llama`)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from prometheus_process import free_port

from exporter.engines.telemetry import Reason, State, Target, TelemetryResult
from exporter.engines.telemetry.reader import TelemetryReader

pytestmark = [pytest.mark.llama, pytest.mark.timeout(1800)]

CONTEXT_TOKENS = 2048
START_SECONDS = 120.0


class Server:
    """A running server and how it is read."""

    def __init__(self, port: int, **target: object) -> None:
        self.port = port
        self.target = Target("real", "llama.cpp", "127.0.0.1", port, **target)
        self._reader = TelemetryReader()

    def read(self) -> TelemetryResult:
        return asyncio.run(self._reader.read([self.target]))["real"]

    def answer(self, path: str) -> object:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return json.load(answer)

    def wait(self, state: State, seconds: float) -> list[TelemetryResult]:
        """Everything read until it is in that state."""
        deadline, results = time.monotonic() + seconds, [self.read()]
        while results[-1].state is not state:
            assert time.monotonic() < deadline, results[-1]
            time.sleep(0.1)
            results.append(self.read())
        return results

    @contextmanager
    def generating(self) -> Iterator[None]:
        """A request in progress, its prompt read and many tokens still to come."""
        body = json.dumps({"prompt": "canary-prompt " * 20, "n_predict": 1500, "stream": True}).encode()
        done = threading.Event()

        def ask() -> None:
            with (
                suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/completion", body) as answer,
            ):
                while not done.is_set() and answer.readline():
                    pass

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            deadline = time.monotonic() + 30
            while not any(
                slot["is_processing"] and slot["next_token"][0]["n_decoded"] > 2
                for slot in self.answer("/slots")
            ):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield
        finally:
            done.set()
            thread.join()


@contextmanager
def running(cache: Path, model_file: Path, *arguments: str, **target: object) -> Iterator[Server]:
    folder, port = cache / "build" / "bin", free_port()
    command = [str(folder / "llama-server"), "-m", str(model_file), "-c", str(CONTEXT_TOKENS)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
    )
    try:
        yield Server(port, **target)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(cache: Path, model_file: Path) -> Iterator[Server]:
    with running(cache, model_file, "--metrics", kv_unified=True) as server:
        results = server.wait(State.WARM, START_SECONDS)
        assert {result.reason for result in results[:-1]} <= {Reason.REFUSED, Reason.LOADING}
        assert results[-2].state is State.LOADING
        yield server


def test_limits_and_names_are_those_it_tells(server: Server, model_file: Path) -> None:
    telemetry = server.read().telemetry
    props, slots, models = server.answer("/props"), server.answer("/slots"), server.answer("/v1/models")
    assert telemetry is not None
    assert telemetry.served_model == model_file.name
    assert telemetry.quantization == "Q4_K_M" and props["model_ftype"] == "Q4_K - Medium"
    assert telemetry.max_num_seqs == len(slots) == props["total_slots"]
    assert telemetry.max_model_len == slots[0]["n_ctx"]
    assert telemetry.kv_capacity_tokens == CONTEXT_TOKENS
    assert telemetry.model_bytes == models["data"][0]["meta"]["size"]


def test_an_idle_server_uses_nothing(server: Server) -> None:
    result = server.read()
    assert result.telemetry is not None and result.missing == ()
    assert (result.telemetry.requests_running, result.telemetry.kv_used_tokens) == (0, 0)


def test_use_in_progress_is_what_its_slots_hold(server: Server) -> None:
    def held() -> int:
        return sum(
            slot.get("n_prompt_tokens", 0) for slot in server.answer("/slots") if slot["is_processing"]
        )

    with server.generating():
        before, result, after = held(), server.read(), held()
    assert result.telemetry is not None
    assert result.telemetry.requests_running == 1
    assert 0 < before <= result.telemetry.kv_used_tokens <= after
    assert result.telemetry.kv_usage_ratio == pytest.approx(result.telemetry.kv_used_tokens / CONTEXT_TOKENS)
    assert result.telemetry.tokens["prompt"] > 20
    assert "canary" not in repr(result)


def test_separate_slots_have_their_sum(cache: Path, model_file: Path) -> None:
    with running(cache, model_file, "-np", "2", kv_unified=False) as server:
        telemetry = server.wait(State.WARM, START_SECONDS)[-1].telemetry
    assert telemetry is not None
    assert (telemetry.max_model_len, telemetry.kv_capacity_tokens) == (CONTEXT_TOKENS // 2, CONTEXT_TOKENS)
    assert telemetry.kv_used_tokens == 0


@pytest.mark.parametrize("metrics", [True, False])
def test_being_read_neither_wakes_it_nor_keeps_it_awake(cache: Path, model_file: Path, metrics: bool) -> None:
    arguments = ["--sleep-idle-seconds", "2", *(["--metrics"] if metrics else [])]
    with running(cache, model_file, *arguments, sleeps_when_idle=True) as server:
        server.wait(State.WARM, START_SECONDS)
        server.wait(State.SLEEPING, 30.0)
        time.sleep(0.5)
        assert server.read().state is State.SLEEPING
        assert server.answer("/props")["is_sleeping"] is True


def test_a_key_is_wanted_and_used(cache: Path, model_file: Path) -> None:
    with running(cache, model_file, "--api-key", "canary-key") as server:
        results = server.wait(State.UNREACHABLE, START_SECONDS)
        while results[-1].reason is not Reason.KEY_REQUIRED:
            assert results[-1].reason in (Reason.REFUSED, Reason.LOADING)
            results = [server.read()]
        server.target = Target("real", "llama.cpp", "127.0.0.1", server.port, key="canary-key")
        assert server.wait(State.WARM, START_SECONDS)[-1].telemetry is not None
