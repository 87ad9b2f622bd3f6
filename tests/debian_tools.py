"""Command-line tools of Debian packages, for tests; a missing one fails the test and says what to install."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

PACKAGES = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "amtool": "prometheus-alertmanager",
    "prometheus-alertmanager": "prometheus-alertmanager",
}


def run(tool: str, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end; standard error is part of the output."""
    return subprocess.run(
        [found(tool), *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def found(tool: str) -> str:
    """The path of the tool; AssertionError when it is not installed."""
    path = shutil.which(tool)
    assert path, f"{tool} is not installed: apt-get install {PACKAGES[tool]}"
    return path
