"""A checkpoint on disk, as the commands read it: with one reader that remembers."""

from __future__ import annotations

from functools import lru_cache

from exporter.capacity import checkpoints
from exporter.capacity.checkpoints import Found, NotRecognised
from exporter.models.checkpoint.reader import CheckpointReader

__all__ = ["Found", "NotRecognised", "read_checkpoint"]


def read_checkpoint(path: str) -> Found:
    """Raises HeaderError for files that cannot be read, NotRecognised for an architecture not known."""
    return checkpoints.read_checkpoint(path, _reader())


@lru_cache(maxsize=1)
def _reader() -> CheckpointReader:
    return CheckpointReader()
