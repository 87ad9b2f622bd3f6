"""Scrape latency, CPU and memory of the daemon beside node_exporter, in one run on one machine.

    make bench            (or: python benchmarks/against_node_exporter.py --seconds 120)

Both serve on loopback; scrapes alternate between them. The daemon reads eight fake H200s, so its figures
hold the worker process but no real driver's time. Latencies are of a client that keeps its connection, as
Prometheus does. Figures depend on the machine: compare the ratios.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from daemon_process import RunningDaemon  # noqa: E402  the tests' helpers are not installed
from fake_nvml.control import FakeDriver  # noqa: E402
from fake_nvml.devices import many  # noqa: E402
from prometheus_process import free_port  # noqa: E402

POLL_SECONDS = 5.0
SCRAPE_SECONDS = 15.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Peer:
    """One server under test: where it answers and which processes are its own."""

    name: str
    address: str
    pids: Callable[[], list[int]]

    def cpu_seconds(self) -> float:
        """User and system time of its processes, ended children included."""
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
        return total / TICKS

    def pss_mib(self) -> float:
        """Memory of all its processes, shared pages divided among those that share them."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total / 1024


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children)]


def scrape(connection: http.client.HTTPConnection) -> tuple[float, int]:
    """Milliseconds and bytes of one scrape, gzipped as Prometheus asks for it."""
    started = time.perf_counter()
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    body = connection.getresponse().read()
    return (time.perf_counter() - started) * 1000, len(body)


def latencies(peers: list[Peer], count: int) -> dict[str, list[float]]:
    """Milliseconds of `count` scrapes of each, in turns."""
    connections = {peer.name: http.client.HTTPConnection(peer.address, timeout=10) for peer in peers}
    found: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for _ in range(count):
        for peer in peers:
            found[peer.name].append(scrape(connections[peer.name])[0])
    return found


def steady_cpu(peers: list[Peer], seconds: float) -> dict[str, float]:
    """CPU seconds an hour while each is scraped every 15 s."""
    before = {peer.name: peer.cpu_seconds() for peer in peers}
    started = time.monotonic()
    connections = {peer.name: http.client.HTTPConnection(peer.address, timeout=10) for peer in peers}
    while time.monotonic() - started < seconds:
        for peer in peers:
            scrape(connections[peer.name])
        time.sleep(SCRAPE_SECONDS)
    elapsed = time.monotonic() - started
    return {peer.name: (peer.cpu_seconds() - before[peer.name]) / elapsed * 3600 for peer in peers}


def report(ours: Peer, theirs: Peer, latency: dict[str, list[float]], cpu: dict[str, float]) -> None:
    """The table of figures and their ratios."""

    def row(name: str, unit: str, values: dict[str, float]) -> None:
        ratio = values[ours.name] / values[theirs.name] if values[theirs.name] else float("nan")
        print(f"{name:24}{values[ours.name]:12.2f}{values[theirs.name]:16.2f}{ratio:8.2f}  {unit}")

    print(f"{'':24}{ours.name:>12}{theirs.name:>16}{'ratio':>8}")
    row("scrape p50", "ms", {name: statistics.median(values) for name, values in latency.items()})
    row("scrape p99", "ms", {name: statistics.quantiles(v, n=100)[98] for name, v in latency.items()})
    row("CPU", "s/h", cpu)
    row("PSS, all processes", "MiB", {peer.name: peer.pss_mib() for peer in (ours, theirs)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="length of the CPU measurement")
    parser.add_argument("--scrapes", type=int, default=500, help="scrapes for the latencies")
    options = parser.parse_args()
    if shutil.which("prometheus-node-exporter") is None:
        sys.exit("prometheus-node-exporter is missing: apt install prometheus-node-exporter")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        driver = FakeDriver.create(folder / "driver", many("h200", 8))
        port = free_port()
        node = subprocess.Popen(
            ["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}"],
            stderr=subprocess.DEVNULL,
        )
        try:
            with RunningDaemon.start(folder / "daemon", driver=driver, poll_seconds=POLL_SECONDS) as daemon:
                daemon.wait_until(lambda: daemon.value("deepseek_gpus", vendor="nvidia") == 8)
                ours = Peer("ours", daemon.address, lambda: family(daemon.process.pid))
                theirs = Peer("node_exporter", f"127.0.0.1:{port}", lambda: family(node.pid))
                print(f"series: {daemon.value('deepseek_exporter_series'):.0f}")
                cpu = steady_cpu([ours, theirs], options.seconds)
                report(ours, theirs, latencies([ours, theirs], options.scrapes), cpu)
        finally:
            node.terminate()
            node.wait()


if __name__ == "__main__":
    main()
