"""Everything at once and without a GPU: recorded hosts, a real Prometheus with the shipped rules, a real
Alertmanager, and the messages of the person on call in this terminal.

    make demo           until ^C
    make demo-check     one incident from its beginning to its end, and whether everybody saw it

Minutes of the rules are seconds here; everything else is as it is shipped.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import parts
from pager import Pager
from parts import Missing, Part

HOSTS = ("8xh200-r1", "8xh100-v3-sglang", "dual-epyc-cpu")
CHECKED = ("8xh100-v3-sglang", "gpu-lost", "DeepSeekGpuLost")
"""host, incident and alert of the check"""
_OVERVIEW_PORT = 19670
_FIRST_PORT = 19671
_PROMETHEUS_PORT = 19090
_ALERTMANAGER_PORT = 19093
_STEP_SECONDS = 60.0


def main() -> None:
    """Run until ^C, or with --check until it is clear that the way of an alert works."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--check", action="store_true", help="without anybody watching; ends by itself")
    is_check = options.parse_args().check
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        parts.check_programs()
        with ExitStack() as stack:
            show(stack, is_check=is_check)
    except Missing as missing:
        sys.exit(f"error: {missing}")
    except KeyboardInterrupt:
        print("\nstopped")


def show(stack: ExitStack, *, is_check: bool) -> None:
    """Start all parts; each is stopped when the stack is."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deepseek-demo-")))
    pager = Pager(_free(_OVERVIEW_PORT, is_check))
    stack.callback(pager.close)

    def started(part: Part) -> Part:
        stack.callback(part.stop)
        return part

    print("starting …", flush=True)
    alertmanager = started(parts.alertmanager(_free(_ALERTMANAGER_PORT, is_check), pager.url, directory))
    hosts = []
    for at, name in enumerate(HOSTS):
        flags = ("--demo-incident", CHECKED[1]) if is_check and name == CHECKED[0] else ()
        hosts.append(started(parts.daemon(name, _free(_FIRST_PORT + at, is_check), directory, *flags)))
    alertmanager_port = int(alertmanager.url.rpartition(":")[2])
    prometheus = started(
        parts.prometheus(_free(_PROMETHEUS_PORT, is_check), alertmanager_port, hosts, directory)
    )
    if is_check:
        check(hosts[HOSTS.index(CHECKED[0])], prometheus, pager)
    else:
        pager.links = [(f"{host.name}: its page", f"{host.url}/") for host in hosts]
        pager.links += [
            ("Alerts in Prometheus", f"{prometheus.url}/alerts"),
            ("Alertmanager", alertmanager.url),
        ]
        pager.links += [
            (f"Board, {title} (Prometheus)", parts.graph_link(prometheus.url, queries))
            for title, queries in parts.board_curves(_board())
        ]
        print(_welcome(pager.url, hosts, prometheus, alertmanager, directory), flush=True)
        while True:
            time.sleep(3600)


def check(host: Part, prometheus: Part, pager: Pager) -> None:
    """Wait for the incident in the metrics, the alert, the page, and the end of all. Raises Missing."""
    _, incident, alert = CHECKED
    started = time.monotonic()

    def step(what: str, condition: Callable[[], object]) -> None:
        prometheus.wait(condition, _STEP_SECONDS)
        print(f"{time.monotonic() - started:5.1f} s  {what}", flush=True)

    def firing() -> bool:
        alerts = prometheus.json("/api/v1/alerts")["alerts"]
        return any(one["labels"]["alertname"] == alert and one["state"] == "firing" for one in alerts)

    step("all hosts are scraped", lambda: _value(prometheus, "sum(up)") == str(len(HOSTS)))
    queries = [query for _, queries in parts.board_curves(_board()) for query in queries]
    step("every curve of the board has values", lambda: all(_value(prometheus, one) for one in queries))
    step(f"{incident} is in the metrics of {host.name}", lambda: 'state="lost"' in host.text("/metrics"))
    step(f"{alert} fires", firing)
    step("the page has come", lambda: pager.got(alert, firing=True))
    step("the device is back", lambda: 'state="lost"' not in host.text("/metrics"))
    step(f"{alert} has ended", lambda: not firing())
    step("the end has come, too", lambda: pager.got(alert, firing=False))
    print("the whole way works")


def _value(prometheus: Part, query: str) -> str | None:
    """The first value of a query, as text."""
    found = prometheus.json("/api/v1/query", query=query)["result"]
    return str(found[0]["value"][1]) if found else None


def _board() -> dict[str, Any]:
    board: dict[str, Any] = json.loads(parts.BOARD.read_text())
    return board


def _free(wanted: int, is_check: bool) -> int:
    """The port that people can remember, unless nobody is there to."""
    return parts.port(0 if is_check else wanted)


def _welcome(overview: str, hosts: list[Part], prometheus: Part, alertmanager: Part, directory: Path) -> str:
    lines = [
        "",
        "Recorded hosts; nothing here is this machine's. The first incident begins in half a minute.",
        "",
    ]
    lines += [f"  {'overview':18} {overview}/      links to all below and to the curves of the board"]
    lines += [f"  {host.name:18} {host.url}/" for host in hosts]
    lines += [f"  {'alerts':18} {prometheus.url}/alerts", f"  {'Alertmanager':18} {alertmanager.url}/", ""]
    socket = directory / f"{hosts[0].name}.sock"
    lines += [
        f"In another terminal: {sys.prefix}/bin/deepseek-exporter status --state.control-socket {socket}"
    ]
    lines += ["", "Pages and tickets follow here; ^C ends it all.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
