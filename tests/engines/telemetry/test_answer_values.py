"""Values of answers: what is kept is typed, bounded and short, whatever was sent."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.engines.telemetry import LoadedModel, Target, Telemetry, values
from exporter.engines.telemetry.ask import Engine
from exporter.engines.telemetry.client import Unanswered
from exporter.engines.telemetry.reader import ENGINES

KEYS = sorted(
    """
    data id root owned_by parent max_model_len version loads dp_rank num_running_reqs num_used_tokens
    token_usage max_total_num_tokens memory weight_gb model_path served_model_name quantization context_length
    internal_states memory_usage weight kvcache token_capacity default_generation_settings n_ctx total_slots
    model_alias model_ftype build_info is_sleeping is_processing n_prompt_tokens state meta models name model
    size size_vram details quantization_level digest model_id max_total_tokens
    """.split()  # noqa: SIM905 (sixty quoted words read worse)
)
"""What the engines' answers are looked through for."""
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**80), 2**80), st.integers(0, 9), st.floats(),
    st.text(max_size=200),
    st.sampled_from(["deepseek-ai/DeepSeek-R1", "Q4_K - Medium", "0.33.0", "b11434-abc", "vllm", "1e9"]),
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=8),
    max_leaves=20,
)
TARGET = Target("it", "llama.cpp", "127.0.0.1", 1)


def readings(engine: Engine) -> list[object]:
    return [question.reading for question in (*engine.questions, *engine.then)]


def check(value: object) -> None:
    if isinstance(value, str):
        assert 0 < len(value) <= 128 and value.isprintable()
    elif isinstance(value, LoadedModel):
        for entry in fields(LoadedModel):
            check(getattr(value, entry.name))
    elif value is not None and not isinstance(value, bool):
        assert isinstance(value, int | float) and 0 <= value < 2**76  # sums of counts, products of two


@given(ANYTHING)
def test_any_json_becomes_bounded_values_or_nonsense(answer: object) -> None:
    body = json.dumps(answer).encode()
    for engine in ENGINES.values():
        for reading in readings(engine):
            try:
                telemetry = reading(body, TARGET)
            except Unanswered:
                continue
            assert isinstance(telemetry, Telemetry)
            for entry in fields(Telemetry):
                value = getattr(telemetry, entry.name)
                for one in (
                    value.values()
                    if isinstance(value, dict)
                    else value
                    if isinstance(value, tuple)
                    else [value]
                ):
                    check(one)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-R1"),
        ("/models/DeepSeek-R1", "/models/DeepSeek-R1"),
        ("/c/models--deepseek-ai--DeepSeek-R1-0528/snapshots/" + "a" * 100, "deepseek-ai/DeepSeek-R1-0528"),
        ("/" + "x" * 200, None),
        ("two\nlines", None),
        ("\x1b[31mred", None),
        ("", None),
        (7, None),
        (None, None),
        ({"a": 1}, None),
    ],
)
def test_names_are_short_and_printable(path: object, expected: str | None) -> None:
    assert values.name(path) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(7, 7), (7.0, 7), ("7", 7), ("7.0", 7), (0, 0), (True, None), (-1, None), (2**61, None), (1e400, None),
     ("None", None), ("", None), ("1_000", None), (" 7", None), ("９", None), ([], None), ("1" * 40, None)],
)  # fmt: skip
def test_counts_are_whole_and_not_negative(value: object, expected: int | None) -> None:
    assert values.count(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.5, 0.5), (1, 1.0), (1.004, 1.0), (1.5, None), (-0.1, None), (float("nan"), None)],
)
def test_ratios_lie_between_nothing_and_all(value: object, expected: float | None) -> None:
    assert values.ratio(value) == expected
