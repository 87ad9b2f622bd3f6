"""A real Prometheus that holds the made-up fleet's history and scrapes nothing.

`PYTHONPATH=tests python -m prometheus_history --port 9090` keeps one to look at boards, until interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from debian_tools import found, run
from prometheus_process import free_port
from synthetic_history import openmetrics

START_SECONDS = 30.0


class History:
    """Answers as of the history's end."""

    def __init__(self, port: int, end_seconds: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.end_seconds = end_seconds
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ready(self) -> bool:
        try:
            self._opener.open(f"{self.url}/-/ready", timeout=2).close()
        except OSError:
            return False
        return True

    def ask(self, promql: str) -> list[dict[str, Any]]:
        """The instant vector at the end."""
        result: list[dict[str, Any]] = self._get("query", query=promql, time=self.end_seconds)["result"]
        return result

    def ask_range(self, promql: str, length: int, step: int) -> list[dict[str, Any]]:
        """The series up to the end, at whole steps as Grafana asks for them."""
        last = self.end_seconds // step * step
        result: list[dict[str, Any]] = self._get(
            "query_range", query=promql, start=last - length // step * step, end=last, step=step
        )["result"]
        return result

    def values_of(self, label: str, selector: str) -> list[str]:
        """The values that a label has in the last hour's series."""
        start, end = self.end_seconds - 3600, self.end_seconds
        wanted: dict[str, str | int] = {"match[]": selector, "start": start, "end": end}
        values: list[str] = self._get(f"label/{label}/values", **wanted)
        return values

    def _get(self, what: str, **parameters: str | int) -> Any:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with self._opener.open(url, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None


@contextlib.contextmanager
def running_history(folder: Path, port: int = 0, more: tuple[str, ...] = ()) -> Iterator[History]:
    """Fill a Prometheus in `folder` with the history that ends now, and start it."""
    end = int(time.time()) // 60 * 60
    (folder / "history.om").write_text(openmetrics(end), encoding="utf-8")
    # Long blocks, because promtool reads the whole file again for each.
    command = ("tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=4500h")
    done = run("promtool", *command, folder / "history.om", folder / "data")
    assert done.returncode == 0, done.stdout
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 1m}\n")
    chosen = port or free_port()
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                found("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--storage.tsdb.retention.time=200d",
                f"--web.listen-address=127.0.0.1:{chosen}",
                *more,
            ],
            stdout=output,
            stderr=output,
        )
    try:
        server = History(chosen, end)
        deadline = time.monotonic() + START_SECONDS
        while not server.ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9090)
    port: int = parser.parse_args().port
    # Ended from outside, it must not leave its Prometheus behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory() as folder,
        # Any page in a browser may ask it: the data are made up.
        running_history(Path(folder), port, ("--web.cors.origin=.*",)) as history,
        contextlib.suppress(KeyboardInterrupt),
    ):
        print(f"{history.url} holds 90 days up to {history.end_seconds}", flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
