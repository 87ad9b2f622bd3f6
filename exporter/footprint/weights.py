"""Weight bytes per rank under tensor, data, expert and pipeline parallelism.

Which tensor is repeated and which is cut follows vLLM 0.33 models/deepseek_v2.py and layers/linear.py; SGLang
0.5.23 places alike, but for data-parallel attention, which Layout says. A shard is counted as a tensor of its
own, scale blocks included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from types import MappingProxyType
from typing import Literal

from exporter.footprint.deployment import FootprintError
from exporter.models.architecture import (
    Architecture,
    GroupedQueryAttention,
    LatentAttention,
    Role,
    Tensor,
    draft_tensors,
    layer_tensors,
    outer_tensors,
)
from exporter.models.quantization import FP8_BLOCK, store_safetensors

VOCABULARY_PADDING = 64
"""Rows of embedding and head are padded to a multiple (vLLM 0.33 layers/vocab_parallel_embedding.py)."""

ABSORBED_ELEMENT_BYTES = 2


@dataclass(frozen=True, slots=True)
class Layout:
    """Into how many parts each kind of tensor is cut. ``whole_experts``: experts are dealt out instead of cut
    in width.
    """

    attention: int = 1
    dense: int = 1
    experts: int = 1
    embedding: int = 1
    head: int = 1
    whole_experts: bool = False


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


@dataclass(frozen=True, slots=True)
class _Placement:
    group: str
    parts: Literal["attention", "dense", "experts", "embedding", "head", "none"] = "none"
    cut: Literal["rows", "columns"] = "rows"


_REPEATED_ATTENTION = _Placement("attention_repeated")
_NORM = _Placement("norms")
_PLACEMENTS: Mapping[Role, _Placement] = {
    Role.EMBEDDING: _Placement("vocabulary", "embedding"),
    Role.OUTPUT: _Placement("vocabulary", "head"),
    Role.OUTPUT_NORM: _NORM,
    Role.ATTENTION_NORM: _NORM,
    Role.FFN_NORM: _NORM,
    Role.Q_NORM: _NORM,
    Role.K_NORM: _NORM,
    Role.Q_A_NORM: _NORM,
    Role.KV_A_NORM: _NORM,
    Role.Q_A: _REPEATED_ATTENTION,
    Role.KV_A: _REPEATED_ATTENTION,
    Role.Q: _Placement("attention", "attention"),
    Role.K: _Placement("attention", "attention"),
    Role.V: _Placement("attention", "attention"),
    Role.Q_BIAS: _Placement("attention", "attention"),
    Role.K_BIAS: _Placement("attention", "attention"),
    Role.V_BIAS: _Placement("attention", "attention"),
    Role.Q_B: _Placement("attention", "attention"),
    Role.KV_B: _Placement("attention", "attention"),
    Role.ATTENTION_OUTPUT: _Placement("attention", "attention", "columns"),
    Role.FFN_GATE: _Placement("dense", "dense"),
    Role.FFN_UP: _Placement("dense", "dense"),
    Role.FFN_DOWN: _Placement("dense", "dense", "columns"),
    Role.SHARED_GATE: _Placement("shared_experts", "dense"),
    Role.SHARED_UP: _Placement("shared_experts", "dense"),
    Role.SHARED_DOWN: _Placement("shared_experts", "dense", "columns"),
    Role.ROUTER: _Placement("router"),
    Role.ROUTER_BIAS: _Placement("router"),
    Role.EXPERTS_GATE: _Placement("experts", "experts"),
    Role.EXPERTS_UP: _Placement("experts", "experts"),
    Role.EXPERTS_DOWN: _Placement("experts", "experts", "columns"),
    Role.DRAFT_PROJECTION: _Placement("router"),
    Role.DRAFT_EMBEDDING_NORM: _NORM,
    Role.DRAFT_HIDDEN_NORM: _NORM,
    Role.DRAFT_OUTPUT_NORM: _NORM,
}
# The engine uses the main model's own copies (vLLM 0.33 models/deepseek_mtp.py, SGLang 0.5.23
# models/deepseek_nextn.py).
_SHARED_WITH_MAIN_MODEL = frozenset({Role.DRAFT_EMBEDDING, Role.DRAFT_OUTPUT})


@lru_cache(maxsize=512)
def rank_weights(
    architecture: Architecture, quantization: str, layout: Layout, stage: Stage
) -> Mapping[str, int]:
    """Bytes that one rank of a stage holds, by group; ``absorbed`` are the engine's 16-bit copies of latent
    attention.

    All ranks of a stage hold the same. Raises FootprintError when a dimension cannot be cut so.
    """
    groups: dict[str, int] = {}
    dense = architecture.experts.dense_layers if architecture.experts is not None else architecture.layers
    dense_here = max(0, min(stage.end, dense) - stage.first)
    for count, layer in ((dense_here, 0), (len(stage) - dense_here, architecture.layers - 1)):
        if count:
            for tensor in layer_tensors(architecture, layer):
                _add(groups, tensor, count, architecture, quantization, layout)
            _add_absorbed(groups, count, architecture, layout)
    for tensor in outer_tensors(architecture):
        if stage.is_first if tensor.role is Role.EMBEDDING else stage.is_last:
            _add(groups, tensor, 1, architecture, quantization, layout)
    return MappingProxyType(groups)


@lru_cache(maxsize=128)
def draft_weights(architecture: Architecture, quantization: str, layout: Layout) -> int:
    """Bytes per rank of the draft layers when speculation is on; embedding and head are the main model's."""
    groups: dict[str, int] = {}
    for tensor in draft_tensors(architecture):
        if tensor.role not in _SHARED_WITH_MAIN_MODEL:
            _add(groups, tensor, 1, architecture, quantization, layout)
    _add_absorbed(groups, architecture.draft_layers, architecture, layout)
    return sum(groups.values())


def check_layout(architecture: Architecture, layout: Layout, field: str = "tp") -> None:
    """Refuse a tensor parallelism that does not divide the heads. Raises FootprintError naming ``field``."""
    attention = architecture.attention
    if attention.heads % layout.attention:
        raise FootprintError(
            f"{field}: {layout.attention} attention shards do not divide "
            f"the {attention.heads} heads of {architecture.name}"
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
    count: int,
    architecture: Architecture,
    quantization: str,
    layout: Layout,
) -> None:
    placement = _PLACEMENTS[tensor.role]
    shard = _shard(tensor, placement, architecture, layout)
    stored = store_safetensors(shard, quantization)
    if stored.type == "fp8" and shard.shape != tensor.shape:
        axis = 0 if placement.cut == "rows" else 1
        if shard.shape[axis] % FP8_BLOCK:
            raise FootprintError(
                f"tp: {tensor.role} of {architecture.name} would be cut to {shard.shape[axis]}, "
                f"not a multiple of the FP8 block of {FP8_BLOCK}"
            )
    groups[placement.group] = groups.get(placement.group, 0) + count * stored.bytes


def _add_absorbed(groups: dict[str, int], layers: int, architecture: Architecture, layout: Layout) -> None:
    # vLLM keeps kv_b_proj for prefill and builds W_UK_T and W_UV beside it
    # (layers/attention/mla_attention.py, process_weights_after_loading); SGLang builds w_kc and w_vc
    # (models/deepseek_weight_loader.py).
    a = architecture.attention
    if isinstance(a, LatentAttention):
        elements = a.kv_lora_rank * (a.heads // layout.attention) * (a.nope_head_dim + a.value_head_dim)
        groups["absorbed"] = groups.get("absorbed", 0) + layers * ABSORBED_ELEMENT_BYTES * elements


def _shard(tensor: Tensor, placement: _Placement, architecture: Architecture, layout: Layout) -> Tensor:
    if placement.parts == "none":
        return tensor
    parts: int = getattr(layout, placement.parts)
    if placement.parts in ("embedding", "head"):
        padded = ceil(tensor.shape[0] / VOCABULARY_PADDING) * VOCABULARY_PADDING
        return replace(tensor, shape=(ceil(padded / parts), *tensor.shape[1:]))
    if tensor.role in (Role.K, Role.V, Role.K_BIAS, Role.V_BIAS):
        attention = architecture.attention
        assert isinstance(attention, GroupedQueryAttention)
        heads = max(1, attention.kv_heads // parts)
        return replace(tensor, shape=(heads * attention.head_dim, *tensor.shape[1:]))
    if placement.parts == "experts" and layout.whole_experts:
        if tensor.count % parts:
            raise FootprintError(
                f"ep: {parts} ranks do not divide the {tensor.count} experts of {architecture.name}"
            )
        return replace(tensor, count=tensor.count // parts)
    axis = 0 if placement.cut == "rows" else 1
    length, rest = divmod(tensor.shape[axis], parts)
    if rest:
        raise FootprintError(f"tp: {parts} shards do not divide the {tensor.shape[axis]} of {tensor.role}")
    shape = (length, *tensor.shape[1:]) if axis == 0 else (tensor.shape[0], length)
    return replace(tensor, shape=shape)
