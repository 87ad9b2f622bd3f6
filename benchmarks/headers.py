"""Checkpoint headers at the size of DeepSeek-V3: our reader, gguf-py and safetensors on the same files.

    .venv/bin/python benchmarks/headers.py

Files are sparse. Times are the best of several runs with a warm page cache; memory is the growth of a fresh
process's peak (VmHWM) over what it had after its imports. The peers are measured when they are installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from checkpoint_files import (
    I32,
    deepseek_v3_tensors,
    gguf_keys,
    gguf_tensors,
    numbers,
    strings,
    write_gguf,
    write_sharded,
)

from exporter.models.architecture import Architecture
from exporter.models.catalog import catalog
from exporter.models.checkpoint.files import Access
from exporter.models.checkpoint.gguf import read_gguf
from exporter.models.checkpoint.reader import CheckpointReader
from exporter.models.checkpoint.tensors import LIMITS
from exporter.models.gguf import GgufLayout

SHARDS, MERGES = 163, 127741
RUNS = 5


def deepseek_v3() -> Architecture:
    """The architecture that both checkpoints have."""
    return catalog().resolve("deepseek-ai/DeepSeek-V3").architecture


def write_v3_gguf(path: Path) -> int:
    """DeepSeek-V3 in Q4_K_M as its first files were: 1,025 tensors; the number of its tensors."""
    architecture = deepseek_v3()
    keys = gguf_keys(architecture, "DeepSeek V3", 15, split=False)
    pairs = (f"Ġ{number % 977:x} {number:x}" for number in range(MERGES))
    keys.append(numbers("tokenizer.ggml.token_type", I32, [1] * architecture.vocabulary))
    keys.append(strings("tokenizer.ggml.merges", pairs))
    tensors = gguf_tensors(architecture, "Q4_K_M", GgufLayout.JOINT)
    write_gguf(path, keys, tensors)
    return len(tensors)


def write_v3_safetensors(folder: Path) -> int:
    """DeepSeek-V3 as published: 163 shards with their index; the number of its tensors."""
    tensors = list(deepseek_v3_tensors(deepseek_v3()))
    write_sharded(folder, tensors, SHARDS)
    return len(tensors)


def best_seconds(action: Callable[[], object]) -> float:
    """The fastest of several runs."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


PEAK = """
import re, sys, pathlib
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1])
{imports}
before = peak()
{action}
print(peak() - before)
"""


def peak_mib(imports: str, action: str) -> float:
    """Growth of a fresh process's peak memory by an action, MiB."""
    script = PEAK.format(imports=imports, action=action)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


OURS_IMPORT = (
    "from exporter.models.checkpoint.child import read_layout\n"
    "from exporter.models.checkpoint.files import Access\n"
    "from exporter.models.checkpoint.stores import locate\n"
    "import gc; gc.disable()"
)
DOOR_IMPORT = "from exporter.models.checkpoint.reader import CheckpointReader"


def row(what: str, seconds: float, mib: float) -> None:
    """One line of the table."""
    print(f"{what:<58}{seconds * 1e3:>10.1f} ms{mib:>9.1f} MiB")


def measure_gguf(path: Path) -> None:
    """Our reader in the process, through the door, and gguf-py."""
    count = write_v3_gguf(path)
    tokens = deepseek_v3().vocabulary
    print(f"GGUF, {count} tensors, {tokens} tokens, {MERGES} merges, {path.stat().st_size} bytes")

    def parse() -> None:
        with Access(("/",)).opened(str(path)) as source:
            assert len(read_gguf(source, LIMITS).names) == count

    ours = f"access = Access(('/',)); read_layout(locate({str(path)!r}, access), access)"
    row("ours, parsing alone", best_seconds(parse), peak_mib(OURS_IMPORT, ours))
    row(
        "ours, through the limited child (memory: the caller's)",
        best_seconds(lambda: CheckpointReader().read(path)),
        peak_mib(DOOR_IMPORT, f"CheckpointReader().read({str(path)!r})"),
    )
    try:
        from gguf import GGUFReader
    except ImportError:
        print("gguf-py is not installed")
        return
    row(
        "gguf-py GGUFReader",
        best_seconds(lambda: GGUFReader(path)),
        peak_mib("from gguf import GGUFReader", f"GGUFReader({str(path)!r})"),
    )


def measure_safetensors(folder: Path) -> None:
    """Our reader through the door, and safetensors' own, which reads no index."""
    count = write_v3_safetensors(folder)
    print(f"safetensors, {count} tensors in {SHARDS} files")

    def through_the_door() -> None:
        assert len(CheckpointReader().read(folder).tensors) == count

    ours = f"access = Access(('/',)); read_layout(locate({str(folder)!r}, access), access)"
    start = time.perf_counter()
    peak = peak_mib(OURS_IMPORT, ours)
    row("ours, in one fresh process (with its start)", time.perf_counter() - start, peak)
    row(
        "ours, through the limited child (memory: the caller's)",
        best_seconds(through_the_door),
        peak_mib(DOOR_IMPORT, f"header = CheckpointReader().read({str(folder)!r})"),
    )
    try:
        from safetensors import safe_open
    except ImportError:
        print("safetensors is not installed")
        return

    def theirs() -> None:
        found = 0
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118 -- not a dict
                    piece = file.get_slice(name)
                    piece.get_shape(), piece.get_dtype()
                    found += 1
        assert found == count

    action = (
        f"import pathlib\nfor path in sorted(pathlib.Path({str(folder)!r}).glob('*.safetensors')):\n"
        "    with safe_open(path, framework='numpy') as file:\n"
        "        for name in file.keys(): file.get_slice(name).get_shape()"
    )
    row("safetensors safe_open", best_seconds(theirs), peak_mib("from safetensors import safe_open", action))


def main() -> None:
    """Write, measure, print."""
    with tempfile.TemporaryDirectory() as folder:
        measure_gguf(Path(folder) / "DeepSeek-V3-Q4_K_M.gguf")
        shards = Path(folder) / "DeepSeek-V3"
        shards.mkdir()
        measure_safetensors(shards)


if __name__ == "__main__":
    main()
