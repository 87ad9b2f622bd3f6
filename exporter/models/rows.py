"""The packaged rows of architectures and models, and those that operators add, as objects.

A row that is wrong is refused with its name and field; nothing of its text is repeated.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import TypedDict, cast

from exporter.models.architecture import (
    Architecture,
    Attention,
    CompressedAttention,
    DraftStages,
    Engram,
    GroupedQueryAttention,
    LatentAttention,
    MixtureOfExperts,
    SparseIndexer,
)
from exporter.models.gguf import gguf_tables
from exporter.models.safetensors import convention, has_convention, safetensors_quantizations


@dataclass(frozen=True, slots=True)
class Model:
    """A catalogue entry. ``tags`` maps names of the Ollama library to the quantization of their files,
    ``stems`` are beginnings of such names that end in a quantization, ``names`` other names of the same
    weights; ``forms`` are spellings of quantizations that mean something of their own here.
    """

    id: str
    architecture_name: str
    architecture: Architecture
    native_quantization: str
    source: str
    tags: Mapping[str, str]
    names: tuple[str, ...] = ()
    stems: tuple[str, ...] = ()
    forms: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    note: str = ""

    @property
    def short_id(self) -> str:
        return self.id.rpartition("/")[2]

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names that resolve to this model."""
        return (self.short_id, *self.names, *self.tags)

    @property
    def quantizations(self) -> tuple[str, ...]:
        """Canonical names of the forms this model can be asked in, the published one first; FP8 blocks exist
        where they were published.
        """
        native, family = self.native_quantization, self.architecture.family
        safe = (
            name
            for name in safetensors_quantizations()
            if name not in (native, "fp8") and family in (convention(name).families or (family,))
        )
        gguf = (name for name in gguf_tables().recipes if not has_convention(name.lower()))
        return (native, *safe, *(gguf if self.architecture.gguf_architecture else ()))


@dataclass(frozen=True, slots=True)
class Number:
    """One number of an architecture with where it comes from; ``confidence`` is high, medium or low."""

    name: str
    value: object
    source: str
    confidence: str


class SourceRow(TypedDict, total=False):
    source: str
    confidence: str
    numbers: list[str]


class ArchitectureRow(TypedDict, total=False):
    family: str
    gguf_architecture: str
    gguf_experts: str
    sources: list[SourceRow]
    parameters: int
    parameters_source: str
    layers: int
    hidden: int
    vocabulary: int
    intermediate: int
    context_tokens: int
    draft_layers: int
    tied_embeddings: bool
    tokenizer_merges: int
    gguf_size_class: str
    hyper_connections: int
    encoder_parameters: int
    grouped_query_attention: dict[str, object]
    latent_attention: dict[str, object]
    compressed_attention: dict[str, object]
    experts: dict[str, object]
    draft: dict[str, object]
    draft_experts: dict[str, object]
    engram: dict[str, object]


class ModelRow(TypedDict, total=False):
    id: str
    architecture: str
    native: str
    source: str
    tags: dict[str, str]
    names: list[str]
    stems: list[str]
    forms: dict[str, str]
    context_tokens: int
    without_drafts: bool
    note: str


_NOT_NUMBERS = frozenset(
    {"family", "gguf_architecture", "gguf_experts", "sources", "parameters", "parameters_source"}
)
_BLOCKS = {
    "grouped_query_attention": GroupedQueryAttention,
    "latent_attention": LatentAttention,
    "compressed_attention": CompressedAttention,
    "experts": MixtureOfExperts,
    "draft": DraftStages,
    "draft_experts": MixtureOfExperts,
    "engram": Engram,
}


@lru_cache(maxsize=1)
def architecture_rows() -> Mapping[str, ArchitectureRow]:
    """The rows of data/architectures.toml, with sources and published parameter totals."""
    rows: dict[str, ArchitectureRow] = tomllib.loads(_read("architectures.toml"))
    return MappingProxyType(rows)


@lru_cache(maxsize=1)
def architectures() -> Mapping[str, Architecture]:
    """The packaged architectures by name."""
    return MappingProxyType(
        {name: architecture_of_row(name, row) for name, row in architecture_rows().items()}
    )


@lru_cache(maxsize=1)
def packaged_models() -> tuple[Model, ...]:
    """The packaged models, in the order of data/models.toml."""
    rows: list[ModelRow] = tomllib.loads(_read("models.toml"))["models"]
    return tuple(model_of_row(row, architectures()) for row in rows)


def numbers(architecture_name: str) -> tuple[Number, ...]:
    """Every number of a packaged architecture with its source, the total of its parameters first.

    Raises KeyError for an architecture that is not packaged.
    """
    row = architecture_rows()[architecture_name]
    named = {name: source for source in row["sources"] for name in source.get("numbers", [])}
    others = next(source for source in row["sources"] if "numbers" not in source)
    total = Number("parameters", row["parameters"], row["parameters_source"], others["confidence"])
    found = [total]
    for name, value in _flat(row):
        source = named.get(name) or named.get(name.partition(".")[0], others)
        found.append(Number(name, value, source["source"], source["confidence"]))
    return tuple(found)


def architecture_of_row(name: str, row: ArchitectureRow) -> Architecture:
    """The architecture that a row describes. Raises KeyError or TypeError for a row that is not one."""
    blocks = {key: _block(key, row[key]) for key in _BLOCKS if key in row}  # type: ignore[literal-required]
    draft = blocks.get("draft")
    if isinstance(draft, DraftStages) and "draft_experts" in blocks:
        draft = replace(draft, experts=cast(MixtureOfExperts, blocks["draft_experts"]))
    attention = next(block for key, block in blocks.items() if key.endswith("_attention"))
    return Architecture(
        name=name,
        family=row["family"],
        layers=row["layers"],
        hidden=row["hidden"],
        vocabulary=row["vocabulary"],
        intermediate=row["intermediate"],
        context_tokens=row["context_tokens"],
        attention=cast(Attention, attention),
        experts=cast("MixtureOfExperts | None", blocks.get("experts")),
        draft_layers=row.get("draft_layers", 0),
        tied_embeddings=row.get("tied_embeddings", False),
        tokenizer_merges=row.get("tokenizer_merges", 0),
        gguf_size_class=row.get("gguf_size_class", ""),
        draft=cast("DraftStages | None", draft),
        hyper_connections=row.get("hyper_connections", 0),
        engram=cast("Engram | None", blocks.get("engram")),
        encoder_parameters=row.get("encoder_parameters", 0),
        gguf_architecture=row.get("gguf_architecture", ""),
        gguf_experts=row.get("gguf_experts", ""),
    )


def model_of_row(row: ModelRow, known: Mapping[str, Architecture]) -> Model:
    """The model that a row describes. Raises KeyError for a missing field or an unknown architecture."""
    architecture = known[row["architecture"]]
    if "context_tokens" in row:
        limit = row["context_tokens"]
        name = f"{architecture.name}-{limit // 1024}k"
        architecture = replace(architecture, name=name, context_tokens=limit)
    if row.get("without_drafts"):
        name = f"{architecture.name}-without-drafts"
        architecture = replace(architecture, name=name, draft_layers=0)
    return Model(
        id=row["id"],
        architecture_name=row["architecture"],
        architecture=architecture,
        native_quantization=row["native"],
        source=row["source"],
        tags=MappingProxyType(row.get("tags", {})),
        names=tuple(row.get("names", ())),
        stems=tuple(row.get("stems", ())),
        forms=MappingProxyType(row.get("forms", {})),
        note=row.get("note", ""),
    )


def _block(key: str, row: Mapping[str, object]) -> object:
    values: dict[str, object] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    indexer = values.get("indexer")
    if isinstance(indexer, dict):
        values["indexer"] = SparseIndexer(**indexer)
    return _BLOCKS[key](**values)


def _flat(row: ArchitectureRow) -> Iterator[tuple[str, object]]:
    for name, value in row.items():
        if name in _NOT_NUMBERS:
            continue
        if not isinstance(value, dict):
            yield name, value
            continue
        for inner, number in value.items():
            if isinstance(number, dict):
                yield from ((f"{name}.{inner}.{last}", deepest) for last, deepest in number.items())
            else:
                yield f"{name}.{inner}", number


def _read(name: str) -> str:
    return files("exporter.models.data").joinpath(name).read_text("utf-8")
