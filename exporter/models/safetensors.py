"""Bytes of a tensor under the quantizations of safetensors checkpoints: element formats with their scales,
and which tensors each convention leaves wide.

Both are tables (data/safetensors.toml, with sources): a new quantization is a row there.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from math import ceil
from types import MappingProxyType

from exporter.models.roles import ROUTED_EXPERTS, Role, Tensor


@dataclass(frozen=True, slots=True)
class Format:
    """How a matrix is stored: ``bits`` per element and, per block of ``block`` rows and columns (0: the whole
    dimension), a scale of ``scale_bytes`` and a zero point of ``zero_bits``.
    """

    type: str
    bits: int
    block: tuple[int, int] = (0, 0)
    scale_bytes: float = 0
    scale_type: str = ""
    zero_bits: int = 0
    tensor_bytes: int = 0
    grouped: bool = False

    def scales(self, tensor: Tensor) -> int:
        """Number of scales of a tensor, blocks counted up per dimension."""
        if not self.scale_bytes:
            return 0
        rows, columns = tensor.shape
        row_blocks = ceil(rows / (self.block[0] or rows))
        return row_blocks * ceil(columns / (self.block[1] or columns)) * tensor.count

    def bytes(self, tensor: Tensor) -> int:
        """Bytes of a tensor, scales included."""
        per_scale = self.scale_bytes + self.zero_bits / 8
        elements = ceil(tensor.parameters * self.bits / 8)
        return elements + ceil(self.scales(tensor) * per_scale) + self.tensor_bytes * tensor.count


@dataclass(frozen=True, slots=True)
class Convention:
    """Which format each role of a checkpoint has. ``drafts``: "as_main", "wide" (left as they were) or "none"
    (the checkpoint does not have them). ``families``: whose models alone have this form; empty for all.
    """

    default: Format
    wide: Format
    roles: Mapping[Role, Format]
    drafts: str
    families: tuple[str, ...] = ()

    def format(self, role: Role, *, draft: bool = False) -> Format:
        if role in KEPT_F32:
            return _F32
        if role in KEPT_WIDE or (draft and self.drafts == "wide"):
            return self.wide
        return self.roles.get(role, self.default)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a container stores it: its element type and its bytes, scales included."""

    tensor: Tensor
    type: str
    bytes: int
    scale_elements: int = 0
    scale_type: str = ""


_F32 = Format("f32", 32)

# Dtypes of the published checkpoints (hub listings) and of the reference code's parameters.
KEPT_F32 = frozenset(
    {
        Role.ROUTER_BIAS,
        Role.ROUTER_IMAGE_BIAS,
        Role.SINKS,
        Role.COMPRESSOR_POSITION,
        Role.INDEXER_COMPRESSOR_POSITION,
        Role.HYPER_ATTENTION,
        Role.HYPER_ATTENTION_BASE,
        Role.HYPER_ATTENTION_SCALE,
        Role.HYPER_FFN,
        Role.HYPER_FFN_BASE,
        Role.HYPER_FFN_SCALE,
        Role.HYPER_HEAD,
        Role.HYPER_HEAD_BASE,
        Role.HYPER_HEAD_SCALE,
    }
)
# Never quantized by any DeepSeek checkpoint, nor by the converters (their `ignore` and
# `modules_to_not_convert`).
KEPT_WIDE = frozenset(
    {
        Role.EMBEDDING,
        Role.OUTPUT,
        Role.ROUTER,
        Role.DRAFT_PROJECTION,
        Role.DRAFT_EMBEDDING,
        Role.DRAFT_OUTPUT,
        Role.DRAFT_MARKOV_EMBEDDING,
        Role.DRAFT_MARKOV_OUTPUT,
        Role.DRAFT_CONFIDENCE,
        Role.INDEXER_PROJECTION,
        Role.INDEXER_COMPRESSOR_KV,
        Role.INDEXER_COMPRESSOR_GATE,
        Role.COMPRESSOR_KV,
        Role.COMPRESSOR_GATE,
        Role.ENGRAM_Q,
        Role.ENGRAM_K,
        Role.ENCODER,
    }
)
_GROUPS: Mapping[str, frozenset[Role]] = {
    "experts": ROUTED_EXPERTS,
    "attention": frozenset(
        {
            Role.Q, Role.K, Role.V, Role.Q_A, Role.Q_B, Role.KV_A, Role.KV_B, Role.KV,
            Role.ATTENTION_OUTPUT, Role.OUTPUT_A, Role.OUTPUT_B,
        }
    ),
    "attention_output": frozenset({Role.ATTENTION_OUTPUT, Role.OUTPUT_A, Role.OUTPUT_B}),
    "indexer": frozenset({Role.INDEXER_Q, Role.INDEXER_K}),
    "indexer_key": frozenset({Role.INDEXER_K}),
    "engram_table": frozenset({Role.ENGRAM_TABLE}),
}  # fmt: skip

HASH_TABLE_TYPE = "i64"
_HASH_TABLE_BYTES = 8
_GROUP_SIZE = re.compile(r"(?P<base>[a-z0-9_]+)_g(?P<group>\d{1,4})")
MAX_GROUP = 1024


@lru_cache(maxsize=256)
def convention(quantization: str) -> Convention:
    """The convention of a canonical quantization; ``awq_g64`` is ``awq`` with groups of 64.

    Raises KeyError for one that safetensors files do not have.
    """
    tables = _conventions()
    if quantization in tables:
        return tables[quantization]
    match = _GROUP_SIZE.fullmatch(quantization)
    if match is None or not 8 <= (group := int(match["group"])) <= MAX_GROUP:
        raise KeyError(quantization)
    base = tables[match["base"]]
    if not base.default.grouped:
        raise KeyError(quantization)
    return replace(base, default=replace(base.default, block=(1, group)))


def has_convention(quantization: str) -> bool:
    """Whether safetensors files have this canonical quantization."""
    try:
        convention(quantization)
    except KeyError:
        return False
    return True


def has_draft_layers(quantization: str) -> bool:
    """Whether checkpoints of a canonical quantization keep the model's draft layers. Raises KeyError."""
    return convention(quantization).drafts != "none"


@lru_cache(maxsize=1)
def safetensors_quantizations() -> tuple[str, ...]:
    """Canonical names of the packaged table."""
    return tuple(_conventions())


def store_safetensors(tensor: Tensor, quantization: str, *, draft: bool = False) -> StoredTensor:
    """The tensor under a safetensors quantization; a shard of a tensor counts its own scale blocks (ceil per
    dimension). ``draft``: it belongs to a draft layer.

    Raises KeyError for an unknown quantization.
    """
    rules = convention(quantization)
    if tensor.role is Role.ROUTER_HASH:
        return StoredTensor(tensor, HASH_TABLE_TYPE, _HASH_TABLE_BYTES * tensor.parameters)
    chosen = rules.format(tensor.role, draft=draft)
    if len(tensor.shape) == 1 and chosen is not _F32:
        chosen = rules.wide
    if not chosen.scale_bytes:
        return StoredTensor(tensor, chosen.type, chosen.bits // 8 * tensor.parameters)
    return StoredTensor(tensor, chosen.type, chosen.bytes(tensor), chosen.scales(tensor), chosen.scale_type)


@lru_cache(maxsize=1)
def _conventions() -> Mapping[str, Convention]:
    raw = tomllib.loads(files("exporter.models.data").joinpath("safetensors.toml").read_text("utf-8"))
    formats = {
        name: Format(**{**row, "block": tuple(row.get("block", (0, 0)))})
        for name, row in raw["formats"].items()
    }
    return MappingProxyType(
        {
            name: _convention(row, {**formats, "wide": formats[row.get("wide", "bf16")]})
            for name, row in raw["quantizations"].items()
        }
    )


def _convention(row: Mapping[str, object], formats: Mapping[str, Format]) -> Convention:
    roles: dict[Role, Format] = {}
    named = row.get("roles", {})
    assert isinstance(named, dict)
    for group, name in named.items():
        roles.update(dict.fromkeys(_GROUPS[group], formats[name]))
    return Convention(
        formats[str(row["default"])],
        formats["wide"],
        MappingProxyType(roles),
        str(row.get("drafts", "as_main")),
        _names(row.get("families", [])),
    )


def _names(value: object) -> tuple[str, ...]:
    assert isinstance(value, list)
    return tuple(value)
