"""llama.cpp and Ollama: everything is allocated exactly, in RAM and on devices."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.footprint.deployment import DeploymentSpec, DeviceShape, FootprintError, HostShape
from exporter.footprint.estimate import estimate
from exporter.footprint.policies.gguf_layers import LayerBytes, place
from exporter.footprint.result import Footprint
from exporter.models.catalog import catalog
from exporter.units import GIB, MIB

QWEN_7B = DeploymentSpec(
    "small", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "llama.cpp", "Q4_K_M", max_model_len=4096
)
R1 = replace(QWEN_7B, name="r1", model="deepseek-ai/DeepSeek-R1")
LLAMA_70B = replace(QWEN_7B, name="70b", model="deepseek-ai/DeepSeek-R1-Distill-Llama-70B")
RTX_4090 = DeviceShape(0, 24_564 * MIB, 400 * MIB)

QWEN_7B_TENSORS = 4_677_120_000
# Q4_K matrices of the file but the embedding: per layer q, k, output, gate and up, and v and down where they
# are not Q6_K (14 of 28 layers), at 144 bytes for 256 elements.
QWEN_7B_REPACKED = (
    (28 * (2 * 3584 * 3584 + 512 * 3584 + 2 * 18_944 * 3584) + 14 * (512 * 3584 + 18_944 * 3584)) * 144 // 256
)


def ask(spec: DeploymentSpec, *devices: DeviceShape, host: HostShape | None = None) -> Footprint:
    return estimate(spec, devices, catalog(), host)


def test_a_7b_on_the_cpu_is_the_hand_calculation() -> None:
    footprint = ask(QWEN_7B)
    host = footprint.host.components
    assert footprint.devices == ()
    assert host["weights"].low_bytes == QWEN_7B_TENSORS
    assert host["kv_cache"].low_bytes == host["kv_cache"].high_bytes == 28 * 4096 * 2 * 4 * 128 * 2
    compute = 2 * 4096 * 512 + 4 * 512 * (5 * 3584 + 3 * 18_944)
    output = 4 * 152_064 * 4
    heap = 5 * MIB + 180 * 152_064 + 150 * 151_387 + 52 * 4096 + 15 * MIB * 28 // 100
    masks = 2 * 4096 * 512
    assert host["runtime"].low_bytes == heap + output + compute - masks - 12 * MIB
    assert host["runtime"].high_bytes == heap + output + compute + 16 * MIB + 15 * MIB
    assert (host["prompt_cache"].low_bytes, host["prompt_cache"].high_bytes) == (0, 8192 * MIB)
    assert set(host) == {"weights", "kv_cache", "runtime", "prompt_cache"}
    assert footprint.host.total.low_bytes == sum(term.low_bytes for term in host.values())


def test_repacked_tensors_count_once_at_the_low_end_and_twice_at_the_high_end() -> None:
    host = ask(QWEN_7B).host
    assert host.components["weights"].high_bytes == QWEN_7B_TENSORS + QWEN_7B_REPACKED
    assert host.reclaimable_bytes == QWEN_7B_REPACKED
    assert host.mapped_bytes == QWEN_7B_TENSORS - QWEN_7B_REPACKED


def test_stacked_heads_of_latent_attention_are_not_repacked() -> None:
    per_layer = 1536 * 7168 + 24_576 * 1536 + 576 * 7168 + 7168 * 16_384
    # Of 58 layers with experts 31 keep their down projections in Q4_K; the dense ones do not.
    elements = 61 * per_layer + 3 * 2 * 18_432 * 7168 + (58 * 2 + 31) * 257 * 2048 * 7168
    assert ask(R1).host.reclaimable_bytes == elements * 144 // 256


def test_about_two_thirds_of_a_q4_k_m_file_are_repacked() -> None:
    host = ask(QWEN_7B).host
    assert host.reclaimable_bytes / QWEN_7B_TENSORS == pytest.approx(2 / 3, abs=0.02)


def test_without_repacking_every_tensor_stays_in_the_mapping() -> None:
    host = ask(replace(QWEN_7B, repack=False)).host
    assert host.components["weights"].high_bytes == host.mapped_bytes == QWEN_7B_TENSORS
    assert host.reclaimable_bytes == 0


def test_without_mapping_weights_are_anonymous_and_exist_once() -> None:
    host = ask(replace(QWEN_7B, mmap=False)).host
    assert host.components["weights"].low_bytes == host.components["weights"].high_bytes == QWEN_7B_TENSORS
    assert (host.mapped_bytes, host.reclaimable_bytes) == (0, 0)


def test_a_locked_mapping_cannot_be_reclaimed() -> None:
    host = ask(replace(QWEN_7B, mlock=True)).host
    assert host.components["weights"].low_bytes == QWEN_7B_TENSORS + QWEN_7B_REPACKED
    assert host.reclaimable_bytes == 0
    # It stays page cache, and evictable where the lock was refused: then its residence is worth watching.
    assert host.mapped_bytes == QWEN_7B_TENSORS - QWEN_7B_REPACKED
    assert host.locked_bytes == QWEN_7B_TENSORS


def test_with_numa_pages_are_mapped_as_they_are_read() -> None:
    """--numa leaves MAP_POPULATE out, on hosts with more than one node (src/llama-mmap.cpp)."""
    many, one = HostShape(64 * GIB, numa_nodes=2), HostShape(64 * GIB, numa_nodes=1)
    assert ask(replace(QWEN_7B, numa="distribute"), host=many).host.mapped_lazily
    assert not ask(replace(QWEN_7B, numa="distribute"), host=one).host.mapped_lazily
    assert not ask(QWEN_7B, host=many).host.mapped_lazily
    assert not ask(replace(QWEN_7B, numa="distribute", mmap=False), host=many).host.mapped_lazily


def test_a_token_reads_all_of_a_dense_model_but_the_embedding() -> None:
    embedding = 152_064 * 3584 * 144 // 256
    assert ask(QWEN_7B).host.token_read_bytes == QWEN_7B_TENSORS - embedding


def test_a_token_reads_the_active_experts_and_everything_else() -> None:
    """37 of 671 billion parameters: 22.8 GB at 4.85 bits each is the common figure, embedding included."""
    read = ask(replace(R1, quantization="Q4_K_M")).host.token_read_bytes
    assert read == pytest.approx(22.8e9, rel=0.03)
    assert 614.4e9 / (read or 0) == pytest.approx(27, rel=0.03)  # one EPYC 9005, 12 channels DDR5-6400
    assert 921.6e9 / (read or 0) == pytest.approx(40, rel=0.04)  # two EPYC 9004, 24 channels DDR5-4800


def test_of_a_hybrid_ram_is_read_for_the_active_experts_alone() -> None:
    hybrid = replace(R1, gpu_layers=99, cpu_moe=True)
    footprint = ask(hybrid, RTX_4090)
    experts = footprint.host.components["experts"].low_bytes
    assert footprint.host.token_read_bytes == experts * 8 // 256
    embedding_too = replace(hybrid, override_tensor=("token_embd=CPU",))
    assert ask(embedding_too, RTX_4090).host.token_read_bytes == footprint.host.token_read_bytes


def test_where_tokens_are_drafted_one_reading_may_give_several() -> None:
    assert ask(replace(R1, speculative="mtp")).host.token_read_bytes is None
    assert ask(replace(R1, speculative="ngram")).host.token_read_bytes is None


def test_what_is_repacked_depends_on_the_processor() -> None:
    x86 = ask(QWEN_7B, host=HostShape(64 * GIB)).host
    arm = ask(QWEN_7B, host=HostShape(64 * GIB, "arm64")).host
    assert x86.reclaimable_bytes == QWEN_7B_REPACKED < arm.reclaimable_bytes
    with pytest.raises(FootprintError, match="instruction_set"):
        ask(QWEN_7B, host=HostShape(64 * GIB, "m68k"))


def test_r1_in_four_bits_needs_377_gib_of_ram() -> None:
    footprint = ask(R1, host=HostShape(23 * GIB))
    host = footprint.host.components
    assert host["weights"].low_bytes + host["experts"].low_bytes == 404_488_847_360
    assert host["kv_cache"].low_bytes == 4096 * 70_272
    assert footprint.fits is False
    assert round(footprint.host.total.low_bytes / GIB, 1) == 377.4


def test_whether_ram_suffices_is_only_said_when_it_is_known() -> None:
    assert ask(QWEN_7B).fits is None
    assert ask(QWEN_7B, host=HostShape(23 * GIB)).fits is True


def test_four_slots_share_one_cache_unless_slots_are_declared() -> None:
    assert ask(QWEN_7B).kv_cache.full_length_sequences == 1
    declared = ask(replace(QWEN_7B, parallel=4)).kv_cache
    assert declared.full_length_sequences == 4
    assert declared.capacity_tokens == declared.demand_tokens == 4096
    shared = ask(replace(QWEN_7B, parallel=4, kv_unified=True)).kv_cache
    assert (shared.capacity_tokens, shared.demand_tokens) == (4096, 4 * 4096)


def test_slots_may_be_declared_as_sequences_but_not_differently() -> None:
    assert ask(replace(QWEN_7B, max_num_seqs=2)) == ask(replace(QWEN_7B, parallel=2))
    with pytest.raises(FootprintError, match="max_num_seqs"):
        ask(replace(QWEN_7B, max_num_seqs=2, parallel=3))


def test_an_unsaid_context_runs_from_4096_cells_to_what_ram_gives() -> None:
    open_end = ask(replace(QWEN_7B, max_model_len=None)).host.components["kv_cache"]
    assert open_end.low_bytes == 4096 * 57_344
    assert open_end.high_bytes == 131_072 * 57_344
    small_host = HostShape(8 * GIB)
    limited = ask(replace(QWEN_7B, max_model_len=None), host=small_host).host.components["kv_cache"]
    assert limited.low_bytes < limited.high_bytes < 8 * GIB - QWEN_7B_TENSORS


def test_all_layers_on_a_device_leave_the_embedding_in_ram() -> None:
    footprint = ask(replace(QWEN_7B, gpu_layers=29), RTX_4090)
    embedding = 152_064 * 3584 * 144 // 256
    assert footprint.host.components["weights"].low_bytes == embedding
    assert footprint.devices[0].components["weights"].low_bytes == QWEN_7B_TENSORS - embedding
    assert "kv_cache" not in footprint.host.components
    assert footprint.fits is True


def test_minus_one_means_all_layers() -> None:
    assert ask(replace(QWEN_7B, gpu_layers=-1), RTX_4090) == ask(replace(QWEN_7B, gpu_layers=29), RTX_4090)


def test_the_cache_follows_its_layers() -> None:
    footprint = ask(replace(QWEN_7B, gpu_layers=15), RTX_4090)
    # 15 are the output layer and 14 of 28 layers.
    cache = 4096 * 57_344 // 2
    assert footprint.devices[0].components["kv_cache"].low_bytes == cache
    assert footprint.host.components["kv_cache"].low_bytes == cache


def test_beside_a_device_nothing_is_repacked() -> None:
    assert ask(replace(QWEN_7B, gpu_layers=0), RTX_4090).host.reclaimable_bytes == 0


def test_experts_in_ram_leave_the_rest_on_the_device() -> None:
    footprint = ask(replace(R1, gpu_layers=99, n_cpu_moe=61), DeviceShape(0, 24 * GIB))
    on_device = footprint.devices[0].components["weights"].low_bytes
    # The model less its routed experts and embedding: 9.98 GB at Q4_K_M.
    assert on_device / 1e9 == pytest.approx(9.98, abs=0.01)
    assert footprint.host.components["experts"].low_bytes == 393_983_557_632
    assert footprint.fits is True


@pytest.mark.parametrize("spec", [R1, LLAMA_70B, QWEN_7B], ids=lambda spec: spec.name)
@pytest.mark.parametrize("count", [1, 2, 8])
def test_unsaid_layers_are_solved_to_leave_a_gibibyte_free(spec: DeploymentSpec, count: int) -> None:
    devices = [replace(RTX_4090, index=index) for index in range(count)]
    footprint = ask(spec, *devices)
    assert len(footprint.devices) == count
    for rank in footprint.devices:
        assert rank.total.low_bytes + GIB <= RTX_4090.usable_bytes
    held = sum(rank.components["weights"].low_bytes for rank in footprint.devices)
    in_ram = [footprint.host.components.get(name) for name in ("weights", "experts")]
    model = catalog().resolve(spec.model).architecture.name
    total = {"deepseek-v3": 404_488_847_360, "r1-distill-llama-70b": 42_512_531_456}.get(
        model, QWEN_7B_TENSORS
    )
    assert held + sum(term.low_bytes for term in in_ram if term is not None) == total


def test_a_solved_placement_uses_most_of_the_device() -> None:
    rank = ask(LLAMA_70B, RTX_4090).devices[0]
    a_layer = 600 * MIB
    assert rank.total.low_bytes > RTX_4090.usable_bytes - GIB - 2 * a_layer
    assert any("solved as the engine does" in note for note in ask(LLAMA_70B, RTX_4090).notes)


def test_layers_are_split_by_device_memory() -> None:
    layers = tuple(LayerBytes(1, 0, 0, 0) for _ in range(30))
    placement = place(layers, (10, 20), 31, 0, solved=False)
    assert placement.layers.count(0) == 11
    assert placement.layers.count(1) == 19
    assert placement.output == 1


@given(st.integers(0, 40), st.integers(1, 5), st.integers(1, 60))
def test_every_layer_lies_somewhere_once(gpu_layers: int, devices: int, count: int) -> None:
    layers = tuple(LayerBytes(1, 0, 0, 0) for _ in range(count))
    placement = place(layers, (3,) * devices, gpu_layers, 0, solved=False)
    on_devices = sum(where is not None for where in (*placement.layers, placement.output))
    assert on_devices == min(gpu_layers, count + 1)
    assert all(where is None or 0 <= where < devices for where in placement.layers)


@given(st.integers(1, 200_000), st.integers(1, 200_000), st.sampled_from([0, 10, 29]))
@settings(max_examples=80, deadline=None)
def test_more_context_never_needs_less(one: int, other: int, gpu_layers: int) -> None:
    def low(length: int) -> int:
        spec = replace(QWEN_7B, max_model_len=length, gpu_layers=gpu_layers)
        footprint = ask(spec, RTX_4090)
        return footprint.host.total.low_bytes + footprint.devices[0].total.low_bytes

    shorter, longer = sorted((one, other))
    assert low(shorter) <= low(longer)


def test_ollama_takes_its_own_names_and_defaults() -> None:
    spec = DeploymentSpec("chat", "deepseek-r1:7b", "ollama")
    footprint = ask(spec)
    assert (footprint.model_id, footprint.quantization) == (
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        "Q4_K_M",
    )
    assert footprint.kv_cache.capacity_tokens == 4096
    large = ask(spec, DeviceShape(0, 30 * GIB))
    assert large.kv_cache.capacity_tokens == 32_768
    assert (
        ask(replace(spec, model="deepseek-r1"), DeviceShape(0, 96 * GIB)).kv_cache.capacity_tokens == 131_072
    )


def test_ollama_multiplies_the_context_by_its_sequences() -> None:
    spec = DeploymentSpec("chat", "deepseek-r1:7b", "ollama", max_model_len=8192, parallel=3)
    cache = ask(spec).kv_cache
    assert cache.capacity_tokens == 3 * 8192
    assert cache.full_length_sequences == 3


def test_an_engine_of_gguf_files_must_be_told_which() -> None:
    with pytest.raises(FootprintError, match=r"^quantization must be said"):
        ask(replace(QWEN_7B, quantization=None))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"quantization": "fp8", "model": "deepseek-ai/DeepSeek-R1"}, "quantization"),
        ({"gpu_layers": 10}, "gpu_layers"),
        ({"tp": 2}, "tp"),
        ({"memory_fraction": 0.9}, "memory_fraction"),
        ({"kv_cache_dtype": "fp8"}, "cache_type_k"),
        ({"cache_type_k": "q9_9"}, "cache_type_k"),
        ({"cache_type_v": "q8_0", "flash_attention": False}, "flash_attention"),
        (
            {"model": "deepseek-ai/DeepSeek-R1", "cache_type_k": "q8_0", "cache_type_v": "f16"},
            "cache_type_v",
        ),
        ({"parallel": 0}, "parallel"),
        ({"n_cpu_moe": -1}, "n_cpu_moe"),
    ],
)
def test_settings_that_llamacpp_refuses_are_refused_by_name(changes: dict[str, object], field: str) -> None:
    with pytest.raises(FootprintError, match=rf"^{field}"):
        ask(replace(QWEN_7B, **changes))  # type: ignore[arg-type]  # rows of a table


def test_a_quantized_cache_is_smaller() -> None:
    spec = replace(R1, cache_type_k="q8_0", cache_type_v="q8_0")
    assert ask(spec).kv_cache.bytes_per_token == 37_332


def test_no_prompt_cache_no_term() -> None:
    assert "prompt_cache" not in ask(replace(QWEN_7B, cache_ram_bytes=0)).host.components
