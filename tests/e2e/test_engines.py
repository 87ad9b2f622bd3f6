"""Engines come, work, stall and go on a host with eight fake GPUs; the real daemon says what it sees of them.

The engines are stand-ins (tests/stand_ins): real processes with real titles, parents and HTTP answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon_process import Metrics, RunningDaemon, value
from fake_nvml.control import FakeDriver
from fake_nvml.devices import many
from prometheus_process import free_port
from stand_ins import launches
from stand_ins.answers import Answer
from stand_ins.engine import StandIn
from stand_ins.tree import Plan, Tree

pytestmark = pytest.mark.e2e

GIB = 2**30
R1 = "deepseek-ai/DeepSeek-R1"
DISTILL = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
CANARY = "canary-5b1f07"
DISCOVERY_SECONDS = 0.5
SECONDS = 8.0
"""the longest that anything here may take to be seen, on a busy machine"""


class Host:
    """The daemon and the driver that it reads."""

    def __init__(self, daemon: RunningDaemon, driver: FakeDriver) -> None:
        self.daemon = daemon
        self.driver = driver

    def until(self, condition: Callable[[Metrics], object]) -> Metrics:
        """The first scrape of which the condition is true."""
        found: list[Metrics] = []

        def asked() -> bool:
            found[:] = [self.daemon.metrics()]
            return bool(condition(found[0]))

        self.daemon.wait_until(asked, SECONDS)
        return found[0]

    def named(self, engine: StandIn, base: str) -> str:
        """What the deployment of this engine is called: `base`, and its port or device where another engine
        of this machine (of a test beside this one, say) has the same name. Waits until it holds its memory.
        """
        called = re.compile(re.escape(base) + r"(?:[:@][0-9]+)?")
        found: list[str] = []

        def holds(metrics: Metrics) -> bool:
            found[:] = [one for one in held_on(metrics, engine.devices[0]) if called.fullmatch(one)]
            return len(found) == 1

        self.until(holds)
        return found[0]

    def answering(self, engine: StandIn, base: str) -> tuple[str, Metrics]:
        """The same, and the first scrape in which it answers."""
        name = self.named(engine, base)
        return name, self.until(lambda now: value(now, "deepseek_deployment_up", deployment=name) == 1)

    def seen(self, deployment: str, state: str) -> Metrics:
        """The first scrape in which the deployment is in this state."""
        return self.until(
            lambda metrics: value(metrics, "deepseek_deployment_state", deployment=deployment, state=state)
        )

    def gone(self, deployment: str) -> None:
        """Wait until no series has it: no ghost."""
        self.until(lambda metrics: not series_of(metrics, deployment))


def series_of(metrics: Metrics, deployment: str) -> set[str]:
    """Names of all samples that are about a deployment, whatever the label."""
    return {
        name for name, samples in metrics.items() for labels, _ in samples if deployment in labels.values()
    }


def info_of(metrics: Metrics, deployment: str) -> dict[str, str]:
    [labels] = [
        labels for labels, _ in metrics["deepseek_deployment_info"] if labels["deployment"] == deployment
    ]
    return labels


def held_on(metrics: Metrics, gpu: int) -> dict[str, float]:
    """Holder → bytes of one device."""
    return {
        labels["holder"]: size
        for labels, size in metrics["deepseek_gpu_memory_held_bytes"]
        if labels["gpu"] == str(gpu)
    }


def deployments_on(metrics: Metrics, gpu: int) -> set[str]:
    """Names of the deployments that hold memory of one device."""
    return {
        labels["holder"]
        for labels, _ in metrics["deepseek_gpu_memory_held_bytes"]
        if labels["gpu"] == str(gpu) and labels["holder_kind"] == "deployment"
    }


@pytest.fixture(scope="module")
def one_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One daemon for all tests: each brings its engines and takes them away."""
    folder = tmp_path_factory.mktemp("engines")
    driver = FakeDriver.create(folder / "driver", many("h200", 8))
    flags = ("--poll.discovery-interval", str(DISCOVERY_SECONDS), "--log.level", "debug")
    with RunningDaemon.start(folder / "daemon", *flags, driver=driver) as daemon:
        daemon.wait_until(lambda: daemon.value("deepseek_gpus", vendor="nvidia") == 8)
        yield Host(daemon, driver)


@pytest.fixture
def host(one_host: Host) -> Host:
    """The same, once the daemon sees nothing any more of the test before."""
    one_host.until(lambda now: not any(deployments_on(now, gpu) for gpu in range(8)))
    return one_host


# What runs, and what it says of itself


def test_an_eight_rank_tree_is_one_deployment_with_the_settings_of_its_launcher(
    host: Host, tmp_path: Path
) -> None:
    flags = ("--max-model-len", "32768", "--max-num-seqs", "64", "--kv-cache-dtype", "fp8")
    with launches.vllm(tmp_path, model=R1, port=free_port(), tp=8, flags=flags) as engine:
        engine.hold(host.driver, 130 * GIB)
        name, metrics = host.answering(engine, f"vllm:{R1}")
        found = info_of(metrics, name)
        assert found["model"] == R1
        assert found["engine"] == "vllm"
        assert found["engine_version"] == "0.33.0"
        assert found["quantization"] == "fp8"
        assert found["kv_cache_dtype"] == "fp8"
        assert (found["tp"], found["pp"], found["dp"]) == ("8", "1", "1")
        assert found["origin"] == "discovered"
        assert value(metrics, "deepseek_deployment_state", deployment=name, state="warm") == 1
        assert value(metrics, "deepseek_deployment_max_context_tokens", deployment=name) == 32_768
        assert value(metrics, "deepseek_deployment_max_sequences", deployment=name) == 64
        for gpu in range(8):
            assert held_on(metrics, gpu) == {name: 130 * GIB, "other": 0, "unattributed": 0}


def test_what_is_held_is_compared_with_what_is_expected_on_every_device(host: Host, tmp_path: Path) -> None:
    flags = ("--max-model-len", "32768")
    with launches.vllm(tmp_path, model=R1, port=free_port(), tp=8, flags=flags) as engine:
        engine.hold(host.driver, 131 * GIB)
        name, metrics = host.answering(engine, f"vllm:{R1}")
        for gpu in range(8):
            total = value(metrics, "deepseek_gpu_memory_total_bytes", gpu=str(gpu))
            deviation = value(metrics, "deepseek_gpu_memory_deviation_bytes", deployment=name, gpu=str(gpu))
            ratio = value(metrics, "deepseek_gpu_memory_deviation_ratio", deployment=name, gpu=str(gpu))
            assert total is not None and deviation is not None
            # vLLM 0.33 takes 0.92 of a device and, beside that, what its driver contexts need.
            expected = 131 * GIB - deviation
            assert expected == pytest.approx(0.92 * total, rel=0.01)
            assert ratio == pytest.approx(deviation / expected)


def test_what_an_engine_says_of_its_load_is_what_is_shown_and_follows_it(host: Host, tmp_path: Path) -> None:
    with launches.vllm(tmp_path, model=DISTILL, port=free_port()) as engine:
        engine.update(kv_usage=0.25, running=5, waiting=2, preemptions=3)
        engine.update(prompt_tokens=900, cached_tokens=300, generated_tokens=700)
        engine.hold(host.driver, 60 * GIB)
        name, _ = host.answering(engine, f"vllm:{DISTILL}")
        metrics = host.until(lambda now: value(now, "deepseek_requests_running", deployment=name) == 5)
        assert value(metrics, "deepseek_requests_waiting", deployment=name) == 2
        assert value(metrics, "deepseek_preemptions_total", deployment=name) == 3
        assert value(metrics, "deepseek_kv_cache_capacity_tokens", deployment=name) == 400_000
        assert value(metrics, "deepseek_kv_cache_usage_ratio", deployment=name) == 0.25
        assert value(metrics, "deepseek_kv_cache_used_tokens", deployment=name) == 100_000
        tokens = {
            kind: value(metrics, "deepseek_tokens_total", deployment=name, kind=kind)
            for kind in ("prompt", "prompt_cached", "generated")
        }
        assert tokens == {"prompt": 900, "prompt_cached": 300, "generated": 700}
        engine.update(kv_usage=0.97, waiting=31)
        host.until(lambda now: value(now, "deepseek_requests_waiting", deployment=name) == 31)
        assert host.daemon.value("deepseek_kv_cache_usage_ratio", deployment=name) == 0.97


@pytest.mark.parametrize("version", ["0.33.0", "0.9.1", "0.6.6"])
def test_every_release_of_vllm_tells_how_full_its_cache_is(host: Host, tmp_path: Path, version: str) -> None:
    with launches.vllm(
        tmp_path, model=R1, served="reasoner", port=free_port(), tp=2, version=version
    ) as engine:
        engine.update(kv_usage=0.5, running=3)
        engine.hold(host.driver, 100 * GIB)
        name, metrics = host.answering(engine, "vllm:reasoner")
        assert value(metrics, "deepseek_requests_running", deployment=name) == 3
        assert value(metrics, "deepseek_kv_cache_usage_ratio", deployment=name) == 0.5
        assert value(metrics, "deepseek_kv_cache_capacity_tokens", deployment=name) == 400_000
        found = info_of(metrics, name)
        assert (found["model"], found["served_model"]) == (R1, "reasoner")
        assert (found["engine_version"], found["tp"]) == (version, "2")


@pytest.mark.parametrize("version", ["0.5.23", "0.4.6"])
def test_sglang_tells_how_full_its_cache_is_and_never_gives_its_keys_away(
    host: Host, tmp_path: Path, version: str
) -> None:
    model = "deepseek-ai/DeepSeek-V3"
    with launches.sglang(
        tmp_path, model=model, port=free_port(), tp=2, version=version, secret=CANARY
    ) as engine:
        engine.update(kv_usage=0.4, running=7, waiting=1)
        engine.hold(host.driver, 110 * GIB)
        name, metrics = host.answering(engine, f"sglang:{model}")
        assert value(metrics, "deepseek_requests_running", deployment=name) == 7
        assert value(metrics, "deepseek_requests_waiting", deployment=name) == 1
        assert value(metrics, "deepseek_kv_cache_usage_ratio", deployment=name) == 0.4
        assert value(metrics, "deepseek_kv_cache_capacity_tokens", deployment=name) == 400_000
        assert (info_of(metrics, name)["tp"], info_of(metrics, name)["model"]) == ("2", model)
        assert held_on(metrics, 1)[name] == 110 * GIB
        # 80 GiB of weights are what the stand-in claims for one GPU; the planner is measured against it.
        error = value(metrics, "deepseek_exporter_plan_error_ratio", deployment=name, component="weights")
        expected = value(
            metrics, "deepseek_expected_gpu_memory_bytes", deployment=name, gpu="0", component="weights"
        )
        assert expected is not None
        assert error == pytest.approx(expected / (80 * GIB) - 1, abs=0.01)
        assert_secret(host, CANARY)


@pytest.mark.parametrize("version", sorted(launches.OLLAMA_RUNNERS))
def test_every_generation_of_ollamas_runner_is_part_of_one_deployment(
    host: Host, tmp_path: Path, version: str
) -> None:
    model = "deepseek-r1:7b"
    with launches.ollama(
        tmp_path, model=model, port=free_port(), runner_port=free_port(), version=version
    ) as engine:
        engine.hold(host.driver, 6 * GIB)
        name, metrics = host.answering(engine, f"ollama:{model}")
        found = info_of(metrics, name)
        assert (found["engine"], found["model"]) == ("ollama", DISTILL)
        assert found["quantization"] == "Q4_K_M"
        assert found["engine_version"] == version
        assert deployments_on(metrics, 0) == {name}


def test_llama_server_tells_its_cache_by_its_slots(host: Host, tmp_path: Path) -> None:
    file = "/models/DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf"
    with launches.llama_server(
        tmp_path, model=file, port=free_port(), context=16_384, secret=CANARY
    ) as engine:
        engine.update(kv_usage=0.5, running=2)
        engine.hold(host.driver, 6 * GIB)
        name, metrics = host.answering(engine, f"llama.cpp:{Path(file).stem}")
        found = info_of(metrics, name)
        assert (found["model"], found["quantization"]) == (DISTILL, "Q4_K_M")
        assert value(metrics, "deepseek_kv_cache_used_tokens", deployment=name) == 8192
        assert value(metrics, "deepseek_kv_cache_capacity_tokens", deployment=name) == 16_384
        assert value(metrics, "deepseek_requests_running", deployment=name) == 2
        assert_secret(host, CANARY)


def test_lmdeploy_is_read(host: Host, tmp_path: Path) -> None:
    with launches.lmdeploy(tmp_path, model=DISTILL, port=free_port()) as engine:
        engine.update(kv_usage=0.75, running=1, waiting=4)
        engine.hold(host.driver, 60 * GIB)
        name, metrics = host.answering(engine, f"lmdeploy:{DISTILL}")
        assert info_of(metrics, name)["model"] == DISTILL
        assert value(metrics, "deepseek_requests_waiting", deployment=name) == 4
        assert value(metrics, "deepseek_kv_cache_usage_ratio", deployment=name) == 0.75
        assert held_on(metrics, 0)[name] == 60 * GIB


def test_tensorrt_llm_is_read_and_its_queue_is_left_alone(host: Host, tmp_path: Path) -> None:
    with launches.tensorrt_llm(tmp_path, model=R1, port=free_port(), tp=2) as engine:
        engine.update(kv_usage=0.5, running=6)
        engine.hold(host.driver, 120 * GIB)
        name, metrics = host.answering(engine, f"tensorrt-llm:{R1}")
        assert value(metrics, "deepseek_requests_running", deployment=name) == 6
        assert value(metrics, "deepseek_kv_cache_capacity_tokens", deployment=name) == 400_000
        assert value(metrics, "deepseek_kv_cache_usage_ratio", deployment=name) == 0.5
        assert info_of(metrics, name)["tp"] == "2"
        assert "/metrics" not in engine.asked()
        assert held_on(metrics, 1)[name] == 120 * GIB


def test_tgi_is_read_through_its_router(host: Host, tmp_path: Path) -> None:
    with launches.tgi(tmp_path, model=DISTILL, port=free_port(), tp=2) as engine:
        engine.update(running=6, waiting=2, generated_tokens=500)
        engine.hold(host.driver, 70 * GIB)
        name, metrics = host.answering(engine, f"tgi:{DISTILL}")
        found = info_of(metrics, name)
        assert (found["model"], found["engine_version"], found["tp"]) == (DISTILL, "3.3.6", "2")
        assert value(metrics, "deepseek_requests_waiting", deployment=name) == 2
        assert value(metrics, "deepseek_tokens_total", deployment=name, kind="generated") == 500
        assert held_on(metrics, 1)[name] == 70 * GIB


def test_llama_cpp_python_is_found_although_it_tells_nothing_but_its_name(host: Host, tmp_path: Path) -> None:
    file = "/models/DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf"
    with launches.llama_cpp_python(tmp_path, model=file, port=free_port()) as engine:
        engine.hold(host.driver, 6 * GIB)
        name, metrics = host.answering(engine, f"llama-cpp-python:{Path(file).stem}")
        assert info_of(metrics, name)["model"] == DISTILL
        assert value(metrics, "deepseek_requests_running", deployment=name) is None


# Whose memory is whose


@pytest.mark.parametrize("wrap", [launches.in_container, launches.in_shell], ids=["container", "shell"])
def test_what_stands_around_an_engine_is_not_a_second_one(
    host: Host, tmp_path: Path, wrap: launches.Wrap
) -> None:
    served = "between-walls"
    line = ("--model", R1, "--tensor-parallel-size", "2", "--served-model-name", served)
    runner = ("docker", "run", "--gpus", "all", "-e", f"HF_TOKEN=hf_{CANARY}", "vllm/vllm-openai:v0.33.0")
    benchmark = (launches.PYTHON, "/usr/local/bin/vllm", "bench", "serve", "--served-model-name", served)
    with (
        Tree.start(folder(tmp_path, "docker"), Plan((*runner, *line))),
        Tree.start(folder(tmp_path, "client"), Plan((*benchmark, "--model", R1), comm="vllm")),
        launches.vllm(
            tmp_path, model=R1, served=served, port=free_port(), tp=2, wrap=wrap, module=True
        ) as engine,
    ):
        engine.hold(host.driver, 100 * GIB)
        name, metrics = host.answering(engine, f"vllm:{served}")
        named = {labels["deployment"] for labels, _ in metrics["deepseek_deployment_info"]}
        assert {one for one in named if served in one} == {name}
        assert held_on(metrics, 0)[name] == held_on(metrics, 1)[name] == 100 * GIB
        assert_secret(host, CANARY)


def test_two_deployments_share_a_device_and_the_parts_sum_to_what_is_used(host: Host, tmp_path: Path) -> None:
    file = "/models/DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf"
    with (
        launches.vllm(tmp_path, model=DISTILL, port=free_port()) as first,
        launches.llama_server(tmp_path, model=file, port=free_port()) as second,
        Tree.start(folder(tmp_path, "stranger"), Plan((launches.PYTHON, "train.py"))) as stranger,
    ):
        with host.driver.change() as state:
            state.devices[3].occupy(stranger.pid, 9 * GIB)
        first.hold(host.driver, 70 * GIB, [3])
        second.hold(host.driver, 6 * GIB, [3])
        names = (host.named(first, f"vllm:{DISTILL}"), host.named(second, f"llama.cpp:{Path(file).stem}"))
        metrics = host.until(lambda now: deployments_on(now, 3) == set(names))
        held = held_on(metrics, 3)
        assert held == {names[0]: 70 * GIB, names[1]: 6 * GIB, "other": 9 * GIB, "unattributed": 0}
        assert sum(held.values()) == value(metrics, "deepseek_gpu_memory_used_bytes", gpu="3")
        with host.driver.change() as state:
            state.devices[3].vacate(stranger.pid)


def test_two_servers_under_one_name_are_told_apart_by_their_ports(host: Host, tmp_path: Path) -> None:
    ports = (free_port(), free_port())
    with (
        launches.vllm(tmp_path, model=DISTILL, served="twin", port=ports[0]) as first,
        launches.vllm(tmp_path, model=DISTILL, served="twin", port=ports[1]) as second,
    ):
        first.hold(host.driver, 50 * GIB, [0])
        second.hold(host.driver, 60 * GIB, [1])
        metrics = host.until(
            lambda now: all(deployments_on(now, gpu) == {f"vllm:twin:{ports[gpu]}"} for gpu in (0, 1))
        )
        assert held_on(metrics, 1)[f"vllm:twin:{ports[1]}"] == 60 * GIB


def test_workers_whose_server_died_are_an_orphan_that_holds_their_memory(host: Host, tmp_path: Path) -> None:
    with launches.vllm(tmp_path, model=DISTILL, port=free_port(), outlives=True) as engine:
        engine.hold(host.driver, 60 * GIB, [2])
        before, _ = host.answering(engine, f"vllm:{DISTILL}")
        engine.tree.kill(engine.tree.pid)
        host.gone(before)
        metrics = host.until(lambda now: deployments_on(now, 2))
        [name] = deployments_on(metrics, 2)
        assert value(metrics, "deepseek_deployment_state", deployment=name, state="orphaned") == 1
        assert held_on(metrics, 2)[name] == 60 * GIB
        assert value(metrics, "deepseek_deployment_up", deployment=name) is None
    host.until(lambda now: not deployments_on(now, 2))


# What goes wrong, and how soon it shows


def test_an_engine_that_hangs_costs_only_itself(host: Host, tmp_path: Path) -> None:
    with (
        launches.vllm(tmp_path, model=DISTILL, port=free_port()) as healthy,
        launches.vllm(tmp_path, model=R1, port=free_port(), tp=2) as hung,
    ):
        healthy.hold(host.driver, 130 * GIB, [0])
        hung.hold(host.driver, 130 * GIB, [1, 2])
        good, _ = host.answering(healthy, f"vllm:{DISTILL}")
        bad, _ = host.answering(hung, f"vllm:{R1}")
        hung.hang()
        metrics = host.until(lambda now: value(now, "deepseek_deployment_up", deployment=bad) == 0)
        assert value(metrics, "deepseek_deployment_state", deployment=bad, state="unreachable") == 1
        assert value(metrics, "deepseek_kv_cache_usage_ratio", deployment=bad) is None
        assert held_on(metrics, 1)[bad] == 130 * GIB
        assert (value(metrics, "deepseek_exporter_snapshot_duration_seconds") or 9) < 1
        healthy.update(running=11)
        host.until(lambda now: value(now, "deepseek_requests_running", deployment=good) == 11)
        hung.available()
        host.until(lambda now: value(now, "deepseek_deployment_up", deployment=bad) == 1)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer('{"error": "not yet"}', status=503), "loading"),
        (Answer("<html>\x00 hello", "text/html"), "unreachable"),
        (Answer('{"error": "key"}', status=401), "warm"),
    ],
    ids=["loading", "nonsense", "key_required"],
)
def test_an_engine_that_answers_nothing_useful_is_still_known(
    host: Host, tmp_path: Path, answer: Answer, state: str
) -> None:
    with launches.vllm(tmp_path, model=DISTILL, port=free_port()) as engine:
        for path in ("/metrics", "/version", "/v1/models", "/health"):
            engine.answer(path, answer)
        engine.hold(host.driver, 130 * GIB)
        name = host.named(engine, f"vllm:{DISTILL}")
        metrics = host.until(lambda now: value(now, "deepseek_deployment_up", deployment=name) == 0)
        assert info_of(metrics, name)["model"] == DISTILL
        assert value(metrics, "deepseek_deployment_state", deployment=name, state=state) == 1
        assert value(metrics, "deepseek_requests_running", deployment=name) is None


def test_an_engine_that_was_killed_leaves_no_series_behind(host: Host, tmp_path: Path) -> None:
    with launches.vllm(tmp_path, model=R1, port=free_port(), tp=2) as engine:
        engine.hold(host.driver, 100 * GIB)
        name, _ = host.answering(engine, f"vllm:{R1}")
        engine.kill()
        host.gone(name)
        assert held_on(host.daemon.metrics(), 0) == {"other": 0, "unattributed": 0}


def test_a_restarted_engine_keeps_its_name_and_counts_anew(host: Host, tmp_path: Path) -> None:
    port = free_port()
    with launches.vllm(tmp_path, model=DISTILL, port=port) as before:
        before.update(generated_tokens=9_000)
        before.hold(host.driver, 60 * GIB)
        name, metrics = host.answering(before, f"vllm:{DISTILL}")
        assert value(metrics, "deepseek_tokens_total", deployment=name, kind="generated") == 9_000
    with launches.vllm(tmp_path, model=DISTILL, port=port) as after:
        after.update(generated_tokens=10)
        after.hold(host.driver, 61 * GIB)
        metrics = host.until(
            lambda now: value(now, "deepseek_tokens_total", deployment=name, kind="generated") == 10
        )
        assert held_on(metrics, 0)[name] == 61 * GIB


def test_an_engine_replaced_by_another_on_the_same_port_leaves_nothing_of_the_first(
    host: Host, tmp_path: Path
) -> None:
    port = free_port()
    with launches.vllm(tmp_path, model=DISTILL, port=port) as before:
        before.hold(host.driver, 60 * GIB)
        first, _ = host.answering(before, f"vllm:{DISTILL}")
    with launches.sglang(tmp_path, model=R1, port=port) as after:
        after.hold(host.driver, 90 * GIB)
        second, metrics = host.answering(after, f"sglang:{R1}")
        assert not series_of(metrics, first)
        assert deployments_on(metrics, 0) == {second}
        assert info_of(metrics, second)["model"] == R1


# What was declared


DECLARED = """
[[deployments]]
name = "chat"
model = "deepseek-ai/DeepSeek-R1"
engine = "vllm"
devices = [0, 1]
tp = 2
max_model_len = 32768
"""


def test_a_declared_deployment_takes_the_engine_that_runs_and_says_what_differs(
    host: Host, tmp_path: Path
) -> None:
    host.daemon.config_file.write_text(DECLARED)
    assert host.daemon.ctl("reload").returncode == 0
    try:
        host.seen("chat", "declared_only")
        flags = ("--max-model-len", "65536")
        with launches.vllm(tmp_path, model=R1, port=free_port(), tp=2, flags=flags) as engine:
            engine.hold(host.driver, 120 * GIB)
            _, metrics = host.answering(engine, "chat")
            assert deployments_on(metrics, 0) == {"chat"}
            assert held_on(metrics, 0)["chat"] == 120 * GIB
            fields = {
                labels["field"]: matches
                for labels, matches in metrics["deepseek_deployment_matches_declaration"]
            }
            assert (fields["model"], fields["tp"], fields["max_model_len"]) == (1, 1, 0)
        host.seen("chat", "declared_only")
    finally:
        host.daemon.config_file.write_text("")
        host.daemon.ctl("reload")


# What nobody may read


def test_keys_of_command_lines_environments_and_answers_are_in_no_output(host: Host, tmp_path: Path) -> None:
    flags = (
        *("--api-key", f"sk-{CANARY}", "--hf-token", f"hf_{CANARY}"),
        *("--ssl-keyfile-password", CANARY, "--override-neuron-config", json.dumps({"token": CANARY})),
    )
    env = {"HF_TOKEN": f"hf_{CANARY}", "VLLM_API_KEY": f"sk-{CANARY}", "CUDA_VISIBLE_DEVICES": "0,1"}
    with launches.vllm(
        tmp_path, model=R1, port=free_port(), tp=2, flags=flags, env=env, wrap=launches.in_shell
    ) as engine:
        engine.answer("/version", Answer(json.dumps({"version": "0.33.0", "api_key": CANARY})))
        engine.hold(host.driver, 100 * GIB)
        host.answering(engine, f"vllm:{R1}")
        assert_secret(host, CANARY)
        assert "authorization" not in engine.requests.lower()


def test_a_model_at_a_secret_path_is_shown_by_its_last_part_only(host: Host, tmp_path: Path) -> None:
    model = f"/srv/{CANARY}/DeepSeek-R1"
    with launches.vllm(tmp_path, model=model, port=free_port(), tp=2) as engine:
        engine.hold(host.driver, 100 * GIB)
        name, metrics = host.answering(engine, "vllm:DeepSeek-R1")
        assert info_of(metrics, name)["model"] == R1
        assert_secret(host, CANARY)


def assert_secret(host: Host, secret: str) -> None:
    """Metrics, page, every JSON and the log at debug level."""
    outputs = {
        path: host.daemon.get(path)[1].decode() for path in ("/metrics", "/", "/api/v1/snapshot", "/-/ready")
    }
    outputs["snapshot"] = json.dumps(host.daemon.request("snapshot"))
    outputs["status"] = json.dumps(host.daemon.request("status"))
    outputs["log"] = host.daemon.log()
    assert [name for name, text in outputs.items() if secret in text] == []


def folder(directory: Path, name: str) -> Path:
    made = directory / name
    made.mkdir()
    return made
