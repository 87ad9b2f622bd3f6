"""Small JSON files that outlive the daemon: written whole or not at all, read with a bound."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_MAX_BYTES = 2**20


def write(path: Path, content: Any) -> None:
    """Replace the file, so that a crash leaves the old one or the new one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w") as stream:
        stream.write(json.dumps(content, indent=1))
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)


def read(path: Path) -> Any:
    """What the file holds. Raises OSError, ValueError or RecursionError."""
    with path.open("rb") as stream:
        return json.loads(stream.read(_MAX_BYTES))
