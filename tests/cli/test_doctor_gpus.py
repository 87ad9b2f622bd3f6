"""What `doctor` says of AMD devices, on trees of /sys and /proc."""

from __future__ import annotations

from pathlib import Path

from amd_tree import MI300X_ADDRESSES, AmdHost, eight_mi300x, host, mi300x

from exporter.cli.checks import Check
from exporter.cli.doctor_gpus import gpus
from exporter.settings.options import Amd, Deployment, Host, Nvml, Settings


def checks(made: AmdHost, *, enabled: bool = True, devices: list[int] | None = None) -> dict[str, Check]:
    entries = [Deployment(name="r1", model="deepseek-ai/DeepSeek-R1", devices=devices)] if devices else []
    settings = Settings(
        nvml=Nvml(enabled=False),
        amd=Amd(enabled=enabled),
        host=Host(proc_path=made.proc, sys_path=made.sys),
        deployments=entries,
    )
    return {check.id: check for check in gpus(settings)}


def verdicts(found: dict[str, Check]) -> dict[str, str]:
    return {name: check.verdict for name, check in found.items() if name != "nvml"}


def test_every_device_that_answers_is_fine(tmp_path: Path) -> None:
    found = checks(eight_mi300x(tmp_path), devices=[0, 7])
    assert verdicts(found) == {"amdgpu": "ok"} | {f"amdgpu.{index}": "ok" for index in range(8)}
    assert found["amdgpu"].found == "driver 6.12.12, 8 devices"
    assert found["amdgpu.3"].found == "AMD Instinct MI300X: up"


def test_a_host_without_amd_hears_nothing_of_it(tmp_path: Path) -> None:
    assert verdicts(checks(AmdHost(tmp_path))) == {}


def test_what_is_switched_off_is_told(tmp_path: Path) -> None:
    assert verdicts(checks(eight_mi300x(tmp_path), enabled=False)) == {"amdgpu": "note"}


def test_a_sleeping_device_is_no_problem(tmp_path: Path) -> None:
    made = host(tmp_path, [mi300x(0)])
    made.put(MI300X_ADDRESSES[0], "power/runtime_status", "suspended\n")
    found = checks(made)
    assert verdicts(found) == {"amdgpu": "ok", "amdgpu.0": "note"}
    assert found["amdgpu.0"].found == "AMD Instinct MI300X: suspended (asleep)"


def test_processes_that_may_not_be_seen_are_a_problem_with_what_to_do(tmp_path: Path) -> None:
    made = host(tmp_path, [mi300x(0)])
    for folder in (made.kfd / "proc", made.proc):
        folder.rename(folder.with_name("gone"))
    found = checks(made)
    assert found["amdgpu.0.processes"].verdict == "problem"
    assert "/sys/class/kfd" in found["amdgpu.0.processes"].advice
    assert "fdinfo" in found["amdgpu.0.processes"].advice
    assert found["amdgpu.values"].found == "values that are absent, by reason: no_permission 1, unreadable 1"


def test_values_that_make_no_sense_are_noted_with_their_reason(tmp_path: Path) -> None:
    made = host(tmp_path, [mi300x(0)])
    made.put(MI300X_ADDRESSES[0], "mem_info_vram_used", "-1\n")
    found = checks(made)
    assert verdicts(found) == {"amdgpu": "ok", "amdgpu.0": "ok", "amdgpu.values": "note"}
    assert found["amdgpu.values"].found == "values that are absent, by reason: malformed 1"


def test_a_declared_device_that_is_not_here_is_a_problem(tmp_path: Path) -> None:
    found = checks(eight_mi300x(tmp_path), devices=[7, 8])
    assert found["gpus.declared"].found == "declared but not here: [8]"
