"""The inventory: a device once seen is known for ever, also when its file is broken or cannot be written."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_nvml.devices import many
from nvml_host import DriverFactory, FakeClock, Host, all_up, run, states

from exporter.hardware.gpu import GpuIdentity, GpuState
from exporter.hardware.inventory import Inventory

GPU = GpuIdentity(
    uuid="GPU-1",
    index=1,
    name="NVIDIA H200",
    vendor="nvidia",
    pci_bus_id="00000000:28:00.0",
    memory_kind="dedicated",
    numa_node=0,
    driver_version="590.48.01",
)


def test_what_is_remembered_is_there_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "state" / "inventory.json"
    other = replace(GPU, uuid="GPU-0", index=0, numa_node=None)
    for identity in (GPU, other):
        Inventory(file).remember(identity)
    assert Inventory(file).all() == [other, GPU]


def test_a_device_that_changes_is_remembered_as_it_is_now(tmp_path: Path) -> None:
    file = tmp_path / "inventory.json"
    Inventory(file).remember(GPU)
    moved = replace(GPU, index=0, driver_version="595.71.05")
    Inventory(file).remember(moved)
    assert Inventory(file).all() == [moved]


def test_an_unchanged_device_is_not_written_again(tmp_path: Path) -> None:
    file = tmp_path / "inventory.json"
    inventory = Inventory(file)
    inventory.remember(GPU)
    file.unlink()
    inventory.remember(GPU)
    assert not file.exists()


def test_a_forgotten_device_stays_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "inventory.json"
    inventory = Inventory(file)
    inventory.remember(GPU)
    assert inventory.forget("GPU-1") is True
    assert inventory.forget("GPU-1") is False
    assert Inventory(file).all() == []


ROW = {
    "uuid": "GPU-1",
    "index": 1,
    "name": "NVIDIA H200",
    "vendor": "nvidia",
    "pci_bus_id": "",
    "memory_kind": "dedicated",
    "numa_node": None,
    "driver_version": "",
}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="cut off"),
        pytest.param("\0" * 100, id="zeroes after a power cut"),
        pytest.param("[]", id="a list"),
        pytest.param("null", id="null"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param('{"version": 99, "gpus": []}', id="another version"),
        pytest.param('{"version": 1}', id="no devices"),
        pytest.param('{"version": 1, "gpus": 5}', id="devices are a number"),
        pytest.param('{"version": 1, "gpus": [5]}', id="a device is a number"),
        pytest.param('{"version": 1, "gpus": [{}]}', id="a device without names"),
        pytest.param(json.dumps({"version": 1, "gpus": [ROW | {"index": "x"}]}), id="index is text"),
        pytest.param(json.dumps({"version": 1, "gpus": [ROW | {"index": None}]}), id="index is null"),
        pytest.param(json.dumps({"version": 1, "gpus": [ROW | {"uuid": 7}]}), id="uuid is a number"),
        pytest.param(json.dumps({"version": 1, "gpus": [ROW | {"uuid": []}]}), id="uuid is a list"),
    ],
)
def test_a_broken_file_is_started_without_and_replaced(tmp_path: Path, content: str) -> None:
    file = tmp_path / "inventory.json"
    file.write_text(content)
    inventory = Inventory(file)
    assert inventory.all() == []
    inventory.remember(GPU)
    assert Inventory(file).all() == [GPU]


def test_a_file_that_is_no_text_is_started_without(tmp_path: Path) -> None:
    file = tmp_path / "inventory.json"
    file.write_bytes(b"\xff\xfe\x80")
    assert Inventory(file).all() == []


def test_a_state_folder_that_cannot_be_written_costs_the_memory_of_restarts_only(tmp_path: Path) -> None:
    in_the_way = tmp_path / "state"
    in_the_way.write_text("a file where the folder should be")  # root may write into read-only folders
    inventory = Inventory(in_the_way / "inventory.json")
    inventory.remember(GPU)
    assert inventory.all() == [GPU]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_a_read_only_state_folder_costs_the_memory_of_restarts_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    inventory = Inventory(tmp_path / "inventory.json")
    inventory.remember(GPU)
    assert inventory.all() == [GPU]


def test_a_full_disk_leaves_the_old_file_whole_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    monkeypatch.setattr(time, "monotonic", clock)
    file = tmp_path / "inventory.json"
    inventory = Inventory(file)
    inventory.remember(GPU)
    moved = replace(GPU, index=2)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        inventory.remember(moved)
    assert Inventory(file).all() == [GPU]
    inventory.remember(moved)
    assert Inventory(file).all() == [GPU]  # not at every sweep
    clock.now += 61
    inventory.remember(moved)
    assert Inventory(file).all() == [moved]


# With the driver


def test_a_device_lost_while_the_daemon_was_away_is_lost_and_not_absent(
    make_driver: DriverFactory, tmp_path: Path
) -> None:
    driver = make_driver(many("h200", 3))
    file = tmp_path / "inventory.json"

    async def see_all(host: Host) -> None:
        await host.until(all_up(3))

    async def miss_one(host: Host) -> None:
        sweep = await host.up()
        assert states(sweep) == {0: GpuState.UP, 1: GpuState.UP, 2: GpuState.LOST}
        assert host.source.inventory.forget(sweep.gpus[2].identity.uuid)
        assert states(await host.sweep()) == {0: GpuState.UP, 1: GpuState.UP}

    run(see_all, inventory=file)
    with driver.change() as state:
        state.devices.pop()
    run(miss_one, inventory=file)


def test_devices_of_a_driver_that_is_down_after_a_restart_are_known(
    make_driver: DriverFactory, tmp_path: Path
) -> None:
    driver = make_driver(many("h200", 2))
    file = tmp_path / "inventory.json"

    async def see_all(host: Host) -> None:
        await host.until(all_up(2))

    async def see_none(host: Host) -> None:
        sweep = await host.until(lambda sweep: sweep.state == "driver_not_loaded")
        assert states(sweep) == {0: GpuState.DRIVER_DOWN, 1: GpuState.DRIVER_DOWN}
        assert all(gpu.last_success_seconds is None for gpu in sweep.gpus)

    run(see_all, inventory=file)
    driver.unload()
    run(see_none, inventory=file)


def test_a_device_lost_before_the_first_sweep_of_a_restart_is_known_by_its_index(
    make_driver: DriverFactory, tmp_path: Path
) -> None:
    driver = make_driver(many("h200", 2))
    file = tmp_path / "inventory.json"

    async def see_all(host: Host) -> None:
        await host.until(all_up(2))

    async def see_one(host: Host) -> None:
        sweep = await host.up()
        assert states(sweep) == {0: GpuState.UP, 1: GpuState.LOST}
        assert sweep.gpus[1].reason == "gpu_is_lost"

    run(see_all, inventory=file)
    driver.lose(1)
    run(see_one, inventory=file)
