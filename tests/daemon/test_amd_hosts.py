"""Whole hosts with AMD GPUs, from their files to the exposition, read and rendered as the daemon does.

Hosts and their sources: tests/amd_tree.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import recorded_exposition
from amd_tree import (
    MI300X_ADDRESSES,
    STRIX,
    AmdHost,
    eight_mi300x,
    fdinfo,
    host,
    mi250,
    mi300x,
    strix_halo,
)
from recorded_exposition import assert_as_recorded

from exporter.exposition.collect import samples
from exporter.exposition.render import Renderer
from exporter.hardware.gpu import GpuIdentity, GpuState
from exporter.hardware.inventory import Inventory
from exporter.settings.options import Amd, Deployment, Host, Match, Nvml, Settings
from exporter.snapshot import Snapshot, Source

GOLDEN = Path(__file__).parent / "golden"


def settings(made: AmdHost, **more: object) -> Settings:
    base: dict[str, object] = {
        "nvml": Nvml(enabled=False),
        "host": Host(proc_path=made.proc, sys_path=made.sys),
    }
    return Settings(**(base | more))  # type: ignore[arg-type]


def poll(made: AmdHost, inventory: Inventory | None = None, **more: object) -> Snapshot:
    """One poll, as soon as the worker has started."""

    return recorded_exposition.poll(settings(made, **more), inventory)


def source(snapshot: Snapshot, name: str) -> Source | None:
    return next((one for one in snapshot.sources if one.name == name), None)


@pytest.mark.parametrize("make", [eight_mi300x, mi250, strix_halo], ids=lambda make: make.__name__)
def test_a_host_s_exposition_is_as_recorded(tmp_path: Path, make: Callable[[Path], AmdHost]) -> None:
    assert_as_recorded(poll(make(tmp_path)), GOLDEN / f"{make.__name__}.prom")


def test_a_host_without_amd_does_not_speak_of_it(tmp_path: Path) -> None:
    made = AmdHost(tmp_path)
    (made.proc).mkdir()
    snapshot = poll(made)
    assert source(snapshot, "amdgpu") is None
    assert snapshot.visible_gpus == {}


def test_amd_can_be_switched_off(tmp_path: Path) -> None:
    snapshot = poll(eight_mi300x(tmp_path), amd=Amd(enabled=False))
    assert (source(snapshot, "amdgpu"), snapshot.gpus) == (None, ())


def test_on_a_host_with_amd_alone_nothing_is_missed_of_nvidia(tmp_path: Path) -> None:
    made = eight_mi300x(tmp_path)
    entry = Deployment(name="r1", model="deepseek-ai/DeepSeek-R1", devices=list(range(8)), tp=8)
    snapshot = poll(made, nvml=Nvml(), deployments=[entry], expected_gpus=8)
    nvml, amdgpu = source(snapshot, "nvml"), source(snapshot, "amdgpu")
    assert nvml is not None and amdgpu is not None
    assert (nvml.expected, amdgpu.expected) == (False, True)
    assert amdgpu.up
    assert snapshot.visible_gpus == {"amd": 8}
    assert [gpu.state for gpu in snapshot.gpus] == [GpuState.UP] * 8  # NVIDIA's silence costs them nothing


def test_the_memory_of_a_deployment_s_process_is_held_by_it_on_its_devices(tmp_path: Path) -> None:
    made = strix_halo(tmp_path)
    folder = made.proc / "4100"
    (folder / "stat").write_text("4100 (our-server) S 1 " + "0 " * 17 + "77 0 0\n")
    (folder / "cmdline").write_bytes(b"/opt/our-server\0")
    (folder / "status").write_text(
        "Name:\tour-server\nRssAnon:\t 1024 kB\nRssFile:\t 0 kB\nRssShmem:\t 0 kB\n"
    )
    entry = Deployment(
        name="v2",
        model="deepseek-ai/DeepSeek-V2-Lite",
        engine="llama.cpp",
        devices=[0],
        match=Match(program="our-server"),
    )
    snapshot = poll(made, deployments=[entry])
    held = {one.holder: one.size_bytes for one in snapshot.assessment.held[STRIX]}
    assert held["v2"] == (512 + 20 * 1024) * 2**20
    assert held["other"] == 40 * 2**30


def test_what_kfd_and_open_files_hide_is_unattributed(tmp_path: Path) -> None:
    made = host(tmp_path, [mi300x(0, 96 * 2**30)])
    made.opens(6000, 4, "renderD128", fdinfo(MI300X_ADDRESSES[0], 9, 2**20, 0))
    snapshot = poll(made)
    (held,) = snapshot.assessment.held.values()
    assert {one.holder: one.size_bytes for one in held} == {"other": 2**30, "unattributed": 95 * 2**30}


def test_a_device_that_was_taken_out_is_down_and_not_absent(tmp_path: Path) -> None:
    inventory = Inventory(None)
    inventory.remember(
        GpuIdentity("GPU-9", 8, "AMD Instinct MI300X", "amd", "0000:f5:00.0", "dedicated", None, "6.12.12")
    )
    snapshot = poll(eight_mi300x(tmp_path), inventory)
    (lost,) = [gpu for gpu in snapshot.gpus if gpu.identity.uuid == "GPU-9"]
    assert lost.state is GpuState.LOST
    assert snapshot.expected_gpus == 9


def test_a_sleeping_device_is_up_and_says_nothing_more(tmp_path: Path) -> None:
    made = host(tmp_path, [mi300x(0)])
    made.put(MI300X_ADDRESSES[0], "power/runtime_status", "suspended\n")
    text = Renderer().render(samples(poll(made))).text.decode()
    assert re.search(r"^deepseek_gpu_up\{[^}]*\} 1$", text, re.MULTILINE)
    assert 'state="suspended"' in text
    assert "deepseek_gpu_memory_" not in text
