"""What the shipped rules cost a real Prometheus: by default 1,000 hosts with 8 GPUs and 2 deployments each.

    .venv/bin/python benchmarks/rule_evaluation.py [--hosts N] [--minutes N] [--by-rule]
    .venv/bin/python benchmarks/rule_evaluation.py --against OTHER.yml [--rounds N]

Every host is a target of its own on one small server; what long windows look back on is written before as
blocks by promtool: six hours of trends, fifteen days of daily peaks. Then Prometheus scrapes every 30 s and
evaluates every 30 s, and says itself how long each group took.

Where other work shares the machine, look at the least time of a group rather than at its median, or give the
other rules of a comparison with --against: one Prometheus loads both files by turns.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "alerting"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from prometheus_process import free_port
from stories import H200, LLAMA_8B, QWEN_7B, Story, vllm

from exporter.capacity.conditions.devices import SLOWDOWNS
from exporter.capacity.observation import Running
from exporter.engines.telemetry.types import Telemetry
from exporter.exposition.collect import samples
from exporter.exposition.render import Renderer
from exporter.hardware.gpu import GpuReading

RULES = Path(__file__).parents[1] / "rules" / "deepseek.rules.yml"
SCRAPE_SECONDS = 30
LOOKED_BACK = re.compile(r"last_over_time\((\w+)(?:\{[^}]*\})?\[15m\] offset")
LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
DAY = 86400
FRESH_SECONDS = 10
TAKEN_AT = re.compile(
    r"^(deepseek_exporter_(?:snapshot|source_last_success)_timestamp_seconds(?:\{.*\})? )\S+$", re.MULTILINE
)


def one_host() -> str:
    """The exposition of a host whose eight GPUs serve two deployments of four ranks each."""
    story = Story(
        "two deployments",
        "",
        H200,
        8,
        [vllm("a", LLAMA_8B, [0, 1, 2, 3], 0.9), vllm("b", QWEN_7B, [4, 5, 6, 7], 0.85)],
        {},
        running={"a": engine(0.6, 1), "b": engine(0.3, 0)},
    )
    snapshot = story.at(0)
    gpus = tuple(replace(gpu, reading=at_work(gpu.reading)) for gpu in snapshot.gpus)
    snapshot = replace(snapshot, gpus=gpus, pool="production")
    return Renderer().render(samples(snapshot)).text.decode()


def at_work(reading: GpuReading | None) -> GpuReading:
    """A reading with everything beside memory that NVML tells of a data center GPU (hardware/nvidia.py)."""
    assert reading is not None
    reasons = (*SLOWDOWNS, "sw_power_cap", "sync_boost")
    return replace(
        reading,
        utilization_ratio=0.97,
        memory_bandwidth_utilization_ratio=0.4,
        power_watts=640.0,
        power_limit_watts=700.0,
        energy_joules=1e9,
        temperature_celsius={"gpu": 61.0, "memory": 72.0},
        clocks_limited=dict.fromkeys(reasons, False),
        ecc_errors={"corrected": 0, "uncorrected": 0},
    )


def engine(usage: float, waiting: int) -> Running:
    """An engine of four ranks that serves, and whose KV cache is what was expected."""
    said = Telemetry(
        kv_usage_ratio=usage,
        requests_running=20,
        requests_waiting=waiting,
        preemptions_total=0,
        tokens={"prompt": 10**9, "generated": 10**8},
    )
    return Running("vllm", tp=4, answered=True, has_answered=True, state="warm", telemetry=said)


class Server(ThreadingHTTPServer):
    """One that says nothing when Prometheus ends in the middle of a scrape."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class Targets:
    """Serves the same bytes to every host's path, of a snapshot that is never old."""

    def __init__(self, text: str) -> None:
        bodies: dict[int, bytes] = {}

        def fresh() -> bytes:
            now = int(time.time()) // FRESH_SECONDS * FRESH_SECONDS
            if now not in bodies:
                bodies.clear()
                bodies[now] = gzip.compress(TAKEN_AT.sub(rf"\g<1>{now}", text).encode(), 1)
            return bodies[now]

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = fresh()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


def history(text: str, hosts: int, now: int, rules: str) -> Iterator[str]:
    """OpenMetrics of what long windows look back on; one family after the other, as the format wants it."""
    back = set(LOOKED_BACK.findall(rules))
    rows: dict[str, list[tuple[str, str]]] = {}
    for line in text.splitlines():
        if (match := LINE.match(line)) and match[1] in back:
            rows.setdefault(match[1], []).append((match[2] or "", match[3]))
    for family, series in rows.items():
        yield from block(family, series, hosts, range(now - 6 * 3600 - 600, now, 120))
    # What earlier rules recorded to look back on.
    devices = [(f'gpu="{index}",uuid="GPU-{index}"', f"{120e9 + index}") for index in range(8)]
    for name in (
        "device:deepseek_gpu_memory_committed_bytes:low",
        "device:deepseek_expected_gpu_memory_bytes:sum",
    ):
        if f"{name}[6h]" in rules:
            yield from block(name, devices, hosts, range(now - 6 * 3600 - 600, now, 120))
    # Fewer tokens than the hosts say now: a fleet that serves.
    tokens = [('deployment="a"', "1"), ('deployment="b"', "2")]
    yield from block("deployment:deepseek_tokens:sum", tokens, hosts, range(now - 6 * 3600 - 600, now, 120))
    resources = [
        ('resource="gpu_memory"', "0.9"),
        ('resource="ram"', "0.4"),
        ('resource="kv_cache",deployment="a"', "0.8"),
        ('resource="kv_cache",deployment="b"', "0.5"),
    ]
    midnight = now // DAY * DAY
    days = [midnight - back * DAY for back in range(16, -1, -1)]
    yield from block("resource:deepseek_capacity_used_ratio:max1d", resources, hosts, days)
    yield from block(
        "resource:deepseek_capacity_used_ratio:max10m", resources, hosts, range(now - DAY, now, 300)
    )


def block(family: str, series: list[tuple[str, str]], hosts: int, times: Any) -> Iterator[str]:
    # The format allows no colon in the name of a type line, and needs none for unknown.
    yield f"# TYPE {family} unknown\n"
    for host in range(hosts):
        for labels, value in series:
            more = f",{labels}" if labels else ""
            head = f'{family}{{instance="host-{host:04}:9671",job="deepseek"{more}}} {value}'
            yield "".join(f"{head} {at}\n" for at in times)


def start(folder: Path, hosts: int, targets: Targets) -> tuple[subprocess.Popen[bytes], int]:
    """A Prometheus on the history, with every host as a target."""
    found = [
        {
            "targets": [f"127.0.0.1:{targets.port}"],
            "labels": {"instance": f"host-{host:04}:9671", "__metrics_path__": f"/{host}"},
        }
        for host in range(hosts)
    ]
    (folder / "targets.json").write_text(json.dumps(found))
    shutil.copy(RULES, folder / "rules.yml")
    config = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
        "rule_files": [str(folder / "rules.yml")],
        "scrape_configs": [
            {"job_name": "deepseek", "file_sd_configs": [{"files": [str(folder / "targets.json")]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--storage.tsdb.retention.time=60d",
                f"--web.listen-address=127.0.0.1:{port}",
                "--web.enable-lifecycle",
            ],
            stdout=log,
            stderr=log,
        )
    return process, port


def ask(port: int, query: str) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60) as answer:
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return result


def groups_of(port: int) -> list[dict[str, Any]]:
    """Every group with the duration of its last evaluation, as Prometheus' own API tells it."""
    url = f"http://127.0.0.1:{port}/api/v1/rules"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60) as answer:
        groups: list[dict[str, Any]] = json.load(answer)["data"]["groups"]
    return groups


def reload(port: int, rules: Path) -> None:
    """Have Prometheus work out the rules of another file, under the name that its configuration has."""
    url = f"http://127.0.0.1:{port}/-/reload"
    request = urllib.request.Request(url, data=b"", method="POST")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60):
        print(f"now {rules}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=6.0, help="how long to watch (default %(default)s)")
    parser.add_argument("--slowest", type=int, default=4, help="rules named of each group (%(default)s)")
    parser.add_argument("--by-rule", action="store_true", help="a table of all rules, the slowest first")
    parser.add_argument("--against", type=Path, help="another rule file, for the same hosts by turns")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each file (default %(default)s)")
    chosen = parser.parse_args()
    text = one_host()
    now = int(time.time()) // 60 * 60
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        files = [RULES, chosen.against] * chosen.rounds if chosen.against else [RULES]
        rules = "".join(file.read_text(encoding="utf-8") for file in set(files))
        write_history(folder, history(text, chosen.hosts, now, rules))
        process, port = start(folder, chosen.hosts, Targets(text))
        seen = {file: Watched() for file in files}
        try:
            # The first evaluations run while targets are still being found and history is read from the disk.
            time.sleep(90)
            for file in files:
                shutil.copy(file, folder / "rules.yml")
                reload(port, file)
                seen[file].watch(port, process.pid, chosen.minutes)
            said(port)
        finally:
            process.terminate()
            process.wait()
    for file, watched in seen.items():
        print(f"\n{file}")
        watched.print(chosen.slowest, chosen.by_rule)


def write_history(folder: Path, lines: Iterable[str]) -> None:
    """The data folder of a Prometheus that has scraped these hosts before."""
    with (folder / "history.om").open("w") as stream:
        stream.writelines(lines)
        stream.write("# EOF\n")
    began = time.monotonic()
    subprocess.run(
        [
            *("promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=720h"),
            *(str(folder / "history.om"), str(folder / "data")),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    size = (folder / "history.om").stat().st_size
    print(f"history: {size / 1e6:.0f} MB, {time.monotonic() - began:.0f} s")
    (folder / "history.om").unlink()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process until now (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Watched:
    """How long each group and each rule of a file took, by the time of the evaluation."""

    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    rules: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    cpu: float = 0.0
    seconds: float = 0.0
    failed: set[str] = field(default_factory=set)

    def watch(self, port: int, pid: int, minutes: float) -> None:
        """Take down what Prometheus tells of its rules, of evaluations that began from now on."""
        began, cpu, first = time.monotonic(), cpu_seconds(pid), datetime.now(UTC)
        while time.monotonic() < began + minutes * 60:
            time.sleep(5)
            for group in groups_of(port):
                if datetime.fromisoformat(group["lastEvaluation"][:19] + "+00:00") < first:
                    continue
                self.groups.setdefault(group["name"], {})[group["lastEvaluation"]] = group["evaluationTime"]
                for number, rule in enumerate(group["rules"]):
                    called = (group["name"], f"{number + 1:2} {rule['name']}")
                    self.rules.setdefault(called, {})[rule["lastEvaluation"]] = rule["evaluationTime"]
                    if rule["health"] == "err":
                        self.failed.add(f"{rule['name']}: {rule['lastError']}")
        self.cpu += cpu_seconds(pid) - cpu
        self.seconds += time.monotonic() - began

    def print(self, slow: int, by_rule: bool) -> None:
        """Each group with its slowest rules, or all rules."""
        print("rules that failed:", self.failed or "none")
        medians = {called: median(times.values()) for called, times in self.rules.items()}
        for name, times in self.groups.items():
            took = list(times.values())
            spread = f"median {median(took):5.2f} s, {min(took):5.2f} to {max(took):5.2f} of {len(took)}"
            own = sorted((-seconds, called[1]) for called, seconds in medians.items() if called[0] == name)
            named = ", ".join(f"{rule[3:]} {-seconds:.2f}" for seconds, rule in own[:slow])
            print(f"{name:20} {spread}  ({named})")
        total = sum(median(times.values()) for times in self.groups.values())
        least = sum(min(times.values()) for times in self.groups.values())
        print(f"all groups: {total:.2f} s, the sum of their medians; {least:.2f} s, of the least")
        print(f"CPU of Prometheus, scrapes too: {self.cpu / self.seconds * 60:.1f} s a minute")
        for called, seconds in sorted(medians.items(), key=lambda one: -one[1]) if by_rule else ():
            least = min(self.rules[called].values())
            print(f"{seconds:7.3f} s, {least:7.3f} at least  {called[0]:20} {called[1]}")


def said(port: int) -> None:
    """Print what was scraped, and what fires."""
    series = ask(port, 'sum(scrape_samples_scraped{job="deepseek"})')
    firing = ask(port, 'count by (alertname) (ALERTS{alertstate="firing"})')
    print(f"series scraped: {int(float(series[0]['value'][1])):,}")
    print("firing:", {one["metric"]["alertname"]: int(float(one["value"][1])) for one in firing})


if __name__ == "__main__":
    main()
