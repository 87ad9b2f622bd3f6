"""Compiles the fake driver into a cache and says where it is.

One shared library per combination of sources and left-out symbols; the name of its folder is their hash, so a
second test run, or a second process, finds it ready. Needs only a C compiler (`CC`, else cc, gcc or clang).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

LIBRARY_NAME = "libnvidia-ml.so.1"
_SOURCES = Path(__file__).parent
_FLAGS = ("-shared", "-fPIC", "-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread")


class CompilerMissingError(RuntimeError):
    """No C compiler on this machine: the fake driver cannot be built."""


def compiler() -> str | None:
    """The C compiler to use, or None when there is none."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    return None


def cache_directory() -> Path:
    """A folder of this user under the temporary directory; refuses one that somebody else made."""
    directory = Path(tempfile.gettempdir()) / f"fake-nvml-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise PermissionError(f"{directory} belongs to another user")
    return directory


def build(without: Iterable[str] = ()) -> Path:
    """Builds the library, or finds it built, and returns the folder to put on LD_LIBRARY_PATH.

    without: symbols that this build does not export, as an older driver would not.
    Raises CompilerMissingError without a compiler, RuntimeError with the compiler's words when it fails.
    """
    hidden = sorted(set(without))
    sources = sorted(_SOURCES.glob("*.c"))
    exports = "{ global: nvml*; local: " + "".join(f"{name}; " for name in hidden) + "*; };\n"
    digest = hashlib.sha256(" ".join(_FLAGS).encode() + exports.encode())
    for path in (*sources, *sorted(_SOURCES.glob("*.h")), *sorted(_SOURCES.glob("*.def"))):
        digest.update(path.read_bytes())
    folder = cache_directory() / digest.hexdigest()[:16]
    library = folder / LIBRARY_NAME
    if library.exists():
        return folder
    cc = compiler()
    if cc is None:
        raise CompilerMissingError("no C compiler (cc, gcc, clang): the fake NVIDIA driver cannot be built")
    folder.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        script = Path(scratch) / "exports.map"
        script.write_text(exports)
        fresh = Path(scratch) / LIBRARY_NAME
        link = (f"-Wl,-soname,{LIBRARY_NAME}", f"-Wl,--version-script={script}")
        done = subprocess.run(
            [cc, *_FLAGS, *link, "-o", str(fresh), *map(str, sources)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"the fake NVIDIA driver does not compile:\n{done.stderr}")
        fresh.replace(library)
    return folder
