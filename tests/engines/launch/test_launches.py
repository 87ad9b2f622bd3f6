"""Command lines of real shapes, field by field; every one that carries a secret keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from launch_scoring import misses

from exporter.engines.launch import deployment_of, read_launch

CASES = [json.loads(line) for line in Path(__file__).with_name("launches.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_line_says_what_it_states_and_nothing_else(case: dict[str, Any]) -> None:
    deployment = deployment_of(read_launch(case["argv"], case["env"]))
    assert not misses(case, deployment)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_no_secret_of_a_line_survives(case: dict[str, Any]) -> None:
    launch = read_launch(case["argv"], case["env"])
    assert "canary" not in repr(launch)


def test_half_of_the_lines_carry_a_secret() -> None:
    assert sum("canary" in json.dumps(case) for case in CASES) > 20


def test_every_engine_and_role_is_among_them() -> None:
    read = [read_launch(case["argv"], case["env"]) for case in CASES]
    assert {launch.engine for launch in read} >= {
        *("vllm", "sglang", "llama.cpp", "llama-cpp-python", "ollama", "ktransformers"),
        *("lmdeploy", "tensorrt-llm", "tgi", "transformers"),
    }
    assert {str(launch.role) for launch in read} == {
        *("server", "worker", "launcher", "client", "tool", "router", "infrastructure", "none"),
    }
