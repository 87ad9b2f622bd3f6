"""A store of Ollama: ``manifests/HOST/NAMESPACE/MODEL/TAG``, each listing blobs, and ``blobs/sha256-…``.

Ollama server/modelpath.go, manifest.go, download.go: a blob is fetched as ``sha256-…-partial``, a sparse file
that has its full size from the beginning, and the manifest is written when every blob is there.
"""

from __future__ import annotations

import re

from exporter.storage.facts import ACTIVE_SECONDS, UNKNOWN, Checkpoint, CheckpointState
from exporter.storage.files import Files
from exporter.storage.naming import NOT_DEEPSEEK, named
from exporter.storage.tree import Claims, Entry, Folder, Tree, joined

_BLOB = re.compile(r"sha256-[0-9a-f]{64}", re.ASCII)
_PARTIAL = re.compile(r"sha256-[0-9a-f]{64}-partial", re.ASCII)
_DEFAULT = "registry.ollama.ai/library/"


def is_store(folder: Folder) -> bool:
    """Whether a folder is a store of Ollama."""
    return {"manifests", "blobs"} <= set(folder.folders)


def store(tree: Tree, path: str, files: Files, claims: Claims, now: float) -> list[Checkpoint]:
    """What a store holds."""
    blobs = tree.at(joined(path, "blobs"))
    entries = {one.name: one for one in blobs.files} if blobs is not None else {}
    partials = [one for name, one in entries.items() if _PARTIAL.fullmatch(name)]
    unread = files.unread
    found: list[Checkpoint] = []
    listed: set[str] = set()
    top = joined(path, "manifests")
    for place, folder in tree.below(top):
        for manifest in folder.files:
            names = files.layers(joined(place, manifest.name))
            if names is not None:
                listed.update(names)
                tag = f"{place.removeprefix(top).strip('/')}:{manifest.name}"
                found.append(_model(tag.removeprefix(_DEFAULT), names, entries, claims))
    found += [_download(one, claims, now) for one in partials]
    fetching = any(one.state is CheckpointState.DOWNLOADING for one in found)
    if not fetching and files.unread == unread:
        # While a model is fetched, its finished blobs stand in no manifest yet.
        loose = [
            one
            for name, one in entries.items()
            if _BLOB.fullmatch(name) and name not in listed and now - one.modified_seconds >= ACTIVE_SECONDS
        ]
        size = sum(map(claims.take, loose))
        if size:
            found.append(Checkpoint(NOT_DEEPSEEK.model, CheckpointState.ORPHANED, size))
    return found


def _model(tag: str, names: tuple[str, ...], entries: dict[str, Entry], claims: Claims) -> Checkpoint:
    """A model by its manifest; blobs that two share count with the first."""
    name = named([tag], ollama=True)
    size = sum(claims.take(entries[one]) for one in dict.fromkeys(names) if one in entries)
    whole = all(one in entries for one in names)
    state = CheckpointState.COMPLETE if whole else CheckpointState.INCOMPLETE
    return Checkpoint(name.model, state, size, name.deepseek, name.quantization)


def _download(partial: Entry, claims: Claims, now: float) -> Checkpoint:
    grew = now - partial.modified_seconds < ACTIVE_SECONDS
    remaining = max(0, partial.size_bytes - partial.stored_bytes)
    return Checkpoint(
        UNKNOWN,
        CheckpointState.DOWNLOADING if grew else CheckpointState.INCOMPLETE,
        claims.take(partial),
        expected_bytes=partial.size_bytes,
        remaining_bytes=remaining if grew else None,
    )
