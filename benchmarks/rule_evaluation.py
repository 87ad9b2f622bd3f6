"""What the shipped rules cost a real Prometheus: by default 1,000 hosts with 8 GPUs and 2 deployments each.

    .venv/bin/python benchmarks/rule_evaluation.py [--hosts N] [--minutes N]

Every host is a target of its own on one small server; what long windows look back on is written before as
blocks by promtool: an hour of what is held through gaps, six hours of trends, fifteen days of daily peaks.
Then Prometheus scrapes every 30 s and evaluates every 30 s, and says itself how long each group took.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "alerting"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from prometheus_process import free_port
from stories import H200, LLAMA_8B, QWEN_7B, Story, vllm

from exporter.capacity.observation import Running
from exporter.engines.telemetry.types import Telemetry
from exporter.exposition.collect import samples
from exporter.exposition.render import Renderer

RULES = Path(__file__).parents[1] / "rules" / "deepseek.rules.yml"
SCRAPE_SECONDS = 30
HELD = re.compile(r"last_over_time\((\w+)(\{[^}]*\})?\[1h\]\)")
LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
DAY = 86400


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
    snapshot = replace(story.at(0), pool="production")
    return Renderer().render(samples(snapshot)).text.decode()


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


class Targets:
    """Serves the same bytes to every host's path."""

    def __init__(self, text: str) -> None:
        body = gzip.compress(text.encode(), 1)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


def history(text: str, hosts: int, now: int) -> Iterator[str]:
    """OpenMetrics of what long windows look back on; one family after the other, as the format wants it."""
    rules = RULES.read_text(encoding="utf-8")
    held = {name for name, _ in HELD.findall(rules)}
    rows: dict[str, list[tuple[str, str]]] = {}
    for line in text.splitlines():
        if (match := LINE.match(line)) and match[1] in held:
            rows.setdefault(match[1], []).append((match[2] or "", match[3]))
    for family, series in rows.items():
        yield from block(family, series, hosts, range(now - 3600, now, 60))
    devices = [(f'gpu="{index}",uuid="GPU-{index}"', f"{120e9 + index}") for index in range(8)]
    for name in (
        "device:deepseek_gpu_memory_committed_bytes:low",
        "device:deepseek_expected_gpu_memory_bytes:sum",
    ):
        yield from block(name, devices, hosts, range(now - 6 * 3600 - 600, now, 120))
    # Fewer than the hosts say now: a fleet that serves.
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
    config = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
        "rule_files": [str(RULES)],
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=6.0, help="how long to watch (default %(default)s)")
    parser.add_argument("--slowest", type=int, default=4, help="rules named of each group (%(default)s)")
    chosen = parser.parse_args()
    text = one_host()
    now = int(time.time()) // 60 * 60
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        with (folder / "history.om").open("w") as stream:
            stream.writelines(history(text, chosen.hosts, now))
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
        process, port = start(folder, chosen.hosts, Targets(text))
        try:
            watch(port, chosen.minutes, chosen.slowest)
        finally:
            process.terminate()
            process.wait()


def watch(port: int, minutes: float, slow: int) -> None:
    """Print, when the time is over, how long each group took and its slowest rules."""
    took: dict[str, dict[str, float]] = {}
    rule_took: dict[str, dict[str, float]] = {}
    ends = time.monotonic() + minutes * 60
    groups: list[dict[str, Any]] = []
    # The first evaluations run while targets are still being found and history is read from the disk.
    warm = time.monotonic() + 120
    while time.monotonic() < ends:
        time.sleep(5)
        try:
            groups = groups_of(port)
        except OSError:
            continue
        for group in groups if time.monotonic() > warm else ():
            took.setdefault(group["name"], {})[group["lastEvaluation"]] = group["evaluationTime"]
            for rule in group["rules"]:
                rule_took.setdefault(rule["name"], {})[rule["lastEvaluation"]] = rule["evaluationTime"]
    series = ask(port, 'sum(scrape_samples_scraped{job="deepseek"})')
    firing = ask(port, 'count by (alertname) (ALERTS{alertstate="firing"})')
    print(f"series scraped: {int(float(series[0]['value'][1])):,}")
    print("firing:", {one["metric"]["alertname"]: int(float(one["value"][1])) for one in firing})
    broken = [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "err"]
    print("rules that failed:", broken or "none")
    total = 0.0
    for group in groups:
        times = list(took.get(group["name"], {}).values()) or [group["evaluationTime"]]
        total += median(times)
        rules = {
            rule["name"]: median(rule_took.get(rule["name"], {"": 0.0}).values()) for rule in group["rules"]
        }
        slowest = sorted(rules.items(), key=lambda one: -one[1])[:slow]
        named = ", ".join(f"{name} {seconds:.2f}" for name, seconds in slowest)
        spread = f"median {median(times):5.2f} s, {min(times):5.2f} to {max(times):5.2f} of {len(times)}"
        print(f"{group['name']:20} {spread}  ({named})")
    print(f"all groups: {total:.2f} s, the sum of their medians")


if __name__ == "__main__":
    main()
