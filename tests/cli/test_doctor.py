"""What `doctor` says of the engines that run here: stand-ins, with everything that can stand in the way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_process import free_port
from stand_ins import launches
from stand_ins.engine import StandIn

from exporter.cli import doctor, doctor_engines
from exporter.cli.checks import Check
from exporter.engines.discovery import Discovery
from exporter.engines.process import ProcessTable
from exporter.engines.telemetry import Reason
from exporter.engines.telemetry.reader import ENGINES

R1 = "deepseek-ai/DeepSeek-R1"
CANARY = "canary-70c2ae"
PROC = Path("/proc")


def checks_of(engine: StandIn) -> dict[str, Check]:
    """What was looked at of this engine: "" is whether it is seen."""
    pids = engine.tree.pids
    found = {}
    for check in doctor_engines.engines(PROC):
        _, pid, *part = check.id.split(".")
        if int(pid) in pids:
            found["".join(part)] = check
    return found


@pytest.fixture
def vllm(tmp_path: Path) -> Iterator[StandIn]:
    with launches.vllm(tmp_path, model=R1, port=free_port(), tp=2) as engine:
        yield engine


def test_an_engine_that_hides_nothing_is_fine_in_every_part(vllm: StandIn) -> None:
    checks = checks_of(vllm)
    assert {part: check.verdict for part, check in checks.items()} == {
        "": "ok",
        "launch": "ok",
        "endpoint": "ok",
        "model": "ok",
        "files": "ok",
    }
    assert checks[""].found == f"vllm, {R1}, processes: 4"


@pytest.mark.parametrize(("status", "reason"), [(401, Reason.KEY_REQUIRED), (404, Reason.BAD_STATUS)])
def test_an_endpoint_that_gives_nothing_is_a_problem_with_advice(
    vllm: StandIn, status: int, reason: Reason
) -> None:
    vllm.unavailable(status)
    endpoint = checks_of(vllm)["endpoint"]
    assert (endpoint.verdict, endpoint.advice) == ("problem", doctor_engines.UNANSWERED[reason])
    assert endpoint.found.endswith(f": {reason}")


def test_an_engine_that_loads_is_no_problem(vllm: StandIn) -> None:
    vllm.unavailable(503)
    assert checks_of(vllm)["endpoint"].verdict == "note"


def test_every_reason_but_those_handled_otherwise_has_advice() -> None:
    assert set(Reason) - set(doctor_engines.UNANSWERED) == {
        Reason.LOADING,
        Reason.UNSUPPORTED,
        Reason.TLS,  # engines are asked without
    }


def test_metrics_that_are_switched_off_are_named_with_the_flag_that_brings_them(tmp_path: Path) -> None:
    with launches.sglang(tmp_path, model=R1, port=free_port()) as engine:
        endpoint = checks_of(engine)["endpoint"]
    assert endpoint.verdict == "note"
    assert "--enable-metrics" in endpoint.advice


def asked() -> set[tuple[str, str]]:
    """(engine, path) of every question that is put to an engine."""
    return {
        (name, path.partition("?")[0])
        for name, engine in ENGINES.items()
        for question in (*engine.questions, *engine.then)
        for path in question.paths
    }


def test_what_is_advised_of_paths_is_about_paths_that_are_asked() -> None:
    assert set(doctor_engines.SWITCHED_OFF) <= asked()


def test_the_page_on_engines_names_every_path_that_is_asked_in_its_engines_row() -> None:
    page = (Path(__file__).parents[2] / "docs" / "ENGINES.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    names = {
        "vllm": "| vLLM",
        "sglang": "| SGLang",
        "ktransformers": "| SGLang",
        "llama.cpp": "| llama.cpp",
        "ik_llama.cpp": "| llama.cpp",
        "llama-cpp-python": "| llama-cpp-python",
        "ollama": "| Ollama",
        "lmdeploy": "| LMDeploy",
        "tensorrt-llm": "| TensorRT-LLM",
        "tgi": "| TGI",
    }
    for engine, path in asked():
        [row] = [one for one in rows if one.startswith(names[engine])]
        assert f"`{path}`" in row, (engine, path)


def test_a_checkpoint_that_cannot_be_read_is_a_problem_and_its_path_is_not_repeated(tmp_path: Path) -> None:
    secret = f"/models/{CANARY}/DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf"
    with launches.llama_server(tmp_path, model=secret, port=free_port()) as engine:
        checks = checks_of(engine)
    assert checks["files"].verdict == "problem"
    assert checks["model"].found == "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    assert CANARY not in str(checks)


def test_a_checkpoint_that_can_be_read_is_fine(tmp_path: Path) -> None:
    file = tmp_path / "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf"
    file.touch()
    with launches.llama_server(tmp_path, model=str(file), port=free_port()) as engine:
        assert checks_of(engine)["files"].verdict == "ok"


def test_a_model_that_is_not_known_is_a_note(tmp_path: Path) -> None:
    with launches.vllm(tmp_path, model="Qwen/Qwen3-8B", port=free_port()) as engine:
        model = checks_of(engine)["model"]
    assert model.verdict == "note"
    assert "[[deployments]]" in model.advice


def test_ollamas_model_is_the_one_that_its_server_has_loaded(tmp_path: Path) -> None:
    with launches.ollama(
        tmp_path, model="deepseek-r1:7b", port=free_port(), runner_port=free_port()
    ) as engine:
        assert checks_of(engine)["model"].found == "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"


def test_a_setting_that_cannot_be_right_is_a_problem_and_is_not_repeated(tmp_path: Path) -> None:
    flags = ("--tensor-parallel-size", CANARY)
    with launches.vllm(tmp_path, model=R1, port=free_port(), flags=flags) as engine:
        checks = checks_of(engine)
    assert checks["launch"].verdict == "problem"
    assert CANARY not in str(checks)


def test_workers_without_their_server_are_a_problem_that_names_their_pids(tmp_path: Path) -> None:
    with launches.vllm(tmp_path, model=R1, port=free_port(), tp=2, outlives=True) as engine:
        engine.tree.kill(engine.tree.pid)
        [check] = checks_of(engine).values()
        assert check.verdict == "problem"
        assert all(str(pid) in check.advice for pid in engine.worker_pids)


def test_what_only_its_own_user_may_see_is_named_with_the_drop_in_that_opens_it(vllm: StandIn) -> None:
    [instance] = [
        one for one in Discovery(ProcessTable(PROC), PROC).look().instances if one.root.pid == vllm.tree.pid
    ]
    files = doctor_engines.files_of(replace(instance, namespace=None, folder=None, environment_read=False))
    assert files.verdict == "note"
    [drop_in] = [word for word in files.advice.split() if word.endswith(".example")]
    units = Path(__file__).parents[2] / "systemd" / "deepseek-exporter.service.d"
    assert (units / drop_in).exists()


def test_a_host_whose_processes_cannot_be_listed_has_no_engines_to_tell_of(tmp_path: Path) -> None:
    assert list(doctor_engines.engines(tmp_path / "nothing")) == []


def test_the_command_ends_with_1_when_an_engine_cannot_be_read(tmp_path: Path, vllm: StandIn) -> None:
    def run() -> tuple[int, list[dict[str, str]]]:
        flags = ["--nvml.enabled", "false", "--state.directory", str(tmp_path), "--json"]
        done = CliRunner().invoke(doctor.command, flags, env={"HOME": str(tmp_path)})
        checks = json.loads(done.stdout)["checks"]
        others = [one for one in checks if not one["id"].startswith(f"engine.{vllm.tree.pid}")]
        if any(one["verdict"] == "problem" for one in others):
            pytest.skip("this host has problems of its own")
        return done.exit_code, checks

    assert run()[0] == 0
    vllm.unavailable(401)
    assert run()[0] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a stranger of itself")
def test_a_strangers_engine_is_seen_and_its_launch_read(tmp_path: Path) -> None:
    """As the service sees them: nobody's privileges, somebody else's process."""
    with launches.vllm(tmp_path, model=R1, port=free_port()) as engine:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgid(65534)
                os.setuid(65534)
                verdicts = {part: check.verdict for part, check in checks_of(engine).items()}
                os.write(writer, json.dumps(verdicts).encode())
            finally:
                os._exit(0)  # never back into the tests
        os.close(writer)
        with os.fdopen(reader) as answer:
            verdicts = json.load(answer)
        os.waitpid(child, 0)
    assert verdicts == {"": "ok", "launch": "ok", "endpoint": "ok", "model": "ok", "files": "note"}
