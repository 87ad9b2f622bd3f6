"""Every query of the board, run by a real Prometheus on six hours of two made-up hosts."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from debian_tools import found, run
from prometheus_process import free_port
from synthetic_fleet import GIB, openmetrics

pytestmark = pytest.mark.e2e

BOARD_FILE = Path(__file__).parents[2] / "dashboards" / "capacity-overview.json"
PANELS: dict[str, dict[str, Any]] = {
    panel["title"]: panel for panel in json.loads(BOARD_FILE.read_text(encoding="utf-8"))["panels"]
}
START_SECONDS = 30.0


class History:
    """A Prometheus that holds the history and scrapes nothing."""

    def __init__(self, port: int, end_seconds: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._end = end_seconds
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ready(self) -> bool:
        try:
            self._opener.open(f"{self._url}/-/ready", timeout=2).close()
        except OSError:
            return False
        return True

    def ask(self, expr: str, host: str = ".+", gpu: str = ".+") -> list[dict[str, Any]]:
        """The answer at the history's end, with the board's variables put in as Grafana does."""
        for name, value in {
            "$__rate_interval": "4m",
            "$job": ".+",
            "$instance": host,
            "$gpu": gpu,
        }.items():
            expr = expr.replace(name, value)
        query = urllib.parse.urlencode({"query": expr, "time": self._end})
        with self._opener.open(f"{self._url}/api/v1/query?{query}", timeout=10) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result

    def number(self, title: str, **chosen: str) -> float | None:
        """What a panel of one number shows."""
        [target] = PANELS[title]["targets"]
        found_ = self.ask(target["expr"], **chosen)
        return float(found_[0]["value"][1]) if found_ else None


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    folder = tmp_path_factory.mktemp("history")
    end = int(time.time()) // 60 * 60
    (folder / "history.om").write_text(openmetrics(end), encoding="utf-8")
    filled = run(
        "promtool",
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        "--max-block-duration=720h",
        folder / "history.om",
        folder / "data",
    )
    assert filled.returncode == 0, filled.stdout
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 1m}\n")
    port = free_port()
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                found("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=output,
        )
    try:
        server = History(port, end)
        deadline = time.monotonic() + START_SECONDS
        while not server.ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("expr", [target["expr"] for panel in PANELS.values() for target in panel["targets"]])
def test_a_query_has_an_answer(history: History, expr: str) -> None:
    assert history.ask(expr)


def test_the_fullest_device_leads(history: History) -> None:
    assert history.number("GPU committed") == pytest.approx(1.1232, abs=1e-4)
    assert history.number("GPUs over") == 2
    assert history.number("GPU headroom") == pytest.approx(-17.2 * GIB, rel=0.01)


def test_numbers_follow_the_chosen_device(history: History) -> None:
    assert history.number("GPUs over", gpu="2") == 1
    assert history.number("GPUs over", gpu="0") == 0
    assert history.number("GPU headroom", gpu="0|1") == pytest.approx(13.8 * GIB, rel=0.01)


def test_a_host_without_a_gpu_has_no_number_rather_than_zero(history: History) -> None:
    assert history.number("GPUs over", host="cpu-01:9671") is None
    assert history.number("GPU headroom", host="cpu-01:9671") is None
    assert history.number("RAM headroom", host="cpu-01:9671") == pytest.approx(80 * GIB)


def test_a_missing_driver_where_none_is_expected_is_no_blind_spot(history: History) -> None:
    assert history.number("Sources down") == 0
    assert history.number("Hosts silent") == 0


def test_firing_alerts_are_counted_per_choice(history: History) -> None:
    assert history.number("Alerts firing") == 3
    assert history.number("Alerts firing", host="cpu-01:9671") == 0


def test_a_lost_device_keeps_its_row(history: History) -> None:
    queries = [target["expr"] for target in PANELS["GPU memory by host and device"]["targets"]]
    [state] = [row for row in history.ask(queries[1]) if row["metric"]["gpu"] == "6"]
    assert state["metric"]["state"] == "lost"
    assert not [row for row in history.ask(queries[3]) if row["metric"]["gpu"] == "6"]


def test_every_device_has_one_largest_holder(history: History) -> None:
    [expr] = [
        target["expr"]
        for target in PANELS["GPU memory by host and device"]["targets"]
        if target["expr"].startswith("topk")
    ]
    holders = [(row["metric"]["gpu"], row["metric"]["holder"]) for row in history.ask(expr)]
    assert sorted(holders) == [(str(gpu), "r1") for gpu in range(8) if gpu != 6]
