"""Engines besides vLLM, SGLang and llama.cpp, older releases, drafts, and RAM beside the devices."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from exporter.footprint.answer import Answer, footprint_answer, to_plain
from exporter.footprint.deployment import DeploymentSpec, DeviceShape, FootprintError, HostShape
from exporter.footprint.estimate import estimate
from exporter.footprint.gpus import shapes
from exporter.footprint.result import Term
from exporter.models.catalog import UnknownQuantization, catalog
from exporter.units import GIB

R1 = DeploymentSpec("r1", "deepseek-ai/DeepSeek-R1", "vllm", tp=8, max_model_len=8192)
QWEN_7B = DeploymentSpec("q", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "lmdeploy", max_model_len=8192)
R1_GGUF = DeploymentSpec("g", "deepseek-ai/DeepSeek-R1", "ktransformers", "Q4_K_M", max_model_len=8192)
RTX_4090 = DeviceShape(0, 24 * GIB)


def ask(spec: DeploymentSpec, gpus: int | None = None, size: int | None = None) -> Answer:
    devices = shapes(size, gpus or 0) if size is not None else None
    return footprint_answer(spec, devices, gpus, catalog())


@pytest.mark.parametrize(("engine", "share"), [("lmdeploy", 0.8), ("tensorrt-llm", 0.9), ("tgi", 0.9)])
def test_the_pool_is_a_share_of_what_loading_leaves(engine: str, share: float) -> None:
    rank = ask(replace(QWEN_7B, engine=engine), 1, 80 * GIB).devices[0]
    free = 80 * GIB - rank.components["weights"].low_bytes
    pool = rank.components["kv_cache"]
    assert 0.8 * share * free < pool.low_bytes < pool.high_bytes < share * free


def test_a_declared_share_is_taken() -> None:
    half = ask(replace(QWEN_7B, memory_fraction=0.4), 1, 80 * GIB)
    whole = ask(QWEN_7B, 1, 80 * GIB)
    ratio = (
        half.devices[0].components["kv_cache"].low_bytes / whole.devices[0].components["kv_cache"].low_bytes
    )
    assert ratio == pytest.approx(0.5, rel=0.001)


@pytest.mark.parametrize(
    ("policy", "bytes_per_token"), [("8", 28 * 2 * 4 * 132), ("4", 28 * 2 * 4 * 68), ("0", 57_344)]
)
def test_lmdeploys_quantized_cache_has_a_scale_and_a_zero_for_each_head(
    policy: str, bytes_per_token: int
) -> None:
    assert ask(replace(QWEN_7B, kv_cache_dtype=policy)).kv_cache.bytes_per_token == bytes_per_token


def test_ktransformers_keeps_routed_experts_in_ram_and_the_rest_on_the_device() -> None:
    answer = ask(R1_GGUF, 1)
    experts = answer.host.components["experts"].low_bytes
    device = answer.devices[0].components["weights"].low_bytes
    assert 0.96 < experts / (experts + device + answer.host.components["weights"].low_bytes) < 0.98
    assert answer.kv_cache.bytes_per_token == 70_272


def test_ktransformers_may_keep_a_copy_of_the_experts_on_each_node() -> None:
    def experts(spec: DeploymentSpec, nodes: int | None) -> Term:
        host = HostShape(1024 * GIB, numa_nodes=nodes)
        return estimate(spec, [RTX_4090], catalog(), host).host.components["experts"]

    once = experts(R1_GGUF, 1)
    assert once.low_bytes == once.high_bytes
    assert [experts(R1_GGUF, nodes).high_bytes // once.low_bytes for nodes in (None, 2, 4)] == [2, 2, 4]
    # 1 TB of RAM is what its documentation asks for where both sockets have a copy.
    both = experts(replace(R1_GGUF, expert_copies=2), 2)
    assert both.low_bytes == both.high_bytes == 2 * once.low_bytes
    # kt-kernel cuts each expert over the nodes instead of copying it.
    assert experts(replace(R1_GGUF, expert_copies=1), 2) == once


def test_ktransformers_reads_the_active_experts_from_ram_for_each_token() -> None:
    host = estimate(R1_GGUF, [RTX_4090], catalog()).host
    assert host.token_read_bytes == host.components["experts"].low_bytes * 8 // 256
    half = estimate(replace(R1_GGUF, experts_on_gpu=128), [RTX_4090], catalog()).host
    assert half.token_read_bytes == pytest.approx((host.token_read_bytes or 0) / 2, rel=1e-9)


def test_ktransformers_needs_experts() -> None:
    with pytest.raises(FootprintError, match="routed experts"):
        ask(replace(R1_GGUF, model="deepseek-ai/DeepSeek-R1-Distill-Llama-8B"), 1)


def test_transformers_keeps_keys_and_values_of_all_heads_and_reserves_nothing() -> None:
    answer = ask(replace(R1, engine="transformers", tp=1, quantization="bf16"), 8)
    assert answer.kv_cache.bytes_per_token == 4_997_120
    assert answer.kv_cache.capacity_tokens is None
    assert len(answer.devices) == 8
    assert answer.devices[0].components["kv_cache"].low_bytes == 0


def test_llama_cpp_python_takes_2048_tokens_and_no_device_by_default() -> None:
    spec = DeploymentSpec("p", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "llama-cpp-python", "Q4_K_M")
    answer = ask(spec, 1)
    assert answer.kv_cache.capacity_tokens == 2048
    assert answer.devices[0].components["weights"].low_bytes == 0


def test_releases_before_latent_rows_keep_padded_heads_and_no_absorbed_copies() -> None:
    old, new = (
        ask(DeploymentSpec("l", "deepseek-ai/DeepSeek-V2-Lite", "vllm", engine_version=version))
        for version in ("0.5.0.post1", "0.33.0")
    )
    assert old.kv_cache.bytes_per_token == 27 * 2 * 16 * 256 * 2
    assert new.kv_cache.bytes_per_token == 31_104
    absorbed = 27 * 2 * 512 * 16 * 256
    weights = [answer.devices[0].components["weights"].low_bytes for answer in (old, new)]
    assert weights[1] - weights[0] == absorbed


def test_older_vllm_has_another_default_share_and_captures_graphs_beside_it() -> None:
    old, new = (ask(replace(R1, engine_version=version), 8, 141 * GIB) for version in ("0.10.0", "0.33.0"))
    assert any("memory_fraction 0.90" in note for note in old.notes)
    assert any("memory_fraction 0.92" in note for note in new.notes)
    graphs = old.devices[0].components["graphs"].high_bytes
    assert old.devices[0].total is not None
    assert old.devices[0].total.high_bytes <= 0.9 * 141 * GIB + graphs + GIB + 1


def test_a_name_without_bytes_leaves_weights_and_totals_out_but_not_the_cache() -> None:
    answer = ask(replace(R1, quantization="compressed-tensors"), 8, 141 * GIB)
    plain: dict[str, Any] = json.loads(json.dumps(to_plain(answer)))
    rank = plain["devices"][0]
    assert "weights" not in rank["components"]
    assert "total" not in rank
    assert plain["kv_cache"] == {"bytes_per_token": 70_272}
    assert plain["fits"] is None


def test_a_quantization_that_is_no_name_at_all_is_refused() -> None:
    with pytest.raises(UnknownQuantization):
        ask(replace(R1, quantization="int3.7"))


def test_v32_is_packed_on_blackwell_and_wide_on_hopper_in_sglang() -> None:
    spec = DeploymentSpec("v", "deepseek-ai/DeepSeek-V3.2", "sglang", tp=8)
    for name, size in (("NVIDIA B200", 48_068), ("NVIDIA H200", 78_324)):
        answer = footprint_answer(spec, shapes(180 * GIB, 8, name), 8, catalog())
        assert answer.kv_cache.bytes_per_token == size


@pytest.mark.parametrize(
    ("version", "kind", "size"), [(None, None, 78_324), (None, "fp8", 48_068), ("0.11.0", None, 48_068)]
)
def test_v32_on_vllm_is_packed_when_fp8_is_asked_for(
    version: str | None, kind: str | None, size: int
) -> None:
    spec = DeploymentSpec(
        "v", "deepseek-ai/DeepSeek-V3.2", "vllm", tp=8, kv_cache_dtype=kind, engine_version=version
    )
    assert ask(spec).kv_cache.bytes_per_token == size


def test_a_draft_model_adds_its_weights_and_cache() -> None:
    plain = ask(DeploymentSpec("d", "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "vllm", tp=2))
    drafting = ask(
        DeploymentSpec(
            "d",
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
            "vllm",
            tp=2,
            speculative="draft_model",
            draft_model="deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        )
    )
    assert drafting.kv_cache.bytes_per_token - plain.kv_cache.bytes_per_token == 28_672 // 2
    assert drafting.devices[0].components["speculative"].low_bytes == pytest.approx(
        3_554_176_000 / 2, rel=0.001
    )


def test_an_unknown_draft_model_leaves_the_total_out() -> None:
    answer = ask(replace(R1, speculative="eagle3", draft_model="somebody/eagle-head"), 8, 141 * GIB)
    assert "speculative" not in answer.devices[0].components
    assert answer.devices[0].total is None


def test_llamacpps_draft_model_is_known_by_its_file_name() -> None:
    spec = DeploymentSpec(
        "d",
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
        "llama.cpp",
        "Q4_K_M",
        gpu_layers=99,
        max_model_len=4096,
        draft_model="/models/DeepSeek-R1-Distill-Qwen-1.5B-Q4_K_M.gguf",
    )
    known = ask(spec, 1).devices[0]
    assert known.components["speculative"].low_bytes == pytest.approx(1.111e9 + 4096 * 28_672, rel=0.01)
    unknown = ask(replace(spec, draft_model="/models/draft.gguf"), 1)
    assert unknown.devices[0].total is None
    assert any("draft model" in note for note in unknown.notes)


def test_without_a_named_device_llamacpp_is_answered_on_the_cpu() -> None:
    answer = ask(replace(R1_GGUF, engine="llama.cpp"))
    assert answer.devices == ()
    assert any("CPU alone" in note for note in answer.notes)


@pytest.mark.parametrize(("version", "on_device"), [("b5000", 3), ("b11434", 2)])
def test_older_builds_count_layers_alone(version: str, on_device: int) -> None:
    spec = replace(R1_GGUF, engine="llama.cpp", quantization="F16", gpu_layers=3, engine_version=version)
    layers = ask(spec, 1).devices[0].components["kv_cache"].low_bytes / (8192 * 2)
    row = 576 if version == "b11434" else 128 * (192 + 128)
    assert layers / row == on_device


class TestHostMemory:
    """RAM beside the devices: offloading, pinned pools and V4.1's tables."""

    def test_offloaded_weights_are_pinned_for_each_device_and_leave_it(self) -> None:
        plain, offloaded = ask(R1, 8, 141 * GIB), ask(replace(R1, cpu_offload_bytes=10 * GIB), 8, 141 * GIB)
        moved = (
            plain.devices[0].components["weights"].low_bytes
            - offloaded.devices[0].components["weights"].low_bytes
        )
        assert moved == 10 * GIB
        pinned = offloaded.host.components["pinned"]
        assert (pinned.low_bytes, pinned.high_bytes) == (80 * GIB, 160 * GIB)

    def test_v41_keeps_its_tables_in_ram_pinned_in_powers_of_two(self) -> None:
        answer = ask(DeploymentSpec("e", "deepseek-ai/DeepSeek-V4.1-Flash", "vllm", tp=4, ep=4))
        pinned = answer.host.components["pinned"]
        assert pinned.low_bytes == pytest.approx(202.8e9, rel=0.001)
        assert pinned.high_bytes / GIB == pytest.approx(264, rel=0.01)

    def test_swap_space_belonged_to_the_first_engine(self) -> None:
        old = ask(replace(R1, engine_version="0.7.3"))
        assert old.host.components["pinned"].low_bytes == 8 * 4 * GIB
        new = ask(replace(R1, swap_space_bytes=4 * GIB))
        assert "pinned" not in new.host.components
        assert any("swap_space" in note for note in new.notes)

    def test_hicache_is_a_multiple_of_the_device_pool(self) -> None:
        answer = ask(replace(R1, engine="sglang", hicache=True), 8, 141 * GIB)
        pool = sum(device.components["kv_cache"].high_bytes for device in answer.devices)
        assert answer.host.components["kv_cache"].high_bytes == 2 * pool
