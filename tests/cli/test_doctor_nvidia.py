"""What `doctor` says of MIG and of unified memory, on a fake driver."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_nvml.control import FakeDriver
from fake_nvml.devices import FakeDevice

from exporter.cli.checks import Check
from exporter.cli.doctor_gpus import gpus
from exporter.settings.options import Amd, Deployment, Nvml, Settings

NO_PERMISSION = 4


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    def check(device: FakeDevice, devices: list[int | str] | None = None) -> dict[str, Check]:
        for key, text in FakeDriver.create(tmp_path / "driver", [device]).env.items():
            monkeypatch.setenv(key, text)
        entries = [Deployment(name="v2", model="deepseek-ai/DeepSeek-V2-Lite", devices=devices or [])]
        settings = Settings(nvml=Nvml(), amd=Amd(enabled=False), deployments=entries)
        return {one.id: one for one in gpus(settings) if one.id != "amdgpu"}

    return check


def test_slices_are_checked_below_their_gpu(checks) -> None:
    found = checks(FakeDevice.h100_mig(), ["0:2", FakeDevice.h100_mig().migs[1].uuid])
    assert {name: one.verdict for name, one in found.items()} == dict.fromkeys(
        ("nvml", "nvml.0", "nvml.0.mig", "nvml.0:2", "nvml.0:3", "nvml.0:9", "nvml.0:10"), "ok"
    )
    assert found["nvml.0.mig"].found == "on, slices: 4"
    assert found["nvml.0:2"].found == "NVIDIA H100 80GB HBM3 MIG 3g.40gb: up"


def test_a_divided_gpu_and_a_slice_that_is_not_there_cannot_be_declared(checks) -> None:
    found = checks(FakeDevice.h100_mig(), ["0:5", 0])
    assert found["gpus.declared"].found == "declared but not here: [0, '0:5']"
    assert "name its slices" in found["gpus.declared"].advice


def test_mig_without_a_slice_wants_doing(checks) -> None:
    device = FakeDevice.h100()
    device.mig_enabled = 1
    found = checks(device)["nvml.0.mig"]
    assert found.verdict == "problem"
    assert "mig -i GPU -cgi PROFILE -C" in found.advice


def test_slices_that_may_not_be_listed_say_what_to_allow(checks) -> None:
    device = FakeDevice.h100_mig()
    device.error_calls["nvmlDeviceGetMigDeviceHandleByIndex"] = NO_PERMISSION
    found = checks(device)["nvml.0.mig"]
    assert (found.verdict, found.found) == ("problem", "on, and its slices cannot be listed")
    assert "char-nvidia-caps" in found.advice


def test_a_mode_that_waits_for_a_reset_is_told(checks) -> None:
    device = FakeDevice.h100()
    device.mig_pending = 1
    found = checks(device)
    assert "nvml.0.mig" not in found
    assert found["nvml.0.mig.pending"].found == "switched on at the next reset of the GPU"
    assert "ctl release" in found["nvml.0.mig.pending"].advice


def test_unified_memory_is_told_and_what_its_driver_does_not_list(checks) -> None:
    assert checks(FakeDevice.gb10())["nvml.0.memory"].verdict == "ok"
    found = checks(FakeDevice.orin())
    assert (found["nvml.0"].verdict, found["nvml.0.memory.processes"].verdict) == ("ok", "note")
