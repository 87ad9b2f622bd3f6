"""The server built once into the user's cache, and the file that it loads."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from exporter.models.checkpoint.reader import CheckpointReader


@pytest.fixture(scope="session")
def cache() -> Path:
    script = Path(__file__).with_name("build.sh")
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def model_file(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The head of the file, lengthened with holes to what its own tensors need."""
    path = tmp_path_factory.mktemp("llama") / "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf"
    shutil.copy(cache / "header.gguf", path)
    os.truncate(path, 8 * 2**30)  # room enough to read the header, which knows the real end
    header = CheckpointReader().read(path)
    os.truncate(path, max(entry.offset_bytes + entry.size_bytes for entry in header.tensors))
    return path
