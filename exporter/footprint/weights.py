"""Weight bytes per rank under tensor, data, expert and pipeline parallelism.

Which tensor is repeated and which is cut follows vLLM 0.33 models/deepseek_v2.py and layers/linear.py; SGLang
0.5.23 places alike, but for data-parallel attention, which Layout says. A shard is counted as a tensor of its
own, scale blocks included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import ceil
from types import MappingProxyType

from exporter.footprint.deployment import FootprintError
from exporter.models.architecture import (
    Architecture,
    draft_tensors,
    layer_groups,
    layer_tensors,
    outer_tensors,
)
from exporter.models.blocks import CompressedAttention, GroupedQueryAttention, LatentAttention
from exporter.models.checkpoint.weights import CheckpointWeights
from exporter.models.roles import CUTS, ROUTED_EXPERTS, SHARED_WITH_MAIN_MODEL, Cut, Role, Tensor
from exporter.models.safetensors import Format, convention, store_safetensors

VOCABULARY_PADDING = 64
"""Rows of embedding and head are padded to a multiple (vLLM 0.33 layers/vocab_parallel_embedding.py)."""

ABSORBED_ELEMENT_BYTES = 2

FP4_WIDTH_PADDING = 128
"""Rows of 4-bit experts on one rank are padded to a multiple (vLLM 0.33 fused_moe/oracle/mxfp4.py)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Into how many parts each kind of tensor is cut. ``whole_experts``: experts are dealt out instead of cut
    in width, each over ``expert_width`` ranks; ``redundant_experts`` of them are stored twice.

    ``absorbed``: latent attention keeps 16-bit copies of its up-projections. ``table``: parts of V4.1's
    n-gram tables, 0 where they lie in RAM.
    """

    attention: int = 1
    dense: int = 1
    experts: int = 1
    embedding: int = 1
    head: int = 1
    whole_experts: bool = False
    expert_width: int = 1
    redundant_experts: int = 0
    absorbed: bool = True
    table: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """A pipeline stage: layers ``first`` up to but not including ``end`` of ``layers``."""

    first: int
    end: int
    layers: int

    @property
    def is_first(self) -> bool:
        return self.first == 0

    @property
    def is_last(self) -> bool:
        return self.end == self.layers

    def __len__(self) -> int:
        return self.end - self.first


# Group of a role in the answer; roles that are repeated and not named here are norms.
_GROUPS: Mapping[Role, str] = MappingProxyType(
    dict.fromkeys((Role.EMBEDDING, Role.OUTPUT, Role.DRAFT_EMBEDDING, Role.DRAFT_OUTPUT), "vocabulary")
    | dict.fromkeys(ROUTED_EXPERTS, "experts")
    | dict.fromkeys((Role.SHARED_GATE, Role.SHARED_UP, Role.SHARED_DOWN), "shared_experts")
    | dict.fromkeys((Role.FFN_GATE, Role.FFN_UP, Role.FFN_DOWN), "dense")
    | dict.fromkeys(
        (Role.ROUTER, Role.ROUTER_BIAS, Role.ROUTER_IMAGE_BIAS, Role.ROUTER_HASH, Role.DRAFT_PROJECTION),
        "router",
    )
    | dict.fromkeys(
        (
            Role.Q, Role.K, Role.V, Role.Q_BIAS, Role.K_BIAS, Role.V_BIAS, Role.Q_B, Role.KV_B, Role.K_B,
            Role.V_B, Role.ATTENTION_OUTPUT, Role.OUTPUT_A, Role.OUTPUT_B, Role.SINKS,
        ),
        "attention",
    )
    | dict.fromkeys((Role.Q_A, Role.KV_A, Role.KV), "attention_repeated")
    | dict.fromkeys(
        (Role.INDEXER_Q, Role.INDEXER_K, Role.INDEXER_PROJECTION, Role.INDEXER_COMPRESSOR_KV,
         Role.INDEXER_COMPRESSOR_GATE, Role.INDEXER_COMPRESSOR_POSITION),
        "indexer",
    )
    | dict.fromkeys(
        (Role.COMPRESSOR_KV, Role.COMPRESSOR_GATE, Role.COMPRESSOR_POSITION), "compressor"
    )
    | dict.fromkeys(
        (Role.HYPER_ATTENTION, Role.HYPER_FFN, Role.HYPER_HEAD), "hyper_connections"
    )
    | dict.fromkeys(
        (Role.ENGRAM_TABLE, Role.ENGRAM_PROJECTION, Role.ENGRAM_Q, Role.ENGRAM_K), "engram"
    )
    | {Role.ENCODER: "encoder"}
)  # fmt: skip
_DENSE_ROLES = frozenset(
    {Role.FFN_GATE, Role.FFN_UP, Role.FFN_DOWN, Role.SHARED_GATE, Role.SHARED_UP, Role.SHARED_DOWN}
)


@lru_cache(maxsize=1024)
def rank_weights(
    architecture: Architecture, quantization: str, layout: Layout, stage: Stage
) -> Mapping[str, int]:
    """Bytes that one rank of a stage holds, by group; ``absorbed`` are the engine's 16-bit copies of latent
    attention.

    All ranks of a stage hold the same. Raises FootprintError when a dimension cannot be cut so, KeyError for
    a quantization that safetensors files do not have.
    """
    groups: dict[str, int] = {}
    for first, layers in layer_groups(architecture).items():
        here = sum(stage.first <= layer < stage.end for layer in layers)
        if here:
            for name, size in _layer_bytes(architecture, quantization, layout, first).items():
                groups[name] = groups.get(name, 0) + here * size
    _add_absorbed(groups, len(stage), architecture, layout)
    for tensor in outer_tensors(architecture):
        at_start = tensor.role in (Role.EMBEDDING, Role.ENCODER)
        if stage.is_first if at_start else stage.is_last:
            _add(groups, tensor, architecture, quantization, layout)
    if architecture.tied_embeddings and stage.is_last and not stage.is_first:
        embedding = next(t for t in outer_tensors(architecture) if t.role is Role.EMBEDDING)
        _add(groups, replace(embedding, role=Role.OUTPUT), architecture, quantization, layout)
    return MappingProxyType(groups)


@lru_cache(maxsize=1024)
def _layer_bytes(
    architecture: Architecture, quantization: str, layout: Layout, layer: int
) -> Mapping[str, int]:
    groups: dict[str, int] = {}
    for tensor in layer_tensors(architecture, layer):
        _add(groups, tensor, architecture, quantization, layout)
    return groups


@lru_cache(maxsize=256)
def draft_weights(architecture: Architecture, quantization: str, layout: Layout) -> int:
    """Bytes per rank of the draft layers when speculation is on; embedding and head are the main model's."""
    groups: dict[str, int] = {}
    for tensor in draft_tensors(architecture):
        if tensor.role not in SHARED_WITH_MAIN_MODEL:
            _add(groups, tensor, architecture, quantization, layout, draft=True)
    _add_absorbed(groups, architecture.draft_layers, architecture, layout)
    return sum(groups.values())


@lru_cache(maxsize=64)
def table_bytes(architecture: Architecture, quantization: str) -> int:
    """Bytes of the n-gram tables of V4.1, which engines keep in RAM unless told otherwise; else 0."""
    if architecture.engram is None:
        return 0
    return sum(
        store_safetensors(tensor, quantization).bytes
        for layer in architecture.engram.layers
        for tensor in layer_tensors(architecture, layer)
        if tensor.role is Role.ENGRAM_TABLE
    )


def stored_rank_bytes(
    architecture: Architecture, stored: CheckpointWeights, layout: Layout, stage: Stage
) -> tuple[int, int]:
    """Bytes that one rank of a stage holds of a checkpoint whose headers are known, and those of its draft
    layers: every role's bytes by the share that its cut leaves on a rank. What no role names is repeated.
    """
    main = Fraction(stored.unknown_bytes if stage.is_last else 0)
    draft = Fraction(0)
    for entry in stored.roles:
        share = _share(entry.role, architecture, layout)
        if stored.is_draft(entry.layer):
            if entry.role not in SHARED_WITH_MAIN_MODEL:
                draft += entry.bytes * share
        elif _is_here(entry.role, entry.layer, stage):
            main += entry.bytes * share
    groups: dict[str, int] = {}
    _add_absorbed(groups, len(stage), architecture, layout)
    return ceil(main) + sum(groups.values()), ceil(draft)


def _is_here(role: Role, layer: int | None, stage: Stage) -> bool:
    if layer is not None:
        return stage.first <= layer < stage.end
    return stage.is_first if role in (Role.EMBEDDING, Role.ENCODER) else stage.is_last


def _share(role: Role, architecture: Architecture, layout: Layout) -> Fraction:
    cut = CUTS[role]
    if cut is Cut.REPEATED:
        return Fraction(1)
    if cut is Cut.TABLE:
        return Fraction(1, layout.table) if layout.table else Fraction(0)
    if cut is Cut.VOCABULARY:
        return Fraction(
            1, layout.embedding if role in (Role.EMBEDDING, Role.DRAFT_EMBEDDING) else layout.head
        )
    if cut is Cut.EXPERTS:
        assert architecture.experts is not None
        routed = architecture.experts.routed
        redundant = layout.redundant_experts if layout.whole_experts else 0
        return Fraction(routed + redundant, routed * layout.experts)
    attention = architecture.attention
    if role in (Role.K, Role.V, Role.K_BIAS, Role.V_BIAS) and isinstance(attention, GroupedQueryAttention):
        return Fraction(max(1, attention.kv_heads // layout.attention), attention.kv_heads)
    return Fraction(1, layout.dense if role in _DENSE_ROLES else layout.attention)


def check_layout(architecture: Architecture, layout: Layout, field: str = "tp") -> None:
    """Refuse a tensor parallelism that does not divide the heads. Raises FootprintError naming ``field``."""
    attention = architecture.attention
    if attention.heads % layout.attention:
        raise FootprintError(
            f"{field}: {layout.attention} attention shards do not divide "
            f"the {attention.heads} heads of {architecture.name}"
        )
    if isinstance(attention, CompressedAttention) and attention.o_groups % layout.attention:
        raise FootprintError(
            f"{field}: {layout.attention} attention shards do not divide "
            f"the {attention.o_groups} output groups of {architecture.name}"
        )
    if isinstance(attention, GroupedQueryAttention):
        kv, parts = attention.kv_heads, layout.attention
        if max(kv, parts) % min(kv, parts):
            raise FootprintError(
                f"{field}: {parts} attention shards and {kv} key-value heads do not divide each other"
            )


def _add(
    groups: dict[str, int],
    tensor: Tensor,
    architecture: Architecture,
    quantization: str,
    layout: Layout,
    *,
    draft: bool = False,
) -> None:
    if tensor.role is Role.ENGRAM_TABLE and not layout.table:
        return
    chosen = convention(quantization).format(tensor.role, draft=draft)
    shard = _shard(tensor, architecture, layout, chosen)
    stored = store_safetensors(shard, quantization, draft=draft)
    group = _GROUPS.get(tensor.role, "norms")
    groups[group] = groups.get(group, 0) + stored.bytes


def _add_absorbed(groups: dict[str, int], layers: int, architecture: Architecture, layout: Layout) -> None:
    # vLLM keeps kv_b_proj for prefill and builds W_UK_T and W_UV beside it
    # (layers/attention/mla_attention.py, process_weights_after_loading); SGLang builds w_kc and w_vc
    # (models/deepseek_weight_loader.py).
    a = architecture.attention
    if isinstance(a, LatentAttention) and layout.absorbed:
        elements = a.kv_lora_rank * (a.heads // layout.attention) * (a.nope_head_dim + a.value_head_dim)
        groups["absorbed"] = groups.get("absorbed", 0) + layers * ABSORBED_ELEMENT_BYTES * elements


def _shard(tensor: Tensor, architecture: Architecture, layout: Layout, chosen: Format) -> Tensor:
    cut, role = CUTS[tensor.role], tensor.role
    if cut is Cut.REPEATED:
        return tensor
    if cut is Cut.VOCABULARY:
        parts = layout.embedding if role in (Role.EMBEDDING, Role.DRAFT_EMBEDDING) else layout.head
        padded = ceil(tensor.shape[0] / VOCABULARY_PADDING) * VOCABULARY_PADDING
        return replace(tensor, shape=(ceil(padded / parts), *tensor.shape[1:]))
    if cut is Cut.TABLE:
        return replace(tensor, shape=(ceil(tensor.shape[0] / layout.table), *tensor.shape[1:]))
    if cut is Cut.EXPERTS:
        return _expert_shard(tensor, architecture, layout, chosen)
    attention = architecture.attention
    if role in (Role.K, Role.V, Role.K_BIAS, Role.V_BIAS):
        assert isinstance(attention, GroupedQueryAttention)
        heads = max(1, attention.kv_heads // layout.attention)
        return _checked(
            tensor, replace(tensor, shape=(heads * attention.head_dim, *tensor.shape[1:])), chosen
        )
    parts = layout.dense if role in _DENSE_ROLES else layout.attention
    return _cut(tensor, 0 if cut is Cut.ROWS else 1, parts, chosen)


def _expert_shard(tensor: Tensor, architecture: Architecture, layout: Layout, chosen: Format) -> Tensor:
    axis = 1 if tensor.role is Role.EXPERTS_DOWN else 0
    width = layout.experts
    if layout.whole_experts:
        width = layout.expert_width
        groups = layout.experts // width
        count = tensor.count + layout.redundant_experts
        if count % groups:
            raise FootprintError(
                f"ep: {groups} ranks do not divide the {count} experts of {architecture.name}"
            )
        tensor = replace(tensor, count=count // groups)
    if chosen.bits == 4 and not chosen.grouped and width > 1:
        # Kernels for 4-bit experts want full tiles: the engine pads instead of refusing.
        length, rest = divmod(tensor.shape[axis], width)
        if rest:
            raise FootprintError(
                f"tp: {width} shards do not divide the {tensor.shape[axis]} of {tensor.role}"
            )
        return _with_length(tensor, axis, ceil(length / FP4_WIDTH_PADDING) * FP4_WIDTH_PADDING)
    return _cut(tensor, axis, width, chosen)


def _cut(tensor: Tensor, axis: int, parts: int, chosen: Format) -> Tensor:
    length, rest = divmod(tensor.shape[axis], parts)
    if rest:
        raise FootprintError(f"tp: {parts} shards do not divide the {tensor.shape[axis]} of {tensor.role}")
    return _checked(tensor, _with_length(tensor, axis, length), chosen)


def _checked(tensor: Tensor, shard: Tensor, chosen: Format) -> Tensor:
    """Blocks that share a scale are never cut through: engines refuse it when they load."""
    if len(tensor.shape) == 2 and chosen.scale_bytes:
        for axis, block in enumerate(chosen.block):
            if block > 1 and shard.shape[axis] != tensor.shape[axis] and shard.shape[axis] % block:
                raise FootprintError(
                    f"tp: {tensor.role} would be cut to {shard.shape[axis]}, "
                    f"not a multiple of the block of {block} that shares a scale"
                )
    return shard


def _with_length(tensor: Tensor, axis: int, length: int) -> Tensor:
    shape = (length, *tensor.shape[1:]) if axis == 0 else (tensor.shape[0], length)
    return replace(tensor, shape=shape)
