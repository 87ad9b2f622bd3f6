"""Scans roots in short-lived children with a deadline: a file system that hangs costs its own root alone.

The child (``python -I -m exporter.storage.scanner``) may use little memory, processor time and few files, and
cannot write any. One that cannot be ended, since it sleeps in the kernel, is left to it; its root rests until
the child is gone (as node_exporter leaves stuck mounts alone, collector/filesystem_linux.go).
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any

from exporter import limited_child
from exporter.storage.facts import RootState, Scan
from exporter.storage.wire import ANSWER_BYTES, Question, decode_answer

CPU_SECONDS = 30
MEMORY_BYTES = 512 << 20
OPEN_FILES = 64
LONGEST_SECONDS = 600.0
FULL_SECONDS = 3600.0
"""After so long every folder is listed again, also those that seem unchanged."""


class Scanner:
    """Scans of all roots; safe to be used from several threads, of one root by one at a time."""

    def __init__(self) -> None:
        self._stuck: dict[str, subprocess.Popen[bytes]] = {}
        self._memos: dict[str, tuple[float, Any]] = {}
        self._lock = threading.Lock()

    def scan(self, question: Question, deadline_seconds: float) -> Scan:
        """One look at a root; blocks for the child's life, and not much longer than the deadline."""
        root = question.root
        with self._lock:
            stuck = self._stuck.get(root)
            if stuck is not None and stuck.poll() is None:
                return Scan(RootState.STALLED, time.time())
            self._stuck.pop(root, None)
            listed_at, memo = self._memos.pop(root, (float("-inf"), None))
        now = time.monotonic()
        fresh = now - listed_at >= FULL_SECONDS
        scan, memo = self._ask(
            replace(question, memo=None if fresh else memo), now + min(deadline_seconds, LONGEST_SECONDS)
        )
        if memo is not None:
            with self._lock:
                self._memos[root] = (now if fresh else listed_at, memo)
        return scan

    def forget(self, roots: set[str]) -> None:
        """Keep what is remembered of these roots alone."""
        with self._lock:
            self._memos = {root: memo for root, memo in self._memos.items() if root in roots}

    def _ask(self, question: Question, deadline: float) -> tuple[Scan, Any]:
        try:
            child = limited_child.start(command(), question.encode())
        except OSError:
            return Scan(RootState.FAILED, time.time()), None
        try:
            code, said = limited_child.collect(child, deadline, ANSWER_BYTES)
            return decode_answer(said) if code == 0 else (Scan(RootState.FAILED, time.time()), None)
        except limited_child.Late:
            return Scan(RootState.STALLED, time.time()), None
        except limited_child.TooMuch:
            return Scan(RootState.TOO_MANY_FILES, time.time()), None
        except (ValueError, KeyError, TypeError):
            return Scan(RootState.FAILED, time.time()), None
        finally:
            if not limited_child.end(child):
                with self._lock:
                    self._stuck[question.root] = child


def command() -> list[str]:
    """The child's command line."""
    return [sys.executable, "-I", "-m", "exporter.storage.scanner"]


if __name__ == "__main__":
    from exporter.storage.child import main

    main(CPU_SECONDS, MEMORY_BYTES, OPEN_FILES, LONGEST_SECONDS)
