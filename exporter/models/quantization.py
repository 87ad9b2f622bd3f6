"""Bytes of whole checkpoints under a quantization, in the two containers that engines load.

Safetensors conventions: safetensors.py and data/safetensors.toml. GGUF block types and mixed recipes of
llama.cpp: gguf.py and data/gguf.toml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from functools import lru_cache

from exporter.models.architecture import (
    Architecture,
    LatentAttention,
    Role,
    Tensor,
    draft_tensors,
    main_tensors,
)
from exporter.models.gguf import GgufLayout, gguf_type, is_stored_in_gguf, type_bytes
from exporter.models.roles import ROUTED_EXPERTS
from exporter.models.safetensors import (
    StoredTensor,
    convention,
    has_draft_layers,
    safetensors_quantizations,
    store_safetensors,
)

__all__ = [
    "FP8_BLOCK",
    "SAFETENSORS_QUANTIZATIONS",
    "Container",
    "GgufLayout",
    "StoredTensor",
    "checkpoint_bytes",
    "elements_by_type",
    "file_bytes",
    "fp8_scales",
    "store_safetensors",
    "stored_tensors",
    "total_bytes",
]

FP8_BLOCK = 128
"""Rows and columns that share one scale in DeepSeek's FP8 checkpoints (config.json, weight_block_size)."""

SAFETENSORS_HEADER_BYTES = 129
"""Header of one tensor: 163 files of DeepSeek-V3 with 91,991 tensors hold 11,888,393 bytes beside them."""

GGUF_TENSOR_BYTES = 90
"""Header of one tensor in a GGUF: name, dimensions, type, offset, and the alignment of its data."""

GGUF_TOKEN_BYTES = 21
"""Vocabulary entry in a GGUF: length, type and score or type, and about nine bytes of text, which is what the
published files of Qwen, Llama and DeepSeek vocabularies leave beside their tensors."""

GGUF_MERGE_BYTES = 18
"""Merge in a GGUF: length and two pieces of text."""


class Container(StrEnum):
    """How a checkpoint is stored: an engine loads one or the other."""

    SAFETENSORS = "safetensors"
    GGUF = "gguf"


SAFETENSORS_QUANTIZATIONS = safetensors_quantizations()


@lru_cache(maxsize=256)
def stored_tensors(
    architecture: Architecture,
    quantization: str,
    container: Container,
    drafts: bool = False,
    layout: GgufLayout = GgufLayout.SPLIT,
) -> tuple[StoredTensor, ...]:
    """Every tensor of the main model (with ``drafts``: of the draft layers) with its type and bytes.

    ``quantization`` is canonical (see Catalog.quantization); ``layout`` matters to GGUF files of latent
    attention. Raises KeyError when the container does not know the quantization, or knows its name but not
    its sizes.
    """
    tensors = draft_tensors(architecture) if drafts else main_tensors(architecture)
    if container is Container.SAFETENSORS:
        return tuple(store_safetensors(tensor, quantization, draft=drafts) for tensor in tensors)
    return tuple(
        StoredTensor(part, kind, type_bytes(kind, part))
        for tensor in tensors
        if is_stored_in_gguf(tensor)
        for part in _gguf_parts(tensor, architecture, layout)
        for kind in (gguf_type(part, quantization, architecture, layout),)
    )


def fp8_scales(tensor: Tensor) -> int:
    """Number of f32 scales of a matrix under 128 x 128 blocks."""
    return convention("fp8").default.scales(tensor)


@lru_cache(maxsize=256)
def total_bytes(
    architecture: Architecture,
    quantization: str,
    container: Container,
    drafts: bool = False,
    layout: GgufLayout = GgufLayout.SPLIT,
) -> int:
    """Sum of the tensors' bytes; file headers and tokenizer metadata are not in it (0.01 … 0.5 %)."""
    return sum(s.bytes for s in stored_tensors(architecture, quantization, container, drafts, layout))


def checkpoint_bytes(architecture: Architecture, quantization: str, container: Container) -> int:
    """Tensor bytes of the published checkpoint: safetensors ship the draft layers unless the quantizer drops
    them, converted GGUF files leave them out.
    """
    total = total_bytes(architecture, quantization, container)
    if container is Container.SAFETENSORS and has_draft_layers(quantization):
        total += total_bytes(architecture, quantization, container, drafts=True)
    return total


@lru_cache(maxsize=256)
def file_bytes(architecture: Architecture, quantization: str, container: Container) -> int:
    """Bytes of the published checkpoint's files: its tensors, and an estimate of headers and vocabulary
    (within 0.01 % of large files, 0.1 % of the smallest). Raises KeyError as ``stored_tensors`` does.
    """
    tensors = checkpoint_bytes(architecture, quantization, container)
    if container is Container.SAFETENSORS:
        count = tensor_count(architecture, quantization)
        return tensors + SAFETENSORS_HEADER_BYTES * count
    stored = stored_tensors(architecture, quantization, container)
    vocabulary = GGUF_TOKEN_BYTES * architecture.vocabulary
    merges = GGUF_MERGE_BYTES * (architecture.tokenizer_merges or architecture.vocabulary)
    return tensors + GGUF_TENSOR_BYTES * len(stored) + vocabulary + merges


def tensor_count(architecture: Architecture, quantization: str) -> int:
    """Tensors of the safetensors files: every expert apart, scales of their own."""
    count = 0
    for drafts in (False, True) if has_draft_layers(quantization) else (False,):
        for stored in stored_tensors(architecture, quantization, Container.SAFETENSORS, drafts):
            apart = stored.tensor.count if stored.tensor.role in ROUTED_EXPERTS else 1
            count += apart * (2 if stored.scale_elements else 1)
    return count


def elements_by_type(
    architecture: Architecture, quantization: str, container: Container
) -> Mapping[str, int]:
    """Elements of the published checkpoint per type, scales counted under theirs: what a hub listing shows
    (it counts packed FP4 as two elements a byte, and leaves out E8M0 scales).
    """
    elements: dict[str, int] = {}
    for drafts in (False, True):
        for stored in stored_tensors(architecture, quantization, container, drafts):
            elements[stored.type] = elements.get(stored.type, 0) + stored.tensor.parameters
            if stored.scale_elements:
                scales = elements.get(stored.scale_type, 0) + stored.scale_elements
                elements[stored.scale_type] = scales
    return elements


def _gguf_parts(tensor: Tensor, architecture: Architecture, layout: GgufLayout) -> tuple[Tensor, ...]:
    # Converters since April 2025 store kv_b as two stacks of per-head matrices (llama.cpp conversion,
    # DeepseekV2Model); ik_llama.cpp's wrote both forms side by side.
    attention = architecture.attention
    if (
        tensor.role is not Role.KV_B
        or not isinstance(attention, LatentAttention)
        or layout is GgufLayout.JOINT
    ):
        return (tensor,)
    heads, latent = attention.heads, attention.kv_lora_rank
    parts = (
        replace(tensor, role=Role.K_B, shape=(latent, attention.nope_head_dim), count=heads),
        replace(tensor, role=Role.V_B, shape=(attention.value_head_dim, latent), count=heads),
    )
    return (tensor, *parts) if layout is GgufLayout.BOTH else parts
