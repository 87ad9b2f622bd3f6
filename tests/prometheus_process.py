"""A real Prometheus on loopback for tests, with the shipped rules at test intervals."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from running_server import RunningServer

RULES = Path(__file__).parents[1] / "rules" / "deepseek.rules.yml"
START_SECONDS = 30.0


class RunningPrometheus(RunningServer):
    """Scrapes and evaluates every second; alerts fire after one second instead of minutes."""

    @classmethod
    def start(cls, directory: Path, *targets: str, alertmanager: str | None = None) -> RunningPrometheus:
        """Start one that scrapes `targets` as job `deepseek`, and tells the Alertmanager at `alertmanager`
        (host:port), if any. AssertionError when it does not come up.
        """
        assert shutil.which("prometheus"), "prometheus is missing: apt install prometheus"
        directory.mkdir(parents=True, exist_ok=True)
        port = free_port()
        (directory / "rules.yml").write_text(yaml.safe_dump(quick(yaml.safe_load(RULES.read_text()))))
        scrape = {"job_name": "deepseek", "static_configs": [{"targets": list(targets)}]}
        config: dict[str, Any] = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [scrape],
        }
        if alertmanager is not None:
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [
            "prometheus",
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        log = directory / "prometheus.log"
        with log.open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        server = cls(process, port, log)
        try:
            server.wait_until(lambda: server.value("min(up)") == 1, START_SECONDS)
        except BaseException:
            server.stop()
            raise
        return server

    def query(self, promql: str) -> list[dict[str, Any]]:
        """The instant vector of a query."""
        url = f"http://127.0.0.1:{self.port}/api/v1/query?" + urllib.parse.urlencode({"query": promql})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=10) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result

    def value(self, promql: str) -> float | None:
        """The one value of a query, or None when there is none, or no server yet."""
        try:
            found = self.query(promql)
        except OSError:
            return None
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[str]:
        """Names of the alerts that fire now, without the dead man's switch."""
        alerts = self.query('ALERTS{alertstate="firing",alertname!="DeepSeekWatchdog"}')
        return {alert["metric"]["alertname"] for alert in alerts}


def quick(rules: dict[str, Any]) -> dict[str, Any]:
    """The same rules with durations for a test."""
    for group in rules["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            if "alert" in rule and rule.get("for"):
                rule["for"] = "1s"
            if rule.get("keep_firing_for"):
                rule["keep_firing_for"] = "1s"
    return rules


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
