"""Models that operators add: a document (from TOML or JSON) of models, or a bare config.json.

[[models]]
id = "acme/DeepSeek-R1-Acme"
architecture = "deepseek-v3"          # a packaged architecture, or
config = { model_type = "llama", … }  # what its config.json says
native = "fp8"                        # quantization of its checkpoint
names = ["acme-r1"]
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.models.architecture import Architecture
from exporter.models.configuration import ConfigurationError, architecture_from_config
from exporter.models.names import MAX_NAME, canonical_quantization
from exporter.models.native_quantization import quantization_from_config
from exporter.models.rows import Model, ModelRow, architectures, model_of_row

MAX_MODELS = 1000
_FIELDS = frozenset({"id", "architecture", "config", "native", "names", "context_tokens", "source", "note"})
_ADDED = "added by the operator"


def models_from_document(document: Mapping[str, object]) -> tuple[Model, ...]:
    """The models of a document with a list ``models``. Raises ConfigurationError naming entry and field."""
    unknown = sorted(set(document) - {"models"})
    entries = document.get("models")
    if unknown or not isinstance(entries, list) or not 0 < len(entries) <= MAX_MODELS:
        raise ConfigurationError(f"the document must hold a list `models` of 1 to {MAX_MODELS}, nothing else")
    return tuple(_model(entry, f"models[{position}]") for position, entry in enumerate(entries))


def model_from_config(config: Mapping[str, object], name: str) -> Model:
    """The model that a config.json describes, under the name it is asked by. Raises ConfigurationError."""
    return _model({"id": name, "config": config, "source": "config.json"}, "config")


def known_architecture(architecture: Architecture) -> str | None:
    """The packaged architecture with the same tensors and cache, by name; None when there is none."""
    wanted = _numbers(architecture)
    return next((name for name, known in architectures().items() if _numbers(known) == wanted), None)


def _model(entry: object, place: str) -> Model:
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f"{place} must be a table")
    if set(entry) - _FIELDS:
        raise ConfigurationError(
            f"{place} has a field that is not known; known: {', '.join(sorted(_FIELDS))}"
        )
    name = _name(entry.get("id"), f"{place}.id")
    if ("architecture" in entry) == ("config" in entry):
        raise ConfigurationError(f"{place} must have either architecture or config")
    known = dict(architectures())
    key = entry.get("architecture")
    told: str | None = None
    if "config" in entry:
        config = entry["config"]
        if not isinstance(config, Mapping):
            raise ConfigurationError(f"{place}.config must be a table")
        try:
            built = architecture_from_config(config, name)
        except ConfigurationError as error:
            raise ConfigurationError(f"{place}.config: {error}") from None
        key = known_architecture(built) or name
        known.setdefault(key, built)
        told = quantization_from_config(config)
    if not isinstance(key, str) or key not in known:
        raise ConfigurationError(
            f"{place}.architecture is not known; known: {', '.join(sorted(architectures()))}"
        )
    row: ModelRow = {
        "id": name,
        "architecture": key,
        "native": _native(entry.get("native"), told, place),
        "source": _ADDED,
        "names": _names(entry.get("names", []), place),
    }
    context = entry.get("context_tokens")
    if context is not None:
        if isinstance(context, bool) or not isinstance(context, int) or context < 1:
            raise ConfigurationError(f"{place}.context_tokens must be a whole number of at least 1")
        row["context_tokens"] = context
    return model_of_row(row, known)


def _native(value: object, told: str | None, place: str) -> str:
    if value is None:
        return told or "bf16"
    canonical = canonical_quantization(value) if isinstance(value, str) else None
    if canonical is None:
        raise ConfigurationError(f"{place}.native is not a quantization that is known")
    return canonical


def _name(value: object, place: str) -> str:
    if not isinstance(value, str) or not 0 < len(value.strip()) <= MAX_NAME or not value.isprintable():
        raise ConfigurationError(f"{place} must be a name of 1 to {MAX_NAME} printable characters")
    return value.strip()


def _names(value: object, place: str) -> list[str]:
    if not isinstance(value, list):
        raise ConfigurationError(f"{place}.names must be a list of names")
    return [_name(one, f"{place}.names") for one in value]


def _numbers(a: Architecture) -> tuple[object, ...]:
    return (
        a.layers, a.hidden, a.vocabulary, a.intermediate, a.attention, a.experts, a.draft_layers, a.draft,
        a.tied_embeddings, a.hyper_connections, a.engram, a.encoder_parameters,
    )  # fmt: skip
