"""From headers to our models: which architecture a checkpoint has, what it is called, how it is quantized.

The architecture is what the files say (a GGUF's metadata, a config.json); the catalogue's entry of the same
numbers stands in for it. A model's name decides only among those of that architecture: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from exporter.models.architecture import Architecture
from exporter.models.catalog import Catalog, UnknownModel, UnknownQuantization, catalog
from exporter.models.checkpoint.from_gguf import Incomplete, gguf_architecture, gguf_layout
from exporter.models.checkpoint.ggml_types import FILE_TYPE_GUESSED, FILE_TYPES
from exporter.models.checkpoint.tensors import Format, Header
from exporter.models.checkpoint.weights import checkpoint_weights
from exporter.models.configuration import architecture_from_config
from exporter.models.gguf import GgufLayout, gguf_tables
from exporter.models.native_quantization import quantization_from_config
from exporter.models.quantization import Container, total_bytes
from exporter.models.roles import ROUTED_EXPERTS
from exporter.models.rows import Model


@dataclass(frozen=True, slots=True)
class CheckpointIdentity:
    """What a checkpoint is, as far as it can be told.

    ``architecture`` None: not of a kind that is known. ``model`` None: its architecture may be known, but no
    name tells which of the models that share it. ``quantization`` is canonical, or a name whose recipe is not
    known; the bytes are the header's in any case. ``layout``: of latent attention in a GGUF.
    """

    architecture: Architecture | None
    model: Model | None
    quantization: str | None
    layout: GgufLayout | None
    how: str
    notes: tuple[str, ...] = ()


def identify_checkpoint(
    header: Header, names: Iterable[str] = (), known: Catalog | None = None
) -> CheckpointIdentity:
    """What a header stands for. ``names``: its path and whatever else it is called; the file's own
    ``general.name`` is asked after them.
    """
    entries = known if known is not None else catalog()
    notes: list[str] = []
    described: Architecture | None = None
    try:
        described = _described(header)
    except ValueError as error:
        notes.append(f"the architecture could not be told: {error}")
    same = [model for model in entries.models if described and _same(model.architecture, described)]
    model, how = _named(entries, same, [*names, *_own_names(header)])
    architecture = model.architecture if model else same[0].architecture if same else described
    if architecture is not None and described is not None:
        architecture = _as_stored(architecture, described)
    if described is not None and not same:
        how = "architecture of its own numbers, none of the catalogue's"
    if same and model is None:
        shared = ", ".join(sorted({one.short_id for one in same})[:4])
        notes.append(f"has the architecture of {shared}; no name tells which model it is")
    quantization = _quantization(header, architecture, notes)
    layout = gguf_layout(header) if header.format is Format.GGUF else None
    return CheckpointIdentity(architecture, model, quantization, layout, how, tuple(notes))


def _described(header: Header) -> Architecture | None:
    if header.format is Format.GGUF:
        return gguf_architecture(header)
    if not header.config:
        return None
    described = architecture_from_config(header.config, "config.json")
    layers = checkpoint_weights(header).layers
    if header.tensors and layers != described.layers:
        raise Incomplete("the files and config.json disagree in the number of layers")
    return described


def _same(one: Architecture, other: Architecture) -> bool:
    """Whether two architectures have the same main layers; context, drafts and names may differ."""
    return (
        one.layers == other.layers
        and one.hidden == other.hidden
        and one.vocabulary == other.vocabulary
        and one.attention == other.attention
        and one.experts == other.experts
        and one.tied_embeddings == other.tied_embeddings
        and one.hyper_connections == other.hyper_connections
        and (one.intermediate == other.intermediate or not _has_dense(one))
    )


def _has_dense(architecture: Architecture) -> bool:
    return architecture.experts is None or architecture.experts.dense_layers > 0


def _as_stored(architecture: Architecture, described: Architecture) -> Architecture:
    if architecture.context_tokens == described.context_tokens:
        return architecture
    return replace(architecture, context_tokens=described.context_tokens)


def _own_names(header: Header) -> list[str]:
    found = []
    for key in ("general.name", "general.basename"):
        value = header.metadata.get(key)
        if isinstance(value, str) and value:
            found.append(value.replace(" ", "-"))
    return found


def _named(entries: Catalog, same: list[Model], names: Iterable[str]) -> tuple[Model | None, str]:
    for name in names:
        try:
            identity = entries.identify(name)
        except (UnknownModel, UnknownQuantization):
            continue
        if identity.model is not None and identity.model in same:
            return identity.model, f"its numbers, and its name: {identity.how}"
    return None, "its numbers" if same else "nothing in it is known"


def _quantization(header: Header, architecture: Architecture | None, notes: list[str]) -> str | None:
    if header.format is Format.GGUF:
        return _gguf_quantization(header, architecture, notes)
    told = quantization_from_config(header.config)
    return told if told is not None else _dominant_dtype(header)


def _gguf_quantization(header: Header, architecture: Architecture | None, notes: list[str]) -> str | None:
    number = header.metadata.get("general.file_type")
    told = FILE_TYPES.get(number & ~FILE_TYPE_GUESSED) if isinstance(number, int) else None
    if told is None:
        told = next(iter(header.bytes_by_type), None)
    if told is None or architecture is None or told not in gguf_tables().recipes:
        return told
    recipe = total_bytes(architecture, told, Container.GGUF)
    found = checkpoint_weights(header).main_bytes
    if abs(found - recipe) > recipe // 200:
        notes.append(
            f"named {told}, but its tensors hold {found} bytes where that recipe gives {recipe}: "
            "types were chosen by hand, or it is of an older version"
        )
    return told


def _dominant_dtype(header: Header) -> str | None:
    dtype = next(iter(header.bytes_by_type), None)
    plain = {"BF16": "bf16", "F16": "f16", "F32": "f32"}.get(dtype or "")
    if plain is not None or dtype != "F8_E4M3":
        return plain
    experts = {one.type for one in checkpoint_weights(header).roles if one.role in ROUTED_EXPERTS}
    return "fp8" if experts <= {"F8_E4M3"} else None
