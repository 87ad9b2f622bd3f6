"""A page on its way: fake driver, stand-in engines, the daemon, real Prometheus and Alertmanager, a webhook.

Once by the shipped rules, once by the daemon itself without any Prometheus, with waiting times for a
test. What an engine preallocates must not page; a second engine that cannot fit must.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from alertmanager_process import RunningAlertmanager
from daemon_process import RunningDaemon
from fake_nvml.control import FakeDriver
from fake_nvml.devices import many
from prometheus_process import RunningPrometheus, free_port
from stand_ins import launches
from webhook import Received, Webhook

pytestmark = pytest.mark.e2e

GIB = 2**30
FIRST = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
SECOND = "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
PAGE_SECONDS = 60.0
PUSH = """
[alerting]
time_scale = 0.005
resend_interval = 2
instance = "gpu-01:9671"

[[alertmanagers]]
url = "{url}"
"""
FLAGS = ("--poll.discovery-interval", "0.5")


@dataclass
class Stage:
    """One host with two H200, and who is told of it."""

    daemon: RunningDaemon
    driver: FakeDriver
    webhook: Webhook
    manager: RunningAlertmanager
    instance: str


@pytest.fixture(params=["prometheus", "push"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    driver = FakeDriver.create(tmp_path / "driver", many("h200", 2))
    with (
        Webhook() as webhook,
        RunningAlertmanager.start(tmp_path / "alertmanager", webhook.url) as manager,
    ):
        pushes = request.param == "push"
        config = PUSH.format(url=manager.url) if pushes else ""
        with RunningDaemon.start(tmp_path / "daemon", *FLAGS, driver=driver, config=config) as daemon:
            daemon.wait_until(lambda: daemon.value("deepseek_gpus", vendor="nvidia") == 2)
            if pushes:
                yield Stage(daemon, driver, webhook, manager, "gpu-01:9671")
                return
            with RunningPrometheus.start(
                tmp_path / "prometheus", daemon.address, alertmanager=f"127.0.0.1:{manager.port}"
            ):
                yield Stage(daemon, driver, webhook, manager, daemon.address)


def pages(received: list[Received], status: str) -> list[dict[str, Any]]:
    """Alerts about overcommitment that reached the pager with this status."""
    return [
        alert
        for one in received
        if one.path == "/page"
        for alert in one.json["alerts"]
        if alert["labels"]["alertname"] == "DeepSeekVramOvercommitted" and alert["status"] == status
    ]


def test_a_second_engine_that_cannot_fit_pages_and_its_end_is_told(stage: Stage, tmp_path: Path) -> None:
    small = ("--gpu-memory-utilization", "0.5")
    with launches.vllm(tmp_path, model=FIRST, port=free_port()) as first:
        first.hold(stage.driver, 129 * GIB)
        stage.daemon.wait_until(
            lambda: stage.daemon.value("deepseek_deployment_up", deployment=f"vllm:{FIRST}") == 1
        )
        # Time for an alert at 92 % used, if there were one, to arrive.
        time.sleep(5)
        assert pages(stage.webhook.received, "firing") == []
        with launches.vllm(tmp_path, model=SECOND, port=free_port(), flags=small) as second:
            second.hold(stage.driver, 6 * GIB)
            told = stage.webhook.wait_for(lambda seen: pages(seen, "firing"), PAGE_SECONDS)
            [page] = pages(told, "firing")
        stage.webhook.wait_for(lambda seen: pages(seen, "resolved"), PAGE_SECONDS)
    assert page["labels"]["severity"] == "critical"
    assert page["labels"]["instance"] == stage.instance
    assert (page["labels"]["gpu"], page["labels"]["uuid"][:4]) == ("0", "GPU-")
    summary = page["annotations"]["summary"]
    assert f"GPU 0 of {stage.instance} is overcommitted" in summary
    assert f"Deployments: vllm:{SECOND}, vllm:{FIRST}." in summary
    assert summary.count("GiB") == 2
    assert page["annotations"]["runbook_url"].endswith("docs/ALERTS.md#deepseekvramovercommitted")
    assert "First action: " in page["annotations"]["description"]
    assert {alert["labels"]["gpu"] for alert in pages(stage.webhook.received, "firing")} == {"0"}


def test_what_the_daemon_itself_says_is_what_it_pushes(tmp_path: Path) -> None:
    driver = FakeDriver.create(tmp_path / "driver", many("h200", 2))
    with (
        Webhook() as webhook,
        RunningAlertmanager.start(tmp_path / "alertmanager", webhook.url) as manager,
        RunningDaemon.start(
            tmp_path / "daemon", *FLAGS, driver=driver, config=PUSH.format(url=manager.url)
        ) as daemon,
    ):
        daemon.wait_until(lambda: daemon.value("deepseek_gpus", vendor="nvidia") == 2)
        driver.lose(1)
        active = {"alert": "DeepSeekGpuLost", "severity": "critical"}
        daemon.wait_until(lambda: daemon.value("deepseek_alert_active", **active, subject="gpu=1") == 1)
        manager.wait_until(lambda: "DeepSeekGpuLost" in manager.names())
        receiver = f"127.0.0.1:{manager.port}"
        daemon.wait_until(
            lambda: daemon.value("deepseek_exporter_notifications_up", alertmanager=receiver) == 1
        )
        [alert] = [one for one in daemon.request("snapshot")["alerts"] if one["name"] == "DeepSeekGpuLost"]
        assert alert["subject"]["gpu"] == "1"
        daemon.stop()
        # Nobody would tell of its end any more.
        manager.wait_until(lambda: manager.names() == set())
        restarted = RunningDaemon.start(
            tmp_path / "daemon", *FLAGS, driver=driver, config=PUSH.format(url=manager.url)
        )
        with restarted:
            manager.wait_until(lambda: "DeepSeekGpuLost" in manager.names())
            [again] = [
                one for one in restarted.request("snapshot")["alerts"] if one["name"] == "DeepSeekGpuLost"
            ]
            assert again["active_since_seconds"] == alert["active_since_seconds"]
