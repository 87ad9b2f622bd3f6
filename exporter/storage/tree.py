"""A folder tree as it was walked: names and sizes, nothing opened. Layouts are read off it (`layouts.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

_BLOCK_BYTES = 512
"""Unit of st_blocks (stat(2)), whatever the file system's own."""
_LARGE_BYTES = 1 << 20


class Entry(NamedTuple):
    """A regular file. ``stored_bytes`` is what it takes on disk: of a sparse file what was written, of a
    compressed one less than its size.
    """

    name: str
    size_bytes: int
    stored_bytes: int
    inode: int
    links: int
    modified_seconds: float


def stored_bytes(size_bytes: int, blocks: int, *, partial: bool) -> int:
    """Room on disk, from st_blocks: a download that was given its full size at once takes only what came.

    Object stores behind FUSE count no blocks at all; a large file that is finished then counts by its size.
    """
    if blocks <= 0 and size_bytes >= _LARGE_BYTES and not partial:
        return size_bytes
    return max(blocks, 0) * _BLOCK_BYTES


@dataclass(slots=True)
class Folder:
    """What a folder holds. ``links``: name of a symbolic link → where it points, never followed."""

    inode: int
    modified_ns: int
    files: list[Entry] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)

    def file(self, name: str) -> Entry | None:
        return next((one for one in self.files if one.name == name), None)


@dataclass(slots=True)
class Tree:
    """Folders by their path below the root, `""` being the root itself."""

    folders: Mapping[str, Folder]

    def at(self, path: str) -> Folder | None:
        return self.folders.get(path)

    def below(self, path: str) -> Iterator[tuple[str, Folder]]:
        """A folder and all below it, in order."""
        todo = [path]
        while todo:
            one = todo.pop()
            folder = self.folders.get(one)
            if folder is not None:
                yield one, folder
                todo += [joined(one, name) for name in sorted(folder.folders, reverse=True)]


def joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


class Claims:
    """Files whose room was counted: a hard link, or a blob of two names, counts once."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def take(self, entry: Entry) -> int:
        """Its room, or 0 when it was counted already."""
        if entry.inode in self._seen:
            return 0
        self._seen.add(entry.inode)
        return entry.stored_bytes
