"""What holds for every model there could be, not only for those in the catalogue."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from exporter.models.architecture import (
    Architecture,
    GroupedQueryAttention,
    LatentAttention,
    MixtureOfExperts,
    SparseIndexer,
    main_tensors,
)
from exporter.models.gguf import gguf_tables
from exporter.models.quantization import Container, total_bytes
from exporter.models.safetensors import safetensors_quantizations

WIDTHS = st.integers(1, 64).map(lambda n: 32 * n)
SMALL = st.integers(1, 16)


@st.composite
def latent(draw: st.DrawFn) -> LatentAttention:
    return LatentAttention(
        draw(SMALL), draw(WIDTHS), draw(WIDTHS), draw(WIDTHS), draw(WIDTHS), draw(WIDTHS),
        draw(st.none() | st.builds(SparseIndexer, SMALL, WIDTHS, SMALL)),
    )  # fmt: skip


@st.composite
def grouped(draw: st.DrawFn) -> GroupedQueryAttention:
    kv_heads = draw(SMALL)
    return GroupedQueryAttention(
        kv_heads * draw(SMALL), kv_heads, draw(WIDTHS), draw(st.booleans()), draw(st.booleans())
    )


@st.composite
def models(draw: st.DrawFn) -> Architecture:
    layers = draw(st.integers(1, 24))
    routed = draw(st.integers(1, 32))
    experts = MixtureOfExperts(
        routed, draw(st.integers(1, routed)), draw(st.integers(0, 2)), draw(WIDTHS),
        draw(st.integers(0, layers)), draw(st.booleans()),
    )  # fmt: skip
    return Architecture(
        name="any",
        family="any",
        layers=layers,
        hidden=draw(WIDTHS),
        vocabulary=draw(st.integers(1, 10_000)),
        intermediate=draw(WIDTHS),
        context_tokens=4096,
        attention=draw(latent() | grouped()),
        experts=draw(st.none() | st.just(experts)),
        tied_embeddings=draw(st.booleans()),
    )


def closed_form(a: Architecture) -> int:
    """Parameters of a model by the formulas of the papers, written down apart from the enumeration."""
    h, at = a.hidden, a.attention
    if isinstance(at, LatentAttention):
        heads_in, heads_out = at.heads * (at.nope_head_dim + at.rope_head_dim), at.heads * at.value_head_dim
        attention = h * at.q_lora_rank + at.q_lora_rank + at.q_lora_rank * heads_in
        attention += h * (at.kv_lora_rank + at.rope_head_dim) + at.kv_lora_rank
        attention += at.kv_lora_rank * at.heads * (at.nope_head_dim + at.value_head_dim) + heads_out * h
        if at.indexer is not None:
            i = at.indexer
            attention += at.q_lora_rank * i.heads * i.head_dim + h * i.head_dim + 2 * i.head_dim + h * i.heads
    else:
        assert isinstance(at, GroupedQueryAttention)
        wide, narrow = at.heads * at.head_dim, at.kv_heads * at.head_dim
        attention = 2 * h * wide + 2 * h * narrow
        attention += (wide + 2 * narrow) * at.qkv_bias + 2 * at.head_dim * at.qk_norm
    dense, e = a.layers, a.experts
    mixed = 0
    if e is not None:
        dense = min(a.layers, e.dense_layers)
        each = (e.routed + e.shared) * 3 * h * e.intermediate + e.routed * h + e.routed * e.correction_bias
        mixed = (a.layers - dense) * each
    outer = a.vocabulary * h * (1 if a.tied_embeddings else 2) + h
    return a.layers * (attention + 2 * h) + dense * 3 * h * a.intermediate + mixed + outer


@given(models())
def test_the_enumeration_is_the_closed_formula(architecture: Architecture) -> None:
    assert architecture.parameters == closed_form(architecture)
    assert 0 < architecture.active_parameters <= architecture.parameters


@given(models())
def test_16_bits_are_two_bytes_a_parameter_and_two_more_for_an_f32_one(architecture: Architecture) -> None:
    biases = sum(t.parameters for t in main_tensors(architecture) if t.role == "exp_probs_b")
    size = total_bytes(architecture, "bf16", Container.SAFETENSORS)
    assert size == 2 * (architecture.parameters + biases)


@given(models(), st.sampled_from(safetensors_quantizations()))
def test_no_safetensors_quantization_is_larger_than_32_bits(
    architecture: Architecture, quantization: str
) -> None:
    size = total_bytes(architecture, quantization, Container.SAFETENSORS)
    assert architecture.parameters / 2 <= size <= 4 * architecture.parameters + 64


@given(models(), st.sampled_from(sorted(gguf_tables().recipes)))
def test_every_recipe_gives_whole_blocks_between_one_bit_and_32(
    architecture: Architecture, recipe: str
) -> None:
    size = total_bytes(architecture, recipe, Container.GGUF)
    assert architecture.parameters / 8 < size <= 4 * architecture.parameters


@given(models(), st.sampled_from(["fp8", "awq", "Q4_K_M", "IQ2_XXS"]))
def test_a_longer_vocabulary_never_needs_less(architecture: Architecture, quantization: str) -> None:
    container = Container.GGUF if quantization[0] in "QI" else Container.SAFETENSORS
    longer = replace(architecture, vocabulary=architecture.vocabulary + 64)
    assert total_bytes(longer, quantization, container) > total_bytes(architecture, quantization, container)


READ = """
import time
from exporter.models.catalog import catalog
start = time.perf_counter()
catalog()
print(time.perf_counter() - start)
"""


def test_the_catalogue_is_read_in_less_than_60_milliseconds() -> None:
    def seconds() -> float:
        return float(subprocess.run([sys.executable, "-c", READ], check=True, capture_output=True).stdout)

    assert min(seconds() for _ in range(3)) < 0.060
