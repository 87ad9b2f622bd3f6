"""What launches say of nodes and of the way between them: compared with the host, and never shown."""

from __future__ import annotations

import json

import pytest

from exporter.capacity.launched import spec_of
from exporter.engines.launch import Launch, Link, deployment_of, read_command, read_launch

VLLM = ["vllm", "serve", "deepseek-ai/DeepSeek-R1"]
SGLANG = ["python", "-m", "sglang.launch_server", "--model-path", "deepseek-ai/DeepSeek-R1"]


def vllm(*arguments: str, **environment: str) -> Launch:
    return read_launch([*VLLM, *arguments], environment)


def sglang(*arguments: str, **environment: str) -> Launch:
    return read_launch([*SGLANG, *arguments], environment)


def test_where_ranks_meet_and_by_which_interface() -> None:
    assert vllm("--master-addr", "10.0.0.1").link == Link(rendezvous="10.0.0.1")
    assert vllm("-dpa", "10.0.0.2").link == Link(rendezvous="10.0.0.2")
    assert sglang("--dist-init-addr", "10.0.0.1:5757").link == Link(rendezvous="10.0.0.1:5757")
    assert vllm(NCCL_SOCKET_IFNAME="^docker0,lo", NCCL_IB_HCA="=mlx5_0:1", NCCL_IB_DISABLE="1").link == Link(
        "^docker0,lo", "=mlx5_0:1", False
    )
    assert sglang(GLOO_SOCKET_IFNAME="eth3").link == Link("eth3")
    assert sglang(NCCL_SOCKET_IFNAME="eth1", GLOO_SOCKET_IFNAME="eth3").link == Link("eth1")
    assert vllm().link is None
    assert vllm(NCCL_SOCKET_IFNAME="a b;rm", NCCL_IB_DISABLE="0").link is None


@pytest.mark.parametrize(
    ("line", "node"),
    [
        ("vllm serve m -tp 16 --nnodes 2 --node-rank 1", (1, 2)),
        ("vllm serve m -tp 16 --nnodes 2", (0, 2)),
        ("vllm serve m -dp 16 -dpl 8", (0, 2)),
        ("vllm serve m -dp 32 --data-parallel-size-local 8 --data-parallel-start-rank 24 --headless", (3, 4)),
        ("vllm serve m -dp 12 -dpl 8", (0, 1)),
        ("vllm serve m -tp 8", (0, 1)),
        ("python -m sglang.launch_server --model m --tp 16 --nnodes 2 --node-rank 1", (1, 2)),
    ],
)
def test_which_node_this_is(line: str, node: tuple[int, int]) -> None:
    assert read_command(line).node == node


def test_what_carries_tokens_to_experts() -> None:
    assert vllm("--all2all-backend", "deepep_low_latency").all_to_all == "deepep_low_latency"
    assert vllm(VLLM_ALL2ALL_BACKEND="pplx").all_to_all == "pplx"
    assert sglang("--moe-a2a-backend=deepep").all_to_all == "deepep"
    assert sglang("--enable-deepep-moe").all_to_all == "deepep"
    assert sglang().all_to_all is None


def test_which_half_a_server_does() -> None:
    for role, half in (("kv_producer", "prefill"), ("kv_consumer", "decode"), ("kv_both", None)):
        assert vllm("--kv-transfer-config", json.dumps({"kv_role": role})).disaggregation == half
    assert vllm("--kv-transfer-config", "{broken").disaggregation is None
    assert sglang("--disaggregation-mode", "decode").disaggregation == "decode"
    assert sglang("--disaggregation-mode", "null").disaggregation is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("--kv-transfer-config", "{broken"),
        ("--master-addr", "$MASTER;x"),
        ("--all2all-backend", "two words"),
    ],
)
def test_a_strange_word_costs_no_expectation(arguments: tuple[str, ...]) -> None:
    assert vllm(*arguments).problems == ()
    assert sglang("--dist-init-addr", "$A:5").problems == ()


def test_none_of_it_is_in_the_answer() -> None:
    said = vllm("--master-addr", "10.99.98.97", NCCL_SOCKET_IFNAME="canary0", NCCL_IB_HCA="canary_1")
    shown = json.dumps(deployment_of(said))
    assert "10.99.98.97" not in shown and "canary" not in shown


def test_ranks_of_a_kind_that_is_not_known_leave_the_nodes_unknown() -> None:
    plain = spec_of(vllm("-tp", "8", "--nnodes", "2", "-pp", "2"), "x")
    contexts = spec_of(vllm("-tp", "8", "--nnodes", "2", "-pcp", "2"), "x")
    assert plain is not None and contexts is not None
    assert (plain.nodes, contexts.nodes) == (2, 1)
