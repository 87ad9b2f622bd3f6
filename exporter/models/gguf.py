"""GGUF element types and the recipes that choose one per tensor: block sizes from ggml-common.h, rules from
llama-quant.cpp.

Both are tables (data/gguf.toml): a new type or recipe is a row there.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from math import prod

from exporter.models.architecture import Architecture, GroupedQueryAttention, LatentAttention
from exporter.models.roles import ROUTED_EXPERTS, Role, Tensor


class GgufLayout(StrEnum):
    """How a file keeps the second half of latent keys and values: ``split`` by head (converters since April
    2025), ``joint`` (before: such a file runs without latent attention), or ``both`` (ik_llama.cpp's
    converter).
    """

    SPLIT = "split"
    JOINT = "joint"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class BlockType:
    """A ggml type: ``block_elements`` consecutive elements of a row take ``block_bytes``."""

    block_elements: int
    block_bytes: int
    fallback: str | None


@dataclass(frozen=True, slots=True)
class Bump:
    """One rule of a recipe: ``tensors`` in the layers named by ``layers`` get ``type``, in models where at
    least ``gqa`` query heads share a key-value head and that have at least ``experts``.
    """

    tensors: str
    layers: str
    type: str
    gqa: int = 0
    experts: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """What ``llama-quantize`` does for one file type: a base type, those of head and embedding, and bumps of
    which the first match wins.
    """

    base: str
    output: str
    embedding: str
    bumps: tuple[Bump, ...]
    quantized: bool


@dataclass(frozen=True, slots=True)
class GgufTables:
    types: dict[str, BlockType]
    recipes: dict[str, Recipe]
    aliases: dict[str, str]
    unsized: tuple[re.Pattern[str], ...]


# llama-quant.cpp tensor_get_category: by the end of the name, or by a part of it for the feed-forward ones.
_CATEGORIES = {
    Role.OUTPUT: "output",
    Role.EMBEDDING: "token_embd",
    Role.V: "attn_v",
    Role.KV_B: "attn_v",
    Role.K: "attn_k",
    Role.Q: "attn_q",
    Role.ATTENTION_OUTPUT: "attn_output",
    Role.FFN_DOWN: "ffn_down",
    Role.EXPERTS_DOWN: "ffn_down",
    Role.SHARED_DOWN: "ffn_down",
    Role.FFN_GATE: "ffn_gate",
    Role.EXPERTS_GATE: "ffn_gate",
    Role.SHARED_GATE: "ffn_gate",
    Role.FFN_UP: "ffn_up",
    Role.EXPERTS_UP: "ffn_up",
    Role.SHARED_UP: "ffn_up",
}
_STACKED = ROUTED_EXPERTS | {Role.K_B, Role.V_B}
# tensor_allows_quantization
_ALWAYS_F32 = frozenset({Role.ROUTER})
# What convert_hf_to_gguf.py writes itself, without llama-quantize.
_CONVERTED = frozenset({"F32", "F16", "BF16", "Q8_0"})
# Images are a file of their own (mmproj); embeddings and head of draft layers are the model's.
_NOT_IN_GGUF = frozenset({Role.ENCODER, Role.DRAFT_EMBEDDING, Role.DRAFT_OUTPUT})


@lru_cache(maxsize=1)
def gguf_tables() -> GgufTables:
    """The packaged table of block types and recipes."""
    raw = tomllib.loads(files("exporter.models.data").joinpath("gguf.toml").read_text("utf-8"))
    types = {
        name: BlockType(row["elements"], row["bytes"], row.get("fallback"))
        for name, row in raw["types"].items()
    }
    recipes = {
        name: Recipe(
            row["base"],
            row.get("output", row["base"]),
            row.get("embedding", row["base"]),
            tuple(Bump(**bump) for bump in row.get("bumps", [])),
            row.get("quantized", True),
        )
        for name, row in raw["recipes"].items()
    }
    patterns = tuple(re.compile(pattern) for pattern in raw["unsized"]["patterns"])
    return GgufTables(types, recipes, raw["aliases"], patterns)


def gguf_name(name: str) -> str | None:
    """The canonical name of a GGUF file type, upper-cased: of a recipe, or of a type that is known by name
    alone; None for anything else.
    """
    tables = gguf_tables()
    key = name.strip().upper()
    key = tables.aliases.get(key, key)
    if key in tables.recipes or any(pattern.fullmatch(key) for pattern in tables.unsized):
        return key
    return None


def is_stored_in_gguf(tensor: Tensor) -> bool:
    """Whether a converted file has this tensor."""
    return tensor.role not in _NOT_IN_GGUF


def gguf_type(
    tensor: Tensor, recipe_name: str, architecture: Architecture, layout: GgufLayout = GgufLayout.SPLIT
) -> str:
    """The ggml type of a tensor in a file of this recipe, as llama-quantize would choose it.

    Raises KeyError for a recipe that is not in the table.
    """
    tables = gguf_tables()
    recipe = tables.recipes[recipe_name]
    if tensor.role is Role.ROUTER_HASH:
        return "I32"
    if len(tensor.shape) == 1 or tensor.role in _ALWAYS_F32:
        return "F32"
    if architecture.gguf_experts and recipe_name in _CONVERTED and tensor.role in ROUTED_EXPERTS:
        # The converter repacks FP4 experts as they are (llama.cpp conversion/deepseek.py, DeepseekV4Model).
        return architecture.gguf_experts
    if not recipe.quantized:
        return recipe.base
    chosen = _recipe_type(tensor, recipe, architecture, layout)
    columns = tensor.shape[1]
    while columns % tables.types[chosen].block_elements:
        # llama-quant.cpp tensor_type_fallback; a row that fits no block stays at 16 bits.
        chosen = tables.types[chosen].fallback or "F16"
    return chosen


tensor_type = gguf_type


def type_bytes(type_name: str, tensor: Tensor) -> int:
    """Bytes of a tensor of a ggml type; rows hold whole blocks. Raises KeyError for an unknown type."""
    block = gguf_tables().types[type_name]
    return prod((*tensor.shape, tensor.count)) // block.block_elements * block.block_bytes


def row_bytes(type_name: str, elements: int) -> int:
    """Bytes of one row of ``elements``. Raises KeyError for an unknown type, ValueError when no whole blocks
    fit.
    """
    block = gguf_tables().types[type_name]
    blocks, rest = divmod(elements, block.block_elements)
    if rest:
        raise ValueError(f"a row of {elements} elements is not a multiple of the {type_name} block")
    return blocks * block.block_bytes


def _recipe_type(tensor: Tensor, recipe: Recipe, architecture: Architecture, layout: GgufLayout) -> str:
    category = _CATEGORIES.get(tensor.role)
    if category == "output":
        return _head_type(tensor, recipe)
    if category == "token_embd":
        # A shared table is quantized as the head would be.
        return _head_type(tensor, recipe) if architecture.tied_embeddings else recipe.embedding
    chosen = recipe.base
    for bump in recipe.bumps:
        if _applies(bump, category, tensor, architecture, layout):
            chosen = bump.type
            break
    if category == "attn_v" and architecture.gguf_size_class == "70B" and chosen in ("Q3_K", "Q4_K"):
        # Eight heads share the value projection of a 70B: llama-quant.cpp gives it one more bit.
        return "Q5_K"
    return chosen


def _head_type(tensor: Tensor, recipe: Recipe) -> str:
    if tensor.shape[1] % gguf_tables().types[recipe.base].block_elements:
        return "Q8_0"
    return recipe.output


def _applies(
    bump: Bump, category: str | None, tensor: Tensor, architecture: Architecture, layout: GgufLayout
) -> bool:
    if bump.tensors != category and not (bump.tensors == "experts" and tensor.role in _STACKED):
        return False
    if bump.gqa and _query_heads_per_key(architecture, layout) < bump.gqa:
        return False
    if bump.experts and (architecture.experts is None or architecture.experts.routed < bump.experts):
        return False
    return _LAYER_RULES[bump.layers](tensor, architecture)


def _query_heads_per_key(architecture: Architecture, layout: GgufLayout) -> int:
    attention = architecture.attention
    if isinstance(attention, GroupedQueryAttention):
        return attention.heads // attention.kv_heads
    if isinstance(attention, LatentAttention) and layout is GgufLayout.JOINT:
        return 1
    # With the split the converter writes one key-value head, as attention runs over the latent row.
    return attention.heads


def _more_bits(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _by_number(rule: Callable[[int, int], bool]) -> Callable[[Tensor, Architecture], bool]:
    def applies(tensor: Tensor, architecture: Architecture) -> bool:
        return tensor.layer is not None and rule(tensor.layer, architecture.layers)

    return applies


def _first_counted(tensor: Tensor, architecture: Architecture) -> bool:
    # llama-quant.cpp counts the matrices themselves here, routed and shared ones alike, in order of name.
    layer = tensor.layer
    if layer is None:
        return False
    per_layer = [_down_matrices(architecture, number) for number in range(layer)]
    position = sum(per_layer) + (1 if tensor.role is Role.SHARED_DOWN else 0)
    return position < architecture.layers // 8


def _down_matrices(architecture: Architecture, layer: int) -> int:
    if architecture.experts is None or architecture.is_dense(layer):
        return 1
    return 2 if architecture.experts.shared else 1


_LAYER_RULES: Mapping[str, Callable[[Tensor, Architecture], bool]] = {
    "all": lambda tensor, architecture: True,
    "more_bits": _by_number(_more_bits),
    "first_2": _by_number(lambda layer, layers: layer < 2),
    "first_4": _by_number(lambda layer, layers: layer < 4),
    "first_8th": _by_number(lambda layer, layers: layer < layers // 8),
    "first_16th": _by_number(lambda layer, layers: layer < layers // 16),
    "middle": _by_number(lambda layer, layers: layers // 8 <= layer < 7 * layers // 8),
    "first_8th_counted": _first_counted,
}
