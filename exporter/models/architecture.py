"""Architectures, and the tensors that follow from them in checkpoint terms.

Shapes come from each model's config.json (numbers and sources: data/architectures.toml) and the reference
code (blocks.py); parameter totals agree with the published ones to the last parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType

from exporter.models.blocks import (
    Attention,
    CompressedAttention,
    DraftStages,
    Engram,
    GroupedQueryAttention,
    LatentAttention,
    MixtureOfExperts,
    SparseIndexer,
    attention_tensors,
    dense_tensors,
    engram_tensors,
    expert_tensors,
    hyper_connection_tensors,
    hyper_head_tensors,
)
from exporter.models.roles import NOT_PARAMETERS, ROUTED_EXPERTS, Role, Tensor

__all__ = [
    "ROUTED_EXPERTS",
    "Architecture",
    "Attention",
    "CompressedAttention",
    "DraftStages",
    "Engram",
    "GroupedQueryAttention",
    "LatentAttention",
    "MixtureOfExperts",
    "Role",
    "SparseIndexer",
    "Tensor",
    "draft_tensors",
    "layer_groups",
    "layer_tensors",
    "main_tensors",
    "outer_tensors",
]


@dataclass(frozen=True)
class Architecture:
    """Numbers of a config.json that decide tensors and cache. Lengths are elements, ``context_tokens`` is the
    trained limit.

    ``draft`` None with ``draft_layers`` above 0 is V3's multi-token prediction. ``hyper_connections`` are the
    residual streams of V4. ``encoder_parameters`` see images or speech and are not taken apart.

    For GGUF: ``gguf_architecture`` is llama.cpp's name of the family ("" when it has none),
    ``gguf_size_class`` its name for the size where the quantization rules ask for it ("70B"),
    ``gguf_experts`` the type in which the converter keeps experts that are published in 4 bits.
    """

    name: str
    family: str
    layers: int
    hidden: int
    vocabulary: int
    intermediate: int
    context_tokens: int
    attention: Attention
    experts: MixtureOfExperts | None = None
    draft_layers: int = 0
    tied_embeddings: bool = False
    tokenizer_merges: int = 0
    gguf_size_class: str = ""
    draft: DraftStages | None = None
    hyper_connections: int = 0
    engram: Engram | None = None
    encoder_parameters: int = 0
    gguf_architecture: str = ""
    gguf_experts: str = ""

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.layers, self.hidden, self.attention, self.experts, self.draft_layers))

    def __hash__(self) -> int:
        # It is the key of every cached table below: hashing all fields at each look-up would cost more than
        # the look-up.
        return self._hash

    @cached_property
    def parameters(self) -> int:
        """Parameters of the model that answers, without draft layers, integer tables and scales."""
        return sum(t.parameters for t in main_tensors(self) if t.role not in NOT_PARAMETERS)

    @cached_property
    def draft_parameters(self) -> int:
        """Parameters that the checkpoint stores for draft layers, their copies of embedding and head
        included.
        """
        return sum(tensor.parameters for tensor in draft_tensors(self))

    @cached_property
    def active_parameters(self) -> int:
        """Parameters that one token passes through, the embedding row's table included (as model cards
        count), n-gram tables not.
        """
        by_role: dict[Role, int] = {}
        for tensor in main_tensors(self):
            by_role[tensor.role] = by_role.get(tensor.role, 0) + tensor.parameters
        total = self.parameters - by_role.get(Role.ENGRAM_TABLE, 0)
        if self.experts is None:
            return total
        routed = sum(by_role.get(role, 0) for role in ROUTED_EXPERTS)
        return total - routed + routed * self.experts.active // self.experts.routed

    def is_dense(self, layer: int) -> bool:
        return self.experts is None or layer < self.experts.dense_layers


@lru_cache(maxsize=64)
def main_tensors(architecture: Architecture) -> tuple[Tensor, ...]:
    """Every tensor of the model that answers; draft layers are apart."""
    return tuple(_main_tensors(architecture))


@lru_cache(maxsize=64)
def draft_tensors(architecture: Architecture) -> tuple[Tensor, ...]:
    """Tensors of the draft layers: multi-token prediction (DeepSeek-V3 README_WEIGHTS.md: one more layer,
    projection and norms, and copies of embedding and head that an engine shares with the main model), V4's
    form of it, or DSpark's stages.
    """
    draft = architecture.draft
    if draft is None:
        return tuple(_prediction_layers(architecture))
    if draft.markov_rank:
        return tuple(_dspark_stages(architecture, draft))
    return tuple(_v4_prediction_layers(architecture, draft))


@lru_cache(maxsize=4096)
def layer_tensors(architecture: Architecture, layer: int) -> tuple[Tensor, ...]:
    """The tensors of one layer."""
    return tuple(_layer_tensors(architecture, layer, architecture.experts))


@lru_cache(maxsize=64)
def layer_groups(architecture: Architecture) -> Mapping[int, tuple[int, ...]]:
    """Layers that have the same tensors but for their number: the first of each kind to all of them."""
    groups: dict[tuple[tuple[Role, tuple[int, ...], int], ...], list[int]] = {}
    for layer in range(architecture.layers):
        kind = tuple((t.role, t.shape, t.count) for t in layer_tensors(architecture, layer))
        groups.setdefault(kind, []).append(layer)
    return MappingProxyType({layers[0]: tuple(layers) for layers in groups.values()})


@lru_cache(maxsize=64)
def outer_tensors(architecture: Architecture) -> tuple[Tensor, ...]:
    """The tensors that belong to no layer: embedding, last norm and, unless it shares the embedding, the
    head; the join of V4's streams; whatever sees images.
    """
    return tuple(_outer_tensors(architecture))


def _outer_tensors(arch: Architecture) -> Iterator[Tensor]:
    yield Tensor(Role.EMBEDDING, None, (arch.vocabulary, arch.hidden))
    yield Tensor(Role.OUTPUT_NORM, None, (arch.hidden,))
    if arch.hyper_connections and arch.engram is None:
        # V4.1 joins its streams without weights.
        yield from hyper_head_tensors(arch.hyper_connections, arch.hidden, None)
    if arch.encoder_parameters:
        yield Tensor(Role.ENCODER, None, (arch.encoder_parameters,))
    if not arch.tied_embeddings:
        yield Tensor(Role.OUTPUT, None, (arch.vocabulary, arch.hidden))


def _main_tensors(arch: Architecture) -> Iterator[Tensor]:
    for layer in range(arch.layers):
        yield from layer_tensors(arch, layer)
    yield from outer_tensors(arch)


def _layer_tensors(arch: Architecture, layer: int, experts: MixtureOfExperts | None) -> Iterator[Tensor]:
    yield Tensor(Role.ATTENTION_NORM, layer, (arch.hidden,))
    yield from attention_tensors(arch.attention, arch.hidden, layer)
    yield Tensor(Role.FFN_NORM, layer, (arch.hidden,))
    if arch.hyper_connections:
        yield from hyper_connection_tensors(arch.hyper_connections, arch.hidden, layer)
    if arch.engram is not None and layer in arch.engram.layers:
        yield from engram_tensors(arch.engram, arch.hyper_connections, arch.hidden, layer)
    if experts is None or layer < experts.dense_layers:
        yield from dense_tensors(arch.intermediate, arch.hidden, layer)
    else:
        yield from expert_tensors(experts, arch.hidden, arch.vocabulary, layer)


def _draft_numbers(arch: Architecture) -> range:
    return range(arch.layers, arch.layers + arch.draft_layers)


def _prediction_layers(arch: Architecture) -> Iterator[Tensor]:
    for layer in _draft_numbers(arch):
        yield from _layer_tensors(arch, layer, arch.experts)
        yield Tensor(Role.DRAFT_PROJECTION, layer, (arch.hidden, 2 * arch.hidden))
        yield from _draft_norms(arch, layer)
        yield from _draft_vocabulary(arch, layer)


def _v4_prediction_layers(arch: Architecture, draft: DraftStages) -> Iterator[Tensor]:
    for layer in _draft_numbers(arch):
        yield from _layer_tensors(arch, layer, arch.experts)
        yield Tensor(Role.DRAFT_EMBEDDING_PROJECTION, layer, (arch.hidden, arch.hidden))
        yield Tensor(Role.DRAFT_HIDDEN_PROJECTION, layer, (arch.hidden, arch.hidden))
        yield from _draft_norms(arch, layer)
        yield from hyper_head_tensors(arch.hyper_connections, arch.hidden, layer)
        if draft.owns_vocabulary:
            yield from _draft_vocabulary(arch, layer)


def _dspark_stages(arch: Architecture, draft: DraftStages) -> Iterator[Tensor]:
    # The stages are one block: its entry is in the first, its exit in the last.
    numbers = _draft_numbers(arch)
    for layer in numbers:
        yield from _layer_tensors(arch, layer, draft.experts or arch.experts)
    first, last = numbers[0], numbers[-1]
    yield Tensor(Role.DRAFT_MAIN_PROJECTION, first, (arch.hidden, draft.targets * arch.hidden))
    yield Tensor(Role.DRAFT_MAIN_NORM, first, (arch.hidden,))
    yield Tensor(Role.DRAFT_OUTPUT_NORM, last, (arch.hidden,))
    if arch.engram is None:
        yield from hyper_head_tensors(arch.hyper_connections, arch.hidden, last)
    yield Tensor(Role.DRAFT_MARKOV_EMBEDDING, last, (arch.vocabulary, draft.markov_rank))
    yield Tensor(Role.DRAFT_MARKOV_OUTPUT, last, (arch.vocabulary, draft.markov_rank))
    yield Tensor(Role.DRAFT_CONFIDENCE, last, (1, arch.hidden + draft.markov_rank))


def _draft_norms(arch: Architecture, layer: int) -> Iterator[Tensor]:
    yield Tensor(Role.DRAFT_EMBEDDING_NORM, layer, (arch.hidden,))
    yield Tensor(Role.DRAFT_HIDDEN_NORM, layer, (arch.hidden,))
    yield Tensor(Role.DRAFT_OUTPUT_NORM, layer, (arch.hidden,))


def _draft_vocabulary(arch: Architecture, layer: int) -> Iterator[Tensor]:
    yield Tensor(Role.DRAFT_EMBEDDING, layer, (arch.vocabulary, arch.hidden))
    yield Tensor(Role.DRAFT_OUTPUT, layer, (arch.vocabulary, arch.hidden))
