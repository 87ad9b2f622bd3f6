"""A secret anywhere on a line, in a variable or in a prompt reaches neither launch nor error."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.engines.launch import LaunchError, deployment_of, read_command, read_launch

CANARY = "canary-7f3a"

SERVERS = [
    ["vllm", "serve", "org/model", "--tensor-parallel-size", "8"],
    ["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "org/model"],
    ["python3", "-m", "sglang.launch_server", "--model-path", "org/model", "--tp", "8"],
    ["llama-server", "-m", "/srv/a.gguf", "-c", "4096"],
    ["python3", "-m", "llama_cpp.server", "--model", "/srv/a.gguf"],
    ["ollama", "serve"],
    ["ollama", "runner", "--model", "/srv/blob", "--port", "4"],
    ["ktransformers", "--model_path", "org/model"],
    ["lmdeploy", "serve", "api_server", "org/model"],
    ["trtllm-serve", "org/model", "--tp_size", "8"],
    ["text-generation-launcher", "--model-id", "org/model"],
    ["docker", "run", "vllm/vllm-openai:v0.9.0", "--model", "org/model"],
    ["vllm", "bench", "serve"],
    ["ollama", "run", "deepseek-r1"],
    ["python", "script.py"],
]

SECRETS = st.sampled_from(
    [
        ["--api-key", CANARY],
        [f"--api-key={CANARY}"],
        ["--api_key", CANARY],
        ["--api-keys", CANARY, CANARY],
        ["--hf-token", f"hf_{CANARY}"],
        ["--admin-api-key", CANARY],
        ["--never-heard-of", CANARY],
        [f"--never-heard-of={CANARY}"],
        ["-x", CANARY],
        ["--ssl-keyfile", f"/srv/{CANARY}.pem"],
        ["--chat-template", f"{{{{ {CANARY} }}}}"],
        ["-p", f"tell me {CANARY}"],
        ["--prompt", f"- {CANARY}"],
        ["--system_prompt", CANARY],
        ["-e", f"HF_TOKEN={CANARY}"],
        ["--header", f"Authorization=Bearer {CANARY}"],
        ["--otlp-traces-endpoint", f"https://user:{CANARY}@host/x"],
        ["--model-url", f"https://user:{CANARY}@host/a.gguf?token={CANARY}"],
        ["--speculative-config", json.dumps({"method": "mtp", "token": CANARY})],
        ["--speculative-config", f"{{broken {CANARY}"],
        ["--additional-config", json.dumps({"key": CANARY})],
        ["--compilation-config.pass_key", CANARY],
        ["--max-model-len", CANARY],
        ["-tp", CANARY],
        ["--port", CANARY],
        ["--host", f"user:{CANARY}@0.0.0.0"],
        ["--rpc", f"user:{CANARY}@host:1"],
        ["--gpu-memory-utilization", CANARY],
        ["--config", CANARY],
        ["--", CANARY],
    ]
)
VARIABLES = st.dictionaries(
    st.sampled_from(
        ["HF_TOKEN", "VLLM_API_KEY", "LLAMA_API_KEY", "HTTPS_PROXY", "API_KEY", "LLAMA_ARG_API_KEY_FILE"]
    ),
    st.sampled_from([CANARY, f"http://svc:{CANARY}@proxy:3128"]),
)


@given(st.sampled_from(SERVERS), st.lists(SECRETS, min_size=1, max_size=4), VARIABLES)
def test_no_secret_is_in_a_launch(server: list[str], secrets: list[list[str]], env: dict[str, str]) -> None:
    launch = read_launch([*server, *(word for one in secrets for word in one)], env)
    said = repr(launch) + json.dumps(deployment_of(launch))
    assert "7f3a" not in said and "canary" not in said


@given(st.sampled_from(SERVERS), st.lists(SECRETS, min_size=1, max_size=3), st.booleans())
def test_no_secret_is_in_the_reading_of_a_shell_line(
    server: list[str], secrets: list[list[str]], broken: bool
) -> None:
    words = [*server, *(word for one in secrets for word in one)]
    line = " ".join(shlex.quote(word) for word in words) + (f' "{CANARY}' if broken else "")
    try:
        said = repr(read_command(f"TOKEN={CANARY} {line}"))
    except LaunchError as error:
        said = repr(error)
    assert "canary" not in said


@given(st.sampled_from(SERVERS), st.lists(SECRETS, max_size=2), st.sampled_from(["sh", "bash"]))
def test_no_secret_is_in_the_reading_of_a_launcher(
    server: list[str], secrets: list[list[str]], shell: str
) -> None:
    words = [*server, *(word for one in secrets for word in one)]
    line = " ".join(shlex.quote(word) for word in words)
    assert "canary" not in repr(read_launch([shell, "-c", f"export K={CANARY}; exec {line}"], {}))


@pytest.mark.parametrize("prefix", ["sk-", "hf_", "ghp_", "nvapi-", "Bearer "])
def test_a_name_that_is_shaped_like_a_key_is_dropped(prefix: str) -> None:
    launch = read_launch(["vllm", "serve", "--served-model-name", f"{prefix}{CANARY}", "--port", "1"], {})
    assert launch.served_model is None
    assert "canary" not in repr(launch)


@given(
    st.lists(st.text(max_size=40), max_size=12), st.dictionaries(st.text(max_size=20), st.text(max_size=20))
)
def test_any_arguments_are_read(argv: list[str], env: dict[str, str]) -> None:
    try:
        read_launch(argv, env)
    except LaunchError as error:
        assert "quote" in str(error)


@given(st.sampled_from(SERVERS), st.lists(st.text(max_size=30), max_size=10))
def test_any_arguments_of_a_server_are_read(server: list[str], arguments: list[str]) -> None:
    read_launch([*server, *arguments], {})


def test_a_line_longer_than_linux_allows_is_refused() -> None:
    with pytest.raises(LaunchError, match="longer than Linux allows"):
        read_launch(["vllm", "serve", *("x" * 1000 for _ in range(3000))])


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("https://user:canary@host/a.gguf", "https://host/a.gguf"),
        ("https://user:can/ary@host/a.gguf", "https://host/a.gguf"),
        ("https://user:can@ary@host/a.gguf", "https://host/a.gguf"),
        ("https://canary@host/a.gguf", "https://host/a.gguf"),
        ("https://host/a.gguf?token=canary", "https://host/a.gguf"),
        ("https://host/a.gguf#canary", "https://host/a.gguf"),
        ("s3://key:canary@bucket/model", "s3://bucket/model"),
        ("user:canary@host/a.gguf", "host/a.gguf"),
        ("hf.co/org/name:Q4_K_M", "hf.co/org/name:Q4_K_M"),
        ("s3://bucket/name@v2", "s3://bucket/name@v2"),
    ],
)
def test_credentials_of_a_url_are_removed(said: str, read: str) -> None:
    assert read_launch(["llama-server", "-mu", said], {}).model == read


def test_a_folder_is_not_taken_for_a_key() -> None:
    assert read_launch(["vllm", "serve", "/srv/task-sk-1/model"], {}).model == "/srv/task-sk-1/model"
