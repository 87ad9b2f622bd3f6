"""GGUF element types and the recipes that choose one per tensor: block sizes from ggml-common.h, rules from
llama-quant.cpp.

Both are tables (data/gguf.toml): a new type or recipe is a row there.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from math import prod

from exporter.models.architecture import Architecture, Role, Tensor


@dataclass(frozen=True, slots=True)
class BlockType:
    """A ggml type: ``block_elements`` consecutive elements of a row take ``block_bytes``."""

    block_elements: int
    block_bytes: int
    fallback: str | None


@dataclass(frozen=True, slots=True)
class Bump:
    """One rule of a recipe: tensors of ``category`` in the layers named by ``layers`` get ``type``."""

    category: str
    layers: str
    type: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """What ``llama-quantize`` does for one file type: a base type, the head's type, and bumps of which the
    first match wins.
    """

    base: str
    output: str
    bumps: tuple[Bump, ...]
    quantized: bool


@dataclass(frozen=True, slots=True)
class GgufTables:
    types: dict[str, BlockType]
    recipes: dict[str, Recipe]


# llama-quant.cpp tensor_get_category and tensor_allows_quantization.
_CATEGORIES = {
    Role.OUTPUT: "output",
    Role.V: "attn_v",
    Role.KV_B: "attn_v",
    Role.FFN_DOWN: "ffn_down",
    Role.EXPERTS_DOWN: "ffn_down",
    Role.SHARED_DOWN: "ffn_down",
}
_ALWAYS_F32 = frozenset({Role.ROUTER})


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
            tuple(Bump(b["category"], b["layers"], b["type"]) for b in row.get("bumps", [])),
            row.get("quantized", True),
        )
        for name, row in raw["recipes"].items()
    }
    return GgufTables(types, recipes)


def tensor_type(tensor: Tensor, recipe_name: str, architecture: Architecture) -> str:
    """The ggml type of a tensor in a file of this recipe, as llama-quantize without importance matrix would
    choose it.

    Raises KeyError for a recipe that is not in the table.
    """
    tables = gguf_tables()
    recipe = tables.recipes[recipe_name]
    if len(tensor.shape) == 1 or tensor.role in _ALWAYS_F32:
        return "F32"
    if not recipe.quantized:
        return recipe.base
    chosen = _recipe_type(tensor, recipe, architecture)
    columns = tensor.shape[1]
    while columns % tables.types[chosen].block_elements:
        # llama-quant.cpp tensor_type_fallback; a row that fits no block stays at 16 bits.
        chosen = tables.types[chosen].fallback or "F16"
    return chosen


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


def _recipe_type(tensor: Tensor, recipe: Recipe, architecture: Architecture) -> str:
    category = _CATEGORIES.get(tensor.role)
    if category == "output":
        return recipe.output
    chosen = recipe.base
    for bump in recipe.bumps:
        if bump.category == category and _layer_matches(bump.layers, tensor.layer, architecture.layers):
            chosen = bump.type
            break
    if category == "attn_v" and architecture.gguf_size_class == "70B" and chosen in ("Q3_K", "Q4_K"):
        # Eight heads share the value projection of a 70B: llama-quant.cpp gives it one more bit.
        return "Q5_K"
    return chosen


def _layer_matches(rule: str, layer: int | None, layers: int) -> bool:
    if rule == "all":
        return True
    if rule == "more_bits" and layer is not None:
        eighth = layers // 8
        return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
    return False
