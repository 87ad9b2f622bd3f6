"""A checkpoint on disk as a model of the catalogue: read through the one door, recognised by its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from types import MappingProxyType

from exporter.models.catalog import Catalog, catalog
from exporter.models.checkpoint.identity import identify_checkpoint
from exporter.models.checkpoint.reader import CheckpointReader
from exporter.models.checkpoint.tensors import Format
from exporter.models.checkpoint.weights import CheckpointWeights, checkpoint_weights
from exporter.models.quantization import Container
from exporter.models.rows import Model


@dataclass(frozen=True, slots=True)
class Found:
    """What the headers of a checkpoint said. ``known`` is the catalogue that holds ``model``: of an
    architecture that no packaged model has, or whose name is not told, the checkpoint is a model of its own.
    """

    model: Model
    known: Catalog
    quantization: str | None
    container: Container
    file_bytes: int | None
    stored: CheckpointWeights | None
    notes: tuple[str, ...]


class NotRecognised(ValueError):
    """The headers were read, but the architecture is not one that is known."""


def read_checkpoint(path: str, reader: CheckpointReader, *, said: str = "") -> Found:
    """Raises HeaderError for files that cannot be read, NotRecognised for an architecture not known.

    ``said``: the checkpoint's path as it was named, where it is reached by another.
    """
    header = reader.read(path)
    said = said or path
    names = (said, PurePath(said).parent.name)
    identity = identify_checkpoint(header, names)
    notes = (*header.notes, *identity.notes)
    model, known = identity.model, catalog()
    if identity.architecture is None:
        raise NotRecognised("; ".join(("the checkpoint's architecture is not known", *identity.notes)))
    if model is None or model.architecture != identity.architecture:
        name = model.id if model is not None else PurePath(said).name
        model = Model(
            id=name,
            architecture_name=identity.architecture.name,
            architecture=identity.architecture,
            native_quantization=identity.quantization or "bf16",
            source="the checkpoint's own headers",
            tags=MappingProxyType({}),
        )
        known = known.extended((model,))
    container = Container.GGUF if header.format is Format.GGUF else Container.SAFETENSORS
    return Found(
        model,
        known,
        identity.quantization,
        container,
        header.file_bytes or None,
        checkpoint_weights(header) if header.tensors else None,
        notes,
    )
