"""The answer of the header reader's child, as JSON in columns: 92,000 tensors in a few megabytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from types import MappingProxyType

from exporter.models.checkpoint.parsed import ParsedFile
from exporter.models.checkpoint.tensors import (
    ConfigValue,
    FileIdentity,
    Format,
    Header,
    HeaderError,
    MetadataValue,
    Problem,
    StoredEntry,
    StoredFile,
)

ANSWER_BYTES = 128 << 20
"""The longest answer: room for a million tensors with names of a hundred characters."""

Seen = tuple[tuple[str, FileIdentity], ...]


@dataclass(slots=True)
class Answer:
    """What the child found, before it is a Header."""

    format: Format
    files: list[StoredFile] = field(default_factory=list)
    parts: list[ParsedFile] = field(default_factory=list)
    config: dict[str, ConfigValue] = field(default_factory=dict)
    settings: dict[str, int | float | bool] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def encode(answer: Answer, seen: Mapping[str, FileIdentity]) -> bytes:
    """An answer and the files that took part in it."""
    return _dump(
        {
            "format": answer.format,
            "files": answer.files,
            "parts": [[part.names, part.kind, part.offsets, part.kinds] for part in answer.parts],
            "metadata": answer.parts[0].metadata if answer.parts else {},
            "config": answer.config,
            "settings": answer.settings,
            "notes": answer.notes + [note for part in answer.parts for note in part.notes],
            "seen": plain_seen(seen.items()),
        }
    )


def encode_error(error: HeaderError) -> bytes:
    """A refusal."""
    return _dump({"error": [error.kind, error.message]})


def encode_unchanged() -> bytes:
    """What was asked about is as it was."""
    return _dump({"unchanged": True})


def decode(answer: bytes) -> tuple[Header, Seen] | None:
    """The header and the files it rests on; None for "unchanged". Raises HeaderError."""
    try:
        found = json.loads(answer)
        if "error" in found:
            kind, message = found["error"]
            raise HeaderError(Problem(kind), str(message))
        if "unchanged" in found:
            return None
        return _header(found), seen_of(found["seen"])
    except HeaderError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        raise HeaderError(Problem.READER, "the header reader's answer makes no sense") from None


def plain_seen(seen: Iterable[tuple[str, FileIdentity]]) -> list[list[object]]:
    """Paths and identities as JSON data."""
    return [[path, *identity] for path, identity in seen]


def seen_of(plain: object) -> Seen:
    """Paths and identities from JSON data. Raises ValueError or TypeError."""
    if not isinstance(plain, list):
        raise TypeError("not a list")
    return tuple((path, FileIdentity(*identity)) for path, *identity in plain)


def header_of(answer: Answer) -> Header:
    """The Header of an answer, without the pipe between."""
    decoded = decode(encode(answer, {}))
    assert decoded is not None
    return decoded[0]


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), check_circular=False).encode("ascii")


def _header(found: Mapping[str, object]) -> Header:
    parts, files = found["parts"], found["files"]
    assert isinstance(parts, list) and isinstance(files, list)
    tensors: list[StoredEntry] = []
    for file, (names, kind, offsets, kinds) in enumerate(parts):
        rows = [(type_name, tuple(shape), size) for type_name, shape, size in kinds]
        chosen = [rows[number] for number in kind]
        types, shapes, sizes = zip(*chosen, strict=True) if chosen else ((), (), ())
        tensors.extend(map(StoredEntry, names, types, shapes, sizes, offsets, repeat(file)))
    metadata, config, settings, notes = (found[key] for key in ("metadata", "config", "settings", "notes"))
    assert isinstance(metadata, dict) and isinstance(config, dict)
    assert isinstance(settings, dict) and isinstance(notes, list)
    return Header(
        format=Format(str(found["format"])),
        files=tuple(StoredFile(name, size, begin, FileIdentity(*one)) for name, size, begin, one in files),
        tensors=tuple(tensors),
        metadata=MappingProxyType({key: _metadata_value(value) for key, value in metadata.items()}),
        config=MappingProxyType(config),
        settings=MappingProxyType(settings),
        notes=tuple(map(str, notes)),
    )


def _metadata_value(value: MetadataValue | list[int]) -> MetadataValue:
    return tuple(value) if isinstance(value, list) else value
