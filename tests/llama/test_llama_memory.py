"""A real llama.cpp server whose weights are page cache: what is committed, and what is seen when it goes
(`make e2e-llama`).

Two ways to lose it: the kernel is asked to page the mapping out (process_madvise(2), as root), and the server
runs in a control group that is smaller than its file.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from daemon_process import RunningDaemon
from prometheus_process import free_port
from test_llama_server import wait_healthy

from exporter.engines.process import parse_status

pytestmark = [pytest.mark.llama, pytest.mark.timeout(600)]

GIB = 2**30
SECONDS = 60.0
FLAGS = ("--poll.discovery-interval", "1", "--alerting.time-scale", "0.001")
RATIO = "deepseek_deployment_weights_resident_ratio"
OPTIONS = ("-c", "1024", "-np", "1", "--no-repack", "--cache-ram", "0")
LIMIT_BYTES = 3 * GIB
_PROCESS_MADVISE, _MADV_PAGEOUT = 440, 21
"""include/uapi/asm-generic/unistd.h, mman-common.h"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@dataclass
class Server:
    pid: int
    port: int
    name: str
    """of the deployment that it becomes"""

    def status(self) -> dict[str, int]:
        return parse_status(Path(f"/proc/{self.pid}/status").read_bytes())

    def answer(self) -> None:
        body = b'{"prompt": "one two three", "n_predict": 2}'
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/completion", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as answered:
            answered.read()

    def mappings(self) -> list[tuple[int, int]]:
        """(address, size) of every mapping of the weights."""
        found = []
        for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines():
            if line.endswith(".gguf"):
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                found.append((start, end - start))
        return found

    def page_out(self) -> None:
        """Ask the kernel to reclaim the mapped weights now."""

        class Vector(ctypes.Structure):
            _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

        libc = ctypes.CDLL(None, use_errno=True)
        pidfd = os.pidfd_open(self.pid)
        try:
            for start, size in self.mappings():
                done = 0
                while done < size:
                    # At most 2 GiB a call are taken (MAX_RW_COUNT).
                    vector = Vector(start + done, min(size - done, GIB))
                    took = libc.syscall(
                        _PROCESS_MADVISE, pidfd, ctypes.byref(vector), ctypes.c_size_t(1), _MADV_PAGEOUT, 0
                    )
                    assert took > 0, os.strerror(ctypes.get_errno())
                    done += took
        finally:
            os.close(pidfd)


def drop(file: Path) -> None:
    """Forget what is cached of a file that nobody has mapped."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


@contextmanager
def running(cache: Path, model: Path, folder: Path, enter: Path | None = None) -> Iterator[Server]:
    """A server under a name of its own, in the control group whose `cgroup.procs` is `enter`."""
    drop(model)  # pages that another process has read are paid for by its group
    port, binaries = free_port(), cache / "build" / "bin"
    log, name = folder / "server.log", f"exporter-memory-{port}"
    command = [str(binaries / "llama-server"), "-m", str(model), *OPTIONS, "-a", name, "--port", str(port)]
    if enter is not None:
        command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(enter), *command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, "LD_LIBRARY_PATH": str(binaries)},
        )
    try:
        wait_healthy(process, port, log)
        yield Server(process.pid, port, f"llama.cpp:{name}")
    finally:
        process.kill()
        process.wait()


@contextmanager
def group(limit_bytes: int) -> Iterator[Path]:
    """A control group with this limit; skips where none can be made."""
    base, name = Path("/sys/fs/cgroup"), f"exporter-test-{os.getpid()}"
    v1 = (base / "memory").is_dir()
    folder = (base / "memory" if v1 else base) / name
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        try:
            (folder / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(limit_bytes))
        except OSError as error:
            pytest.skip(f"memory cannot be limited here: {error}")
        yield folder
    finally:
        folder.rmdir()


def alerts(daemon: RunningDaemon, name: str) -> set[str]:
    """Those about this deployment that are pending or fire."""
    return {
        labels["alert"]
        for labels, _ in daemon.metrics().get("deepseek_alert_active", ())
        if f"deployment={name}" in labels["subject"]
    }


@as_root
def test_mapped_weights_are_committed_and_seen_to_go(cache: Path, model_file: Path, tmp_path: Path) -> None:
    with (
        running(cache, model_file, tmp_path) as server,
        RunningDaemon.start(tmp_path / "daemon", *FLAGS) as daemon,
    ):
        name = server.name

        def value(metric: str, **labels: str) -> float:
            return daemon.value(metric, deployment=name, **labels) or 0.0

        server.answer()
        daemon.wait_until(lambda: value(RATIO) > 0.99, SECONDS)
        weights = server.status()["RssFile"]
        expected = value("deepseek_expected_host_memory_bytes", component="weights")
        assert weights == pytest.approx(expected, rel=0.02)
        host = daemon.value("deepseek_host_memory_committed_bytes", bound="low") or 0.0
        headroom = daemon.value("deepseek_host_memory_headroom_bytes", bound="low") or 0.0
        assert host > weights
        assert "DeepSeekWeightsEvicted" not in alerts(daemon, name)
        faults = value("deepseek_deployment_major_page_faults_total")

        server.page_out()
        daemon.wait_until(lambda: 0 < value(RATIO) < 0.2, SECONDS)
        daemon.wait_until(lambda: "DeepSeekWeightsEvicted" in alerts(daemon, name), SECONDS)
        gone = value(RATIO)
        # What the kernel has given away is promised still.
        still = daemon.value("deepseek_host_memory_headroom_bytes", bound="low") or 0.0
        assert still == pytest.approx(headroom, abs=GIB)

        server.answer()  # every weight is read again
        daemon.wait_until(lambda: value(RATIO) > 0.99, SECONDS)
        daemon.wait_until(lambda: "DeepSeekWeightsEvicted" not in alerts(daemon, name), SECONDS)
        again = value("deepseek_deployment_major_page_faults_total")
        assert again > faults
        print(
            f"mapped {weights}, expected {expected:.0f}, resident {gone:.4f} after page-out, headroom "
            f"{headroom:.0f} before and {still:.0f} after, major faults {faults:.0f} and {again:.0f}"
        )


@as_root
def test_a_group_smaller_than_the_weights_is_overcommitted(
    cache: Path, model_file: Path, tmp_path: Path
) -> None:
    with (
        group(LIMIT_BYTES) as folder,
        running(cache, model_file, tmp_path, folder / "cgroup.procs") as server,
        RunningDaemon.start(tmp_path / "daemon", *FLAGS) as daemon,
    ):
        name = server.name

        def value(metric: str, **labels: str) -> float:
            return daemon.value(metric, deployment=name, **labels) or 0.0

        server.answer()
        wanted = {"DeepSeekConfinedMemoryOvercommitted", "DeepSeekWeightsEvicted"}
        daemon.wait_until(lambda: wanted <= alerts(daemon, name), SECONDS)
        place = {"confinement": "cgroup"}
        assert value("deepseek_confined_memory_capacity_bytes", **place) == LIMIT_BYTES
        low = value("deepseek_confined_memory_overcommit_ratio", bound="low", **place)
        used = value("deepseek_confined_memory_used_bytes", **place)
        resident = value(RATIO)
        assert low > 1.4
        assert used < GIB
        assert resident < 0.8
        print(f"limit {LIMIT_BYTES}, overcommit {low:.3f}, used {used:.0f}, resident {resident:.3f}")
