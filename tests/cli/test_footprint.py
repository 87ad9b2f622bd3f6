"""`footprint` at the shell: a command, a model, a checkpoint; what a person reads and what a program gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import gguf_keys, gguf_tensors, write_gguf
from click.testing import CliRunner, Result

from exporter.cli import main
from exporter.models.catalog import catalog

R1 = "vllm serve deepseek-ai/DeepSeek-R1 -tp 8"


def footprint(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["footprint", *arguments])


def answer(*arguments: str) -> dict[str, Any]:
    done = footprint(*arguments, "--json")
    assert done.exit_code in (0, 1), done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_command_is_answered_per_device() -> None:
    found = answer("--command", R1, "--gpu", "H200", "--gpus", "8")
    assert found["deployment"]["engine"] == "vllm"
    assert found["deployment"]["tp"] == 8
    assert found["model"]["id"] == "deepseek-ai/DeepSeek-R1"
    assert [device["rank"] for device in found["devices"]] == list(range(8))
    assert found["kv_cache"]["bytes_per_token"] == 70272
    assert found["fits"] is True


def test_a_model_with_settings_is_the_same_question() -> None:
    by_command = answer("--command", f"{R1} --max-model-len 32768", "--gpu", "H200")
    by_model = answer(
        *("--model", "deepseek-ai/DeepSeek-R1", "--engine", "vllm", "--tp", "8", "--context", "32K"),
        *("--gpu", "H200", "--gpus", "8"),
    )
    for part in ("model", "devices", "host", "kv_cache", "fits"):
        assert by_command[part] == by_model[part]


def test_a_setting_beside_a_command_wins() -> None:
    found = answer("--command", R1, "--memory-fraction", "0.8", "--gpu-memory", "141GiB")
    less = answer("--command", f"{R1} --gpu-memory-utilization 0.8", "--gpu-memory", "141GiB")
    assert found["devices"] == less["devices"]


def test_without_a_device_what_needs_its_size_is_absent() -> None:
    found = answer("--command", R1)
    assert "weights" in found["devices"][0]["components"]
    assert "kv_cache" not in found["devices"][0]["components"]
    assert found["fits"] is None


def test_a_model_that_is_not_known_still_has_its_deployment() -> None:
    found = answer("--command", "vllm serve /srv/unheard-of -tp 2")
    assert found["deployment"] == {
        "engine": "vllm",
        "role": "server",
        "model": "/srv/unheard-of",
        "tp": 2,
        "gpus": 2,
    }
    assert set(found) == {"deployment", "notes"}


def test_what_does_not_fit_ends_with_1() -> None:
    done = footprint("--command", R1, "--gpu", "RTX 4090", "--gpus", "8")
    assert done.exit_code == 1
    assert "fits      no" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--command", "vllm serve 'canary"], "a quote that is not closed"),
        (["--model", "no-such-model"], "is not in the catalogue"),
        (["--model", "deepseek-ai/DeepSeek-R1", "--gpu", "X9000"], "not in the table"),
        (["--model", "deepseek-ai/DeepSeek-R1", "--gpu-memory", "80G"], "--gpu-memory: unknown unit"),
        (["--model", "deepseek-ai/DeepSeek-R1", "--context", "many"], "--context: not a number of tokens"),
        (["--model", "deepseek-ai/DeepSeek-R1", "--quantization", "Q9_Z"], "quantization"),
        (["--model", "deepseek-ai/DeepSeek-R1", "--tp", "7"], "tp"),
        (["--model", "deepseek-ai/DeepSeek-R1", "--command", R1], "cannot stand beside"),
        (["--env", "A=1", "--model", "deepseek-ai/DeepSeek-R1"], "env needs command"),
        (["--command", f"{R1} -tp 0"], "-tp: must be from 1"),
        (["vllm", "serve", "canary"], "belongs in quotes"),
        ([], "one of command, argv, model or checkpoint"),
        (["--batch", "-", "--model", "deepseek-ai/DeepSeek-R1"], "from the file alone"),
    ],
)
def test_a_mistake_in_the_question_ends_with_2(arguments: list[str], message: str) -> None:
    done = footprint(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "canary" not in done.output
    assert "Traceback" not in done.output


def test_a_checkpoint_that_is_not_there_ends_with_3(tmp_path: Path) -> None:
    done = footprint(str(tmp_path / "none.gguf"))
    assert (done.exit_code, done.stdout) == (3, "")


def test_a_folder_with_a_config_alone_is_recognised(tmp_path: Path) -> None:
    config = {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "num_hidden_layers": 28,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    folder = tmp_path / "DeepSeek-R1-Distill-Qwen-7B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    found = answer(str(folder), "--engine", "vllm")
    assert found["model"]["id"] == "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    assert found["model"]["parameters"] == 7_615_616_512


@pytest.mark.parametrize(
    "arguments",
    [
        ["--command", R1, "--gpu", "H200", "--gpus", "8"],
        ["--command", "llama-server -m DeepSeek-R1-Q4_K_M.gguf -c 8192", "--gpus", "0"],
        ["--model", "deepseek-r1:7b", "--engine", "ollama", "--gpu", "RTX 4090"],
        ["--model", "deepseek-ai/DeepSeek-V3", "--engine", "sglang", "--tp", "8", "--explain"],
        ["--command", "vllm serve /srv/unheard-of -tp 2"],
    ],
    ids=["vllm", "llama.cpp", "ollama", "explained", "unknown"],
)
def test_a_person_reads_it_at_80_columns_without_colour(arguments: list[str]) -> None:
    done = footprint(*arguments)
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_equal_ranks_are_one_table_and_every_term_has_its_basis() -> None:
    done = footprint("--command", R1, "--gpu", "H200", "--gpus", "8")
    lines = done.stdout.splitlines()
    assert sum(line.startswith("rank ") for line in lines) == 1
    assert "rank 0–7, each: NVIDIA H200, 140.4 GiB" in lines
    (weights,) = [line for line in lines if line.startswith("  weights")]
    assert weights.split() == ["weights", *weights.split()[1:3], "exact", "architecture"]


def test_explained_numbers_have_formula_and_source() -> None:
    done = footprint("--command", R1, "--gpu", "H200", "--explain")
    assert "where the numbers come from" in done.stdout
    assert "formula" in done.stdout and "source" in done.stdout


def test_in_a_process_of_its_own_a_secret_stays_on_its_line() -> None:
    line = f"VLLM_API_KEY=canary-1 {R1} --api-key canary-2 --port canary-3 --x canary-4"
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "footprint", "--command", line, "--env", "HF_TOKEN=canary-5"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
        timeout=60,
        check=False,
    )
    assert "canary" not in done.stdout + done.stderr
    assert done.returncode == 2


def test_explained_numbers_are_in_the_json_too() -> None:
    explained = answer("--command", R1, "--explain")["explanations"]
    assert "weights" in [one["component"] for one in explained]
    assert all(one["formula"] and one["source"] for one in explained)


def test_the_headers_of_a_file_are_the_basis_of_the_weights(tmp_path: Path) -> None:
    model = catalog().resolve("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B")
    tensors = gguf_tensors(model.architecture, "Q4_K_M")
    file = write_gguf(
        tmp_path / "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf",
        gguf_keys(model.architecture, model.short_id, 15),
        tensors,
    )
    found = answer(str(file), "--gpus", "0", "--context", "4096")
    assert found["deployment"]["engine"] == "llama.cpp"
    assert found["deployment"]["quantization"] == "Q4_K_M"
    assert found["model"]["id"] == model.id
    assert found["model"]["checkpoint_bytes"] == file.stat().st_size
    assert found["host"]["components"]["weights"] == sum(one.size_bytes for one in tensors)
    assert found["basis"]["weights"] == "checkpoint"


def test_a_placement_over_nodes_tells_what_crosses_the_link() -> None:
    found = answer("--command", "vllm serve deepseek-ai/DeepSeek-R1 -tp 8 -pp 2 --nnodes 2")
    assert found["network"] == {
        "nodes": 2,
        "gpus": 16,
        "bytes_per_token": {"pp": [14_336, 28_672]},
        "total": [14_336, 28_672],
    }
    text = footprint("--model", "deepseek-ai/DeepSeek-R1", "--tp", "16", "--nodes", "2").output
    assert "over the link of each of 2 nodes" in text
    assert "10 Gb/s        at most 352 – 709 tokens a second, all GPUs" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_placement_on_one_node_tells_nothing_of_links() -> None:
    assert "network" not in answer("--command", R1)
    assert "the link of" not in footprint("--command", R1).output


def test_what_a_token_reads_from_ram_is_told_where_ram_decides() -> None:
    on_cpu = ["footprint", "--model", "deepseek-ai/DeepSeek-R1", "--quantization", "Q4_K_M"]
    done = CliRunner().invoke(main, [*on_cpu, "--engine", "llama.cpp", "--context", "4096"])
    assert "each token of one sequence reads 22.3 GB of weights there: at most 4.5" in done.output
    done = CliRunner().invoke(main, [*on_cpu, "--engine", "llama.cpp", "--context", "4096", "--json"])
    assert json.loads(done.output)["host"]["token_read_bytes"] == 22_296_018_944
    done = CliRunner().invoke(
        main, ["footprint", "--model", "deepseek-ai/DeepSeek-R1", "--tp", "8", "--json"]
    )
    assert "token_read_bytes" not in json.loads(done.output)["host"]
