"""Devices by name: whole names and aliases, never parts."""

from __future__ import annotations

import pytest

from exporter.footprint.deployment import FootprintError
from exporter.footprint.gpus import gpu_model, gpu_models, is_blackwell, shapes
from exporter.hardware.amd_names import name_of
from exporter.units import MIB


@pytest.mark.parametrize(
    ("name", "mib"),
    [
        ("NVIDIA H200", 143_771),
        ("h200", 143_771),
        ("NVIDIA H100 80GB HBM3", 81_559),
        ("H100 NVL", 95_830),
        ("RTX 4090", 24_564),
        ("NVIDIA  GeForce RTX 4090", 24_564),
        ("MI300X", 196_592),
        ("910B4", 32_768),
    ],
)
def test_a_name_has_the_memory_that_its_tool_prints(name: str, mib: int) -> None:
    assert gpu_model(name).memory_bytes == mib * MIB


@pytest.mark.parametrize(
    ("device", "revision", "mib"),
    [
        (0x740C, 1, 65_520),
        (0x740F, 2, 65_520),
        (0x74A1, 0, 196_592),
        (0x74A5, 0, 262_128),
        (0x75A0, 0, 294_896),
        (0x75A3, 0, 294_896),
        (0x744C, 0xC8, 24_560),
        (0x747E, 0xC8, 16_368),
    ],
)
def test_amd_devices_are_called_here_what_their_worker_calls_them(
    device: int, revision: int, mib: int
) -> None:
    assert gpu_model(name_of(device, revision) or "").memory_bytes == mib * MIB


@pytest.mark.parametrize("name", ["A100", "H2", "RTX", "", "H200x", "GeForce"])
def test_a_part_of_a_name_is_no_name(name: str) -> None:
    with pytest.raises(FootprintError, match=r"^gpu "):
        gpu_model(name)


def test_a_name_of_several_cards_names_them() -> None:
    with pytest.raises(FootprintError, match=r"A100-SXM4-40GB.*A100-SXM4-80GB"):
        gpu_model("A100")


def test_every_row_has_a_source_and_a_size() -> None:
    for model in gpu_models().values():
        assert model.source
        assert model.memory_bytes >= 8 * 1024 * MIB


def test_blackwell_is_told_by_name() -> None:
    assert is_blackwell("NVIDIA B200")
    assert not is_blackwell("NVIDIA H200")
    assert not is_blackwell("")


def test_shapes_are_numbered_and_named() -> None:
    assert [(one.index, one.total_bytes, one.name) for one in shapes(5, 2, "x")] == [(0, 5, "x"), (1, 5, "x")]
