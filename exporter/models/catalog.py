"""The catalogue: which model a name stands for, its architecture, and the quantizations it can be asked in.

Entries are rows of data/models.toml and data/architectures.toml, each with its source. A name is never
guessed: what no rule of names.py explains raises, and the message names the nearest entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

from exporter.models.gguf import gguf_name, gguf_tables
from exporter.models.names import Candidate, candidates, canonical_quantization, is_sized
from exporter.models.quantization import Container
from exporter.models.rows import Model, architecture_rows, packaged_models
from exporter.models.safetensors import has_convention

__all__ = [
    "Catalog",
    "Identity",
    "Model",
    "UnknownModel",
    "UnknownQuantization",
    "architecture_rows",
    "catalog",
    "containers",
    "gguf_recipe",
    "is_sized",
]


class UnknownModel(ValueError):
    """The catalogue has no such model, or the name stands for more than one."""


class UnknownQuantization(ValueError):
    """The quantization is not known, or this model has no such form."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a name stands for: the model (None: unknown), the quantization that the name tells (canonical,
    None: it tells none), and the rule by which.
    """

    model: Model | None
    quantization: str | None
    how: str


class Catalog:
    """The models that are known. Look-ups ignore case; see ``identify`` for the names that are accepted."""

    def __init__(self, models: Iterable[Model]) -> None:
        self.models: tuple[Model, ...] = tuple(models)
        self._by_id: dict[str, Model] = {}
        self._by_short_id: dict[str, Model] = {}
        self._by_tag: dict[str, tuple[Model, str]] = {}
        self._stems: dict[str, Model] = {}
        for model in self.models:
            for name in (model.id, *model.names):
                self._by_id.setdefault(name.lower(), model)
                self._by_short_id.setdefault(name.rpartition("/")[2].lower(), model)
            for tag, quantization in model.tags.items():
                self._by_tag.setdefault(tag.lower(), (model, quantization))
            for stem in model.stems:
                self._stems.setdefault(f"{stem.lower()}-", model)

    def extended(self, models: Iterable[Model]) -> Catalog:
        """This catalogue with more models, which win over packaged ones of the same name."""
        return Catalog((*models, *self.models))

    def identify(self, name: str, *, ollama: bool = False) -> Identity:
        """What a name stands for: a hub id with or without its organisation, another name of the catalogue, a
        tag of the Ollama library, a re-upload or file or folder that is named after one of these with a known
        suffix (``-AWQ``, ``-GGUF``, ``-Q4_K_M-00001-of-00009.gguf``), or a folder of the hub's cache.

        ``ollama``: the name is Ollama's own, where ``deepseek-r1`` is a small distillation and not
        DeepSeek-R1. Elsewhere such a name is refused unless it has the spelling of the model card
        (``DeepSeek-R1``). Raises UnknownModel when a name stands for two models; one that stands for none has
        the model None.
        """
        hint: str | None = None
        for candidate in candidates(name):
            found = self._find(candidate, ollama)
            hint = hint or candidate.quantization
            if found is not None:
                model, told = found
                quantization = candidate.quantization or told
                if quantization is not None:
                    quantization = self.quantization(model, quantization)
                return Identity(model, quantization, candidate.how)
        return Identity(None, hint, "no rule knows this name")

    def resolve(self, name: str, *, ollama: bool = False) -> Model:
        """The model of a name (see ``identify``). Raises UnknownModel, naming the nearest known one."""
        model = self.identify(name, ollama=ollama).model
        if model is None:
            raise UnknownModel(self._unknown_model_message(name.strip().lower()))
        return model

    def tag_quantization(self, name: str, *, ollama: bool = False) -> str | None:
        """The quantization that a name tells (an Ollama tag, ``…-AWQ``, ``…-Q4_K_M.gguf``), canonical; None
        for any other name.
        """
        return self.identify(name, ollama=ollama).quantization

    def quantization(self, model: Model, name: str | None) -> str:
        """The canonical name (``fp8``, ``bf16``, ``Q4_K_M``) of a spelling; None and ``auto`` stand for the
        published checkpoint's. A name may be known without its sizes (``is_sized``).

        Raises UnknownQuantization, naming what is known for this model.
        """
        if name is None or name.strip().lower() == "auto":
            return model.native_quantization
        key = name.strip().lower().replace("-", "_")
        canonical = model.forms.get(key) or canonical_quantization(name)
        canonical = model.forms.get(canonical or "", canonical)
        if canonical == "fp8" and model.native_quantization not in _WITH_FP8_FORM:
            # Without published blocks an engine quantizes while loading, one scale per tensor (vLLM
            # layers/quantization/fp8.py); converted checkpoints do the same.
            return "fp8_tensor"
        if canonical is not None:
            return canonical
        raise UnknownQuantization(
            f"quantization {_printable(key)!r} is not known for {model.id}; "
            f"known: {', '.join(model.quantizations)}"
        )

    def _find(self, candidate: Candidate, ollama: bool) -> tuple[Model, str | None] | None:
        name = candidate.name.strip()
        key = name.lower()
        exact = self._by_id.get(key)
        if exact is not None and "/" in key:
            return exact, None
        short = self._by_short_id.get(key)
        tagged = self._tagged(key) if candidate.may_be_tag else None
        if tagged is not None and (ollama or ":" in key):
            return tagged
        if short is None:
            # A tag's bare beginning is a name to Ollama alone.
            return None
        if tagged is None or short is tagged[0]:
            return short, None
        if name in (short.short_id, *short.names):
            return short, None
        raise UnknownModel(
            f"model {key!r} may mean {short.id} or, as Ollama names it, {tagged[0].id}: write the full id"
        )

    def _tagged(self, key: str) -> tuple[Model, str | None] | None:
        found = self._by_tag.get(key.removesuffix(":latest"))
        if found is not None:
            return found
        for stem, model in self._stems.items():
            if key.startswith(stem):
                quantization = gguf_name(key.removeprefix(stem)) or canonical_quantization(
                    key.removeprefix(stem)
                )
                if quantization is not None and Container.GGUF in containers(quantization):
                    return model, quantization
        return None

    def _unknown_model_message(self, key: str) -> str:
        names = {
            **{tag: model for tag, (model, _) in self._by_tag.items()},
            **self._by_short_id,
            **self._by_id,
        }
        nearest = get_close_matches(key[:200], names, n=1, cutoff=0.0)
        hint = f"; the nearest known name is {names[nearest[0]].id}" if nearest else ""
        return f"model {_printable(key)!r} is not in the catalogue{hint}"


# Models whose published checkpoint is FP8 in blocks, or that exist so.
_WITH_FP8_FORM = frozenset({"fp8"})


def containers(quantization: str) -> tuple[Container, ...]:
    """The containers that know a canonical quantization: 16-bit floats exist in both."""
    found = []
    if has_convention(quantization):
        found.append(Container.SAFETENSORS)
    if gguf_recipe(quantization) is not None:
        found.append(Container.GGUF)
    if found or canonical_quantization(quantization) is None:
        return tuple(found)
    # Known by name alone.
    return (Container.GGUF,) if gguf_name(quantization) is not None else (Container.SAFETENSORS,)


def gguf_recipe(quantization: str) -> str | None:
    """The GGUF recipe of a canonical quantization (``bf16`` is written ``BF16`` there); None when GGUF has
    none.
    """
    recipes = gguf_tables().recipes
    return next((name for name in (quantization, quantization.upper()) if name in recipes), None)


@lru_cache(maxsize=1)
def catalog() -> Catalog:
    """The packaged catalogue, read once."""
    return Catalog(packaged_models())


def _printable(text: str) -> str:
    # A declared name may hold anything: what goes into a message is short and plain.
    return "".join(character if character.isprintable() else "?" for character in text[:80])
