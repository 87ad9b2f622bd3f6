"""The child that scans a root: limits itself, walks, reads off what is there, prints one answer, ends."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
import time

from exporter.models.checkpoint.files import Access, real_place
from exporter.models.checkpoint.tensors import HeaderError, Problem
from exporter.storage.facts import Checkpoint, RootState, Scan
from exporter.storage.files import Files
from exporter.storage.layouts import checkpoints
from exporter.storage.walk import Memo, NotWalked, settled, walk
from exporter.storage.wire import MOST_CHECKPOINTS, Question, decode_memo, encode_answer

_NICE = 10
_STATES = {
    Problem.NOT_FOUND: RootState.MISSING,
    Problem.NOT_PERMITTED: RootState.NO_PERMISSION,
    Problem.NOT_A_FILE: RootState.NOT_A_FOLDER,
}


def main(cpu_seconds: int, memory_bytes: int, open_files: int, wall_seconds: float) -> None:
    """Answer the question on standard input; exits 0 whenever an answer was printed."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Should the parent die, nobody else ends this process.
    signal.setitimer(signal.ITIMER_REAL, wall_seconds)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    gc.disable()  # a short life without cycles
    question = Question.decode(sys.stdin.buffer.read())
    try:
        scan, memo = answer(question, time.time())
    except MemoryError:
        scan, memo = Scan(RootState.TOO_MANY_FILES, time.time()), {}
    sys.stdout.buffer.write(encode_answer(scan, memo))
    sys.stdout.buffer.flush()
    os._exit(0)


def answer(question: Question, now: float) -> tuple[Scan, Memo]:
    """One scan, and the folders that the next one need not list."""
    try:
        fd = os.open(question.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return Scan(_state_of(error), now), {}
    try:
        place = real_place(question.root)
        looked = os.dup(fd)
        memo = decode_memo(question.memo)
        walked = walk(looked, question.most_entries, memo, question.elsewhere)
        root = question.root.rstrip("/") or "/"
        files = Files(root, Access((place,)))
        found = checkpoints(walked.tree, question.kind, place.rpartition("/")[2], files, now)
        unreadable = walked.unreadable + files.unread
        state = RootState.PARTIAL if unreadable else RootState.UP
        space = os.fstatvfs(fd)
        scan = Scan(
            state=state,
            at_seconds=now,
            checkpoints=bounded(found),
            entries=walked.entries,
            unreadable=unreadable,
            other_file_systems=walked.other_file_systems,
            free_bytes=space.f_bavail * space.f_frsize,
        )
        return scan, settled(walked.tree, now)
    except NotWalked as error:
        return Scan(error.state, now), {}
    except HeaderError as error:
        return Scan(_STATES.get(error.kind, RootState.FAILED), now), {}
    except OSError as error:
        return Scan(_state_of(error), now), {}
    finally:
        os.close(fd)


def bounded(found: list[Checkpoint]) -> tuple[Checkpoint, ...]:
    """The first ones apart, and of the rest the sums by state, without names."""
    rest: dict[tuple[str, bool], Checkpoint] = {}
    for one in found[MOST_CHECKPOINTS:]:
        key = (one.state, one.deepseek)
        before = rest.get(key) or Checkpoint("more", one.state, 0, one.deepseek)
        known = [size for size in (before.remaining_bytes, one.remaining_bytes) if size is not None]
        rest[key] = Checkpoint(
            "more",
            one.state,
            before.size_bytes + one.size_bytes,
            one.deepseek,
            remaining_bytes=sum(known) if known else None,
        )
    return (*found[:MOST_CHECKPOINTS], *rest.values())


def _state_of(error: OSError) -> RootState:
    if isinstance(error, FileNotFoundError):
        return RootState.MISSING
    if isinstance(error, PermissionError):
        return RootState.NO_PERMISSION
    return RootState.NOT_A_FOLDER if isinstance(error, NotADirectoryError) else RootState.FAILED
