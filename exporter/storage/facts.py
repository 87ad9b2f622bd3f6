"""What is known of the places where checkpoints lie. Sizes are bytes, times Unix seconds; None: not known.

A *root* is a folder of checkpoints. A *store* is the file system under one or more roots: several roots on
one disk share what is free, and are told once. Nothing here holds a path: snapshots are made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a root is laid out; `AUTO` leaves that to each of its folders."""

    AUTO = "auto"
    HUGGINGFACE = "huggingface"
    OLLAMA = "ollama"
    PLAIN = "plain"


class RootState(StrEnum):
    """Why the figures of a root are as they are; all but `UP` leave some absent."""

    UP = "up"
    UNSCANNED = "unscanned"
    """its disk is known, its files were not looked at yet"""
    PARTIAL = "partial"
    """a folder or a list of files in it cannot be read"""
    STALLED = "stalled"
    """its file system does not answer"""
    NO_PERMISSION = "no_permission"
    MISSING = "missing"
    NOT_A_FOLDER = "not_a_folder"
    TOO_MANY_FILES = "too_many_files"
    FAILED = "failed"


class CheckpointState(StrEnum):
    """What the files of a checkpoint are good for."""

    COMPLETE = "complete"
    DOWNLOADING = "downloading"
    """something is missing, and its files grew lately"""
    INCOMPLETE = "incomplete"
    """something is missing, and nobody fetches it; or what a broken download left"""
    ORPHANED = "orphaned"
    """no name leads to it any more: an older revision, a blob of no manifest"""
    NO_WEIGHTS = "no_weights"
    """configuration and tokenizer alone"""


ACTIVE_SECONDS = 900.0
"""A download whose files did not grow for so long is given up: three scans of the usual interval."""

OTHER = "other"
"""The model of whatever is no DeepSeek model."""
UNKNOWN = "unknown"
"""The model of a download whose name stands nowhere yet: Ollama writes the manifest last."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One model's files, or a part of them that is in another state.

    ``size_bytes`` is the room that they take on disk: what two checkpoints share counts with the first.
    ``expected_bytes`` is what the files will be, ``remaining_bytes`` what of a running download is to come.
    """

    model: str
    state: CheckpointState
    size_bytes: int
    deepseek: bool = False
    quantization: str | None = None
    expected_bytes: int | None = None
    remaining_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """What one look at the files of a root gave. ``free_bytes`` is what its disk had left at that time, so
    that it can be held against what is still to come.
    """

    state: RootState
    at_seconds: float
    checkpoints: tuple[Checkpoint, ...] = ()
    entries: int = 0
    unreadable: int = 0
    other_file_systems: int = 0
    """folders that are mounts of their own, and were not entered"""
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Space:
    """A file system as statvfs(3) tells it. ``free_bytes`` is what others than root may still write."""

    device: int
    size_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class RootStatus:
    """A root as it is shown. ``origin``: configured, or of a deployment that runs."""

    name: str
    kind: Kind
    origin: str
    state: RootState
    deployments: tuple[str, ...] = ()
    scanned_at_seconds: float | None = None
    entries: int | None = None


@dataclass(frozen=True, slots=True)
class NextModel:
    """A model that is planned to be fetched, and the room left when it has been; negative: it lacks."""

    model: str
    quantization: str
    needed_bytes: int
    headroom_bytes: int


@dataclass(frozen=True, slots=True)
class Store:
    """One file system with checkpoints on it.

    ``used_bytes`` is what DeepSeek checkpoints take of it, ``other_models_bytes`` other checkpoints.
    ``download_headroom_bytes`` is what will be free when every running download has ended.
    """

    name: str
    size_bytes: int | None = None
    free_bytes: int | None = None
    used_bytes: int | None = None
    other_models_bytes: int | None = None
    orphaned_bytes: int | None = None
    incomplete_bytes: int | None = None
    download_remaining_bytes: int | None = None
    download_headroom_bytes: int | None = None
    roots: tuple[RootStatus, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    next_model: NextModel | None = None

    @property
    def deployments(self) -> tuple[str, ...]:
        """Those whose files lie here."""
        return tuple(dict.fromkeys(name for root in self.roots for name in root.deployments))

    @property
    def occupied_bytes(self) -> int | None:
        """What is not free, of whomever."""
        if self.size_bytes is None or self.free_bytes is None:
            return None
        return self.size_bytes - self.free_bytes
