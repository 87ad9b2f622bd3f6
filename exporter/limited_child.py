"""A short-lived child that answers one question through a pipe: begun, listened to for so long, no longer.

For work on what others wrote, and on file systems that may not answer. The request is handed over in memory,
so that nothing blocks when the child never reads it; the environment is not, because it may hold secrets.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Sequence

_PASSED_ON = ("LD_LIBRARY_PATH", "LANG", "LC_ALL")
_PIECE_BYTES = 1 << 20


class Late(Exception):
    """It did not end in time."""


class TooMuch(Exception):
    """It said more than it may."""


def start(command: Sequence[str], request: bytes) -> subprocess.Popen[bytes]:
    """The child, with the request on its standard input. Raises OSError."""
    fd = os.memfd_create("request", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "wb") as stream:
            stream.write(request)
        os.lseek(fd, 0, os.SEEK_SET)
        return subprocess.Popen(
            command,
            stdin=fd,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        )
    finally:
        os.close(fd)


def collect(child: subprocess.Popen[bytes], deadline: float, most_bytes: int) -> tuple[int, bytes]:
    """Its exit code and what it said, by a monotonic deadline. Raises Late or TooMuch."""
    assert child.stdout is not None
    fd = child.stdout.fileno()
    os.set_blocking(fd, False)
    pieces: list[bytes] = []
    size = 0
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise Late
            piece = os.read(fd, _PIECE_BYTES)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
            if size > most_bytes:
                raise TooMuch
    try:
        code = child.wait(timeout=max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        raise Late from None
    return code, b"".join(pieces)


def end(child: subprocess.Popen[bytes]) -> bool:
    """Kill it; False when it is in a call that cannot be interrupted, and has to be collected later."""
    try:
        if child.poll() is None:
            child.kill()
            try:
                child.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                return False
        return True
    finally:
        assert child.stdout is not None
        child.stdout.close()
