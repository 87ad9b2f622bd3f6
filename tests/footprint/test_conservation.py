"""What no estimate may break: parts sum to the whole, and more of anything never needs less."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.footprint.answer import Answer, footprint_answer, shown_bytes
from exporter.footprint.deployment import DeploymentSpec, FootprintError
from exporter.footprint.gpus import shapes
from exporter.footprint.policies.gguf_layers import layer_bytes, stored_layer_bytes
from exporter.footprint.weights import Layout, Stage, check_layout, rank_weights, stored_rank_bytes
from exporter.models.architecture import Architecture
from exporter.models.blocks import GroupedQueryAttention, LatentAttention
from exporter.models.catalog import Model, catalog
from exporter.models.checkpoint.weights import CheckpointWeights, RoleWeights
from exporter.models.quantization import Container, stored_tensors, total_bytes
from exporter.models.roles import CUTS, Cut
from exporter.units import GIB

MODELS = {model.short_id: model for model in catalog().models}
ONE_OF_EACH: dict[str, Model] = {}
for _model in catalog().models:
    ONE_OF_EACH.setdefault(_model.architecture_name, _model)
V3 = MODELS["DeepSeek-V3"]
GGUF = DeploymentSpec("g", "deepseek-ai/DeepSeek-V3", "llama.cpp", "Q4_K_M", max_model_len=8192, parallel=1)
REPEATED = {
    "norms",
    "attention_repeated",
    "router",
    "indexer",
    "compressor",
    "hyper_connections",
    "engram",
    "encoder",
}


def ask(spec: DeploymentSpec, gpus: int | None = None, size: int | None = None) -> Answer:
    devices = shapes(size, gpus or 0) if size is not None else None
    return footprint_answer(spec, devices, gpus, catalog())


def weights_of(answer: Answer) -> int:
    on_devices = sum(device.components["weights"].low_bytes for device in answer.devices)
    in_ram = sum(
        term.low_bytes for name, term in answer.host.components.items() if name in ("weights", "experts")
    )
    return on_devices + in_ram


@pytest.mark.parametrize("name", sorted(ONE_OF_EACH))
@pytest.mark.parametrize("parts", [2, 4, 8])
def test_ranks_hold_the_whole_and_what_every_rank_repeats(name: str, parts: int) -> None:
    model = ONE_OF_EACH[name]
    arch, kind = model.architecture, model.native_quantization
    layout = Layout(parts, parts, parts, parts, parts, table=parts)
    stage = Stage(0, arch.layers, arch.layers)
    whole = rank_weights(arch, kind, Layout(table=1), stage)
    try:
        check_layout(arch, layout)
        rank = rank_weights(arch, kind, layout, stage)
    except FootprintError:
        return
    for group, size in whole.items():
        if group in REPEATED - {"engram"}:
            assert rank[group] == size
        elif group in ("vocabulary", "experts"):
            # Vocabularies and 4-bit experts are padded.
            assert size <= rank[group] * parts <= size * 1.34 + parts * 64 * arch.hidden * 4
        elif isinstance(arch.attention, GroupedQueryAttention) and group == "attention":
            assert rank[group] * parts >= size
        elif group != "engram":
            assert rank[group] * parts == pytest.approx(size, rel=1e-3)


@given(st.sampled_from([1, 2, 4, 8, 16, 32]))
@settings(deadline=None)
def test_the_latent_cache_of_a_rank_does_not_change_with_tensor_parallelism(tp: int) -> None:
    spec = DeploymentSpec("r", "deepseek-ai/DeepSeek-R1", "vllm", quantization="bf16", tp=tp)
    assert ask(spec).kv_cache.bytes_per_token == 70_272


@given(
    st.sampled_from(["vllm", "sglang", "lmdeploy", "tensorrt-llm", "tgi"]),
    st.sampled_from(["DeepSeek-R1-Distill-Qwen-32B", "DeepSeek-V2-Lite", "DeepSeek-V4-Flash"]),
    st.integers(1, 131_072),
    st.integers(1, 131_072),
)
@settings(max_examples=60, deadline=None)
def test_more_context_never_needs_less_memory(engine: str, model: str, one: int, other: int) -> None:
    spec = DeploymentSpec("s", MODELS[model].id, engine, tp=4)
    shorter, longer = (
        ask(replace(spec, max_model_len=length), 4, 141 * GIB) for length in sorted((one, other))
    )
    for low, high in zip(shorter.devices, longer.devices, strict=True):
        assert low.total is not None
        assert high.total is not None
        assert low.total.low_bytes <= high.total.low_bytes


@given(st.integers(1, 163_840), st.integers(1, 163_840), st.sampled_from([0, 1, 3]))
@settings(max_examples=40, deadline=None)
def test_more_context_never_needs_less_of_llamacpp(one: int, other: int, mla: int) -> None:
    spec = replace(GGUF, engine="ik_llama.cpp", mla=mla)
    sizes = [
        ask(replace(spec, max_model_len=length)).host.components["kv_cache"].low_bytes
        for length in sorted((one, other))
    ]
    assert sizes == sorted(sizes)


OVERRIDES = st.sampled_from(
    [(), ("exps=CPU",), (r"blk\.[0-9]\.ffn_.*_exps=CUDA0", "exps=CPU"), ("attn=CUDA1", "token_embd=CUDA0")]
)


@given(
    st.sampled_from(["DeepSeek-V3", "DeepSeek-V2-Lite", "DeepSeek-R1-Distill-Llama-8B"]),
    st.integers(-1, 99),
    st.integers(0, 70),
    OVERRIDES,
    st.sampled_from(["llama.cpp", "ik_llama.cpp", "ollama"]),
)
@settings(max_examples=150, deadline=None)
def test_every_tensor_of_a_file_lies_somewhere_once(
    model: str, layers: int, moe: int, overrides: tuple[str, ...], engine: str
) -> None:
    spec = replace(
        GGUF,
        model=MODELS[model].id,
        engine=engine,
        gpu_layers=layers,
        n_cpu_moe=moe,
        override_tensor=overrides,
    )
    anywhere = weights_of(ask(spec, 2))
    in_ram = weights_of(ask(replace(GGUF, model=MODELS[model].id, engine=engine), 0))
    assert anywhere == in_ram


def as_header(arch: Architecture, quantization: str, container: Container) -> CheckpointWeights:
    """Headers that say exactly what the recipe does."""
    sums: dict[tuple[str, int | None], RoleWeights] = {}
    for drafts in (False, True):
        for one in stored_tensors(arch, quantization, container, drafts):
            key = (one.tensor.role, one.tensor.layer)
            before = sums[key].bytes if key in sums else 0
            sums[key] = RoleWeights(one.tensor.role, one.tensor.layer, before + one.bytes, one.type, 1)
    return CheckpointWeights(tuple(sums.values()), arch.layers)


@pytest.mark.parametrize(
    "name", ["DeepSeek-V3", "DeepSeek-V3.2", "DeepSeek-V2", "DeepSeek-R1-Distill-Llama-70B"]
)
@pytest.mark.parametrize("parts", [1, 8])
def test_headers_that_agree_with_the_recipe_give_its_bytes(name: str, parts: int) -> None:
    model = MODELS[name]
    arch, kind = model.architecture, model.native_quantization
    layout = Layout(parts, parts, parts, parts, parts)
    stage = Stage(0, arch.layers, arch.layers)
    main, _ = stored_rank_bytes(arch, as_header(arch, kind, Container.SAFETENSORS), layout, stage)
    assert main == pytest.approx(sum(rank_weights(arch, kind, layout, stage).values()), rel=1e-5)


def test_headers_replace_the_recipe_of_a_quantization_that_only_they_know() -> None:
    arch = V3.architecture
    header = as_header(arch, "Q4_K_M", Container.GGUF)
    spec = replace(GGUF, quantization="UD-Q4_K_XL", gpu_layers=20)
    without = footprint_answer(spec, None, 1, catalog())
    with_header = footprint_answer(spec, None, 1, catalog(), stored=header)
    assert "weights" not in without.host.components
    assert without.host.total is None
    assert weights_of(with_header) == total_bytes(arch, "Q4_K_M", Container.GGUF)
    assert with_header.basis["weights"] == "checkpoint"


def test_header_rows_of_layers_are_those_of_the_recipe() -> None:
    arch = V3.architecture
    header = as_header(arch, "Q2_K", Container.GGUF)
    assert stored_layer_bytes(arch, header) == layer_bytes(arch, "Q2_K")


def test_totals_of_an_answer_are_the_sums_of_what_it_shows() -> None:
    answer = ask(replace(GGUF, gpu_layers=20), 2)
    for device in answer.devices:
        assert device.total is not None
        assert device.total.expected_bytes == sum(t.expected_bytes for t in device.components.values())
    assert answer.host.total is not None
    shown = sum(shown_bytes(name, term) for name, term in answer.host.components.items())
    assert answer.host.total.expected_bytes == shown


def test_only_known_cuts_are_shared_out() -> None:
    assert set(CUTS.values()) == set(Cut)
    assert isinstance(V3.architecture.attention, LatentAttention)
