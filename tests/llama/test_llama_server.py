"""A real llama.cpp server on a real DeepSeek header, against what is expected of it (`make e2e-llama`).

The file is the head of DeepSeek-R1-Distill-Qwen-7B's Q4_K_M, lengthened to its full size with holes: the
server maps, repacks and allocates as for the whole file, only its answers are nonsense.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_process import free_port

from exporter.capacity.declaration import host_shape
from exporter.engines.process import parse_status
from exporter.footprint.estimate import DeploymentSpec, Footprint, estimate
from exporter.hardware.host import HostSource
from exporter.models.catalog import catalog
from exporter.models.checkpoint.reader import CheckpointReader

pytestmark = [pytest.mark.llama, pytest.mark.timeout(1800)]

MODEL = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
CONTEXT_TOKENS = 4096
MIB = 2**20
START_SECONDS = 120.0


@dataclass
class Server:
    """What a server printed about its buffers, in bytes, and what the kernel says it holds."""

    buffers: dict[str, int]
    resident: dict[str, int]


@pytest.fixture(scope="module")
def expected() -> Footprint:
    host = host_shape(HostSource(Path("/proc"), Path("/sys"), cgroup_limit=True).read())
    spec = DeploymentSpec("real", MODEL, "llama.cpp", "Q4_K_M", max_model_len=CONTEXT_TOKENS)
    return estimate(spec, [], catalog(), host)


@pytest.fixture(scope="module")
def server(cache: Path, model_file: Path) -> Iterator[Server]:
    port, folder = free_port(), cache / "build" / "bin"
    log = model_file.with_suffix(".log")
    command = [str(folder / "llama-server"), "-m", str(model_file), "-c", str(CONTEXT_TOKENS), "-lv", "4"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=output,
            stderr=output,
            env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
        )
    try:
        wait_healthy(process, port, log)
        resident = parse_status(Path(f"/proc/{process.pid}/status").read_bytes())
        yield Server(printed(log.read_text(errors="replace")), resident)
    finally:
        process.kill()
        process.wait()


def wait_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)


def printed(log: str) -> dict[str, int]:
    """Buffer → bytes, of the load that counts: the dry pass before it prints zeros."""
    found = re.findall(r"(\S+)\s+(model|KV|output|compute) buffer size =\s+([\d.]+) MiB", log)
    return {f"{name} {kind}": round(float(size) * MIB) for name, kind, size in found}


def test_the_tensors_of_the_header_are_those_expected(model_file: Path, expected: Footprint) -> None:
    header = CheckpointReader().read(model_file)
    weights = expected.host.components["weights"]
    assert header.tensor_bytes == weights.low_bytes


def test_the_kv_cache_is_the_one_expected(server: Server, expected: Footprint) -> None:
    assert server.buffers["CPU KV"] == pytest.approx(expected.host.components["kv_cache"].low_bytes, rel=0.01)


def test_repacked_and_mapped_weights_are_those_expected(server: Server, expected: Footprint) -> None:
    weights = expected.host.components["weights"]
    assert server.buffers["CPU_REPACK model"] == pytest.approx(expected.host.reclaimable_bytes, rel=0.001)
    assert server.buffers["CPU_Mapped model"] == pytest.approx(weights.low_bytes, rel=0.01)


def test_output_and_compute_buffers_lie_within_the_runtime_term(server: Server, expected: Footprint) -> None:
    both = server.buffers["CPU output"] + server.buffers["CPU compute"]
    assert both < expected.host.components["runtime"].high_bytes


def test_what_the_kernel_says_it_holds_is_what_is_expected(server: Server, expected: Footprint) -> None:
    held = server.resident["RssAnon"] + server.resident["RssFile"] + server.resident["RssShmem"]
    likely = sum(term.expected_bytes for term in expected.host.components.values())
    assert held == pytest.approx(likely, rel=0.05)
    assert held < expected.host.total.high_bytes
