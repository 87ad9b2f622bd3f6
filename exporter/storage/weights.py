"""Files of weights as checkpoints: which belong together, which are missing, how much is still to come.

Numbered parts tell their count: `…-00001-of-00163.safetensors` (transformers' and huggingface_hub's shards),
`…-00001-of-00009.gguf` (llama.cpp llama_split_path). Sizes of what is missing come from the index of the
shards, else from the catalogue, else from the mean of the parts that are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from exporter.models.quantization import Container
from exporter.storage.facts import ACTIVE_SECONDS, Checkpoint, CheckpointState
from exporter.storage.naming import Named
from exporter.storage.tree import Claims, Entry

INDEX = "model.safetensors.index.json"
_PART = re.compile(
    r"(?P<stem>.*)-(?P<number>\d{5,6})-of-(?P<count>\d{5,6})\.(?P<ending>safetensors|gguf|bin)", re.DOTALL
)
_TORCH = (".bin", ".pth", ".pt")
_MOST_PARTS = 4096
_TOLERATED = 0.25
"""So far the catalogue's size may be from what the parts' mean says; beyond, it is another model's."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A finished file by its name, in a folder of the checkpoint. ``entry`` None: a link to elsewhere."""

    folder: str
    name: str
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Index:
    """What an index of shards says: their names, and the bytes of all tensors."""

    files: frozenset[str]
    total_bytes: int | None


@dataclass(slots=True)
class Group:
    """Files that make one checkpoint."""

    folder: str
    stem: str
    container: Container
    pieces: list[Piece] = field(default_factory=list)
    numbers: set[int] = field(default_factory=set)
    count: int = 0
    """parts there should be; 0: they are not numbered"""
    missing: int = 0
    total_bytes: int | None = None

    @property
    def entries(self) -> list[Entry]:
        return [piece.entry for piece in self.pieces if piece.entry is not None]


@dataclass(frozen=True, slots=True)
class Content:
    """Everything that was found of one model: finished files, and those that are being fetched."""

    pieces: Sequence[Piece]
    partials: Sequence[Entry] = ()
    unlinked: Sequence[Entry] = ()
    """finished, and not yet under their names"""


def is_weights(name: str) -> bool:
    """Whether a file holds weights, by its name."""
    return name.endswith((".safetensors", ".gguf", *_TORCH))


def checkpoints(
    content: Content,
    name_of: Callable[[Group | None], Named],
    index_of: Callable[[str], Index | None],
    claims: Claims,
    now: float,
) -> list[Checkpoint]:
    """``name_of`` names a group, or what has none yet; ``index_of`` reads the index of a folder."""
    groups = _groups(content.pieces)
    for group in groups:
        _look_for_missing(group, index_of)
    partials, found = list(content.partials), []
    for group in groups:
        if group.missing:
            found.append(_unfinished(group, name_of(group), partials, claims, now))
            partials = []
        else:
            size = sum(map(claims.take, group.entries))
            found.append(_checkpoint(name_of(group), CheckpointState.COMPLETE, size))
    if partials:
        found.append(_begun(name_of(None), partials, claims, now, alone=not groups))
    beside = sum(claims.take(one) for one in (*_beside(content.pieces), *content.unlinked))
    if found:
        found[0] = _larger(found[0], beside)
    elif beside:
        found.append(_checkpoint(name_of(None), CheckpointState.NO_WEIGHTS, beside))
    return found


def _beside(pieces: Iterable[Piece]) -> Iterable[Entry]:
    return (one.entry for one in pieces if one.entry is not None and not is_weights(one.name))


def _groups(pieces: Iterable[Piece]) -> list[Group]:
    groups: dict[tuple[str, str, str], Group] = {}
    for piece in pieces:
        if not is_weights(piece.name):
            continue
        part = _PART.fullmatch(piece.name)
        ending = piece.name.rpartition(".")[2]
        # Unnumbered safetensors of a folder are one checkpoint; every GGUF is one by itself.
        stem = part["stem"] if part else piece.name if ending == "gguf" else ""
        container = Container.GGUF if ending == "gguf" else Container.SAFETENSORS
        group = groups.setdefault((piece.folder, stem, ending), Group(piece.folder, stem, container))
        group.pieces.append(piece)
        if part and 1 <= int(part["number"]) <= int(part["count"]) <= _MOST_PARTS:
            group.numbers.add(int(part["number"]))
            group.count = max(group.count, int(part["count"]))
    return list(groups.values())


def _look_for_missing(group: Group, index_of: Callable[[str], Index | None]) -> None:
    group.missing = group.count - len(group.numbers) if group.count else 0
    if group.container is Container.GGUF or (group.count and not group.missing):
        return
    index = index_of(group.folder)
    names = {piece.name for piece in group.pieces}
    if index is None or not names & index.files:
        return  # none, or it is about other files
    group.missing = len(index.files - names)
    group.count = len(index.files)
    group.total_bytes = index.total_bytes


def _unfinished(
    group: Group, name: Named, partials: Sequence[Entry], claims: Claims, now: float
) -> Checkpoint:
    finished = sum(one.size_bytes for one in group.entries)
    fetched = sum(one.stored_bytes for one in partials)
    expected = _expected(group, name, finished)
    size = sum(map(claims.take, (*group.entries, *partials)))
    state = _state((*group.entries, *partials), now)
    remaining = None
    if expected is not None and state is CheckpointState.DOWNLOADING:
        remaining = max(0, expected - finished - fetched)
    return _checkpoint(name, state, size, expected, remaining)


def _begun(name: Named, partials: Sequence[Entry], claims: Claims, now: float, *, alone: bool) -> Checkpoint:
    """What is being fetched while nothing of it is finished, or what a broken download left."""
    size, state = sum(map(claims.take, partials)), _state(partials, now)
    given = sum(max(one.size_bytes, one.stored_bytes) for one in partials)
    # A file that was given its full size at once says what it will be; beside it others may be waiting.
    expected = name.expected_bytes(Container.SAFETENSORS) if alone else None
    if expected is None and given > sum(one.stored_bytes for one in partials):
        expected = given
    remaining = None
    if expected is not None and state is CheckpointState.DOWNLOADING:
        remaining = max(0, expected - sum(one.stored_bytes for one in partials))
    return _checkpoint(name, state, size, expected, remaining)


def _expected(group: Group, name: Named, finished: int) -> int | None:
    if group.total_bytes is not None and group.total_bytes >= finished * (1 - _TOLERATED):
        return max(group.total_bytes, finished)
    sized = len(group.entries)
    mean = finished * group.count // sized if sized and group.count else None
    known = name.expected_bytes(group.container)
    if known is not None and (mean is None or abs(known - mean) <= _TOLERATED * mean):
        return known
    return mean


def _state(entries: Iterable[Entry], now: float) -> CheckpointState:
    newest = max((one.modified_seconds for one in entries), default=0.0)
    return CheckpointState.DOWNLOADING if now - newest < ACTIVE_SECONDS else CheckpointState.INCOMPLETE


def _checkpoint(
    name: Named,
    state: CheckpointState,
    size: int,
    expected: int | None = None,
    remaining: int | None = None,
) -> Checkpoint:
    return Checkpoint(name.model, state, size, name.deepseek, name.quantization, expected, remaining)


def _larger(one: Checkpoint, by: int) -> Checkpoint:
    return Checkpoint(
        one.model,
        one.state,
        one.size_bytes + by,
        one.deepseek,
        one.quantization,
        one.expected_bytes,
        one.remaining_bytes,
    )
