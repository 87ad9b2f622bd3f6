"""`serve --demo`: the real daemon on recorded hosts, and what it says of itself."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from daemon_process import RunningDaemon, clean_environment

from exporter.demo import profile

HOST_NAME = socket.gethostname()
"""of this machine: no page of a recorded host may show it"""


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "exporter", *arguments],
        env=clean_environment() | (env or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.e2e
@pytest.mark.parametrize("name", profile.names())
def test_every_profile_starts_and_ends_through_the_real_daemon(name: str, tmp_path: Path) -> None:
    places = {"TMPDIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    with RunningDaemon.start(tmp_path / "daemon", demo=name, env=places) as daemon:
        daemon.wait_until(lambda: "deepseek_deployment_info" in daemon.metrics())
        assert daemon.value("deepseek_exporter_demo_info", profile=name) == 1
        assert daemon.request("snapshot")["demo"] == name
        page = daemon.get("/")[1].decode()
        assert re.search(rf"the recorded host .?{name}", page)
        assert not re.search(
            rf"\b{re.escape(HOST_NAME)}\b", re.sub(r"<style.*?</style>|<[^>]*>", "", page, flags=re.S)
        )
        assert f"profile={name}" in daemon.log()
        assert list(tmp_path.glob("deepseek-exporter-demo-*"))
    assert list(tmp_path.glob("deepseek-exporter-demo-*")) == []
    assert not (tmp_path / "state").exists()


@pytest.mark.e2e
def test_an_incident_that_was_asked_for_comes_and_goes(tmp_path: Path) -> None:
    flags = ("--demo-incident", "gpu-lost")
    with RunningDaemon.start(tmp_path, *flags, demo="8xh100-v3-sglang") as daemon:
        daemon.wait_until(lambda: set(daemon.states().values()) == {"up"})
        daemon.wait_until(lambda: daemon.states().get("3") == "lost", 20)
        daemon.wait_until(lambda: daemon.value("deepseek_deployment_up") == 0)
        assert daemon.value("deepseek_gpu_xid_errors_total", gpu="3", xid="79") == 1


@pytest.mark.e2e
def test_status_tells_of_the_recorded_host_and_a_reload_leaves_it_in_place(tmp_path: Path) -> None:
    with RunningDaemon.start(tmp_path, demo="dual-epyc-cpu") as daemon:
        total = daemon.value("deepseek_host_memory_total_bytes")
        told = run("status", "--state.control-socket", str(daemon.socket)).stdout
        assert "the recorded host dual-epyc-cpu" in told
        assert not re.search(rf"\b{re.escape(HOST_NAME)}\b", told)
        assert daemon.ctl("reload").returncode == 0
        assert daemon.value("deepseek_host_memory_total_bytes") == total
        assert daemon.value("deepseek_exporter_demo_info") == 1


def test_the_list_names_every_profile_with_its_incidents() -> None:
    listed = run("serve", "--demo", "list").stdout
    for name in profile.names():
        assert f"\n{name}: {profile.load(name).title}\n" in "\n" + listed
        for incident in profile.load(name).incidents:
            assert f"  {incident.name}: {incident.meaning}\n" in listed


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--demo", "9xh900"), "there are: 4090-hybrid-r1"),
        (("--demo", "8xh200-r1", "--demo-incident", "flood"), "it has: second-deployment"),
        (("--demo-incident", "stranger"), "--demo-incident needs --demo"),
        (("--demo", "8xh200-r1", "--host.proc-path", "/proc"), "--host.proc-path is what --demo sets"),
    ],
)
def test_what_cannot_be_played_is_a_usage_error_that_says_what_can(flags: tuple[str, ...], says: str) -> None:
    done = run("serve", "--web.listen-address", "127.0.0.1:0", *flags)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_real_hosts_paths_in_the_environment_do_not_reach_the_demo(tmp_path: Path) -> None:
    env = {"DEEPSEEK_EXPORTER_HOST_PROC_PATH": "/proc", "DEEPSEEK_EXPORTER_NVML_ENABLED": "true"}
    with RunningDaemon.start(tmp_path, demo="dual-epyc-cpu", env=env) as daemon:
        recorded = profile.load("dual-epyc-cpu").ram.total_gib * 2**30
        assert daemon.value("deepseek_host_memory_total_bytes") == pytest.approx(recorded, abs=1024)
        assert "deepseek_gpu_info" not in daemon.metrics()
