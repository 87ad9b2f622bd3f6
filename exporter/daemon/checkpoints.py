"""Reads the headers of the files that engines have loaded, beside the polls: in a thread, once a launch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from exporter.engines.discovery import Instance, Key

if TYPE_CHECKING:
    from exporter.capacity.checkpoints import Found as Checkpoint

_AGAIN_SECONDS = 60.0
"""After how long a checkpoint that could not be read is tried again."""


class CheckpointWatch:
    """The checkpoints of the engines that run."""

    def __init__(self) -> None:
        # Not the loop's own executor: for that one asyncio waits at the end, also when it never returns.
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._checkpoints: dict[Key, tuple[float, asyncio.Future[Checkpoint | str]]] = {}

    def forget(self, live: Set[Key]) -> None:
        """Keep only what was read for these."""
        self._checkpoints = {key: one for key, one in self._checkpoints.items() if key in live}

    def of(self, instance: Instance) -> Checkpoint | str | None:
        """What the headers of its files say, or why they cannot be read; None while they are read, or when
        the launch names no files.
        """
        from exporter.capacity.identity import is_path

        said = instance.launch.model
        if said is None or instance.orphaned or not is_path(said):
            return None
        path = _reached(instance, said)
        if path is None:
            return "not permitted"
        now = time.monotonic()
        known = self._checkpoints.get(instance.key)
        failed = known is not None and known[1].done() and isinstance(known[1].result(), str)
        if known is None or (failed and now - known[0] > _AGAIN_SECONDS):
            work = asyncio.get_running_loop().run_in_executor(self._readers, _read_checkpoint, path, said)
            known = self._checkpoints[instance.key] = (now, work)
        return known[1].result() if known[1].done() else None

    def named_by_files(self, instance: Instance, names: Sequence[str]) -> str | None:
        """Of the models that Ollama has loaded, the only one that the runner's file may be."""
        from exporter.models.catalog import UnknownModel, UnknownQuantization, catalog

        checkpoint = self.of(instance)
        if checkpoint is None or isinstance(checkpoint, str):
            return None
        fitting = []
        for name in names:
            try:
                one = catalog().identify(name, ollama=True)
            except (UnknownModel, UnknownQuantization):
                continue
            if one.model is not None and one.model.architecture == checkpoint.model.architecture:
                fitting.append(name)
        return fitting[0] if len(fitting) == 1 else None


def _reached(instance: Instance, said: str) -> str | None:
    """The path under which this process reaches a file that another one names; None where it may not."""
    if instance.namespace is None or instance.folder is None or said.startswith("~"):
        return None
    path = PurePosixPath(said)
    return f"{instance.namespace}{path if path.is_absolute() else PurePosixPath(instance.folder) / path}"


def _read_checkpoint(path: str, said: str) -> Checkpoint | str:
    """In a thread. A reader of its own: what a daemon needs of headers is their sums, not the headers."""
    from exporter.capacity.checkpoints import NotRecognised, read_checkpoint
    from exporter.models.checkpoint.reader import CheckpointReader
    from exporter.models.checkpoint.tensors import HeaderError

    try:
        return read_checkpoint(path, CheckpointReader(), said=said)
    except HeaderError as error:
        return str(error.kind)
    except NotRecognised:
        return "its architecture is not known"
