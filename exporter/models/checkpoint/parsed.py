"""What one file's header gave, in columns: cheap to build, to check and to send through a pipe."""

from __future__ import annotations

from dataclasses import dataclass, field

from exporter.models.checkpoint.tensors import MetadataValue

Kind = tuple[str, tuple[int, ...], int]
"""Type, shape and bytes: a checkpoint of 92,000 tensors has some forty of them."""


@dataclass(slots=True)
class ParsedFile:
    """Tensors of one file: ``kinds[kind[i]]``, ``names[i]`` and ``offsets[i]`` describe tensor ``i``."""

    header_bytes: int = 0
    metadata: dict[str, MetadataValue] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    _numbers: dict[Kind, int] = field(default_factory=dict)

    def add(self, name: str, type_name: str, shape: tuple[int, ...], size_bytes: int, offset: int) -> None:
        """One tensor; ``offset`` counts from the start of the file."""
        self.names.append(name)
        self.kind.append(self.number(type_name, shape, size_bytes))
        self.offsets.append(offset)

    def number(self, type_name: str, shape: tuple[int, ...], size_bytes: int) -> int:
        """The place of a kind in ``kinds``, which gets it when it is new."""
        key = (type_name, shape, size_bytes)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.kinds)
            self.kinds.append(key)
        return number
