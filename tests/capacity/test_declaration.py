"""Declarations meet the devices that are here: footprints, or the reason why there is none."""

from __future__ import annotations

import dataclasses

import pytest

from capacity.builders import GIB, gpu, ram
from exporter.capacity.declaration import declare, host_shape, shapes_of
from exporter.hardware.gpu import GpuState
from exporter.hardware.host import Cpu
from exporter.models.catalog import catalog
from exporter.settings.options import Deployment, Match

R1 = Deployment(name="r1", model="deepseek-ai/DeepSeek-R1", devices=list(range(8)), tp=8, max_model_len=32768)


def shapes(count: int = 8):
    return shapes_of([gpu(index, total=140 * GIB) for index in range(count)], {})


def only(entry: Deployment, count: int = 8):
    [declared] = declare([entry], shapes(count), None, catalog())
    return declared


def test_ranks_lie_on_the_declared_devices_in_order() -> None:
    entry = dataclasses.replace(R1, devices=[7, 6, 5, 4, 3, 2, 1, 0])
    declared = only(entry)
    assert declared.ranks == tuple(f"GPU-{index}" for index in entry.devices)
    assert declared.footprint is not None
    assert [rank.device_index for rank in declared.footprint.devices] == entry.devices


def test_launch_settings_reach_the_estimate() -> None:
    short = only(R1).footprint
    long = only(dataclasses.replace(R1, memory_fraction=0.8)).footprint
    assert short is not None and long is not None
    assert long.devices[0].total.high_bytes < short.devices[0].total.low_bytes


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (dataclasses.replace(R1, model="deepseek-ai/DeepSeek-R9"), "DeepSeek-R1"),
        (dataclasses.replace(R1, quantization="q9_x"), "q9_x"),
        (dataclasses.replace(R1, devices=[0, 1, 42]), "GPU 42"),
        (dataclasses.replace(R1, tp=7), "tp"),
    ],
)
def test_what_cannot_be_worked_out_says_why_and_costs_only_itself(entry: Deployment, says: str) -> None:
    wrong, right = declare([entry, dataclasses.replace(R1, name="fine")], shapes(), None, catalog())
    assert wrong.footprint is None
    assert says in wrong.problem
    assert right.footprint is not None


def test_a_device_that_stops_answering_keeps_its_known_shape() -> None:
    lost = gpu(3, state=GpuState.LOST)
    known = shapes_of([lost], shapes())
    assert known == shapes()
    assert only(R1).footprint is not None


def test_processes_are_known_by_engine_unless_the_operator_says_otherwise() -> None:
    assert "VLLM::*" in only(R1).programs
    named = only(dataclasses.replace(R1, match=Match(program="my-server", unit="r1.service")))
    assert (named.programs, named.unit) == (("my-server",), "r1.service")
    by_unit = only(dataclasses.replace(R1, match=Match(unit="r1.service")))
    assert "VLLM::*" in by_unit.programs


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"avx2"}, "x86-avx2"),
        ({"avx2", "avx512f"}, "x86-avx512"),
        ({"asimddp"}, "arm64"),
        (set(), "none"),
    ],
)
def test_repacking_follows_the_processor(features: set[str], expected: str) -> None:
    cpu = Cpu("x", 1, 1, 1, frozenset(features))
    assert host_shape(dataclasses.replace(ram(GIB, GIB), cpu=cpu)).instruction_set == expected
