"""The one door of the floor: engines, names, devices, and how long an answer takes."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import FrozenInstanceError, replace

import pytest

from exporter.footprint.deployment import DeploymentSpec, DeviceShape, FootprintError
from exporter.footprint.estimate import estimate
from exporter.footprint.policies import POLICIES
from exporter.footprint.result import DEVICE_COMPONENTS, HOST_COMPONENTS
from exporter.models.catalog import UnknownModel, UnknownQuantization, catalog
from exporter.models.quantization import Container
from exporter.units import GIB

DEVICES = tuple(DeviceShape(index, 180 * GIB) for index in range(8))
R1 = DeploymentSpec("r1", "deepseek-ai/DeepSeek-R1", "vllm", tp=8)


def test_an_engine_without_a_policy_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(
        FootprintError, match=r"no allocation policy for engine .*; known: vllm, sglang, llama\.cpp"
    ):
        estimate(replace(R1, engine="mystery"), DEVICES, catalog())


def test_every_engine_of_the_command_contract_has_a_policy() -> None:
    assert set(POLICIES) == {
        "vllm",
        "sglang",
        "llama.cpp",
        "ik_llama.cpp",
        "llama-cpp-python",
        "ollama",
        "ktransformers",
        "lmdeploy",
        "tensorrt-llm",
        "tgi",
        "transformers",
    }


def test_engine_names_ignore_case() -> None:
    assert estimate(replace(R1, engine="vLLM"), DEVICES, catalog()) == estimate(R1, DEVICES, catalog())


def test_unknown_names_are_not_answered() -> None:
    with pytest.raises(UnknownModel):
        estimate(replace(R1, model="gpt-oss"), DEVICES, catalog())
    with pytest.raises(UnknownQuantization):
        estimate(replace(R1, quantization="int3"), DEVICES, catalog())


def test_footprint_errors_are_value_errors() -> None:
    assert issubclass(FootprintError, ValueError)
    assert issubclass(UnknownModel, ValueError)


def test_more_devices_than_are_needed_are_left_alone() -> None:
    footprint = estimate(replace(R1, tp=4, memory_fraction=1.0, max_model_len=4096), DEVICES, catalog())
    assert [rank.device_index for rank in footprint.devices] == [0, 1, 2, 3]


def test_a_device_without_memory_is_refused() -> None:
    with pytest.raises(FootprintError, match="device 0"):
        estimate(R1, (DeviceShape(0, GIB, GIB), *DEVICES[1:]), catalog())


def test_components_are_those_of_the_metrics_contract() -> None:
    for engine in POLICIES:
        gguf = POLICIES[engine].container is Container.GGUF
        quantization = "Q4_K_M" if gguf else None
        tp = 1 if gguf else 8
        spec = replace(R1, engine=engine, quantization=quantization, tp=tp, max_model_len=8192)
        footprint = estimate(spec, DEVICES, catalog())
        for rank in footprint.devices:
            assert set(rank.components) <= set(DEVICE_COMPONENTS)
        assert set(footprint.host.components) <= set(HOST_COMPONENTS)


def test_an_answer_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        estimate(R1, DEVICES, catalog()).fits = False  # type: ignore[misc]  # what is tested


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
def test_an_estimate_takes_less_than_two_milliseconds(engine: str) -> None:
    spec = (
        R1
        if engine == "vllm"
        else replace(R1, engine=engine, quantization="Q4_K_M", tp=1, max_model_len=8192)
    )
    estimate(spec, DEVICES, catalog())
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        estimate(spec, DEVICES, catalog())
        best = min(best, time.perf_counter() - start)
    assert best < 0.002


def test_the_floor_loads_neither_pydantic_nor_numpy() -> None:
    code = (
        "import sys, exporter.footprint.estimate\n"
        "print([name for name in ('pydantic', 'numpy') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
