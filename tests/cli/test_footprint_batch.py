"""`footprint --batch`: one object in, one out, in order; a line that cannot be answered costs itself only."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from launch_scoring import misses

from exporter.cli.answers import answer_line

LAUNCHES = Path(__file__).parents[1] / "engines" / "launch" / "launches.jsonl"


def batch(lines: list[str] | bytes, *, file: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    data = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
    if file is not None:
        file.write_bytes(data)
    return subprocess.run(
        [sys.executable, "-m", "exporter", "footprint", "--batch", str(file) if file else "-"],
        input=None if file else data,
        capture_output=True,
        timeout=100,
        check=False,
    )


def answers(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_launch_is_scored_through_the_batch(tmp_path: Path) -> None:
    cases = [json.loads(line) for line in LAUNCHES.read_text().splitlines()]
    lines = [json.dumps({"argv": case["argv"], "env": case["env"]}) for case in cases]
    done = batch(lines, file=tmp_path / "cases.jsonl")
    found = answers(done)
    wrong = {
        case["id"]: missed
        for case, one in zip(cases, found, strict=True)
        if (missed := misses(case, one["deployment"]))
    }
    assert wrong == {}
    assert b"canary" not in done.stdout + done.stderr


def test_answers_come_in_the_order_of_the_lines() -> None:
    lines = [
        json.dumps({"model": "deepseek-ai/DeepSeek-R1", "tp": 2**n, "max_model_len": 8192}) for n in range(4)
    ]
    assert [one["deployment"]["tp"] for one in answers(batch(lines))] == [1, 2, 4, 8]


def test_a_line_that_cannot_be_answered_does_not_stop_the_others() -> None:
    good = json.dumps({"model": "deepseek-ai/DeepSeek-R1", "tp": 8})
    found = answers(batch([good, "{broken", good, "", good]))
    assert [("error" in one) for one in found] == [False, True, False, False]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("{broken canary", "json"),
        ("[]", "json"),
        ("null", "json"),
        ('"canary"', "json"),
        ("[" * 100_000, "json"),
        ('{"model": NaN}', "json"),
        ('{"modle": "canary"}', "key"),
        ('{"canary": 1}', "key"),
        ('{"model": 3}', "type"),
        ('{"model": "deepseek-ai/DeepSeek-R1", "tp": "canary"}', "type"),
        ('{"model": "deepseek-ai/DeepSeek-R1", "tp": true}', "type"),
        ('{"model": "deepseek-ai/DeepSeek-R1", "max_model_len": 1.5}', "type"),
        ('{"model": "deepseek-ai/DeepSeek-R1", "override_tensor": "canary"}', "type"),
        ('{"model": "deepseek-ai/DeepSeek-R1", "mla": 9}', "type"),
        ('{"model": "deepseek-ai/DeepSeek-R1", "speculative": {"canary": 1}}', "key"),
        ('{"argv": "canary"}', "type"),
        ('{"argv": ["vllm", 3]}', "type"),
        ('{"argv": ["vllm"], "env": {"A": 1}}', "type"),
        ('{"command": 3}', "type"),
        ('{"command": "vllm serve \'canary"}', "launch"),
        ('{"argv": ["sh", "-c", "vllm serve \'canary"]}', "launch"),
        ('{"command": ""}', "launch"),
        ('{"command": "x", "argv": ["x"]}', "conflict"),
        ('{"command": "x", "model": "canary"}', "conflict"),
        ('{"env": {}, "model": "canary"}', "conflict"),
        ("{}", "missing"),
        ('{"model": "canary"}', "unknown_model"),
        ('{"model": "deepseek-ai/DeepSeek-R1", "quantization": "canary"}', "unknown_quantization"),
        ('{"model": "deepseek-ai/DeepSeek-R1", "gpu": "canary"}', "unknown_gpu"),
        ('{"model": "deepseek-ai/DeepSeek-R1", "engine": "canary"}', "footprint"),
        ('{"model": "deepseek-ai/DeepSeek-R1", "tp": 7}', "footprint"),
        ('{"model": "deepseek-ai/DeepSeek-R1", "tp": 0}', "footprint"),
        ('{"model": "deepseek-ai/DeepSeek-R1", "memory_fraction": 2}', "footprint"),
        ('{"checkpoint": "/nonexistent/canary.gguf"}', "not_found"),
    ],
)
def test_an_error_is_named_and_repeats_nothing(line: str, kind: str) -> None:
    found = answer_line(line.encode())
    assert found["error"]["kind"] == kind
    assert found["error"]["message"]
    assert "canary" not in json.dumps(found)


def test_a_lying_header_is_an_error_in_no_time(tmp_path: Path) -> None:
    # 43 bytes that claim 2^60 tensors.
    file = tmp_path / "lying.gguf"
    file.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + (2**60).to_bytes(8, "little") + bytes(27))
    started = time.monotonic()
    found = answer_line(json.dumps({"checkpoint": str(file)}).encode())
    assert found["error"]["kind"] == "too_many_tensors"
    assert time.monotonic() - started < 5


def test_a_contradictory_launch_keeps_what_it_says_beside_the_error() -> None:
    found = answer_line(b'{"command": "vllm serve deepseek-ai/DeepSeek-R1 -tp 7"}')
    assert found["deployment"]["tp"] == 7
    assert found["error"]["kind"] == "footprint"


def test_a_line_that_is_no_text_is_an_error() -> None:
    assert [one["error"]["kind"] for one in answers(batch(b"\xff\xfe\n"))] == ["json"]


def test_a_line_that_is_too_long_costs_itself_only(tmp_path: Path) -> None:
    good = json.dumps({"model": "deepseek-ai/DeepSeek-R1", "tp": 8})
    long = '{"command": "' + "x" * (9 << 20) + '"}'
    found = answers(batch([good, long, good], file=tmp_path / "cases.jsonl"))
    assert [one.get("error", {}).get("kind") for one in found] == [None, "too_long", None]


def test_a_file_that_cannot_be_read_ends_with_3(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "footprint", "--batch", str(tmp_path / "none.jsonl")],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"cannot be read" in done.stderr


def test_every_key_of_the_contract_is_taken() -> None:
    line = {
        "model": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        "engine": "vllm",
        "engine_version": "0.9.0",
        "quantization": "bf16",
        "dtype": "bfloat16",
        "kv_cache_dtype": "auto",
        "tp": 2,
        "pp": 1,
        "dp": 1,
        "ep": 1,
        "dp_attention": False,
        "max_model_len": 4096,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 4096,
        "memory_fraction": 0.9,
        "gpu": "H200",
        "gpus": 2,
        "gpu_memory_bytes": 80 * 2**30,
    }
    assert answer_line(json.dumps(line).encode())["fits"] is True
    line = {
        "model": "deepseek-r1:7b",
        "engine": "llama.cpp",
        "gpus": 1,
        "gpu_layers": 20,
        "cache_type_k": "q8_0",
        "cache_type_v": "q8_0",
        "parallel": 2,
        "micro_batch": 256,
        "flash_attention": True,
        "max_model_len": 8192,
        "override_tensor": ["output=CPU"],
        "mla": None,
        "speculative": None,
    }
    found = answer_line(json.dumps(line).encode())
    assert found["deployment"]["kv_cache_dtype"] == {"k": "q8_0", "v": "q8_0"}
    assert "error" not in found


def test_a_thousand_lines_are_answered_each_for_itself(tmp_path: Path) -> None:
    lines = [
        json.dumps({"command": f"vllm serve deepseek-ai/DeepSeek-R1 -tp 8 --max-model-len {4096 + n}"})
        if n % 2
        else json.dumps(
            {
                "model": "deepseek-ai/DeepSeek-V3",
                "engine": "sglang",
                "tp": 8,
                "gpu": "H200",
                "max_model_len": 4096 + n,
            }
        )
        for n in range(1000)
    ]
    found = answers(batch(lines, file=tmp_path / "cases.jsonl"))
    assert len(found) == 1000 and not any("error" in one for one in found)
    lengths = [one["deployment"]["max_model_len"] for one in found]
    assert lengths == [4096 + number for number in range(1000)]


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(
            ["model", "engine", "tp", "gpu", "gpus", "argv", "env", "command", "mla", "canary", "ep"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.just("canary") | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
            ),
            max_leaves=5,
        ),
        max_size=5,
    )
)
def test_any_object_is_answered_or_named_as_an_error(document: dict[str, Any]) -> None:
    found = answer_line(json.dumps(document).encode())
    assert "deployment" in found or found["error"]["kind"]
    if "error" in found:
        assert "canary" not in json.dumps(found["error"])


def test_naming_a_card_means_that_there_is_one() -> None:
    question = {"engine": "ollama", "model": "deepseek-r1:14b", "gpu": "NVIDIA GeForce RTX 4090"}
    on_card = answer_line(json.dumps(question).encode())
    assert [sorted(device["components"]) for device in on_card["devices"]] != []
    in_ram = answer_line(json.dumps(question | {"gpus": 0}).encode())
    assert not in_ram.get("devices")
