"""vLLM and SGLang: a KV pool takes what the budget leaves, and guesses never fail a server that runs."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.footprint.deployment import DeploymentSpec, DeviceShape, FootprintError
from exporter.footprint.estimate import estimate
from exporter.footprint.policies import sglang, vllm
from exporter.footprint.result import Footprint
from exporter.models.catalog import catalog
from exporter.units import GIB, MIB

H200 = tuple(DeviceShape(index, 143_771 * MIB, 614 * MIB) for index in range(8))
ROTARY = 163_840 * 64 * 2
H100 = tuple(DeviceShape(index, 81_559 * MIB, 479 * MIB) for index in range(8))
R1 = DeploymentSpec("r1", "deepseek-ai/DeepSeek-R1", "vllm", tp=8)
QWEN_7B = DeploymentSpec("small", "DeepSeek-R1-Distill-Qwen-7B", "vllm", max_model_len=8192)


def ask(spec: DeploymentSpec, devices: tuple[DeviceShape, ...] = H200) -> Footprint:
    return estimate(spec, devices, catalog())


def low_sum(footprint: Footprint, rank: int = 0) -> int:
    return sum(term.low_bytes for term in footprint.devices[rank].components.values())


def test_r1_on_eight_h200_fills_vllms_default_budget() -> None:
    footprint = ask(R1)
    budget = ceil((143_771 - 614) * MIB * 0.92)
    assert footprint.fits is True
    assert len(footprint.devices) == 8
    for rank in footprint.devices:
        # 79.53 GiB of tensors and 21 MB of rotary tables.
        assert round(rank.components["weights"].low_bytes / GIB, 2) == 79.55
        assert rank.total.low_bytes == budget - GIB
        assert rank.total.high_bytes == budget + GIB
    assert footprint.kv_cache.bytes_per_token == 70_272


def test_the_budget_is_of_what_cuda_sees_without_the_drivers_reserve() -> None:
    with_reserve = ask(QWEN_7B, (DeviceShape(0, 80 * GIB, GIB),))
    without = ask(QWEN_7B, (DeviceShape(0, 79 * GIB),))
    assert with_reserve.devices[0].components == without.devices[0].components


@given(
    st.sampled_from([R1, QWEN_7B, replace(QWEN_7B, model="DeepSeek-R1-Distill-Llama-70B", tp=8)]),
    st.floats(0.3, 1.0),
    st.sampled_from([None, 1024, 32_768, 131_072]),
    st.sampled_from([H200, H100]),
)
@settings(max_examples=150, deadline=None)
def test_guesses_never_put_a_server_that_fits_above_its_budget(
    spec: DeploymentSpec, fraction: float, length: int | None, devices: tuple[DeviceShape, ...]
) -> None:
    footprint = ask(replace(spec, memory_fraction=fraction, max_model_len=length), devices)
    for rank, device in zip(footprint.devices, devices, strict=False):
        budget = ceil(device.usable_bytes * fraction)
        parts = rank.components.values()
        assert sum(t.low_bytes for t in parts) <= rank.total.low_bytes
        assert (
            rank.total.low_bytes
            <= rank.total.high_bytes
            <= max(sum(t.high_bytes for t in parts), budget + GIB)
        )
        exact_need = rank.components["weights"].low_bytes
        if footprint.fits:
            assert rank.total.low_bytes <= budget
            assert rank.total.high_bytes <= device.usable_bytes
            assert sum(t.high_bytes for t in parts) >= budget - 64 * footprint.kv_cache.bytes_per_token
        else:
            assert exact_need + rank.components["kv_cache"].low_bytes > budget - 64 * 70_272


def test_a_server_at_0_97_that_fits_is_not_overcommitted_by_guesses() -> None:
    card = DeviceShape(0, 24_564 * MIB, 400 * MIB)
    footprint = ask(replace(QWEN_7B, memory_fraction=0.97, max_model_len=131_072), (card,))
    assert footprint.fits is True
    assert footprint.devices[0].total.high_bytes <= card.usable_bytes


def test_a_running_servers_pool_holds_at_least_one_full_sequence() -> None:
    card = DeviceShape(0, 24_564 * MIB, 400 * MIB)
    tight = ask(replace(QWEN_7B, max_model_len=120_000), (card,))
    term = tight.devices[0].components["kv_cache"]
    assert tight.fits is True
    assert term.low_bytes == 120_000 * 57_344 < term.high_bytes
    assert tight.kv_cache.full_length_sequences == 1


def test_a_model_that_does_not_fit_shows_weights_and_one_full_sequence() -> None:
    footprint = ask(R1, H100)
    rank = footprint.devices[0]
    assert footprint.fits is False
    assert rank.components["kv_cache"].low_bytes == 163_840 * 70_272
    assert rank.total.low_bytes > H100[0].usable_bytes
    assert footprint.kv_cache.capacity_tokens is None
    assert any("does not fit" in note for note in footprint.notes)


def test_a_second_r1_on_the_same_devices_exceeds_them() -> None:
    assert 2 * ask(R1).devices[0].total.low_bytes > H200[0].usable_bytes


@given(st.integers(1, 163_840), st.integers(1, 163_840))
@settings(max_examples=60, deadline=None)
def test_more_context_never_needs_less(one: int, other: int) -> None:
    shorter, longer = sorted((one, other))
    for devices in (H200, H100):
        low = ask(replace(R1, max_model_len=shorter), devices).devices[0].total.low_bytes
        assert low <= ask(replace(R1, max_model_len=longer), devices).devices[0].total.low_bytes


def test_a_declared_pool_is_taken_as_it_is() -> None:
    footprint = ask(replace(R1, max_model_len=8192, kv_cache_bytes=44_667_659_878))
    term = footprint.devices[0].components["kv_cache"]
    assert term.low_bytes == term.high_bytes == 9931 * 64 * 70_272
    assert term.basis == "engine"


def test_a_declared_pool_that_is_larger_than_the_device_does_not_fit() -> None:
    footprint = ask(replace(R1, max_model_len=8192, kv_cache_bytes=100 * GIB))
    assert footprint.fits is False
    assert footprint.devices[0].total.low_bytes > H200[0].usable_bytes


def test_speculation_loads_the_draft_layer_and_its_cache_on_the_last_stage() -> None:
    plain, drafting = ask(R1), ask(replace(R1, speculative="mtp"))
    assert "speculative" not in plain.devices[0].components
    assert round(drafting.devices[0].components["speculative"].low_bytes / GIB, 2) == 1.55
    assert drafting.kv_cache.bytes_per_token == 70_272 + 1152
    staged = ask(
        replace(R1, tp=4, pp=2, speculative="mtp"), tuple(DeviceShape(i, 200 * GIB) for i in range(8))
    )
    assert ["speculative" in rank.components for rank in staged.devices] == [False] * 4 + [True] * 4


def test_attention_replicas_keep_a_cache_each_and_share_the_experts() -> None:
    footprint = ask(replace(R1, tp=1, dp=8, ep=8, max_model_len=8192))
    assert round((footprint.devices[0].components["weights"].low_bytes - ROTARY) / GIB, 2) == 95.82
    capacity = footprint.kv_cache.capacity_tokens
    assert capacity is not None
    assert capacity * 70_272 == 8 * footprint.devices[0].components["kv_cache"].low_bytes


def test_every_stage_holds_as_many_tokens_as_the_smallest_pool() -> None:
    footprint = ask(replace(R1, tp=4, pp=2, max_model_len=8192))
    per_token = [31 * 1152] * 4 + [30 * 1152] * 4
    tokens = {
        rank.components["kv_cache"].low_bytes / size
        for rank, size in zip(footprint.devices, per_token, strict=True)
    }
    assert len(tokens) == 1


@pytest.mark.parametrize(
    ("layers", "stage_count", "vllm_split", "sglang_split"),
    [(61, 1, (61,), (61,)), (61, 2, (31, 30), (30, 31)), (61, 4, (15, 15, 16, 15), (15, 15, 15, 16)),
     (60, 4, (15,) * 4, (15,) * 4)],
)  # fmt: skip
def test_layers_that_are_left_over_go_where_each_engine_puts_them(
    layers: int, stage_count: int, vllm_split: tuple[int, ...], sglang_split: tuple[int, ...]
) -> None:
    assert vllm.stage_layers(layers, stage_count) == vllm_split
    assert sglang.stage_layers(layers, stage_count) == sglang_split


@pytest.mark.parametrize(
    ("gib", "tokens", "sequences"),
    [(180, 16_384, 1024), (139, 8192, 1024), (79, 8192, 1024), (24, 2048, 256)],
)
def test_vllms_batch_defaults_follow_the_device(gib: int, tokens: int, sequences: int) -> None:
    assert vllm.batch_defaults(DeviceShape(0, gib * GIB)) == (tokens, sequences)


def test_defaults_that_were_taken_are_named() -> None:
    notes = " ".join(ask(R1).notes)
    assert "memory_fraction 0.92" in notes
    assert "max_num_batched_tokens 8192" in notes
    assert "max_model_len 163840" in notes
    said = replace(R1, memory_fraction=0.9, max_model_len=8192, max_num_batched_tokens=4096)
    assert ask(said).notes == ()


def test_demand_is_declared_sequences_times_length_of_all_replicas() -> None:
    assert ask(R1).kv_cache.demand_tokens is None
    assert ask(replace(R1, max_num_seqs=64, max_model_len=8192)).kv_cache.demand_tokens == 64 * 8192


def test_sglangs_default_fraction_on_h200_is_0_886() -> None:
    footprint = ask(replace(R1, engine="sglang"))
    assert any("memory_fraction 0.886" in note for note in footprint.notes)
    assert low_sum(footprint) <= footprint.devices[0].total.high_bytes <= H200[0].usable_bytes


def test_sglangs_weights_and_pool_share_the_static_fraction_of_what_was_free() -> None:
    footprint = ask(replace(R1, engine="sglang", memory_fraction=0.8))
    parts = footprint.devices[0].components
    static_high = parts["weights"].high_bytes + parts["kv_cache"].high_bytes
    free_at_most = H200[0].usable_bytes - parts["runtime"].low_bytes - parts["communication"].low_bytes
    assert static_high == pytest.approx(0.8 * free_at_most, abs=70_272)


def test_sglangs_data_parallel_attention_lies_inside_tp() -> None:
    footprint = ask(replace(R1, engine="sglang", dp=8, dp_attention=True, max_model_len=8192))
    assert len(footprint.devices) == 8
    rank = footprint.devices[0].components
    # vLLM's 95.82 GiB with shared experts (2.38), dense layers (1.11) and head (1.73) cut by eight.
    weights = rank["weights"].low_bytes - 2 * ROTARY
    assert weights / GIB == pytest.approx(95.82 - (2.38 + 1.11 + 1.73) * 7 / 8, abs=0.01)
    assert footprint.kv_cache.capacity_tokens == 8 * (rank["kv_cache"].low_bytes // 70_272)


def test_sglang_without_room_for_a_cache_does_not_fit() -> None:
    footprint = ask(replace(R1, engine="sglang"), H100)
    assert footprint.fits is False
    assert footprint.devices[0].total.low_bytes > H100[0].usable_bytes


def test_sglang_sizes_dense_models_after_graph_capture() -> None:
    footprint = ask(replace(QWEN_7B, engine="sglang"), (DeviceShape(0, 24_564 * MIB, 400 * MIB),))
    # (24,564 - 1,536 - 1,024 / 8) / 24,564
    assert any("memory_fraction 0.932" in note for note in footprint.notes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tp": 0}, "tp"),
        ({"tp": 7, "model": "DeepSeek-R1-Distill-Qwen-32B"}, "tp"),
        ({"dp": 2}, "devices"),
        ({"pp": 100, "tp": 1, "model": "DeepSeek-R1-Distill-Qwen-7B"}, "devices"),
        ({"ep": 3}, "ep"),
        ({"memory_fraction": 1.5}, "memory_fraction"),
        ({"memory_fraction": 0.0}, "memory_fraction"),
        ({"memory_fraction": float("nan")}, "memory_fraction"),
        ({"kv_cache_dtype": "int4"}, "kv_cache_dtype"),
        ({"max_model_len": 0}, "max_model_len"),
        ({"gpu_layers": 20}, "gpu_layers"),
        ({"speculative": "wishful"}, "speculative"),
        ({"speculative": "eagle3"}, "speculative"),
        ({"layer_partition": (30, 32)}, "layer_partition"),
        ({"dcp": 3}, "dcp"),
        ({"speculative": "mtp", "model": "DeepSeek-R1-Distill-Qwen-32B"}, "speculative"),
        ({"dp_attention": True}, "dp_attention"),
        ({"quantization": "Q4_K_M"}, "quantization"),
        ({"engine": "sglang", "dp_attention": True, "dp": 3}, "dp"),
        ({"engine": "sglang", "ep": 3}, "ep"),
        ({"engine": "sglang", "max_num_batched_tokens": 8192}, "max_num_batched_tokens"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(changes: dict[str, object], field: str) -> None:
    with pytest.raises(FootprintError, match=rf"^{field}"):
        ask(replace(R1, **changes))  # type: ignore[arg-type]  # rows of a table


def test_these_engines_need_devices() -> None:
    with pytest.raises(FootprintError, match="devices: 0 given"):
        ask(R1, ())
