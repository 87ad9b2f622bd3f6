"""A real llama.cpp server is found without configuration, and what is shown of it is what it says itself
(`make e2e-llama`).
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from daemon_process import RunningDaemon
from prometheus_process import free_port
from test_llama_server import MODEL, wait_healthy

from exporter.engines.process import parse_status

pytestmark = [pytest.mark.llama, pytest.mark.timeout(1800)]

CONTEXT_TOKENS = 4096
SLOTS = 2
SECONDS = 30.0


@dataclass
class Server:
    pid: int
    port: int

    def ask(self, path: str, body: dict[str, object] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def in_use(self) -> int:
        """Tokens of the requests in progress."""
        return sum(slot["n_prompt_tokens"] for slot in self.ask("/slots") if slot["is_processing"])

    def resident(self) -> dict[str, int]:
        return parse_status(Path(f"/proc/{self.pid}/status").read_bytes())


@pytest.fixture(scope="module")
def server(cache: Path, model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port, folder = free_port(), cache / "build" / "bin"
    log = tmp_path_factory.mktemp("discovered") / "server.log"
    options = ("-c", str(CONTEXT_TOKENS), "-np", str(SLOTS), "--no-kv-unified")
    command = [str(folder / "llama-server"), "-m", model_file.name, *options, "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            cwd=model_file.parent,  # named as it often is: relative to the working folder
            env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
        )
    try:
        wait_healthy(process, port, log)
        yield Server(process.pid, port)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def daemon(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    flags = ("--poll.discovery-interval", "1")
    with RunningDaemon.start(tmp_path_factory.mktemp("daemon"), *flags) as running:
        yield running


@pytest.fixture(scope="module")
def name(daemon: RunningDaemon) -> str:
    """The deployment that it became, once its endpoint answers."""
    daemon.wait_until(lambda: up(daemon), SECONDS)
    [found] = up(daemon)
    return found


def up(daemon: RunningDaemon) -> list[str]:
    """The deployments of llama.cpp that answer."""
    metrics = daemon.metrics()
    ours = {
        labels["deployment"]
        for labels, _ in metrics.get("deepseek_deployment_info", ())
        if labels["engine"] == "llama.cpp"
    }
    answering = metrics.get("deepseek_deployment_up", ())
    return [labels["deployment"] for labels, is_up in answering if labels["deployment"] in ours and is_up]


def test_it_is_found_with_the_model_and_quantization_of_its_file(
    daemon: RunningDaemon, server: Server, name: str
) -> None:
    [info] = [
        labels for labels, _ in daemon.metrics()["deepseek_deployment_info"] if labels["deployment"] == name
    ]
    assert (info["model"], info["quantization"], info["origin"]) == (MODEL, "Q4_K_M", "discovered")
    assert server.ask("/props")["model_ftype"] == "Q4_K - Medium"


def test_context_and_slots_are_those_it_says(daemon: RunningDaemon, server: Server, name: str) -> None:
    props = server.ask("/props")
    context = props["default_generation_settings"]["n_ctx"]
    assert daemon.value("deepseek_deployment_max_context_tokens", deployment=name) == context
    assert daemon.value("deepseek_deployment_max_sequences", deployment=name) == props["total_slots"] == SLOTS


def test_the_capacity_of_the_cache_is_that_of_its_slots(
    daemon: RunningDaemon, server: Server, name: str
) -> None:
    capacity = sum(slot["n_ctx"] for slot in server.ask("/slots"))
    assert daemon.value("deepseek_kv_cache_capacity_tokens", deployment=name) == capacity == CONTEXT_TOKENS


def test_the_use_of_the_cache_is_that_of_the_requests_in_its_slots(
    daemon: RunningDaemon, server: Server, name: str
) -> None:
    asked = {"prompt": "one two three four five " * 20, "n_predict": 300, "ignore_eos": True}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.ask, "/completion", asked)
        daemon.wait_until(lambda: server.in_use() > 100, SECONDS)
        least = server.in_use()

        def agrees() -> bool:
            assert not answer.done(), "the request ended before its tokens were seen"
            used = daemon.value("deepseek_kv_cache_used_tokens", deployment=name)
            # Tokens are added while we look: no fewer than before, no more than after.
            return used is not None and least <= used <= server.in_use()

        daemon.wait_until(agrees, SECONDS)
        assert daemon.value("deepseek_requests_running", deployment=name) == 1
        answer.result()
    daemon.wait_until(lambda: daemon.value("deepseek_kv_cache_used_tokens", deployment=name) == 0, SECONDS)


def test_it_is_expected_to_hold_what_the_kernel_says_it_holds(
    daemon: RunningDaemon, server: Server, name: str
) -> None:
    resident = server.resident()
    held = resident["RssAnon"] + resident["RssFile"] + resident["RssShmem"]
    expected = [
        size
        for labels, size in daemon.metrics()["deepseek_expected_host_memory_bytes"]
        if labels["deployment"] == name
    ]
    assert held == pytest.approx(sum(expected), rel=0.05)


def test_what_it_holds_is_attributed_to_it_by_kind_of_page(
    daemon: RunningDaemon, server: Server, name: str
) -> None:
    resident = server.resident()
    for kind, row in (("anonymous", "RssAnon"), ("file", "RssFile")):
        held = daemon.value("deepseek_host_memory_held_bytes", holder=name, kind=kind)
        assert held == pytest.approx(resident[row], rel=0.01)


def test_it_leaves_nothing_behind(daemon: RunningDaemon, server: Server, name: str) -> None:
    os.kill(server.pid, 9)
    daemon.wait_until(
        lambda: (
            not any(name in labels.values() for samples in daemon.metrics().values() for labels, _ in samples)
        ),
        SECONDS,
    )
