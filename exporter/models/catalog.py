"""The catalogue: which model a name stands for, its architecture, and the quantizations it can be asked in.

Entries are rows of data/models.toml and data/architectures.toml, each with its source. A name is never
guessed: what is not there raises, and the message names the nearest entry.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import TypedDict

from exporter.models.architecture import (
    Architecture,
    GroupedQueryAttention,
    LatentAttention,
    MixtureOfExperts,
)
from exporter.models.gguf import gguf_tables
from exporter.models.quantization import SAFETENSORS_QUANTIZATIONS, Container


class UnknownModel(ValueError):
    """The catalogue has no such model, or the name stands for more than one."""


class UnknownQuantization(ValueError):
    """The quantization is not known, or this model has no such form."""


@dataclass(frozen=True, slots=True)
class Model:
    """A catalogue entry. ``tags`` maps names of the Ollama library to the quantization of their files."""

    id: str
    architecture_name: str
    architecture: Architecture
    native_quantization: str
    source: str
    tags: Mapping[str, str]

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names that resolve to this model."""
        return (self.id.rpartition("/")[2], *self.tags)

    @property
    def quantizations(self) -> tuple[str, ...]:
        """Canonical names of the forms this model can be asked in, the published one first."""
        wide = tuple(name for name in ("bf16", "f16") if name != self.native_quantization)
        gguf = tuple(name for name in gguf_tables().recipes if name.lower() not in SAFETENSORS_QUANTIZATIONS)
        return (self.native_quantization, *wide, *gguf)


class _GroupedQueryRow(TypedDict, total=False):
    heads: int
    kv_heads: int
    head_dim: int
    qkv_bias: bool
    qk_norm: bool


class _LatentRow(TypedDict):
    heads: int
    q_lora_rank: int
    kv_lora_rank: int
    nope_head_dim: int
    rope_head_dim: int
    value_head_dim: int


class _ExpertsRow(TypedDict):
    routed: int
    active: int
    shared: int
    intermediate: int
    dense_layers: int
    correction_bias: bool


class _ArchitectureRow(TypedDict, total=False):
    family: str
    sources: list[str]
    parameters: int
    layers: int
    hidden: int
    vocabulary: int
    intermediate: int
    context_tokens: int
    draft_layers: int
    tied_embeddings: bool
    tokenizer_merges: int
    gguf_size_class: str
    grouped_query_attention: _GroupedQueryRow
    latent_attention: _LatentRow
    experts: _ExpertsRow


class _ModelRow(TypedDict, total=False):
    id: str
    architecture: str
    native: str
    source: str
    tags: dict[str, str]


# Spellings of vLLM and SGLang (--dtype, --quantization) and of llama.cpp (file types), lower-cased.
_QUANTIZATION_SPELLINGS = {
    "bfloat16": "bf16",
    "float16": "f16",
    "fp16": "f16",
    "half": "f16",
    "fp8_e4m3": "fp8",
    "f8_e4m3": "fp8",
}


class Catalog:
    """The models that are known. Look-ups ignore case; see ``resolve`` for the names that are accepted."""

    def __init__(self, models: Iterable[Model]) -> None:
        self.models: tuple[Model, ...] = tuple(models)
        self._by_id = {model.id.lower(): model for model in self.models}
        self._by_short_id = {model.id.rpartition("/")[2].lower(): model for model in self.models}
        self._by_tag = {tag.lower(): model for model in self.models for tag in model.tags}

    def resolve(self, name: str, *, ollama: bool = False) -> Model:
        """The model of a hub id (with or without its organisation) or of a tag of the Ollama library
        (``deepseek-r1:7b``).

        ``ollama``: the name is Ollama's own, where ``deepseek-r1`` is a small distillation and not
        DeepSeek-R1. Elsewhere such a name is refused unless it has the spelling of the model card
        (``DeepSeek-R1``). Raises UnknownModel.
        """
        key = name.strip().lower()
        exact = self._by_id.get(key)
        if exact is not None:
            return exact
        short, tagged = self._by_short_id.get(key), self._by_tag.get(key)
        if ollama and tagged is not None:
            return tagged
        if short is not None and tagged is not None and short is not tagged:
            if name.strip() == short.id.rpartition("/")[2]:
                return short
            raise UnknownModel(
                f"model {key!r} may mean {short.id} or, as Ollama names it, {tagged.id}: write the full id"
            )
        found = short or tagged
        if found is None:
            raise UnknownModel(self._unknown_model_message(key))
        return found

    def tag_quantization(self, name: str) -> str | None:
        """The quantization of the files behind an Ollama tag, canonical; None for any other name."""
        key = name.strip().lower()
        model = self._by_tag.get(key)
        if model is None:
            return None
        return next(quantization for tag, quantization in model.tags.items() if tag.lower() == key)

    def quantization(self, model: Model, name: str | None) -> str:
        """The canonical name (``fp8``, ``bf16``, ``Q4_K_M``) of a spelling; None stands for the published
        checkpoint's.

        Raises UnknownQuantization, naming what is known for this model.
        """
        if name is None:
            return model.native_quantization
        key = name.strip().lower().replace("-", "_")
        key = _QUANTIZATION_SPELLINGS.get(key, key)
        for known in model.quantizations:
            if known.lower() == key:
                return known
        known_names = ", ".join(model.quantizations)
        raise UnknownQuantization(
            f"quantization {_printable(key)!r} is not known for {model.id}; known: {known_names}"
        )

    def _unknown_model_message(self, key: str) -> str:
        names = {**self._by_tag, **self._by_short_id, **self._by_id}
        nearest = get_close_matches(key, names, n=1, cutoff=0.0)
        hint = f"; the nearest known name is {names[nearest[0]].id}" if nearest else ""
        return f"model {_printable(key)!r} is not in the catalogue{hint}"


def containers(quantization: str) -> tuple[Container, ...]:
    """The containers that know a canonical quantization: 16-bit floats exist in both."""
    found = []
    if quantization in SAFETENSORS_QUANTIZATIONS:
        found.append(Container.SAFETENSORS)
    if gguf_recipe(quantization) is not None:
        found.append(Container.GGUF)
    return tuple(found)


def gguf_recipe(quantization: str) -> str | None:
    """The GGUF recipe of a canonical quantization (``bf16`` is written ``BF16`` there); None when GGUF has
    none.
    """
    recipes = gguf_tables().recipes
    return next((name for name in (quantization, quantization.upper()) if name in recipes), None)


@lru_cache(maxsize=1)
def catalog() -> Catalog:
    """The packaged catalogue, read once."""
    architectures = {name: _architecture(name, row) for name, row in architecture_rows().items()}
    rows: list[_ModelRow] = tomllib.loads(_read("models.toml"))["models"]
    return Catalog(
        Model(
            id=row["id"],
            architecture_name=row["architecture"],
            architecture=architectures[row["architecture"]],
            native_quantization=row["native"],
            source=row["source"],
            tags=MappingProxyType(row.get("tags", {})),
        )
        for row in rows
    )


def architecture_rows() -> Mapping[str, _ArchitectureRow]:
    """The rows of data/architectures.toml, with sources and published parameter totals."""
    rows: dict[str, _ArchitectureRow] = tomllib.loads(_read("architectures.toml"))
    return rows


def _architecture(name: str, row: _ArchitectureRow) -> Architecture:
    experts = row.get("experts")
    attention: LatentAttention | GroupedQueryAttention
    if "latent_attention" in row:
        attention = LatentAttention(**row["latent_attention"])
    else:
        attention = GroupedQueryAttention(**row["grouped_query_attention"])
    return Architecture(
        name=name,
        family=row["family"],
        layers=row["layers"],
        hidden=row["hidden"],
        vocabulary=row["vocabulary"],
        intermediate=row["intermediate"],
        context_tokens=row["context_tokens"],
        attention=attention,
        experts=MixtureOfExperts(**experts) if experts is not None else None,
        draft_layers=row.get("draft_layers", 0),
        tied_embeddings=row.get("tied_embeddings", False),
        tokenizer_merges=row.get("tokenizer_merges", 0),
        gguf_size_class=row.get("gguf_size_class", ""),
    )


def _read(name: str) -> str:
    return files("exporter.models.data").joinpath(name).read_text("utf-8")


def _printable(text: str) -> str:
    # A declared name may hold anything: what goes into a message is short and plain.
    return "".join(character if character.isprintable() else "?" for character in text[:80])
