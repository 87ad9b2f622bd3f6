"""What is left of a file system, and where a root really lies; calls that may never return (`guard.py`)."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from exporter.models.checkpoint.files import real_place
from exporter.models.checkpoint.tensors import HeaderError
from exporter.storage.facts import Kind, RootState, Space

_BROAD = frozenset(
    {"/", "/data", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/usr", "/var"}
)
"""Folders of everything (hier(7)): one model below them does not make them a store of models."""


class NoSpace(Exception):
    """The file system of a root cannot be read."""

    def __init__(self, state: RootState) -> None:
        super().__init__(state)
        self.state = state


@dataclass(frozen=True, slots=True)
class Probe:
    """One look at a root's disk. ``identity``: (device, inode) of the root itself."""

    identity: tuple[int, int]
    space: Space


@dataclass(frozen=True, slots=True)
class Place:
    """The root to which the files of a deployment belong."""

    root: str
    kind: Kind
    name: str


def probe(root: str) -> Probe:
    """Size and free space under a root. Needs no right to read it, only to reach it. Raises NoSpace."""
    try:
        fd = os.open(root, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NoSpace(RootState.MISSING) from None
    except PermissionError:
        raise NoSpace(RootState.NO_PERMISSION) from None
    except (OSError, ValueError):
        raise NoSpace(RootState.FAILED) from None
    try:
        status, space = os.fstat(fd), os.fstatvfs(fd)
    except OSError:
        raise NoSpace(RootState.FAILED) from None
    finally:
        os.close(fd)
    if not stat.S_ISDIR(status.st_mode):
        raise NoSpace(RootState.NOT_A_FOLDER)
    size = space.f_blocks * space.f_frsize
    if size <= 0:
        raise NoSpace(RootState.FAILED)
    free = min(size, space.f_bavail * space.f_frsize)
    return Probe((status.st_dev, status.st_ino), Space(status.st_dev, size, free))


def place_of(path: str, prefix: str = "") -> Place | None:
    """The root of a checkpoint's files. ``prefix``: under which its process's own root is seen from here."""
    try:
        real = real_place(prefix + path)
    except HeaderError:
        return None
    folder, kind, name = root_of(real, is_folder=_is_folder(prefix + real))
    parent = folder.rpartition("/")[0] or "/"
    if kind is Kind.AUTO and not _is_broad(parent) and _same_disk(prefix + parent, prefix + folder):
        folder = parent
    return Place(prefix + folder, kind, name) if _is_folder(prefix + folder) else None


def root_of(real: str, *, is_folder: bool) -> tuple[str, Kind, str]:
    """Folder, layout and short name of the root that holds a real path, by what the path looks like."""
    parts = real.split("/")
    cached = next((at for at, part in enumerate(parts) if part.startswith("models--")), 0)
    if cached:
        return "/".join(parts[:cached]) or "/", Kind.HUGGINGFACE, "huggingface"
    if len(parts) > 3 and parts[-2] == "blobs" and parts[-1].startswith("sha256-"):
        return "/".join(parts[:-2]), Kind.OLLAMA, "ollama"
    return (real if is_folder else "/".join(parts[:-1]) or "/"), Kind.AUTO, "models"


def short_name(path: str, kind: Kind) -> str:
    """What a configured root is called where it has no name of its own; never a part of its path."""
    text = path.lower()
    if kind is Kind.HUGGINGFACE or (kind is Kind.AUTO and "huggingface" in text):
        return "huggingface"
    if kind is Kind.OLLAMA or (kind is Kind.AUTO and "ollama" in text):
        return "ollama"
    return "models"


def _is_broad(folder: str) -> bool:
    return folder in _BROAD or (folder.startswith("/home/") and folder.count("/") == 2)


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 (a path below /proc/PID/root)
    except (OSError, ValueError):
        return False


def _same_disk(one: str, other: str) -> bool:
    try:
        return os.stat(one).st_dev == os.stat(other).st_dev  # noqa: PTH116
    except OSError:
        return False
