"""Folders with files of weights, as people make them: one model a folder, or GGUF files side by side.

Where a download is under way: huggingface_hub's ``local_dir`` keeps what it fetches in
``.cache/huggingface/download`` below the folder (_local_folder.py), ModelScope in ``._____temp``, aria2 has a
control file beside a file that was given its full size at once.
"""

from __future__ import annotations

from exporter.models.quantization import Container
from exporter.storage.facts import Checkpoint
from exporter.storage.files import Files
from exporter.storage.naming import Named, named
from exporter.storage.tree import Claims, Entry, Folder, joined
from exporter.storage.walk import PARTIAL_FOLDER, is_partial
from exporter.storage.weights import INDEX, Content, Group, Piece, checkpoints, is_weights

_LOCAL_DOWNLOADS = ".cache/huggingface/download"
_ARIA2 = ".aria2"


class Plain:
    """The plain folders of a tree. ``root_name`` is what the root itself is called."""

    def __init__(self, root_name: str, files: Files, claims: Claims, now: float) -> None:
        self._root_name, self._files, self._claims, self._now = root_name, files, claims, now
        self._fetched: dict[str, list[Entry]] = {}
        self._folders: dict[str, Folder] = {}

    def add(self, path: str, folder: Folder) -> None:
        """Take in a folder that is no part of another layout."""
        owner = _owner(path)
        if owner is None:
            self._folders[path] = folder
        elif f"{path}/".find(f"{PARTIAL_FOLDER}/") >= 0:
            self._fetched.setdefault(owner, []).extend(folder.files)
        else:
            self._fetched.setdefault(owner, []).extend(one for one in folder.files if is_partial(one.name))

    def checkpoints(self) -> list[Checkpoint]:
        """What all of them hold."""
        found = []
        for path in sorted({*self._folders, *self._fetched}):
            found += self._of(path, self._folders.get(path) or Folder(0, 0))
        return found

    def _of(self, path: str, folder: Folder) -> list[Checkpoint]:
        controlled = {one.name.removesuffix(_ARIA2) for one in folder.files if one.name.endswith(_ARIA2)}
        partials = list(self._fetched.get(path, ()))
        pieces = []
        for entry in folder.files:
            if is_partial(entry.name) or entry.name in controlled:
                partials.append(entry)
            else:
                pieces.append(Piece("", entry.name, entry))
        pieces += [Piece("", name, None) for name in folder.links]
        if not partials and not any(is_weights(piece.name) for piece in pieces):
            return []  # a folder of something else
        name = _Names(f"/{joined(self._root_name, path)}".rstrip("/"), path, self._files)
        return checkpoints(
            Content(pieces, partials),
            name.of,
            lambda _: self._files.index(joined(path, INDEX)) if folder.file(INDEX) else None,
            self._claims,
            self._now,
        )


class _Names:
    def __init__(self, place: str, path: str, files: Files) -> None:
        self._place, self._path, self._files = place, path, files

    def of(self, group: Group | None) -> Named:
        parts = self._place.strip("/").split("/")
        names = [self._place]
        if len(parts) > 1:
            names.append("/".join(parts[-2:]))  # ORG/NAME, as `--local-dir` is often given
        if group is None or group.container is not Container.GGUF:
            return named(names, family=lambda: self._files.family(joined(self._path, "config.json")))
        names.insert(0, f"{self._place}/{group.stem.removesuffix('.gguf')}.gguf")
        first = min(piece.name for piece in group.pieces)
        return named(names, family=lambda: self._files.gguf_family(joined(self._path, first)))


def _owner(path: str) -> str | None:
    """The folder for which a folder of downloads is; None for any other."""
    for marker in (_LOCAL_DOWNLOADS, PARTIAL_FOLDER):
        before, found, after = f"/{path}/".partition(f"/{marker}/")
        if found:
            return joined(before.strip("/"), after.strip("/")).strip("/")
    return None
