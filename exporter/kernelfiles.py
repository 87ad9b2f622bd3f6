"""How the kernel writes small files of /proc, /sys and control groups (proc(5), accounting/psi.rst,
admin-guide/cgroup-v2.rst). A file that is missing or makes no sense gives an absent value, never zero.
"""

from __future__ import annotations

import re
from pathlib import Path

MOST_BYTES = 2**20
NO_LIMIT_BYTES = 2**60
"""cgroup v1 says "no limit" with a number near 2^63."""


def read_text(path: Path, limit_bytes: int = MOST_BYTES) -> str:
    """A file's beginning, or "" when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(limit_bytes).decode(errors="replace")
    except (OSError, ValueError):
        return ""


def parse_integer(text: str) -> int | None:
    """A file that holds one number."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def parse_pressure(text: str) -> dict[str, float]:
    """`/proc/pressure/memory`, `memory.pressure`: seconds stalled so far, by scope (`some`, `full`)."""
    found = {}
    for scope, total in re.findall(r"^(some|full) .*?\btotal=(\d{1,18})\s*$", text, re.MULTILINE | re.ASCII):
        found[scope] = int(total) / 1e6
    return found


def parse_vmstat(text: str) -> dict[str, int]:
    """`/proc/vmstat`, a cgroup's `memory.stat` and `memory.events`: name and number on a line."""
    pairs = re.findall(r"^([A-Za-z_0-9]{1,64}) (\d{1,18})$", text, re.MULTILINE | re.ASCII)
    return {name: int(number) for name, number in pairs}
