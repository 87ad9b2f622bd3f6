"""The header reader's child: limits itself, reads one checkpoint, prints one JSON answer, ends."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys

from exporter.models.checkpoint.config import read_config
from exporter.models.checkpoint.files import Access, Source, unchanged
from exporter.models.checkpoint.gguf import MAGIC, read_gguf
from exporter.models.checkpoint.parsed import ParsedFile
from exporter.models.checkpoint.safetensors import check_index, read_safetensors
from exporter.models.checkpoint.stores import Layout, locate, locate_ollama
from exporter.models.checkpoint.tensors import (
    LIMITS,
    ConfigValue,
    FileIdentity,
    Format,
    HeaderError,
    Limits,
    Problem,
    StoredFile,
)
from exporter.models.checkpoint.wire import (
    ANSWER_BYTES,
    Answer,
    encode,
    encode_error,
    encode_unchanged,
    seen_of,
)


def main(cpu_seconds: int, memory_bytes: int, open_files: int, wall_seconds: float) -> None:
    """Answer the request on standard input; exits 0 whenever an answer, also an error, was printed."""
    _limit(cpu_seconds, memory_bytes, open_files, wall_seconds)
    gc.disable()  # a short life without cycles
    request = json.loads(sys.stdin.buffer.read())
    try:
        answer = _answer(request)
    except HeaderError as error:
        answer = encode_error(error)
    except MemoryError:
        answer = encode_error(HeaderError(Problem.MEMORY, "the headers need more memory than allowed"))
    if len(answer) > ANSWER_BYTES:
        answer = encode_error(
            HeaderError(Problem.MEMORY, "the headers are larger than the reader may answer")
        )
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    os._exit(0)  # freeing a hundred thousand objects one by one would take longer than reading them


def _limit(cpu_seconds: int, memory_bytes: int, open_files: int, wall_seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Should the parent die, nobody else ends this process.
    signal.setitimer(signal.ITIMER_REAL, wall_seconds + 1)


def _answer(request: dict[str, object]) -> bytes:
    known = request["known"]
    if known is not None and unchanged(seen_of(known)):
        return encode_unchanged()
    roots = request["roots"]
    assert isinstance(roots, list)
    access = Access(tuple(str(root) for root in roots))
    store = request["ollama_store"]
    path = str(request["path"])
    layout = locate(path, access) if store is None else locate_ollama(path, str(store), access)
    return encode(read_layout(layout, access), access.seen)


def read_layout(layout: Layout, access: Access, limits: Limits = LIMITS) -> Answer:
    """Read every file of a checkpoint. Raises HeaderError."""
    answer = Answer(layout.format, settings=layout.settings, notes=list(layout.notes))
    answer.config = _config(layout, access, limits)
    budget = limits.header_bytes
    tensors = 0
    for number, path in enumerate(layout.files):
        try:
            with access.opened(path) as source:
                parsed = _read_file(answer, source, path, limits)
                source.check_unchanged()
        except HeaderError as error:
            raise _in_part(error, number, len(layout.files)) from None
        budget -= parsed.header_bytes
        tensors += len(parsed.names)
        if budget < 0:
            raise HeaderError(Problem.HEADER_TOO_LARGE, "the headers together are larger than allowed")
        if tensors > limits.tensors:
            raise HeaderError(Problem.TOO_MANY_TENSORS, f"more than {limits.tensors} tensors in all files")
        answer.parts.append(parsed)
        answer.files.append(_stored(path, parsed, source.identity))
    _check_parts(answer, layout)
    return answer


def _read_file(answer: Answer, source: Source, path: str, limits: Limits) -> ParsedFile:
    if not path.endswith((".gguf", ".safetensors")):
        # A blob of a cache or store: the content says what it is.
        start = source.read_at(0, min(source.size_bytes, 9))
        is_other = not start.startswith(MAGIC) and start[8:] == b"{"
        answer.format = Format.SAFETENSORS if is_other else Format.GGUF
    if answer.format is Format.GGUF:
        return read_gguf(source, limits)
    return read_safetensors(source, limits)


def _stored(path: str, parsed: ParsedFile, identity: FileIdentity) -> StoredFile:
    return StoredFile(path.rpartition("/")[2], identity.size_bytes, parsed.header_bytes, identity)


def _in_part(error: HeaderError, number: int, count: int) -> HeaderError:
    if count == 1:
        return error
    if error.kind is Problem.NOT_FOUND:
        return HeaderError(Problem.MISSING_FILE, f"file {number + 1} of {count} is not there")
    return HeaderError(error.kind, f"file {number + 1} of {count}: {error.message}")


def _config(layout: Layout, access: Access, limits: Limits) -> dict[str, ConfigValue]:
    if layout.config is None:
        return {}
    with access.opened(layout.config) as source:
        config = read_config(source, limits)
    if layout.quantization_config is not None and "quantization_config" not in config:
        # As engines do for ModelOpt's checkpoints (vLLM 0.33 transformers_utils/config.py).
        with access.opened(layout.quantization_config) as source:
            told = read_config(source, limits).get("quantization")
        if isinstance(told, dict):
            config["quantization_config"] = {"quant_method": "modelopt", **told}
    return config


def _check_parts(answer: Answer, layout: Layout) -> None:
    if answer.format is Format.GGUF:
        _check_split(answer)
    if layout.index is not None:
        check_index(layout.index, [file.name for file in answer.files], answer.parts)
    elif len(answer.parts) > 1:
        names: set[str] = set()
        for part in answer.parts:
            names.update(part.names)
        if len(names) != sum(len(part.names) for part in answer.parts):
            raise HeaderError(Problem.DUPLICATE_NAME, "two files hold a tensor of the same name")


def _check_split(answer: Answer) -> None:
    parts = answer.parts
    count = parts[0].metadata.get("split.count", 0) or 1
    if count != len(parts):
        raise HeaderError(
            Problem.SPLIT_MISMATCH, f"the metadata counts {count} parts, the file names {len(parts)}"
        )
    if len(parts) == 1:
        return
    if [part.metadata.get("split.no") for part in parts] != list(range(len(parts))):
        raise HeaderError(Problem.SPLIT_MISMATCH, "the parts' own numbers differ from their file names")
    total = parts[0].metadata.get("split.tensors.count")
    found = sum(len(part.names) for part in parts)
    if total != found:
        raise HeaderError(Problem.SPLIT_MISMATCH, f"the parts hold {found} tensors, not as many as announced")
