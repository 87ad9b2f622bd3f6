"""A real Alertmanager on loopback for tests."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from debian_tools import found
from prometheus_process import free_port
from running_server import RunningServer

EXAMPLE = Path(__file__).parents[1] / "rules" / "alertmanager.example.yml"
START_SECONDS = 20.0


class RunningAlertmanager(RunningServer):
    """Routes and inhibits as the shipped example does, at once, with every receiver at `webhook_url`/NAME."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        super().__init__(process, port, log)
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @classmethod
    def start(cls, directory: Path, webhook_url: str) -> RunningAlertmanager:
        """Start one. AssertionError when it does not come up."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "alertmanager.yml").write_text(yaml.safe_dump(quick(webhook_url)))
        port, log = free_port(), directory / "alertmanager.log"
        command = [
            found("prometheus-alertmanager"),
            f"--config.file={directory / 'alertmanager.yml'}",
            f"--storage.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ]
        with log.open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        server = cls(process, port, log)
        try:
            server.wait_until(lambda: server.alerts() is not None, START_SECONDS)
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def alerts(self) -> list[dict[str, Any]] | None:
        """The alerts that are active now; None while it does not answer."""
        try:
            with self._opener.open(f"{self.url}/api/v2/alerts", timeout=5) as answer:
                result: list[dict[str, Any]] = json.load(answer)
        except OSError:
            return None
        return result

    def names(self) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.alerts() or ()}


def quick(webhook_url: str) -> dict[str, Any]:
    """The example with intervals for a test and webhooks of the test."""
    config: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    for route in (config["route"], *config["route"]["routes"]):
        route["group_wait"] = "1s"
        route["group_interval"] = "1s"
    config["receivers"] = [
        {"name": one["name"], "webhook_configs": [{"url": f"{webhook_url}/{one['name']}"}]}
        for one in config["receivers"]
    ]
    return config
