"""The fake NVIDIA driver in this process's environment, so that every worker started from here loads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_nvml.build import compiler
from fake_nvml.control import FakeDriver
from fake_nvml.devices import FakeDevice
from nvml_host import DriverFactory


@pytest.fixture
def make_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DriverFactory:
    """Make a fake driver that workers of this process load."""
    if compiler() is None:
        pytest.fail("no C compiler, so there is no driver to test against: apt install gcc libc6-dev")

    def make(devices: Sequence[FakeDevice] = (), *, without: Sequence[str] = ()) -> FakeDriver:
        driver = FakeDriver.create(tmp_path / "driver", devices, without=without)
        for key, text in driver.env.items():
            monkeypatch.setenv(key, text)
        return driver

    return make


@pytest.fixture
def without_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without NVIDIA's library, also where this machine has one: what is found is no library."""
    folder = tmp_path / "no-library"
    folder.mkdir()
    (folder / "libnvidia-ml.so.1").write_bytes(b"")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    return folder
