"""Figures that real engines printed and files that were published, against the answer of ``footprint
--batch``.

observed.jsonl and published_sizes.jsonl have them with sources and tolerances; no rule of the estimator names
a case.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from exporter.cli.answers import answer_line

HERE = Path(__file__).parent
EXACT_CLASSES = ("weights", "kv", "file_size", "placement")
MEDIAN_ERROR = 0.003
WITHIN_TOLERANCE = 0.9


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / name).read_text("utf-8").splitlines()]


OBSERVED = lines("observed.jsonl")
PUBLISHED = lines("published_sizes.jsonl")
FIGURES = [
    (case["id"], case["class"], case["input"], expect) for case in OBSERVED for expect in case["expect"]
] + [
    (
        f"published-{number}",
        "file_size",
        row["input"],
        {"value": row["value"], "tolerance": row["tolerance"], "json_path": "model.checkpoint_bytes"},
    )
    for number, row in enumerate(PUBLISHED)
    if "value" in row
]


def ask(question: dict[str, Any]) -> dict[str, Any]:
    return answer_line(json.dumps(question).encode())


def at(answer: dict[str, Any], path: str) -> float:
    """The number at a path: ``a.b``, ``devices[0].a``, ``devices[stage=1][0].a``, ``sum(devices[*].a)``;
    ``?`` counts what is absent as 0, ``+`` adds.
    """
    return sum(_one(answer, part.strip()) for part in path.split(" + "))


def _one(answer: dict[str, Any], path: str) -> float:
    bare = path.removesuffix("?")
    if bare.startswith("sum("):
        inner = bare[len("sum(devices[*].") : -1]
        return sum(_walk(device, inner) or 0 for device in answer["devices"])
    match = re.match(r"devices(?:\[stage=(\d+)\])?\[(\d+)\]\.(.+)", bare)
    found: float | None
    if match:
        stage = match[1]
        devices = [d for d in answer["devices"] if stage is None or d["stage"] == int(stage)]
        found = _walk(devices[int(match[2])], match[3])
    else:
        found = _walk(answer, bare)
    if found is None and path.endswith("?"):
        return 0
    assert found is not None, f"{path} is absent"
    return found


def _walk(value: Any, path: str) -> float | None:
    for key in path.split("."):
        value = value.get(key) if value is not None else None
    return None if value is None else float(value)


def error_of(question: dict[str, Any], expect: dict[str, Any]) -> float:
    return at(ask(question), expect["json_path"]) / float(expect["value"]) - 1


@pytest.mark.parametrize(
    ("question", "expect"), [figure[2:] for figure in FIGURES], ids=[figure[0] for figure in FIGURES]
)
def test_answer_meets_the_figure(question: dict[str, Any], expect: dict[str, Any]) -> None:
    assert abs(error_of(question, expect)) <= expect["tolerance"]


def test_errors_of_every_class() -> None:
    errors: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _, kind, question, expect in FIGURES:
        errors[kind].append((abs(error_of(question, expect)), expect["tolerance"]))
    for kind, found in sorted(errors.items()):
        sizes = [error for error, _ in found]
        within = sum(error <= tolerance for error, tolerance in found) / len(found)
        print(
            f"{kind:10} {len(found):3} figures, median error {median(sizes):.3%}, worst {max(sizes):.3%}, "
            f"{within:.0%} within tolerance"
        )
        assert within >= WITHIN_TOLERANCE
        if kind in EXACT_CLASSES:
            assert median(sizes) <= MEDIAN_ERROR


def test_capacity_from_a_known_pool_is_exact() -> None:
    known = [
        error_of(question, expect)
        for _, kind, question, expect in FIGURES
        if kind == "capacity" and "kv_cache_bytes" in question and "V4" not in question.get("model", "")
    ]
    assert len(known) >= 4
    assert median(abs(error) for error in known) <= MEDIAN_ERROR


@pytest.mark.parametrize(
    "row", [row for row in PUBLISHED if row.get("unknown")], ids=lambda row: row["input"]["quantization"]
)
def test_quantizations_that_only_a_header_tells_leave_weights_out(row: dict[str, Any]) -> None:
    answer = ask(row["input"])
    assert "checkpoint_bytes" not in answer["model"]
    assert "weights" not in answer["host"]["components"]
    assert answer["kv_cache"]["bytes_per_token"] == 70_272


def test_every_published_size_is_answered_unknown_or_explained() -> None:
    for row in PUBLISHED:
        assert row["source"]
        assert ("value" in row) + bool(row.get("unknown")) + bool(row.get("skip")) == 1, row


def test_every_observed_figure_names_its_source() -> None:
    assert all(case["source"] for case in OBSERVED)
    assert len({case["id"] for case in OBSERVED}) == len(OBSERVED) >= 70


def test_devices_that_are_not_known_leave_out_what_depends_on_them() -> None:
    answer = ask({"engine": "vllm", "model": "deepseek-ai/DeepSeek-R1", "tp": 8})
    assert len(answer["devices"]) == 8
    rank = answer["devices"][0]
    assert set(rank["components"]) == {"weights", "graphs", "runtime", "communication"}
    assert "total" not in rank
    assert "capacity_tokens" not in answer["kv_cache"]
    assert answer["fits"] is None


def test_json_numbers_are_whole() -> None:
    answer = ask({"engine": "vllm", "model": "deepseek-ai/DeepSeek-R1", "tp": 8, "gpu": "H200", "gpus": 8})
    assert all(isinstance(size, int) for size in answer["devices"][0]["components"].values())
    assert isinstance(answer["devices"][0]["total"], int)
    assert answer["fits"] is True
