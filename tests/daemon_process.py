"""The real daemon in a process of its own, for tests: `python -m exporter serve` with its own port, state and
control socket, and the fake NVIDIA driver in the place of a real one when a test gives it one.

    with RunningDaemon.start(tmp_path, driver=driver, config='pool = "production"') as daemon:
        daemon.wait_until(lambda: daemon.value("deepseek_gpu_up", gpu="0") == 1)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from fake_nvml.control import FakeDriver
from prometheus_client.parser import text_string_to_metric_families

from exporter.daemon.control import ControlError, ask

START_SECONDS = 20.0
STOP_SECONDS = 15.0

Metrics = dict[str, list[tuple[dict[str, str], float]]]
"""Name of a sample → its label sets with their values."""


class RunningDaemon:
    """A daemon that answers. `directory` holds config.toml, state/, control.sock and daemon.log."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, env: dict[str, str]) -> None:
        self.process = process
        self.directory = directory
        self.config_file = directory / "config.toml"
        self.socket = directory / "control.sock"
        self.address = ""
        self._env = env

    @classmethod
    def start(
        cls,
        directory: Path,
        *flags: str,
        driver: FakeDriver | None = None,
        config: str = "",
        env: Mapping[str, str] | None = None,
        poll_seconds: float = 0.3,
        wait: bool = True,
        demo: str = "",
    ) -> RunningDaemon:
        """Start a daemon and wait for its first snapshot, unless `wait` is False.

        Without a `driver` NVIDIA is switched off, so that a test never depends on this machine's GPUs.
        `demo` is a recorded host, with devices and a state of its own.
        Raises AssertionError with the daemon's log when it does not come up.
        """
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.toml").write_text(config)
        environment = clean_environment() | (driver.env if driver else {}) | dict(env or {})
        command = [
            *(sys.executable, "-m", "exporter", "serve"),
            *("--config.file", str(directory / "config.toml")),
            *("--state.control-socket", str(directory / "control.sock")),
            *("--web.listen-address", "127.0.0.1:0"),
            *("--poll.interval", str(poll_seconds)),
            *(("--demo", demo) if demo else ("--state.directory", str(directory / "state"))),
            *(() if driver or demo else ("--nvml.enabled", "false")),
            *flags,
        ]
        with (directory / "daemon.log").open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=log)
        daemon = cls(process, directory, environment)
        if wait:
            try:
                daemon.wait_ready()
            except BaseException:
                daemon.kill()
                raise
        return daemon

    def __enter__(self) -> RunningDaemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            sys.stderr.write(f"--- daemon.log ---\n{self.log()}")
        self.stop()

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until the first snapshot is served; learns the address."""

        def answers() -> bool:
            assert self.process.poll() is None, f"the daemon ended: {self.process.returncode}\n{self.log()}"
            try:
                self.address = str(self.request("status")["address"])
            except ControlError:
                return False
            return self.get("/-/ready")[0] == 200

        self.wait_until(answers, seconds)

    def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of a GET; status 0 when nothing listens."""
        request = urllib.request.Request(f"http://{self.address}{path}", headers=dict(headers or {}))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def metrics(self) -> Metrics:
        """One scrape, parsed by prometheus-client."""
        status, body = self.get("/metrics")
        assert status == 200, (status, body)
        found: Metrics = {}
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
        return found

    def value(self, sample: str, /, **labels: str) -> float | None:
        """The one sample with this name and these labels (others do not matter), or None."""
        return value(self.metrics(), sample, **labels)

    def states(self) -> dict[str, str]:
        """GPU index → its present state."""
        return {labels["gpu"]: labels["state"] for labels, _ in self.metrics().get("deepseek_gpu_state", ())}

    def request(self, command: str, **fields: str) -> dict[str, Any]:
        """One request on the control socket, without the cost of a `ctl` process. Raises ControlError."""
        return ask(self.socket, {"command": command, **fields})

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`deepseek-exporter ctl …` against this daemon."""
        command = [sys.executable, "-m", "exporter", "ctl", "--state.control-socket", str(self.socket)]
        return subprocess.run(
            [*command, *arguments], env=self._env, capture_output=True, text=True, timeout=60, check=False
        )

    def ctl_json(self, *arguments: str) -> dict[str, Any]:
        """The JSON answer of `ctl … --json`."""
        answer: dict[str, Any] = json.loads(self.ctl(*arguments, "--json").stdout)
        return answer

    def log(self) -> str:
        return (self.directory / "daemon.log").read_text(errors="replace")

    def wait_until(self, condition: Callable[[], object], seconds: float = 15.0) -> None:
        """Ask again and again; AssertionError with the daemon's log when it does not come true in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s\n{self.log()}"
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM, and the exit status; killed when it does not end in time."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end {seconds} s after SIGTERM\n{self.log()}") from None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def value(metrics: Metrics, sample: str, /, **labels: str) -> float | None:
    """The one sample with this name and these labels (others do not matter), or None."""
    found = [number for have, number in metrics.get(sample, ()) if labels.items() <= have.items()]
    assert len(found) <= 1, f"{sample}{labels} is {len(found)} series"
    return found[0] if found else None


def clean_environment() -> dict[str, str]:
    """This process's environment without what a service manager or an operator may have set."""
    foreign = ("DEEPSEEK_EXPORTER_", "NOTIFY_", "WATCHDOG_", "JOURNAL_STREAM", "FAKE_NVML", "LISTEN_")
    alone = ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "INVOCATION_ID")
    return {key: text for key, text in os.environ.items() if not key.startswith(foreign) and key not in alone}
