"""Whole hosts that serve from RAM, from their files to the exposition, read and rendered as the daemon does.

Hosts, and what of them is recorded and what constructed: tests/cpu_tree.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import recorded_exposition
from cpu_tree import CpuHost, bind_to_node, dual_epyc_cpu_only, hybrid_4090, kib
from daemon.conftest import DriverFactory
from fake_nvml.devices import FakeDevice, FakeProcess
from recorded_exposition import assert_as_recorded

from exporter.capacity.assessment import DeploymentStatus
from exporter.settings.options import Host, Nvml, Settings
from exporter.snapshot import Snapshot

GOLDEN = Path(__file__).parent / "golden"
GIB = 2**30
MIB = 2**20


def poll(host: CpuHost, *, nvml: bool = False, bandwidth: int | None = None) -> Snapshot:
    settings = Settings(
        nvml=Nvml(enabled=nvml, init_deadline=10.0),
        host=Host(proc_path=host.proc, sys_path=host.sys, memory_bandwidth=bandwidth),
    )
    return recorded_exposition.poll(settings)


def the_one(snapshot: Snapshot) -> DeploymentStatus:
    (status,) = snapshot.assessment.deployments
    return status


@pytest.fixture
def epyc(tmp_path: Path) -> CpuHost:
    return dual_epyc_cpu_only(tmp_path)


def test_two_epycs_without_a_gpu_are_as_recorded(epyc: CpuHost) -> None:
    assert_as_recorded(poll(epyc), GOLDEN / "dual_epyc_cpu_only.prom")


def test_a_4090_with_experts_in_ram_is_as_recorded(
    tmp_path: Path, make_driver: DriverFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = hybrid_4090(tmp_path)
    card = replace(FakeDevice.rtx_4090(), memory_used_bytes=11_496 * MIB, energy_advances=False)
    card.processes = [FakeProcess(host.pid, 11_480 * MIB)]
    for name, value in make_driver([card]).env.items():
        monkeypatch.setenv(name, value)
    assert_as_recorded(poll(host, nvml=True), GOLDEN / "hybrid_4090.prom")


def name_of(snapshot: Snapshot) -> str:
    return the_one(snapshot).declared.name


def test_a_limit_below_the_weights_is_overcommitted_however_much_the_host_has(epyc: CpuHost) -> None:
    epyc.put("sys/fs/cgroup/system.slice/memory.max", f"{200 * GIB}\n")
    epyc.put("sys/fs/cgroup/system.slice/memory.current", f"{199 * GIB}\n")
    snapshot = poll(epyc)
    (place,) = snapshot.assessment.confined[name_of(snapshot)]
    assert place.commitment.overcommit_ratio["low"] > 1
    assert snapshot.assessment.host is not None
    assert snapshot.assessment.host.overcommit_ratio["low"] < 1


def test_bound_to_one_socket_the_weights_must_fit_there_and_come_half_as_fast(epyc: CpuHost) -> None:
    free = poll(epyc)
    bind_to_node(epyc, 0)
    bound = poll(epyc)
    name = name_of(bound)
    assert [place.kind for place in bound.assessment.confined[name]] == ["cgroup", "numa"]
    assert bound.assessment.confined[name][1].nodes == (0,)
    pace = bound.assessment.decode[name].tokens_per_second / free.assessment.decode[name].tokens_per_second
    assert pace == pytest.approx(0.5)


def test_the_bound_holds_the_figures_that_were_measured(epyc: CpuHost) -> None:
    """R1 in Q4_K_M on two sockets: llama.cpp 4.5, KTransformers 11.3 tokens a second (ktransformers
    DeepseekR1_V3_tutorial.md, two Xeon 6454S: 16 channels DDR5-4800).
    """
    snapshot = poll(epyc, bandwidth=16 * 4800 * 8 * 10**6)
    bound = snapshot.assessment.decode[name_of(snapshot)]
    assert bound.basis == "configured"
    assert 11.3 < bound.tokens_per_second < 28


def test_with_numa_weights_that_were_never_read_are_not_evicted(epyc: CpuHost) -> None:
    epyc.status(RssFile=kib(200 * GIB), VmHWM=kib(200 * GIB + 4880 * MIB))
    assert the_one(poll(epyc)).resident_ratio == 1.0
    epyc.status(RssFile=kib(120 * GIB))
    assert the_one(poll(epyc)).resident_ratio == pytest.approx(0.6)


def test_processes_of_others_that_may_not_be_seen_leave_the_host_as_it_is(epyc: CpuHost) -> None:
    """hidepid=2: the process is not listed, and its mapped weights are in nobody's commitment."""
    (epyc.proc / str(epyc.pid)).rename(epyc.root / "hidden")
    snapshot = poll(epyc)
    assert snapshot.assessment.deployments == ()
    assert snapshot.assessment.confined == snapshot.assessment.limits == {}
    assert snapshot.host is not None


@pytest.mark.parametrize("lost", ["cgroup", "numa_maps"])
def test_a_file_that_may_not_be_read_costs_only_what_it_tells(epyc: CpuHost, lost: str) -> None:
    (epyc.proc / str(epyc.pid) / lost).unlink()
    snapshot = poll(epyc)
    name = name_of(snapshot)
    assert the_one(snapshot).state == "warm"
    assert snapshot.assessment.limits[name].state == ("unreadable" if lost == "cgroup" else "limited")
    assert bool(snapshot.assessment.confined.get(name)) == (lost != "cgroup")


@pytest.mark.parametrize("text", ["", "max", "nonsense\n", "-1\n", "9" * 40])
def test_a_limit_that_makes_no_sense_is_none(epyc: CpuHost, text: str) -> None:
    epyc.put("sys/fs/cgroup/system.slice/llama-r1.service/memory.max", text)
    snapshot = poll(epyc)
    assert snapshot.assessment.limits[name_of(snapshot)].state == "unlimited"
    assert snapshot.assessment.confined == {}
