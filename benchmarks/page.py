"""What the status page costs: time of a page and of the JSON, memory before and after the first look.

    python benchmarks/page.py

A page is made once for each snapshot, so the figures that matter are those of the first to ask after a poll.
They are taken twice: in this process, on eight GPUs and four running deployments of the tests' made-up host,
and over HTTP, from a daemon on eight fake H200 for which the same four deployments are declared. Figures
depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from against_node_exporter import Peer, family  # noqa: E402  its folder is this script's
from daemon_process import RunningDaemon  # noqa: E402  the tests' helpers are not installed
from fake_nvml.control import FakeDriver  # noqa: E402
from fake_nvml.devices import many  # noqa: E402
from made_up_hosts import ENTRIES, in_trouble, quiet  # noqa: E402

from exporter.snapshot import Snapshot  # noqa: E402
from exporter.web.page import StatusPage  # noqa: E402


def timed(action: Callable[[], object]) -> float:
    """Milliseconds of one run."""
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def told(name: str, values: list[float]) -> None:
    quantiles = statistics.quantiles(values, n=100)
    print(f"{name:44}{statistics.median(values):8.2f}{quantiles[98]:8.2f}{max(values):8.2f}  ms")


def in_process(name: str, snapshot: Snapshot, rounds: int) -> None:
    """Making page and JSON of a new snapshot, as the daemon's event loop does it."""
    page = StatusPage()

    def fresh() -> bytes:
        page.show(snapshot)
        made = asyncio.run(page.html())
        return made.zipped if made is not None else b""

    def fresh_json() -> bytes:
        page.show(snapshot)
        made = page.json()
        return made.zipped if made is not None else b""

    fresh()
    told(f"page, {name}", [timed(fresh) for _ in range(rounds)])
    told(f"JSON, {name}", [timed(fresh_json) for _ in range(rounds)])
    print(f"{'':44}{len(fresh()) / 1024:8.1f} KiB page, {len(fresh_json()) / 1024:.1f} KiB JSON, zipped")


def configuration() -> str:
    """The made-up host's deployments as an operator would declare them."""
    lines = []
    for entry in ENTRIES:
        lines += ["[[deployments]]", f'name = "{entry.name}"', f'model = "{entry.model}"']
        lines += [f'engine = "{entry.engine}"', f"devices = {entry.devices}", f"tp = {entry.tp}"]
        if entry.quantization:
            lines.append(f'quantization = "{entry.quantization}"')
    return "\n".join(lines)


def over_http(rounds: int, seconds: float) -> None:
    """A daemon from before the first look to long after it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        driver = FakeDriver.create(folder / "driver", many("h200", 8))
        with RunningDaemon.start(
            folder / "daemon", driver=driver, config=configuration(), poll_seconds=0.5
        ) as daemon:
            daemon.wait_until(lambda: daemon.value("deepseek_gpus", vendor="nvidia") == 8)
            peer = Peer("ours", daemon.address, lambda: family(daemon.process.pid))
            connection = http.client.HTTPConnection(daemon.address, timeout=10)

            def get(path: str) -> None:
                connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200

            unseen = steady_cpu(peer, seconds)
            print(f"{'PSS before the first look':44}{peer.pss_mib():8.1f}  MiB")
            print(f"{'first look':44}{timed(lambda: get('/')):8.2f}  ms")
            waited = [*(_after_a_poll(lambda: get("/")) for _ in range(rounds))]
            told("page over HTTP, new snapshot", waited)
            told("page over HTTP, any moment", [timed(lambda: get("/")) for _ in range(rounds * 5)])
            print(f"{'PSS after ' + str(rounds * 6) + ' looks':44}{peer.pss_mib():8.1f}  MiB")
            again = steady_cpu(peer, seconds)
            print(f"{'CPU at a poll of 0.5 s, never looked at':44}{unseen:8.1f}  s/h")
            print(f"{'CPU at a poll of 0.5 s, no longer looked at':44}{again:8.1f}  s/h")


def _after_a_poll(action: Callable[[], object]) -> float:
    time.sleep(0.5)
    return timed(action)


def steady_cpu(peer: Peer, seconds: float) -> float:
    """CPU seconds an hour while nobody asks."""
    before, started = peer.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    return (peer.cpu_seconds() - before) / (time.monotonic() - started) * 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="pages to make of each kind (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="length of a CPU measurement (%(default)s)")
    options = parser.parse_args()
    print(f"{'':44}{'p50':>8}{'p99':>8}{'max':>8}")
    in_process("quiet", quiet(), options.rounds)
    in_process("in trouble", in_trouble(), options.rounds)
    over_http(options.rounds, options.seconds)


if __name__ == "__main__":
    main()
