"""What a placement sends between its nodes for each token, held against figures that were worked out apart.

The reference's vectors for V3 and R1 (bytes a token): pipeline 14,336; TP 16 by one ring 3.28 MB; experts on
at most four other nodes 4.99 MB, without a limit 9.98 MB; the cache of a prompt of 4,096 tokens 288 MB.
"""

from __future__ import annotations

from dataclasses import replace
from math import comb
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.footprint.deployment import DeploymentSpec, DeviceShape, FootprintError
from exporter.footprint.estimate import estimate, resolve_job
from exporter.footprint.result import NetworkFootprint, Traffic
from exporter.footprint.traffic import network_of, remote_nodes
from exporter.models.blocks import MixtureOfExperts
from exporter.models.catalog import catalog
from exporter.models.rows import architectures
from exporter.units import MIB

R1, LLAMA = "deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"
HIDDEN, LAYERS, SPARSE, VOCABULARY = 7168, 61, 58, 129_280
STATE = 2 * HIDDEN
V3_EXPERTS = architectures()["deepseek-v3"].experts
DP_ATTENTION = {"engine": "sglang", "tp": 16, "dp": 16, "dp_attention": True, "nodes": 2}


def network(model: str = R1, engine: str = "vllm", **settings: Any) -> NetworkFootprint | None:
    spec = DeploymentSpec("x", model, engine, **settings)
    return network_of(resolve_job(spec, (), catalog(), None))


def kinds(**settings: Any) -> dict[str, tuple[int, int]]:
    found = network(**settings)
    assert found is not None
    return {kind: (one.low_bytes, one.high_bytes) for kind, one in found.kinds.items()}


def test_one_node_sends_nothing() -> None:
    assert network(tp=8) is None
    assert network(tp=8, nodes=1, speculative="mtp") is None
    assert network(engine="llama.cpp", quantization="Q4_K_M", nodes=2) is None


def test_a_stage_hands_on_the_hidden_state_and_perhaps_the_residual() -> None:
    assert kinds(tp=8, pp=2, nodes=2) == {"pp": (14_336, 28_672)}
    # However many stages, a node hands on once.
    assert kinds(tp=4, pp=4, nodes=2) == {"pp": (14_336, 28_672)}


def test_tensor_ranks_over_two_nodes_all_reduce_twice_a_layer() -> None:
    ring = 2 * 15 / 16 * STATE
    assert 122 * ring == 3_279_360  # the reference: without embedding and logits
    reduced, logits = 123 * ring, 15 / 16 * VOCABULARY * 2
    assert kinds(tp=16, nodes=2) == {"tp": (123 * STATE, round(reduced + logits))}


def test_over_more_nodes_an_inner_node_of_the_tree_sends_twice() -> None:
    low, high = kinds(tp=32, nodes=4, model=LLAMA)["tp"]
    layers, state = 80, 2 * 8192
    assert low == round(2 * 3 / 4 * (1 + 2 * layers) * state)
    assert high == 2 * (1 + 2 * layers) * state + 128_256 * 2


def test_a_tensor_group_inside_its_node_sends_nothing() -> None:
    assert network(LLAMA, tp=8, dp=2, nodes=2) is None


def test_expert_parallelism_beside_one_replica_is_an_all_reduce_like_any() -> None:
    assert kinds(tp=16, ep=16, nodes=2) == kinds(tp=16, nodes=2)


def test_replicas_gather_their_tokens_for_the_experts() -> None:
    low, high = kinds(tp=1, dp=16, ep=16, nodes=2)["dp"]
    assert low == SPARSE * STATE
    assert high == round(1.5 * SPARSE * 2 * 15 / 16 * STATE)


def test_data_parallel_attention_gathers_in_every_layer() -> None:
    low, high = kinds(**DP_ATTENTION)["dp"]
    assert (low, high) == (LAYERS * STATE, round(2 * LAYERS * 2 * 15 / 16 * STATE))


def test_tokens_go_to_their_experts_alone_where_the_backend_can() -> None:
    found = kinds(**DP_ATTENTION, ep=16, all_to_all="deepep")
    each = HIDDEN * (1 + 4 / 128 + 2)
    # Low-latency kernels: a copy for each of 8 experts, of which half are on the other node; two nodes send.
    assert found["ep"][1] == -(-SPARSE * 8 * each // 4)
    copies = remote_nodes(_v3(), 2)
    assert found["ep"][0] == round(SPARSE * copies * each / 2)
    assert found["dp"] == (3 * STATE, round(2 * 3 * 2 * 15 / 16 * STATE))  # the three dense layers
    whole = kinds(**DP_ATTENTION, ep=16, all_to_all="deepep", moe_dense_tp=1)
    assert list(whole) == ["ep"]


def _v3() -> MixtureOfExperts:
    assert V3_EXPERTS is not None
    return V3_EXPERTS


def test_the_references_figures_of_experts_are_the_ends_of_many_nodes() -> None:
    """They count a copy for each of four nodes, or eight experts, scales not, and none as the node's own."""
    assert SPARSE * 4 * HIDDEN * 3 == 4_988_928
    assert SPARSE * 8 * HIDDEN * 3 == 9_977_856
    assert (_v3().groups, _v3().active_groups) == (8, 4)
    assert remote_nodes(_v3(), 8) < 4
    sixteen = kinds(
        engine="sglang", tp=128, dp=128, dp_attention=True, moe_dense_tp=1, nodes=16, all_to_all="deepep"
    )["ep"]
    # A node sends for all: of one of its own tokens, 16 times that.
    assert 16 * sixteen[1] == pytest.approx(9_977_856 * 15 / 16 * 3.03125 / 3, rel=1e-4)


def test_bf16_experts_are_sent_in_bf16() -> None:
    fp8 = kinds(**DP_ATTENTION, all_to_all="deepep", moe_dense_tp=1)["ep"]
    bf16 = kinds(**DP_ATTENTION, all_to_all="deepep", moe_dense_tp=1, quantization="bf16")["ep"]
    assert [round(b / f, 3) for b, f in zip(bf16, fp8, strict=True)] == [1.32, 1.32]


def brute_remote_nodes(experts: MixtureOfExperts, nodes: int) -> float:
    """P(a node is missed), summed over which groups are chosen, from the definition."""
    size, per_node = experts.routed // experts.groups, experts.routed // nodes
    missed = 0.0
    owners = range(per_node)  # the first node's experts
    for chosen in range(1 << experts.groups):
        groups = [group for group in range(experts.groups) if chosen >> group & 1]
        if len(groups) != experts.active_groups:
            continue
        pool = [group * size + one for group in groups for one in range(size)]
        elsewhere = sum(expert not in owners for expert in pool)
        missed += comb(elsewhere, experts.active) / comb(len(pool), experts.active)
    return (nodes - 1) * (1 - missed / comb(experts.groups, experts.active_groups))


@pytest.mark.parametrize("nodes", [2, 4, 8, 16, 32])
@pytest.mark.parametrize(("groups", "active_groups"), [(8, 4), (8, 8), (1, 1), (4, 2)])
def test_how_many_nodes_a_token_visits(nodes: int, groups: int, active_groups: int) -> None:
    experts = replace(_v3(), groups=groups, active_groups=active_groups)
    assert remote_nodes(experts, nodes) == pytest.approx(brute_remote_nodes(experts, nodes))


def test_numbers_of_groups_that_cannot_be_are_as_none() -> None:
    odd = replace(_v3(), groups=256, active_groups=1)
    assert remote_nodes(odd, 4) == remote_nodes(replace(odd, groups=1), 4)


def test_a_cache_is_handed_on_once_or_once_for_each_tensor_rank() -> None:
    once, replicated = kinds(engine="sglang", tp=8, disaggregation="prefill")["kv_transfer"]
    assert once == 70_272 and once * 4096 == 287_834_112
    assert replicated == 8 * once
    spread = kinds(engine="sglang", tp=8, dp=8, dp_attention=True, disaggregation="decode")["kv_transfer"]
    assert spread == (once, once)
    heads = kinds(model=LLAMA, tp=8, disaggregation="prefill")["kv_transfer"]
    assert heads == (327_680, 327_680)  # whole heads are on one rank each


def test_only_a_prefill_pays_the_cache_with_every_token() -> None:
    prefill = network(engine="sglang", tp=16, nodes=2, disaggregation="prefill")
    decode = network(engine="sglang", tp=16, nodes=2, disaggregation="decode")
    alone = network(engine="sglang", tp=8, disaggregation="decode")
    assert prefill is not None and decode is not None and alone is not None
    assert prefill.total == total(prefill, "tp", "kv_transfer")
    assert decode.total == total(decode, "tp")
    assert alone.total is None


def total(found: NetworkFootprint, *names: str) -> Traffic:
    low = sum(found.kinds[name].low_bytes for name in names)
    return Traffic(low, sum(found.kinds[name].high_bytes for name in names))


def test_drafted_tokens_cost_what_tokens_cost() -> None:
    plain = kinds(tp=16, nodes=2)["tp"]
    drafted = kinds(tp=16, nodes=2, speculative="mtp", speculative_tokens=3)["tp"]
    assert drafted[0] == pytest.approx(plain[0] * (1 + 3 / 4 / LAYERS), abs=1)
    assert drafted[1] == pytest.approx(plain[1] * (4 + 3 / LAYERS), abs=1)
    ngram = kinds(tp=16, nodes=2, speculative="ngram", speculative_tokens=3)["tp"]
    assert (ngram[0], ngram[1] / plain[1]) == (plain[0], 4)
    assert kinds(tp=16, nodes=2, speculative="off")["tp"] == plain


def test_ranks_that_do_not_divide_over_the_nodes_are_not_answered() -> None:
    assert network(tp=8, nodes=3) is None
    assert network(tp=65536, nodes=2) is None
    assert network(engine="sglang", tp=16, dp=3, dp_attention=True, nodes=2) is None


def test_the_footprint_has_it() -> None:
    devices = tuple(DeviceShape(index, 143_771 * MIB, 614 * MIB) for index in range(16))
    spec = DeploymentSpec("r1", R1, "vllm", tp=16, nodes=2)
    assert estimate(spec, devices, catalog()).network == network(tp=16, nodes=2)


@given(
    engine=st.sampled_from(["vllm", "sglang", "lmdeploy"]),
    model=st.sampled_from([R1, LLAMA, "deepseek-ai/DeepSeek-V2", "deepseek-ai/DeepSeek-V4-Pro"]),
    sizes=st.tuples(*[st.sampled_from([1, 2, 3, 4, 8, 16])] * 4),
    inside=st.booleans(),
    backend=st.sampled_from([None, "none", "deepep", "pplx"]),
    half=st.sampled_from([None, "prefill", "decode"]),
    speculative=st.sampled_from([None, "mtp", "ngram", "eagle"]),
)
def test_every_placement_is_answered_with_ends_in_order(
    engine: str,
    model: str,
    sizes: tuple[int, ...],
    inside: bool,
    backend: str | None,
    half: str | None,
    speculative: str | None,
) -> None:
    tp, pp, dp, nodes = sizes
    try:
        found = network(
            model, engine, tp=tp, pp=pp, dp=dp, nodes=nodes, dp_attention=inside and engine == "sglang",
            all_to_all=backend, disaggregation=half, speculative=speculative,
        )  # fmt: skip
    except FootprintError:
        return
    if found is not None:
        assert (nodes > 1) or set(found.kinds) == {"kv_transfer"}
        for one in (*found.kinds.values(), *([found.total] if found.total else [])):
            assert 0 <= one.low_bytes <= one.high_bytes > 0
