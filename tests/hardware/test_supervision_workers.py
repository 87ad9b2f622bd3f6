"""The worker process itself fails: killed, stopped, or talking rubbish. A stand-in misbehaves once and is the
real worker ever after."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest
from fake_nvml.control import FakeDriver
from fake_nvml.devices import many
from nvml_host import (
    OPTIONS,
    DriverFactory,
    Host,
    all_up,
    children,
    gpu_at,
    open_files,
    run,
    states,
)

from exporter.hardware import process
from exporter.hardware.gpu import GpuState
from exporter.hardware.process import COMMAND, WorkerProcess
from exporter.hardware.supervision import MAX_STUCK

INIT = '{"kind":"init","driver_version":"590.48.01"}\n'


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_that_dies_between_two_sweeps_is_replaced(make_driver: DriverFactory, number: int) -> None:
    make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        os.kill(host.source.worker_pids()[0], number)
        sweep = await host.within(1, lambda sweep: not sweep.up)
        assert sweep.state == "worker_died"
        assert states(sweep) == {0: GpuState.DRIVER_DOWN, 1: GpuState.DRIVER_DOWN}
        await host.within(3, all_up(2))
        assert host.source.worker_restarts == 1

    run(body)


def test_a_worker_killed_at_a_device_once_does_not_condemn_the_device(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        with driver.change() as state:
            state.devices[1].signal_calls["nvmlDeviceGetTemperature*"] = signal.SIGKILL
        sweep = await host.sweep()
        assert states(sweep)[0] == GpuState.UP
        with driver.change() as state:
            state.devices[1].signal_calls.clear()
        await host.within(3, all_up(2))

    run(body)


def test_a_stopped_worker_is_replaced_and_is_stuck_until_it_is_gone(
    make_driver: DriverFactory,
) -> None:
    make_driver(many("h200", 2))

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        (stopped,) = host.source.worker_pids()
        os.kill(stopped, signal.SIGSTOP)
        sweep = await host.sweep()
        assert sweep.state == "driver_stalled"
        assert host.source.workers_stuck == 1
        await host.within(4, all_up(2))
        os.kill(stopped, signal.SIGCONT)
        await host.until(lambda _: host.source.workers_stuck == 0)
        assert stopped not in host.source.worker_pids()

    host = run(body)
    assert host.longest_seconds < 2 * OPTIONS.device_deadline


def test_what_the_library_prints_does_not_disturb_the_answers(make_driver: DriverFactory) -> None:
    make_driver(many("h200", 2))
    command = stand_in(
        """
        import os
        from exporter.hardware import nvidia, worker
        count = nvidia.Driver.count
        def noisy(self):
            os.write(1, b"NVRM: a line on stdout\\n")
            print("and one through Python", flush=True)
            return count(self)
        nvidia.Driver.count = noisy
        worker.main()
        """
    )

    async def body(host: Host) -> None:
        await host.until(all_up(2))
        for _ in range(3):
            assert all_up(2)(await host.sweep())
        assert host.source.worker_restarts == 0

    run(body, command=command)


@pytest.mark.parametrize(
    "rubbish",
    [
        pytest.param("not JSON\n", id="no JSON"),
        pytest.param("[]\n", id="no object"),
        pytest.param('{"kind":"nonsense"}\n', id="unknown kind"),
        pytest.param('{"kind":"begin","cou', id="half a line"),
        pytest.param("x" * 2**21 + "\n", id="2 MiB line"),
        pytest.param("x" * 2**23, id="8 MiB without an end"),
        pytest.param("[" * 500_000 + "\n", id="deep nesting"),
        pytest.param("no\n" + ("x" * 1000 + "\n") * 5000, id="and goes on and on"),
        pytest.param('{"kind":"begin"}\n', id="no count"),
        pytest.param('{"kind":"begin","count":"many"}\n', id="count of no number"),
        pytest.param('{"kind":"start"}\n', id="no index"),
        pytest.param('{"kind":"device_error","index":0,"reason":"x","state":"?"}\n', id="unknown state"),
        pytest.param('{"kind":"device_error","index":0,"state":"lost"}\n', id="no reason"),
        pytest.param('{"kind":"xid","uuid":"GPU-1"}\n', id="half an Xid"),
        pytest.param('{"kind":"fatal"}\n', id="no fatal reason"),
        pytest.param("\0\xff\n", id="no text"),
    ],
)
def test_a_worker_that_talks_rubbish_is_replaced(
    make_driver: DriverFactory, tmp_path: Path, rubbish: str
) -> None:
    make_driver(many("h200", 2))
    answer = tmp_path / "rubbish"
    answer.write_text(rubbish, encoding="latin-1")

    async def body(host: Host) -> None:
        files = open_files()
        await host.until(all_up(2), seconds=5)
        assert host.source.worker_restarts == 1
        await host.source.close()
        assert open_files() == files

    talk = f"sys.stdin.readline(); tell(open({str(answer)!r}, encoding='latin-1').read())"
    host = run(body, command=misbehave_once(tmp_path, talk))
    assert host.longest_seconds < 1.5


def test_a_worker_that_was_cut_off_in_mid_speech_is_reaped_at_once() -> None:
    endless = "import time; print('rubbish'); print('x' * 8_000_000); time.sleep(60)"

    async def main() -> None:
        worker = await WorkerProcess.start(stand_in(endless))
        assert await worker.next(5) is None
        started = time.monotonic()
        assert await worker.stop(grace_seconds=10)
        assert time.monotonic() - started < 2

    asyncio.run(main())


@pytest.mark.parametrize(
    "reading",
    [
        '{"kind":"device","index":0}',
        '{"kind":"device","index":0,"identity":{},"values":{},"processes":[]}',
        '{"kind":"device","index":0,"identity":7,"values":7,"processes":7}',
    ],
)
def test_a_malformed_reading_costs_its_device_only(
    make_driver: DriverFactory, tmp_path: Path, reading: str
) -> None:
    make_driver(many("h200", 1))
    lines = '{"kind":"begin","count":1}\n{"kind":"start","index":0}\n' + reading + '\n{"kind":"end"}\n'

    async def body(host: Host) -> None:
        sweep = await host.up()
        assert sweep.gpus == ()
        assert host.source.errors["malformed_reading"] == 1

    run(body, command=misbehave_once(tmp_path, f"sys.stdin.readline(); tell({lines!r}); time.sleep(9)"))


def test_a_flood_of_messages_does_not_prolong_a_sweep(make_driver: DriverFactory, tmp_path: Path) -> None:
    make_driver(many("h200", 1))
    flood = '{"kind":"xid","uuid":"GPU-1","xid":31,"at":1}\n'

    async def body(host: Host) -> None:
        await host.sweep()
        await host.until(all_up(1))

    host = run(
        body,
        interval_seconds=0.5,
        command=misbehave_once(tmp_path, f"while True: tell({flood!r}); time.sleep(0.01)"),
    )
    assert host.longest_seconds < 1.5


def test_a_supervisor_that_was_asleep_itself_blames_no_device(make_driver: DriverFactory) -> None:
    make_driver(many("h200", 4))

    async def body(host: Host) -> None:
        await host.until(all_up(4))
        sweeping = asyncio.create_task(host.sweep())
        await asyncio.sleep(0)
        time.sleep(3 * OPTIONS.device_deadline)  # the whole loop, as when the host is suspended
        assert all_up(4)(await sweeping)
        assert host.source.worker_restarts == 0

    run(body)


def test_a_worker_that_ends_at_once_is_retried_with_patience(make_driver: DriverFactory) -> None:
    make_driver(many("h200", 1))

    async def body(host: Host) -> None:
        deadline = time.monotonic() + 1.2
        while time.monotonic() < deadline:
            assert (await host.sweep()).state in ("worker_died", "initialising")
            await asyncio.sleep(0.02)
        assert 2 <= host.source.errors["worker_died"] <= 5

    run(body, command=stand_in("pass"))


def test_a_worker_that_cannot_be_started_is_a_state(make_driver: DriverFactory, tmp_path: Path) -> None:
    async def body(host: Host) -> None:
        await host.until(lambda sweep: sweep.state == "cannot_start_worker_2")

    run(body, command=[str(tmp_path / "nothing")])


def test_two_workers_that_nothing_can_end_stop_the_starting_of_more_until_one_is_gone(
    make_driver: DriverFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = make_driver(many("h200", 4))
    monkeypatch.setattr(process, "_TERMINATE_SECONDS", 0.05)
    monkeypatch.setattr(process, "_REAP_SECONDS", 0.05)

    async def body(host: Host) -> None:
        await host.until(all_up(4))
        # Asleep in the kernel, a process takes no signal.
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.subprocess.Process, "send_signal", lambda self, number: None)
            for index in range(3):
                driver.hang(index)
            await host.until(lambda sweep: sweep.state == "workers_stuck")
            assert gpu_at(host.last, 3).state is GpuState.DRIVER_DOWN
            for _ in range(10):
                await host.sweep()
                assert host.source.workers_stuck <= MAX_STUCK + 1
            assert len(host.source.worker_pids()) <= MAX_STUCK + 1
            assert await host.source.release() is False
            host.source.resume()
            for index in range(3):
                driver.release(index)
            await host.until(all_up(4))
            await host.until(lambda _: host.source.workers_stuck == 0)

    run(body)


def test_files_and_processes_stay_flat_over_many_sweeps_with_faults(make_driver: DriverFactory) -> None:
    driver = make_driver(many("h200", 4))
    dice = random.Random(20261121)
    faults = {
        "hang": lambda index: driver.hang(index),
        "lose": lambda index: driver.lose(index),
        "unload": lambda index: driver.unload(),
        "error": lambda index: driver.fail("nvmlDeviceGetMemoryInfo*", 999),
        "xid": lambda index: driver.xid(index, 31),
    }

    async def body(host: Host) -> None:
        await host.until(all_up(4))
        await host.until(lambda _: len(host.source.worker_pids()) == 1)
        files, processes = open_files(), len(children())
        for number in range(300):
            if number % 10 == 0:
                heal(driver)
                name = dice.choice([*faults, "kill"])
                pids = host.source.worker_pids()
                if name == "kill" and pids:
                    os.kill(dice.choice(pids), signal.SIGKILL)
                elif name in faults:
                    faults[name](dice.randrange(4))
            await host.sweep()
            assert len(host.source.worker_pids()) <= MAX_STUCK + 3
            await asyncio.sleep(0.01)
        heal(driver)
        await host.until(all_up(4))
        await host.until(lambda _: len(host.source.worker_pids()) == 1)
        assert (open_files(), len(children())) == (files, processes)
        assert host.source.worker_restarts > 3

    options = dataclasses.replace(OPTIONS, device_deadline=0.1, quarantine=0.1, retry=0.02)
    started = time.monotonic()
    host = run(body, options=options, interval_seconds=0.5)
    assert host.longest_seconds < 1.5
    assert time.monotonic() - started < 20


def heal(driver: FakeDriver) -> None:
    with driver.change() as state:
        for device in state.devices:
            device.hang_calls.clear()
            device.lost = False
        state.error_calls.clear()


def stand_in(script: str) -> list[str]:
    """A worker that is this script."""
    return [sys.executable, "-I", "-c", textwrap.dedent(script)]


def misbehave_once(folder: Path, misbehaviour: str) -> list[str]:
    """A worker that initialises and does this once; the next ones are real."""
    return stand_in(
        f"""
        import os, sys, time
        def tell(text):
            sys.stdout.buffer.write(text.encode("latin-1"))
            sys.stdout.flush()
        try:
            os.mkdir({str(folder / "misbehaved")!r})
        except FileExistsError:
            os.execv({COMMAND[0]!r}, {list(COMMAND)!r})
        tell({INIT!r})
        {misbehaviour}
        """
    )
