"""Discovery: which process trees are engines, what belongs to them, and that only what is allowed is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from engine_processes import R1, Host, vllm_of

SECRET = "sk-canary-5678"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


LOOPBACK = "0100007F"
ANY = "00000000"


def test_a_tree_of_eight_ranks_is_one_instance_with_the_launch_of_its_server(host: Host) -> None:
    vllm_of(host, 10, 8, "--api-key", SECRET, listens={8000: ANY})
    one = host.only()
    assert (one.engine, one.launch.model, one.launch.tp) == ("vllm", R1, 8)
    assert one.pids == frozenset(range(10, 20))
    assert one.door is not None
    assert (one.door.host, one.door.port) == ("127.0.0.1", 8000)
    assert SECRET not in repr(host.discovery.look())


def test_a_forked_worker_that_shows_the_servers_own_line_is_not_a_second_one(host: Host) -> None:
    host.run(10, "vllm", "serve", R1)
    host.run(11, "vllm", "serve", R1, parent=10)
    assert host.only().pids == {10, 11}


@pytest.mark.parametrize(
    "wrapper",
    [
        ("sh", "-c", f"cd /srv; vllm serve {R1}"),
        ("docker", "run", "--rm", "vllm/vllm-openai", "--model", R1),
        ("uv", "run", "vllm", "serve", R1),
    ],
)
def test_what_starts_an_engine_is_not_the_engine(host: Host, wrapper: tuple[str, ...]) -> None:
    host.run(10, *wrapper)
    assert host.look() == ()
    host.run(11, "vllm", "serve", R1, parent=10)
    assert host.only().root.pid == 11


@pytest.mark.parametrize(
    "line",
    [
        ("vllm", "bench", "serve", "--model", R1),
        ("vim", "vllm", "serve", R1),
        ("python3", "client.py", "--engine", "vllm serve"),
        ("ollama", "run", "deepseek-r1"),
        ("ollama", "serve"),
    ],
)
def test_clients_and_whoever_mentions_an_engine_are_none(host: Host, line: tuple[str, ...]) -> None:
    host.run(10, *line)
    assert host.look() == ()


def test_workers_whose_server_is_gone_are_an_orphan(host: Host) -> None:
    vllm_of(host, 10, 2)
    host.look()
    for pid in (10, 11):
        host.end(pid)
    for pid in (12, 13):
        host.end(pid)
        host.run(pid, f"VLLM::Worker_TP{pid - 12}", parent=1, padding=200)
    one = host.only()
    assert one.orphaned
    assert one.pids == {12, 13}
    assert one.door is None


def test_a_worker_below_a_program_that_lives_is_no_orphan(host: Host) -> None:
    host.run(10, "python3", "offline_inference.py")
    host.run(11, "VLLM::EngineCore", parent=10)
    assert host.look() == ()


def test_ray_workers_belong_to_the_only_server_that_they_can_be_of(host: Host) -> None:
    host.run(5, "/ray/raylet/raylet", unit="ray.service")
    host.run(6, "ray::RayWorkerProc.execute_method", parent=5)
    host.run(10, "vllm", "serve", R1)
    assert host.only().pids == {6, 10}


def test_every_model_that_ollama_has_loaded_is_an_instance_behind_the_servers_door(host: Host) -> None:
    host.run(10, "/usr/bin/ollama", "serve", listens={11434: LOOPBACK})
    for pid, digit in ((11, "a"), (12, "b")):
        blob = f"/var/ollama/blobs/sha256-{digit * 64}"
        host.run(pid, "/usr/bin/ollama", "runner", "--model", blob, "--port", str(40000 + pid), parent=10)
    first, second = host.look()
    assert (first.engine, first.pids, second.pids) == ("ollama", {11}, {12})
    assert first.server.pid == second.server.pid == 10
    assert first.door is not None
    assert first.door.port == 11434


def test_ranks_that_one_launcher_started_are_one_instance(host: Host) -> None:
    host.run(10, "mpirun", "-n", "2", "trtllm-llmapi-launch", "trtllm-serve", R1)
    for pid in (11, 12):
        host.run(pid, "trtllm-serve", R1, parent=10)
    assert host.only().pids == {11, 12}


def test_a_port_that_another_tree_listens_on_is_not_this_ones_door(host: Host) -> None:
    host.run(10, "vllm", "serve", R1)
    host.run(20, "nginx", listens={8000: ANY})
    shutil.copy(host.proc / "20" / "net" / "tcp", host.proc / "10" / "net" / "tcp")
    one = host.only()
    assert one.door is None
    assert one.door_problem == "it does not listen yet"


def test_a_door_that_opens_later_is_found(host: Host) -> None:
    host.run(10, "vllm", "serve", R1, "--port", "8123")
    assert host.only().door is None
    host.end(10)
    host.run(10, "vllm", "serve", R1, "--port", "8123", listens={8123: LOOPBACK})
    door = host.only().door
    assert door is not None
    assert door.port == 8123


def test_environment_counts_where_it_may_be_read(host: Host) -> None:
    env = {"CUDA_VISIBLE_DEVICES": "2,3", "LLAMA_ARG_CTX_SIZE": "8192", "TOKEN": SECRET}
    host.run(10, "llama-server", "-m", "/srv/DeepSeek-R1-Q4_K_M.gguf", env=env)
    one = host.only()
    assert one.environment_read
    assert one.visible_devices == ("2", "3")
    assert one.launch.max_model_len == 8192
    assert SECRET not in repr(one)


@pytest.mark.parametrize(
    ("env", "visible"),
    [
        ({"HIP_VISIBLE_DEVICES": "4,5"}, ("4", "5")),
        ({"ROCR_VISIBLE_DEVICES": "GPU-1f9de0957d137942,3"}, ("GPU-1f9de0957d137942", "3")),
        ({"ROCR_VISIBLE_DEVICES": "4,5,6,7", "HIP_VISIBLE_DEVICES": "1,3"}, ("5", "7")),
        ({"ROCR_VISIBLE_DEVICES": "4,5", "CUDA_VISIBLE_DEVICES": "1,2"}, ("5",)),
        ({"ASCEND_RT_VISIBLE_DEVICES": "4,5,6,7"}, ("4", "5", "6", "7")),
        ({"ASCEND_VISIBLE_DEVICES": "4,5,6,7", "ASCEND_RT_VISIBLE_DEVICES": "0,1"}, ("4", "5")),
        ({"HIP_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": ""}, None),
    ],
)
def test_what_rocm_shows_to_a_program_counts_as_it_counts(
    host: Host, env: dict[str, str], visible: tuple[str, ...] | None
) -> None:
    host.run(10, "vllm", "serve", R1, env=env)
    assert host.only().visible_devices == visible


def test_a_pid_that_is_used_again_is_another_instance(host: Host) -> None:
    host.run(10, "vllm", "serve", R1, start=100)
    before = host.only()
    host.end(10)
    host.run(10, "sglang", "serve", "--model-path", R1, start=900)
    after = host.only()
    assert (before.engine, after.engine) == ("vllm", "sglang")
    assert before.key != after.key
    assert not host.table.is_alive(before.root)
    assert host.table.is_alive(after.root)


def test_what_is_left_of_a_process_that_ended_is_not_alive(host: Host) -> None:
    host.run(10, "vllm", "serve", R1)
    root = host.only().root
    stat = host.proc / "10" / "stat"
    stat.write_text(stat.read_text().replace(") S ", ") Z "))
    assert not host.table.is_alive(root)


def test_a_quick_look_sees_who_came_and_who_went(host: Host) -> None:
    host.run(10, "vllm", "serve", R1)
    for _ in range(6):
        host.look()
    host.run(20, "sglang", "serve", "--model-path", R1)
    assert [one.engine for one in host.discovery.look(thorough=False).instances] == ["vllm", "sglang"]
    host.end(10)
    assert [one.engine for one in host.discovery.look(thorough=False).instances] == ["sglang"]
