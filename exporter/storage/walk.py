"""Walks a root: bounded in entries and depth, within one file system, through no symbolic link.

Folders are entered by descriptor (openat(2) with O_NOFOLLOW), so that none can be swapped for a link on the
way. A folder that did not change since the last walk is not listed again: its time of change (stat(2),
st_mtim) moves when a name comes or goes, and files that may still grow keep it from being trusted.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from exporter.storage.facts import ACTIVE_SECONDS, RootState
from exporter.storage.tree import Entry, Folder, Tree, joined, stored_bytes

MOST_DEPTH = 8
"""The deepest known: hub/models--A--B/snapshots/REVISION/QUANTIZATION/FILE, three folders below a root."""

PASSED_OVER = frozenset({".git", ".locks", ".no_exist", ".Trash", "__pycache__", "lost+found"})
_PASSED_OVER_BEGINNINGS = ("datasets--", "spaces--")

PARTIAL_ENDINGS = (".incomplete", "-partial", ".downloadInProgress", ".aria2")
"""What a file is called while it is fetched: huggingface_hub file_download.py and _local_folder.py, Ollama
server/download.go, llama.cpp common/download.cpp, aria2's control file."""
PARTIAL_FOLDER = "._____temp"
"""Where ModelScope fetches into (modelscope hub/constants.py, TEMPORARY_FOLDER_NAME)."""

Memo = dict[str, Folder]
"""Folders as an earlier walk found them."""


class NotWalked(Exception):
    """The root cannot be walked at all."""

    def __init__(self, state: RootState) -> None:
        super().__init__(state)
        self.state = state


@dataclass(slots=True)
class Walk:
    """What a walk gave."""

    tree: Tree
    entries: int = 0
    unreadable: int = 0
    other_file_systems: int = 0
    relisted: int = 0


@dataclass(slots=True)
class _Walker:
    most_entries: int
    memo: Memo
    elsewhere: frozenset[tuple[int, int]]
    device: int = 0
    folders: dict[str, Folder] = field(default_factory=dict)
    walk: Walk = field(default_factory=lambda: Walk(Tree({})))

    def enter(self, fd: int, path: str, depth: int) -> None:
        """Take in the folder behind a descriptor, and those below it; closes the descriptor."""
        try:
            folder = self._listed(fd, path)
            self.folders[path] = folder
            if depth >= MOST_DEPTH:
                self.walk.unreadable += bool(folder.folders)
                return
            for name in folder.folders:
                self._descend(fd, joined(path, name), name, depth)
        finally:
            os.close(fd)

    def _descend(self, parent: int, path: str, name: str, depth: int) -> None:
        try:
            fd = os.open(
                name,
                os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK,
                dir_fd=parent,
            )
        except OSError as error:
            # Gone, or no folder any more: as if it had never been there.
            self.walk.unreadable += error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
            return
        status = os.fstat(fd)
        if status.st_dev != self.device:
            self.walk.other_file_systems += 1
        elif (status.st_dev, status.st_ino) not in self.elsewhere:
            self.enter(fd, path, depth + 1)
            return
        os.close(fd)

    def _listed(self, fd: int, path: str) -> Folder:
        status = os.fstat(fd)
        known = self.memo.get(path)
        if known is not None and (known.inode, known.modified_ns) == (status.st_ino, status.st_mtime_ns):
            folder = known
        else:
            folder = self._listing(fd, status)
            self.walk.relisted += 1
        self.walk.entries += 1 + len(folder.files) + len(folder.links) + len(folder.folders)
        if self.walk.entries > self.most_entries:
            raise NotWalked(RootState.TOO_MANY_FILES)
        return folder

    def _listing(self, fd: int, status: os.stat_result) -> Folder:
        folder = Folder(status.st_ino, status.st_mtime_ns)
        try:
            with os.scandir(fd) as entries:
                for number, entry in enumerate(entries):
                    if self.walk.entries + number > self.most_entries:
                        raise NotWalked(RootState.TOO_MANY_FILES)
                    self._take(folder, entry, fd)
        except OSError:
            self.walk.unreadable += 1
            folder.modified_ns = -1  # never taken for unchanged
        folder.files.sort()
        folder.folders.sort()
        return folder

    def _take(self, folder: Folder, entry: os.DirEntry[str], fd: int) -> None:
        name = entry.name
        try:
            if entry.is_symlink():
                folder.links[name] = os.readlink(name, dir_fd=fd)
            elif entry.is_dir(follow_symlinks=False):
                if name not in PASSED_OVER and not name.startswith(_PASSED_OVER_BEGINNINGS):
                    folder.folders.append(name)
            elif entry.is_file(follow_symlinks=False):
                folder.files.append(_entry(name, entry.stat(follow_symlinks=False)))
        except FileNotFoundError:
            return  # gone since it was listed
        except OSError:
            self.walk.unreadable += 1


def _entry(name: str, status: os.stat_result) -> Entry:
    size = stored_bytes(status.st_size, status.st_blocks, partial=is_partial(name))
    return Entry(name, status.st_size, size, status.st_ino, status.st_nlink, status.st_mtime)


def is_partial(name: str) -> bool:
    """Whether a name is that of a file that is being fetched."""
    return name.endswith(PARTIAL_ENDINGS)


def walk(
    fd: int,
    most_entries: int,
    memo: Memo | None = None,
    elsewhere: Iterable[tuple[int, int]] = (),
) -> Walk:
    """The tree below a folder's descriptor, which is closed. ``elsewhere``: (device, inode) of folders that
    are roots of their own. Raises NotWalked.
    """
    status = os.fstat(fd)
    if not stat.S_ISDIR(status.st_mode):
        os.close(fd)
        raise NotWalked(RootState.NOT_A_FOLDER)
    own = (status.st_dev, status.st_ino)
    walker = _Walker(most_entries, memo or {}, frozenset(elsewhere) - {own}, status.st_dev)
    walker.enter(fd, "", 0)
    walker.walk.tree = Tree(walker.folders)
    return walker.walk


def settled(tree: Tree, now: float) -> Memo:
    """Folders that need not be listed again while they do not change: nothing in them is being written."""
    return {
        path: folder
        for path, folder in tree.folders.items()
        if now - folder.modified_ns / 1e9 > ACTIVE_SECONDS
        and not any(
            is_partial(one.name) or now - one.modified_seconds < ACTIVE_SECONDS for one in folder.files
        )
    }
