"""A repository of the Hugging Face cache: ``models--ORG--NAME/{blobs,refs,snapshots}``.

Layout: huggingface.co/docs/hub/local-cache. Snapshots are links into blobs, so that two revisions share what
did not change; a file is fetched as ``blobs/ETAG.incomplete``. A revision that no ref names is *detached*
(huggingface_hub utils/_cache_manager.py): it stays when a branch has moved on, and nothing deletes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from exporter.storage.facts import ACTIVE_SECONDS, Checkpoint, CheckpointState
from exporter.storage.files import Files
from exporter.storage.naming import Named, hub_id, named
from exporter.storage.tree import Claims, Entry, Folder, Tree, joined
from exporter.storage.walk import is_partial
from exporter.storage.weights import INDEX, Content, Group, Index, Piece, checkpoints


def is_repository(name: str, folder: Folder) -> bool:
    """Whether a folder is a model's repository of the cache; a download just begun has blobs alone."""
    return name.startswith("models--") and bool({"blobs", "snapshots"} & set(folder.folders))


def repository(
    tree: Tree, path: str, name: str, files: Files, claims: Claims, now: float
) -> list[Checkpoint]:
    """What one repository holds. ``name``: of its folder."""
    snapshots = tree.at(joined(path, "snapshots"))
    revisions = list(snapshots.folders) if snapshots is not None else []
    kept, superseded = _kept(tree, path, revisions, files)
    pieces = [piece for one in kept for piece in _pieces(tree, path, one)]
    old = [piece for one in superseded for piece in _pieces(tree, path, one)]
    linked = {piece.entry.inode for piece in (*pieces, *old) if piece.entry is not None}
    blobs = tree.at(joined(path, "blobs"))
    partials, loose = [], []
    for entry in blobs.files if blobs is not None else ():
        if is_partial(entry.name):
            partials.append(entry)
        elif entry.inode not in linked:
            loose.append(entry)
    # A blob gets its name in the snapshot a moment after it is whole.
    unlinked = [one for one in loose if now - one.modified_seconds < ACTIVE_SECONDS]
    known = _Names(path, name, kept, files)
    found = checkpoints(
        Content(pieces, partials, unlinked), known.of, lambda folder: known.index(folder), claims, now
    )
    orphaned = [piece.entry for piece in old if piece.entry is not None]
    size = sum(claims.take(one) for one in (*orphaned, *loose) if one not in unlinked)
    if size:
        whole = known.of(None)
        found.append(
            Checkpoint(whole.model, CheckpointState.ORPHANED, size, whole.deepseek, whole.quantization)
        )
    return found


class _Names:
    """What the parts of a repository are called."""

    def __init__(self, path: str, name: str, kept: list[str], files: Files) -> None:
        self._path, self._folder, self._files = path, name, files
        self._kept = kept
        self._hub = hub_id(name)

    def of(self, group: Group | None) -> Named:
        names = [self._folder]
        if group is not None and group.stem:
            # The quantization of a GGUF stands in the name of its file or folder.
            names.insert(0, f"{self._folder}/snapshots/{joined(group.folder, group.stem)}.gguf")
        return named(names, self._hub, family=self._family)

    def index(self, folder: str) -> Index | None:
        return next((found for one in self._at(folder, INDEX) if (found := self._files.index(one))), None)

    def _family(self) -> str | None:
        return next((said for one in self._at("", "config.json") if (said := self._files.family(one))), None)

    def _at(self, folder: str, name: str) -> Iterator[str]:
        for revision in self._kept:
            yield joined(joined(f"{joined(self._path, 'snapshots')}/{revision}", folder), name)


def _kept(tree: Tree, path: str, revisions: list[str], files: Files) -> tuple[list[str], list[str]]:
    """Revisions that a ref names, and those that it left behind. A repository without a ref was fetched by
    revision, and a ref that cannot be read may name any: all are kept then.
    """
    unread = files.unread
    named_by = {
        files.revision(joined(place, entry.name))
        for place, folder in tree.below(joined(path, "refs"))
        for entry in folder.files
    }
    kept = [one for one in revisions if one in named_by]
    if not kept or files.unread > unread:
        return revisions, []
    return kept, [one for one in revisions if one not in named_by]


def _pieces(tree: Tree, path: str, revision: str) -> Iterator[Piece]:
    """The files of a revision; where links cannot be made they are files of their own."""
    top = f"{joined(path, 'snapshots')}/{revision}"
    blobs = tree.at(joined(path, "blobs"))
    by_name: dict[str, Entry] = {one.name: one for one in blobs.files} if blobs is not None else {}
    for place, folder in tree.below(top):
        inner = place.removeprefix(top).strip("/")
        for entry in folder.files:
            yield Piece(inner, entry.name, entry)
        for name, target in folder.links.items():
            pointed = PurePosixPath(target)
            blob = by_name.get(pointed.name) if pointed.parent.name == "blobs" else None
            if blob is not None:
                yield Piece(inner, name, blob)
