"""llama.cpp's --numa: with it, weights are mapped as they are read, and not all at the start."""

from __future__ import annotations

import pytest

from exporter.capacity.launched import spec_of
from exporter.engines.launch import read_launch


@pytest.mark.parametrize(
    ("said", "numa"),
    [
        (["--numa", "distribute"], "distribute"),
        (["--numa", "isolate", "--numa", "numactl"], "numactl"),
        ([], None),
    ],
)
def test_the_strategy_is_read(said: list[str], numa: str | None) -> None:
    launch = read_launch(["llama-server", "-m", "/srv/a.gguf", *said, "-c", "4096"], {})
    assert (launch.numa, launch.max_model_len, launch.problems) == (numa, 4096, ())
    spec = spec_of(launch, "a")
    assert spec is not None
    assert spec.numa == numa


def test_it_is_read_from_the_environment() -> None:
    launch = read_launch(["llama-server", "-m", "/srv/a.gguf"], {"LLAMA_ARG_NUMA": "isolate"})
    assert launch.numa == "isolate"


def test_a_strategy_that_there_is_not_is_a_problem_that_repeats_nothing() -> None:
    launch = read_launch(["llama-server", "-m", "/srv/a.gguf", "--numa", "mirror-canary"], {})
    assert launch.numa is None
    assert launch.problems
    assert "canary" not in repr(launch)


def test_kt_kernel_has_its_experts_once() -> None:
    words = "python -m sglang.launch_server --model deepseek-ai/DeepSeek-R1 --kt-weight-path /w"
    spec = spec_of(read_launch(words.split(), {}), "kt")
    assert spec is not None
    assert spec.expert_copies == 1
