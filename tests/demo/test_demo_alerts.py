"""Which alerts a real Prometheus with the shipped rules fires on each recorded host, and on no other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from demo_host import cases, see
from prometheus_process import RULES, RunningPrometheus

from exporter.demo import profile


def shipped() -> set[str]:
    """Names of the alerts that there are rules for."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}


@contextlib.contextmanager
def served(page: str) -> Iterator[str]:
    """A target that always gives this page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.e2e
def test_a_quiet_host_fires_nothing_and_each_incident_its_own_alerts(tmp_path: Path) -> None:
    wanted: dict[str, set[str]] = {}
    names: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for name, incident in [*((name, "") for name in profile.names()), *cases()]:
            seen = see(tmp_path / f"{name}-{incident or 'quiet'}", name, incident or None)
            target = stack.enter_context(served(seen.text))
            names[target] = f"{name} {incident or 'quiet'}"
            alerts = profile.load(name).incident(incident).alerts if incident else ()
            wanted[target] = set(alerts) & shipped()
        prometheus = stack.enter_context(RunningPrometheus.start(tmp_path / "prometheus", *wanted))

        def firing() -> dict[str, set[str]]:
            found: dict[str, set[str]] = {target: set() for target in wanted}
            for one in prometheus.query('ALERTS{instance!=""}'):
                found[one["metric"]["instance"]].add(one["metric"]["alertname"])
            return found

        def labelled(alerts: dict[str, set[str]]) -> dict[str, set[str]]:
            return {names[target]: found for target, found in alerts.items()}

        prometheus.wait_until(lambda: all(firing()[one] >= alerts for one, alerts in wanted.items()), 30)
        # What should not fire had its time too: rules are evaluated each second and wait for one.
        now = prometheus.value("vector(time())") or 0
        prometheus.wait_until(lambda: (prometheus.value("vector(time())") or 0) > now + 4)
        assert labelled(firing()) == labelled(wanted)
