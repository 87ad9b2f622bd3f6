"""The parts of the demonstration as processes: daemons on recorded hosts, Prometheus, Alertmanager.

Prometheus gets the shipped rules and Alertmanager the shipped example, with minutes turned into seconds.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RULES = ROOT / "rules" / "deepseek.rules.yml"
ROUTES = ROOT / "rules" / "alertmanager.example.yml"
BOARD = ROOT / "dashboards" / "capacity-overview.json"
PROGRAMS = ("prometheus", "prometheus-alertmanager")
_EXAMPLE_RECEIVER = "http://127.0.0.1:8080"
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_VARIABLES = {"$__rate_interval": "30s", "$job": ".*", "$instance": ".*", "$gpu": ".*"}
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class Missing(Exception):
    """Something that the demonstration needs is not there; the text says what to do."""


@dataclass
class Part:
    """One process that answers at `url`."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, name: str, port: int, command: Sequence[str], directory: Path) -> Part:
        """Start one and wait until it is ready. Raises Missing."""
        log = directory / f"{name}.log"
        with log.open("wb") as output:
            # A session of its own: ^C reaches it through `stop` alone, in order.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        part = cls(name, f"http://127.0.0.1:{port}", process, log)
        try:
            part.wait(part.is_ready, _START_SECONDS)
        except BaseException:
            part.stop()
            raise
        return part

    def is_ready(self) -> bool:
        try:
            with _open(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def wait(self, condition: Callable[[], object], seconds: float) -> None:
        """Ask again and again. Raises Missing, with the end of the log, when that takes too long."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                end = self.log.read_text(errors="replace").splitlines()[-10:]
                raise Missing(f"{self.name} does not answer; the end of its log:\n" + "\n".join(end))
            time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def json(self, path: str, **query: str) -> Any:
        """What its API answers, the field `data`."""
        with _open(f"{self.url}{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def text(self, path: str) -> str:
        with _open(f"{self.url}{path}", timeout=10) as answer:
            return str(answer.read().decode())


def check_programs() -> None:
    """Raises Missing."""
    missing = [one for one in PROGRAMS if shutil.which(one) is None]
    if missing:
        packages = " ".join(missing)
        raise Missing(
            f"not installed: {packages}. On Debian or Ubuntu: sudo apt-get install {packages}\n"
            "`make demo` does that by itself when it runs as root. "
            "`deepseek-exporter serve --demo 8xh200-r1` needs neither."
        )


def port(wanted: int) -> int:
    """This port of loopback, or any when it is taken."""
    with socket.socket() as probe:
        # As servers do: else a port that was in use a minute ago would seem to be taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
    return found


def daemon(profile: str, at: int, directory: Path, *flags: str) -> Part:
    """The exporter on a recorded host."""
    command = [
        *(sys.executable, "-m", "exporter", "serve", "--demo", profile),
        *("--web.listen-address", f"127.0.0.1:{at}"),
        *("--state.control-socket", str(directory / f"{profile}.sock")),
        *("--poll.interval", "1", "--poll.discovery-interval", "1"),
        *("--thresholds.gpu-error-recent-seconds", "20"),
        *flags,
    ]
    return Part.start(profile, at, command, directory)


def prometheus(at: int, alertmanager_port: int, daemons: Sequence[Part], directory: Path) -> Part:
    """A Prometheus that scrapes the daemons each second under the names of their hosts."""
    (directory / "rules.yml").write_text(short_rules(RULES.read_text()))
    hosts = [
        {"targets": [one.url.removeprefix("http://")], "labels": {"instance": one.name}} for one in daemons
    ]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "alerting": {
            "alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]}]
        },
        "scrape_configs": [{"job_name": "deepseek", "static_configs": hosts}],
    }
    # JSON is YAML.
    (directory / "prometheus.yml").write_text(json.dumps(config))
    command = [
        "prometheus",
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{at}",
    ]
    return Part.start("prometheus", at, command, directory)


def alertmanager(at: int, pager_url: str, directory: Path) -> Part:
    """An Alertmanager with the shipped routes and inhibitions."""
    (directory / "alertmanager.yml").write_text(short_routes(ROUTES.read_text(), pager_url))
    command = [
        "prometheus-alertmanager",
        f"--config.file={directory / 'alertmanager.yml'}",
        f"--storage.path={directory / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{at}",
        "--cluster.listen-address=",
    ]
    return Part.start("alertmanager", at, command, directory)


def short_rules(text: str) -> str:
    """The rules with a second for every minute that an alert waits or is kept, or that lies between two
    evaluations, and a minute for every hour. Raises ValueError.
    """
    text = _replaced(r"^( +(?:for|keep_firing_for|interval): \d+)m$", r"\1s", text)
    return _replaced(r"^( +(?:for|keep_firing_for): \d+)h$", r"\1m", text)


def short_routes(text: str, pager_url: str) -> str:
    """The routes with waits of a second or two and the pager as receiver. Raises ValueError."""
    text = _replaced(r"(group_wait: )[1-9]\d*s", r"\g<1>1s", text)
    text = _replaced(r"(group_interval: )5m", r"\g<1>2s", text)
    return _replaced(re.escape(_EXAMPLE_RECEIVER), pager_url, text)


def _replaced(pattern: str, by: str, text: str) -> str:
    changed, count = re.subn(pattern, by, text, flags=re.MULTILINE)
    if not count:
        raise ValueError(f"nothing looks like {pattern} any more")
    return changed


def board_curves(board: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """(title, queries) of each panel of the board that draws curves, for all hosts and devices."""
    curves = []
    for panel in board["panels"]:
        queries = [target["expr"] for target in panel.get("targets", ()) if panel["type"] == "timeseries"]
        for variable, value in _VARIABLES.items():
            queries = [query.replace(variable, value) for query in queries]
        if queries:
            curves.append((panel["title"], queries))
    return curves


def graph_link(prometheus_url: str, queries: Sequence[str]) -> str:
    """The address of Prometheus' graph page with these queries."""
    fields: dict[str, str] = {}
    for number, query in enumerate(queries):
        fields |= {f"g{number}.expr": query, f"g{number}.tab": "0", f"g{number}.range_input": "5m"}
    return f"{prometheus_url}/graph?{urllib.parse.urlencode(fields)}"
