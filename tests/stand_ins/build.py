"""Compiles the program behind every stand-in process into a cache, as the fake driver is."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

from fake_nvml.build import CompilerMissingError, cache_directory, compiler

_SOURCE = Path(__file__).with_name("stand_in.c")
_FLAGS = ("-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread")


def build() -> Path:
    """The program, built now or found built. Raises CompilerMissingError without a C compiler."""
    digest = hashlib.sha256(" ".join(_FLAGS).encode() + _SOURCE.read_bytes()).hexdigest()[:16]
    program = cache_directory() / f"stand-in-{digest}"
    if program.exists():
        return program
    cc = compiler()
    if cc is None:
        raise CompilerMissingError("no C compiler (cc, gcc, clang): stand-in engines cannot be built")
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        fresh = Path(scratch) / "stand-in"
        done = subprocess.run(
            [cc, *_FLAGS, "-o", str(fresh), str(_SOURCE)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"the stand-in does not compile:\n{done.stderr}")
        fresh.replace(program)
    return program
