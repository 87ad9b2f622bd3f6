"""Opening files that others wrote: regular files only, below given roots, read in bounded pieces.

A path is looked at before it is opened for reading (O_PATH), so that a FIFO or a device is never touched, and
is judged by what was opened, not by its name: nothing can be swapped in between.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from exporter.models.checkpoint.tensors import FileIdentity, HeaderError, Problem

_PIECE_BYTES = 1 << 20


class Source:
    """An open regular file: ``read_at`` gives bytes of it, never fewer than asked for."""

    __slots__ = ("fd", "identity", "size_bytes")

    def __init__(self, fd: int, identity: FileIdentity) -> None:
        self.fd = fd
        self.identity = identity
        self.size_bytes = identity.size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes. Raises HeaderError when the file ends before."""
        data = os.pread(self.fd, length, offset)
        if len(data) == length:
            return data
        pieces = [data]
        missing = length - len(data)
        while missing:
            offset += len(pieces[-1])
            piece = os.pread(self.fd, min(missing, _PIECE_BYTES), offset)
            if not piece:
                raise HeaderError(Problem.TRUNCATED, "the file ends inside its header")
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def check_unchanged(self) -> None:
        """Raises HeaderError when the file was written to since it was opened."""
        if identity(os.fstat(self.fd)) != self.identity:
            raise HeaderError(Problem.CHANGED, "the file changed while it was read")


def identity(status: os.stat_result) -> FileIdentity:
    """The part of a file's status that a cache may be keyed by."""
    return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Access:
    """What may be read: real paths of folders. Remembers every file and folder it gave, for caches.

    Nothing is read while there is no root.
    """

    __slots__ = ("roots", "seen")

    def __init__(self, roots: Sequence[str] = ()) -> None:
        self.roots = tuple(roots)
        self.seen: dict[str, FileIdentity] = {}

    @contextmanager
    def opened(self, path: str) -> Iterator[Source]:
        """The regular file at ``path``, whose real place must lie below a root. Raises HeaderError."""
        looked = _look(path)
        try:
            status = os.fstat(looked)
            if not stat.S_ISREG(status.st_mode):
                raise HeaderError(Problem.NOT_A_FILE, "not a regular file")
            _check_place(looked, self.roots)
            # Through the descriptor: the same file, whatever the path names by now.
            fd = os.open(f"/proc/self/fd/{looked}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise _refused(error) from None
        finally:
            os.close(looked)
        source = Source(fd, identity(status))
        self.seen[path] = source.identity
        try:
            yield source
        except OSError as error:
            raise _refused(error) from None
        finally:
            os.close(fd)

    def names(self, path: str, limit: int) -> list[str]:
        """Names in a folder below the roots, sorted. Raises HeaderError, also above ``limit``."""
        looked = _look(path)
        try:
            status = os.fstat(looked)
            if not stat.S_ISDIR(status.st_mode):
                raise HeaderError(Problem.NOT_A_FILE, "neither a regular file nor a folder")
            _check_place(looked, self.roots)
            found = []
            with os.scandir(f"/proc/self/fd/{looked}") as entries:
                for entry in entries:
                    found.append(entry.name)
                    if len(found) > limit:
                        raise HeaderError(Problem.NOT_A_CHECKPOINT, f"a folder of more than {limit} entries")
        except OSError as error:
            raise _refused(error) from None
        finally:
            os.close(looked)
        self.seen[path] = identity(status)
        return sorted(found)


def unchanged(seen: Iterable[tuple[str, FileIdentity]]) -> bool:
    """Whether every file and folder is still what it was."""
    try:
        return all(identity(Path(path).stat()) == known for path, known in seen)
    except (OSError, ValueError):
        return False


def real_place(path: str) -> str:
    """Where a file or folder really is. Raises HeaderError."""
    fd = _look(path)
    try:
        return _place(fd)
    except OSError as error:
        raise _refused(error) from None
    finally:
        os.close(fd)


def is_folder(path: str) -> bool:
    """Whether the path names a folder. Raises HeaderError when it names nothing, or nothing we may see."""
    fd = _look(path)
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _look(path: str) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _refused(error) from None


def _place(fd: int) -> str:
    return str(Path(f"/proc/self/fd/{fd}").readlink())


def _check_place(fd: int, roots: Sequence[str]) -> None:
    place = _place(fd)
    for root in roots:
        if root == "/" or place == root or place.startswith(root.rstrip("/") + "/"):
            return
    raise HeaderError(
        Problem.OUTSIDE_ROOTS, "lies outside the folders that may be read (a symbolic link that leads away?)"
    )


def _refused(error: OSError | ValueError) -> HeaderError:
    if isinstance(error, OSError):
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return HeaderError(Problem.NOT_FOUND, "no such file or folder")
        if error.errno in (errno.EACCES, errno.EPERM):
            return HeaderError(Problem.NOT_PERMITTED, "may not be read: permission denied")
        if error.errno == errno.ELOOP:
            return HeaderError(Problem.NOT_A_FILE, "symbolic links lead in a circle")
        return HeaderError(Problem.READER, f"cannot be read: {os.strerror(error.errno or 0)}")
    return HeaderError(Problem.NOT_FOUND, "not a path")
