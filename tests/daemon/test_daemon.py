"""The real daemon in its own process: how it starts and ends, signals, reloads, and a driver that hangs."""

from __future__ import annotations

import html
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil
import pytest
from daemon_process import RunningDaemon, clean_environment, value
from fake_nvml.control import FakeDriver
from fake_nvml.devices import FakeDevice, many

RELOADED = "deepseek_exporter_config_last_reload_successful"
Make = Callable[[list[FakeDevice]], FakeDriver]


class Manager(Protocol):
    address: str

    def receive(self, seconds: float) -> dict[str, str]: ...
    def wait_for(self, key: str, seconds: float = 10.0) -> dict[str, str]: ...
    def silent(self, seconds: float) -> bool: ...


# Start


def test_it_serves_this_machine_s_memory(tmp_path: Path) -> None:
    with RunningDaemon.start(tmp_path) as daemon:
        assert daemon.value("deepseek_host_memory_total_bytes") == psutil.virtual_memory().total
        assert daemon.get("/-/healthy")[0] == daemon.get("/-/ready")[0] == 200
        assert daemon.value(RELOADED) == 1


def test_its_page_and_its_json_show_this_machine(tmp_path: Path) -> None:
    with RunningDaemon.start(tmp_path, config='pool = "bench"') as daemon:
        status, page = daemon.get("/")
        assert status == 200
        text = page.decode()
        assert f"<h1>{html.escape(socket.gethostname())}</h1>" in text
        assert "pool bench" in text
        assert 'data-refresh-seconds="1.0"' in text
        plain = json.loads(daemon.get("/api/v1/snapshot")[1])
        assert plain["host"]["memory_total_bytes"] == psutil.virtual_memory().total
        assert plain["schema"] == daemon.request("snapshot")["schema"]
        assert "problem" in daemon.request("snapshot")["reload"]
        assert "problem" not in plain["reload"]


def serve(tmp_path: Path, *flags: str, config: str = "") -> subprocess.CompletedProcess[str]:
    """A daemon that is expected to end by itself at once."""
    (tmp_path / "config.toml").write_text(config)
    command = [
        *(sys.executable, "-m", "exporter", "serve"),
        *("--config.file", str(tmp_path / "config.toml")),
        *("--state.directory", str(tmp_path / "state")),
        *("--state.control-socket", str(tmp_path / "second.sock")),
        *("--nvml.enabled", "false"),
        *flags,
    ]
    return subprocess.run(
        command, env=clean_environment(), capture_output=True, text=True, timeout=20, check=False
    )


def assert_one_clear_line(ended: subprocess.CompletedProcess[str], *words: str) -> None:
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[poll\ninterval = 5", ("config.toml",)),
        ("[poll]\nintervall = 5", ("intervall", "interval")),
        ('[poll]\ninterval = "soon"', ("poll.interval",)),
    ],
)
def test_a_malformed_configuration_is_one_line_and_exit_2(
    tmp_path: Path, config: str, words: tuple[str, ...]
) -> None:
    assert_one_clear_line(serve(tmp_path, config=config), *words)


def test_a_port_in_use_is_one_line_and_exit_2(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert_one_clear_line(serve(tmp_path, "--web.listen-address", address), address, "another program")


def test_a_second_daemon_is_one_line_and_exit_2_and_the_first_goes_on(tmp_path: Path) -> None:
    with RunningDaemon.start(tmp_path / "first") as first:
        assert_one_clear_line(serve(tmp_path, "--web.listen-address", first.address), first.address)
        ended = serve(
            tmp_path,
            *("--web.listen-address", "127.0.0.1:0"),
            *("--state.control-socket", str(first.socket)),
        )
        assert_one_clear_line(ended, "already runs here")
        assert first.ctl_json("status")["healthy"] is True


# Stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_with_exit_0_and_leaves_nothing(
    make_driver: Make, tmp_path: Path, number: int
) -> None:
    driver = make_driver(many("h200", 2))
    daemon = RunningDaemon.start(tmp_path, driver=driver)
    children = psutil.Process(daemon.process.pid).children()
    daemon.signal(number)
    assert daemon.process.wait(5) == 0
    assert not daemon.socket.exists()
    assert driver.holders() == set()
    assert not [child for child in children if child.is_running()]


@pytest.mark.parametrize("trouble", ["a device", "init", "everything"])
def test_it_ends_within_seconds_while_the_driver_hangs(
    make_driver: Make, tmp_path: Path, trouble: str
) -> None:
    driver = make_driver(many("h200", 2))
    if trouble == "init":
        driver.set_driver(init_hang=True)
    daemon = RunningDaemon.start(tmp_path, driver=driver)
    if trouble != "init":
        daemon.wait_until(lambda: set(daemon.states().values()) == {"up"})
        with driver.change() as state:
            hanging = state.devices[:1] if trouble == "a device" else state.devices
            for device in hanging:
                device.hang_calls.add("*")
        daemon.wait_until(lambda: daemon.states()["0"] == "stalled")
    started = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.process.wait(8) == 0
    assert time.monotonic() - started < 6
    assert driver.holders() == set()


def test_its_worker_does_not_outlive_it(make_driver: Make, tmp_path: Path) -> None:
    driver = make_driver(many("h200", 1))
    daemon = RunningDaemon.start(tmp_path, driver=driver)
    daemon.wait_until(lambda: daemon.states() == {"0": "up"})
    assert driver.holders()
    daemon.kill()
    daemon_gone = time.monotonic()
    while driver.holders():
        assert time.monotonic() - daemon_gone < 5
        time.sleep(0.02)


# Reload


def test_sighup_applies_a_new_configuration(tmp_path: Path) -> None:
    with RunningDaemon.start(tmp_path, config="[thresholds]\nvram_overcommit_ratio = 1.0\n") as daemon:
        assert daemon.value("deepseek_threshold", name="vram_overcommit_ratio") == 1.0
        daemon.config_file.write_text("[thresholds]\nvram_overcommit_ratio = 0.9\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_until(lambda: daemon.value("deepseek_threshold", name="vram_overcommit_ratio") == 0.9)


def test_a_bad_file_keeps_the_old_configuration_and_shows(tmp_path: Path) -> None:
    good = "[thresholds]\nvram_overcommit_ratio = 1.25\n"
    with RunningDaemon.start(tmp_path, config=good) as daemon:
        first = daemon.value("deepseek_exporter_config_last_reload_timestamp_seconds")
        daemon.config_file.write_text("[thresholds]\nvram_overcommit_ratoi = 3\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_until(lambda: daemon.value(RELOADED) == 0)
        metrics = daemon.metrics()
        assert value(metrics, "deepseek_threshold", name="vram_overcommit_ratio") == 1.25
        assert value(metrics, "deepseek_exporter_config_last_reload_timestamp_seconds") == first
        status = daemon.ctl_json("status")["configuration"]
        assert status["successful"] is False
        assert "vram_overcommit_ratio" in status["problem"]
        refused = daemon.ctl("reload")
        assert refused.returncode == 2
        assert "the old configuration stays in force" in refused.stderr
        daemon.config_file.write_text(good)
        assert daemon.ctl("reload").returncode == 0
        daemon.wait_until(lambda: daemon.value(RELOADED) == 1)
        assert daemon.get("/-/healthy")[0] == 200


def test_what_needs_a_restart_is_named_and_left(make_driver: Make, tmp_path: Path) -> None:
    driver = make_driver(many("h200", 1))
    with RunningDaemon.start(tmp_path, driver=driver) as daemon:
        daemon.wait_until(lambda: daemon.states() == {"0": "up"})
        daemon.config_file.write_text('pool = "research"\n[nvml]\nenabled = false\n')
        assert daemon.ctl("reload").returncode == 0
        daemon.wait_until(lambda: daemon.value("deepseek_gpu_info", pool="research") == 1)
        assert daemon.states() == {"0": "up"}
        assert "nvml.enabled" in daemon.log()


def test_a_storm_of_signals_is_survived(tmp_path: Path) -> None:
    with RunningDaemon.start(tmp_path) as daemon:
        for _ in range(10):
            daemon.signal(signal.SIGHUP)
            daemon.signal(signal.SIGUSR1)
            time.sleep(0.01)
        assert daemon.ctl("reload").returncode == 0
        assert daemon.get("/-/healthy")[0] == 200


# The driver


def test_a_device_hangs_while_scrapes_stay_fast_and_the_other_seven_fresh(
    make_driver: Make, tmp_path: Path
) -> None:
    driver = make_driver(many("h200", 8))
    with RunningDaemon.start(tmp_path, driver=driver) as daemon:
        daemon.wait_until(lambda: list(daemon.states().values()) == ["up"] * 8)
        pid = daemon.process.pid
        driver.hang(3)
        slowest = 0.0
        deadline = time.monotonic() + 2.5
        while time.monotonic() < deadline:
            started = time.monotonic()
            assert daemon.get("/metrics")[0] == 200
            slowest = max(slowest, time.monotonic() - started)
            age = time.time() - (daemon.value("deepseek_exporter_snapshot_timestamp_seconds") or 0)
            assert age < 1.5
            time.sleep(0.05)
        assert slowest < 0.1
        metrics = daemon.metrics()
        assert value(metrics, "deepseek_gpu_up", gpu="3") == 0
        assert value(metrics, "deepseek_gpu_state", gpu="3", state="stalled") == 1
        assert value(metrics, "deepseek_gpu_memory_total_bytes", gpu="3") is None
        assert value(metrics, "deepseek_exporter_workers_stuck") == 1
        assert [value(metrics, "deepseek_gpu_up", gpu=str(at)) for at in (0, 1, 2, 4, 5, 6, 7)] == [1] * 7
        assert daemon.get("/-/healthy")[0] == 200
        driver.release(3)
        daemon.wait_until(lambda: list(daemon.states().values()) == ["up"] * 8, seconds=5)
        daemon.wait_until(lambda: daemon.value("deepseek_exporter_workers_stuck") == 0)
        assert daemon.process.pid == pid
        assert daemon.process.poll() is None


def test_sigusr1_lets_go_of_the_driver_and_ctl_resume_takes_it_up(make_driver: Make, tmp_path: Path) -> None:
    driver = make_driver(many("h200", 2))
    with RunningDaemon.start(tmp_path, driver=driver) as daemon:
        daemon.wait_until(lambda: daemon.states() == {"0": "up", "1": "up"})
        assert driver.holders()
        daemon.signal(signal.SIGUSR1)
        daemon.wait_until(lambda: daemon.states() == {"0": "released", "1": "released"})
        assert driver.holders() == set()
        assert daemon.value("deepseek_exporter_source_up", source="nvml") == 0
        assert daemon.ctl_json("status")["driver_released"] is True
        assert daemon.ctl("resume").returncode == 0
        daemon.wait_until(lambda: daemon.states() == {"0": "up", "1": "up"})


def test_ctl_release_returns_when_the_driver_is_free_and_it_comes_back_by_itself(
    make_driver: Make, tmp_path: Path
) -> None:
    driver = make_driver(many("h200", 2))
    with RunningDaemon.start(tmp_path, "--nvml.release-for", "1.5", driver=driver) as daemon:
        daemon.wait_until(lambda: daemon.states() == {"0": "up", "1": "up"})
        done = daemon.ctl("release")
        assert done.returncode == 0
        assert driver.holders() == set()
        assert "released" in done.stdout
        daemon.wait_until(lambda: daemon.states() == {"0": "up", "1": "up"})


def test_a_lost_device_is_known_after_a_restart_until_forgotten(make_driver: Make, tmp_path: Path) -> None:
    driver = make_driver(many("h200", 2))
    with RunningDaemon.start(tmp_path, driver=driver) as daemon:
        daemon.wait_until(lambda: daemon.states() == {"0": "up", "1": "up"})
    with driver.change() as state:
        gone = state.devices.pop()
    with RunningDaemon.start(tmp_path, driver=driver) as daemon:
        daemon.wait_until(lambda: daemon.states() == {"0": "up", "1": "lost"})
        assert daemon.value("deepseek_gpu_up", uuid=gone.uuid) == 0
        assert daemon.value("deepseek_gpus_expected") == 2
        assert daemon.ctl("forget", gone.uuid).returncode == 0
        daemon.wait_until(lambda: daemon.states() == {"0": "up"})
        assert daemon.ctl("forget", gone.uuid).returncode != 0


# The service manager


def manager_environment(manager: Manager, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.address, **more}


def test_the_service_manager_is_told_of_start_reload_and_stop(
    service_manager: Manager, tmp_path: Path
) -> None:
    with RunningDaemon.start(tmp_path, env=manager_environment(service_manager)) as daemon:
        assert service_manager.receive(5)["READY"] == "1"
        daemon.signal(signal.SIGHUP)
        before = time.monotonic() * 1e6
        assert int(service_manager.wait_for("RELOADING", 5)["MONOTONIC_USEC"]) >= before - 1e6
        assert service_manager.wait_for("READY", 5)["READY"] == "1"
        daemon.config_file.write_text("nonsense")
        daemon.signal(signal.SIGHUP)
        service_manager.wait_for("RELOADING", 5)
        service_manager.wait_for("READY", 5)  # the old configuration is in force: the reload has ended
        daemon.signal(signal.SIGTERM)
        assert service_manager.wait_for("STOPPING", 5)["STOPPING"] == "1"


def test_the_watchdog_gets_signs_of_life_while_the_driver_hangs_and_none_while_the_loop_stands(
    service_manager: Manager, make_driver: Make, tmp_path: Path
) -> None:
    driver = make_driver(many("h200", 1))
    driver.set_driver(init_hang=True)
    environment = manager_environment(service_manager, WATCHDOG_USEC="600000")
    with RunningDaemon.start(tmp_path, driver=driver, env=environment) as daemon:
        for _ in range(3):
            assert service_manager.wait_for("WATCHDOG", 2)["WATCHDOG"] == "1"
        daemon.signal(signal.SIGSTOP)
        while not service_manager.silent(0.6):
            pass
        daemon.signal(signal.SIGCONT)
        service_manager.wait_for("WATCHDOG", 5)


def test_the_watchdog_of_another_process_is_left_alone(service_manager: Manager, tmp_path: Path) -> None:
    environment = manager_environment(service_manager, WATCHDOG_USEC="300000", WATCHDOG_PID=str(os.getpid()))
    with RunningDaemon.start(tmp_path, env=environment):
        assert service_manager.receive(5)["READY"] == "1"
        assert service_manager.silent(0.6)
