"""The one door to checkpoint files: reads headers in a short-lived child with limits, and remembers them.

The child (``python -I -m exporter.models.checkpoint.reader``) may use little memory, processor time and few
files, and cannot write any; its answer is JSON through a pipe. A network file system that hangs costs a
deadline, not the caller.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from exporter import limited_child
from exporter.models.checkpoint.tensors import FileIdentity, Header, HeaderError, Problem
from exporter.models.checkpoint.wire import ANSWER_BYTES, decode, plain_seen

DEADLINE_SECONDS = 20.0
CPU_SECONDS = 6
MEMORY_BYTES = 768 << 20
OPEN_FILES = 64
_KEPT = 64
_KEPT_TENSORS = 200_000  # some 60 MiB
_TRUSTED_SECONDS = 5.0
_MOST_STUCK = 4


@dataclass(frozen=True, slots=True)
class _Question:
    path: str
    roots: tuple[str, ...]
    ollama_store: str | None = None


@dataclass(slots=True)
class _Remembered:
    answer: Header | HeaderError
    seen: tuple[tuple[str, FileIdentity], ...]
    checked_at: float

    def given(self) -> Header:
        if isinstance(self.answer, HeaderError):
            raise HeaderError(self.answer.kind, self.answer.message)
        return self.answer


class CheckpointReader:
    """Reads checkpoints and remembers the last few answers, refusals too.

    An answer stands for ``trusted_seconds`` unseen; after that a child compares device, inode, size and time
    of change of every file and folder that took part, and reads anew when one differs. Safe to share among
    threads; a call blocks for the child's life (some 50 ms): in an event loop use ``asyncio.to_thread``.
    """

    def __init__(
        self, *, deadline_seconds: float = DEADLINE_SECONDS, trusted_seconds: float = _TRUSTED_SECONDS
    ) -> None:
        self._deadline_seconds = deadline_seconds
        self._trusted_seconds = trusted_seconds
        self._remembered: OrderedDict[_Question, _Remembered] = OrderedDict()
        self._stuck: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()

    def read(self, path: str | os.PathLike[str], roots: Sequence[str | os.PathLike[str]] = ()) -> Header:
        """The headers of the checkpoint at ``path``: a file or part of one, a folder, a Hugging Face cache
        folder or snapshot, a config.json.

        ``roots``: only files that really lie below them are read; without, the folder itself, what the path
        links to, and the repository folder of a Hugging Face cache. Raises HeaderError.
        """
        return self._answer(_Question(_absolute(path), _real(roots)))

    def read_ollama(
        self, name: str, store: str | os.PathLike[str], roots: Sequence[str | os.PathLike[str]] = ()
    ) -> Header:
        """The headers of a model by its Ollama name (``deepseek-r1:7b``, ``hf.co/ORG/NAME:Q4_K_M``).

        ``store`` is the folder of ``manifests`` and ``blobs``; it is also what may be read, unless ``roots``
        say otherwise. Raises HeaderError.
        """
        return self._answer(_Question(name, _real(roots), _absolute(store)))

    def _answer(self, question: _Question) -> Header:
        with self._lock:
            known = self._remembered.get(question)
            if known is not None:
                self._remembered.move_to_end(question)
                if time.monotonic() - known.checked_at < self._trusted_seconds:
                    return known.given()
        try:
            found = decode(self._ask(question, known))
        except HeaderError as error:
            remembered = _Remembered(error, (), time.monotonic())
        else:
            if found is not None:
                remembered = _Remembered(*found, time.monotonic())
            elif known is not None:
                remembered = _Remembered(known.answer, known.seen, time.monotonic())
            else:
                raise HeaderError(Problem.READER, "the header reader's answer makes no sense")
        with self._lock:
            self._remembered[question] = remembered
            self._remembered.move_to_end(question)
            self._forget()
        return remembered.given()

    def _forget(self) -> None:
        """Drop the oldest answers until few enough are kept, and few enough tensors in them."""
        tensors = sum(len(one.answer.tensors) for one in self._remembered.values() if _is_header(one.answer))
        while len(self._remembered) > _KEPT or (tensors > _KEPT_TENSORS and len(self._remembered) > 1):
            _, oldest = self._remembered.popitem(last=False)
            if _is_header(oldest.answer):
                tensors -= len(oldest.answer.tensors)

    def _ask(self, question: _Question, known: _Remembered | None) -> bytes:
        request = {
            "path": question.path,
            "roots": question.roots,
            "ollama_store": question.ollama_store,
            "known": plain_seen(known.seen) if known is not None and known.seen else None,
        }
        with self._lock:
            self._stuck = [child for child in self._stuck if child.poll() is None]
            if len(self._stuck) >= _MOST_STUCK:
                raise HeaderError(
                    Problem.TIME, f"{len(self._stuck)} readers hang in file systems that do not answer"
                )
        deadline = time.monotonic() + self._deadline_seconds
        try:
            child = limited_child.start(command(), json.dumps(request).encode())
        except OSError as error:
            raise HeaderError(Problem.READER, f"the header reader could not run: {error.strerror}") from None
        try:
            return _collect(child, deadline)
        finally:
            if not limited_child.end(child):
                # In an uninterruptible call: it is left to the kernel and collected later.
                with self._lock:
                    self._stuck.append(child)


def _is_header(answer: Header | HeaderError) -> TypeGuard[Header]:
    return isinstance(answer, Header)


def _absolute(path: str | os.PathLike[str]) -> str:
    # Not resolved: what a link names is the child's to find out, and may hang.
    return str(Path(path).expanduser().absolute())


def _real(roots: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    return tuple(str(Path(root).resolve()) for root in roots)


def command() -> list[str]:
    """The child's command line."""
    return [sys.executable, "-I", "-m", "exporter.models.checkpoint.reader"]


def _collect(child: subprocess.Popen[bytes], deadline: float) -> bytes:
    try:
        code, answer = limited_child.collect(child, deadline, ANSWER_BYTES)
    except limited_child.Late:
        raise HeaderError(Problem.TIME, "the header reader did not end in time") from None
    except limited_child.TooMuch:
        raise HeaderError(Problem.MEMORY, "the headers are larger than the reader may answer") from None
    if code or not answer:
        raise _died(code)
    return answer


def _died(code: int) -> HeaderError:
    import signal

    if code in (-signal.SIGXCPU, -signal.SIGALRM):
        return HeaderError(Problem.TIME, "the headers took more processor time than a reader may use")
    return HeaderError(Problem.READER, f"the header reader ended with {code}")


if __name__ == "__main__":
    from exporter.models.checkpoint.child import main

    main(CPU_SECONDS, MEMORY_BYTES, OPEN_FILES, DEADLINE_SECONDS)
