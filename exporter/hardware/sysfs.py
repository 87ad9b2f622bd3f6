"""Reads files of sysfs and procfs strictly: a value is there whole and plausible, or absent with a reason.

Drivers answer with empty files after a reset (rocm_smi_lib#85), with EPERM while one is under way
(amdgpu_pm.c), with text where a number was, and with the largest number of the register's width.
Imports stay few, because each costs memory in a process that lives as long as the daemon.
"""

from __future__ import annotations

import errno
import os
import re

_MAX_BYTES = 65536
_PAIR = re.compile(
    r"^[ \t]*([A-Za-z][\w-]{0,63})(?:[ \t]*:[ \t]*|[ \t]+)(\d{1,20})[ \t]*$", re.ASCII | re.MULTILINE
)
_NOT_SUPPORTED = {
    errno.ENOENT,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENODATA,
    errno.ENOTDIR,
    errno.ENODEV,
    errno.ESRCH,
}
"""What a driver answers for "this device has no such value", and paths that are not there (any more)."""

MAX_BYTES_OF_MEMORY = 2**50
"""No device has a PiB; the kernel's error values and overflows are far above."""


class Folder:
    """A folder of sysfs during one reading. Why a value is absent that should be there is noted in `errors`,
    as file name → reason."""

    def __init__(self, path: str, errors: dict[str, str]) -> None:
        self.path = path
        self.errors = errors

    def has(self, name: str) -> bool:
        """Whether the driver offers this file; looking does not touch the device."""
        return os.access(f"{self.path}/{name}", os.F_OK)

    def text(self, name: str) -> str | None:
        """A file's text without blanks around it; None when there is none."""
        try:
            text = read_text(f"{self.path}/{name}")
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                self.errors[name] = reason_of(error)
            return None
        if not text:
            self.errors[name] = "empty"
            return None
        return text

    def integer(self, name: str, *, least: int = 0, most: int = MAX_BYTES_OF_MEMORY) -> int | None:
        """A file's number when it is one and lies within bounds."""
        text = self.text(name)
        if text is None:
            return None
        value = parse_integer(text)
        if value is None or not least <= value <= most:
            self.errors[name] = "malformed"
            return None
        return value


def read_text(path: str) -> str:
    """A small file's text without blanks around it. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _MAX_BYTES).decode(errors="replace").strip().strip("\0")
    finally:
        os.close(fd)


def names(path: str) -> list[str]:
    """What stands in a folder, in order. Raises OSError."""
    return sorted(os.listdir(path))  # noqa: PTH208 (a Path for each would cost more than the listing)


def reason_of(error: OSError) -> str:
    """A short name of an error: "no_permission", or the errno's own in lower case."""
    if error.errno in (errno.EPERM, errno.EACCES):
        return "no_permission"
    return errno.errorcode.get(error.errno or 0, "io_error").lower()


def parse_integer(text: str) -> int | None:
    """A decimal number of at most 20 digits, with or without a minus; None for anything else."""
    text = text.strip()
    digits = text[1:] if text.startswith("-") else text
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else None


def parse_pairs(text: str) -> dict[str, int]:
    """Lines of a name and a number, with or without a colon between; other lines are left out."""
    return {name: int(number) for name, number in _PAIR.findall(text)}
