"""Bytes of a tensor under a quantization, in the two containers that engines load: safetensors and GGUF.

Safetensors: 16- and 32-bit floats and DeepSeek's FP8 with one f32 scale per 128 x 128 block (DeepSeek-V3
README_WEIGHTS.md). GGUF: block types and mixed recipes of llama.cpp, kept as data in data/gguf.toml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from math import ceil, prod

from exporter.models.architecture import (
    Architecture,
    LatentAttention,
    Role,
    Tensor,
    draft_tensors,
    main_tensors,
)
from exporter.models.gguf import tensor_type, type_bytes

FP8_BLOCK = 128
"""Rows and columns that share one scale in DeepSeek's FP8 checkpoints (config.json, weight_block_size)."""


class Container(StrEnum):
    """How a checkpoint is stored: an engine loads one or the other."""

    SAFETENSORS = "safetensors"
    GGUF = "gguf"


SAFETENSORS_QUANTIZATIONS = ("fp8", "bf16", "f16")

# Kept at 16 bits by every FP8 checkpoint of DeepSeek (config.json, quantization_config; tensor dtypes of the
# hub listing).
_NEVER_FP8 = frozenset(
    {
        Role.EMBEDDING,
        Role.OUTPUT,
        Role.ROUTER,
        Role.DRAFT_PROJECTION,
        Role.DRAFT_EMBEDDING,
        Role.DRAFT_OUTPUT,
    }
)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a container stores it: its element type and its bytes, scales included."""

    tensor: Tensor
    type: str
    bytes: int


@lru_cache(maxsize=256)
def stored_tensors(
    architecture: Architecture, quantization: str, container: Container, drafts: bool = False
) -> tuple[StoredTensor, ...]:
    """Every tensor of the main model (with ``drafts``: of the draft layers) with its type and bytes.

    ``quantization`` is canonical (see Catalog.quantization). Raises KeyError when the container does not know
    it.
    """
    tensors = draft_tensors(architecture) if drafts else main_tensors(architecture)
    if container is Container.SAFETENSORS:
        return tuple(store_safetensors(tensor, quantization) for tensor in tensors)
    return tuple(
        StoredTensor(part, kind, type_bytes(kind, part))
        for tensor in tensors
        for part in _gguf_parts(tensor, architecture)
        for kind in (tensor_type(part, quantization, architecture),)
    )


def store_safetensors(tensor: Tensor, quantization: str) -> StoredTensor:
    """The tensor under a safetensors quantization; a shard of a tensor counts its own scale blocks (ceil per
    dimension).
    """
    if tensor.role is Role.ROUTER_BIAS:
        return StoredTensor(tensor, "f32", 4 * tensor.parameters)
    if quantization == "fp8":
        if len(tensor.shape) == 1 or tensor.role in _NEVER_FP8:
            return StoredTensor(tensor, "bf16", 2 * tensor.parameters)
        return StoredTensor(tensor, "fp8", tensor.parameters + 4 * fp8_scales(tensor))
    if quantization in ("bf16", "f16"):
        return StoredTensor(tensor, quantization, 2 * tensor.parameters)
    raise KeyError(quantization)


def fp8_scales(tensor: Tensor) -> int:
    """Number of f32 scales of a matrix under 128 x 128 blocks."""
    return prod(ceil(length / FP8_BLOCK) for length in tensor.shape) * tensor.count


@lru_cache(maxsize=256)
def total_bytes(
    architecture: Architecture, quantization: str, container: Container, drafts: bool = False
) -> int:
    """Sum of the tensors' bytes; file headers and tokenizer metadata are not in it (0.01 … 0.5 %)."""
    return sum(stored.bytes for stored in stored_tensors(architecture, quantization, container, drafts))


def checkpoint_bytes(architecture: Architecture, quantization: str, container: Container) -> int:
    """Tensor bytes of the published checkpoint: safetensors ship the draft layers, converted GGUF files leave
    them out.
    """
    total = total_bytes(architecture, quantization, container)
    if container is Container.SAFETENSORS and architecture.draft_layers:
        total += total_bytes(architecture, quantization, container, drafts=True)
    return total


def elements_by_type(
    architecture: Architecture, quantization: str, container: Container
) -> Mapping[str, int]:
    """Elements of the published checkpoint per type, FP8 scales counted as f32: what a hub listing shows."""
    elements: dict[str, int] = {}
    for drafts in (False, True):
        for stored in stored_tensors(architecture, quantization, container, drafts):
            elements[stored.type] = elements.get(stored.type, 0) + stored.tensor.parameters
            if stored.type == "fp8":
                elements["f32"] = elements.get("f32", 0) + fp8_scales(stored.tensor)
    return elements


def _gguf_parts(tensor: Tensor, architecture: Architecture) -> tuple[Tensor, ...]:
    # Converters since April 2025 store kv_b as two stacks of per-head matrices (llama.cpp conversion,
    # DeepseekV2Model).
    attention = architecture.attention
    if tensor.role is not Role.KV_B or not isinstance(attention, LatentAttention):
        return (tensor,)
    heads, latent = attention.heads, attention.kv_lora_rank
    return (
        replace(tensor, role=Role.K_B, shape=(latent, attention.nope_head_dim), count=heads),
        replace(tensor, role=Role.V_B, shape=(attention.value_head_dim, latent), count=heads),
    )
