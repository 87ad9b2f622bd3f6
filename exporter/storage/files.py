"""The few small files that a scan reads, through the one way of opening what others wrote."""

from __future__ import annotations

import re
import struct
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from exporter.models.checkpoint.files import Access, Source
from exporter.models.checkpoint.safetensors import parse_json
from exporter.models.checkpoint.tensors import LIMITS, HeaderError, Problem
from exporter.storage.weights import Index

_SMALL_BYTES = 1 << 20
_HEAD_BYTES = 256
_REVISION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256[:-](?P<hex>[0-9a-f]{64})", re.ASCII)
_MOST_LAYERS = 4096
_MOST_BYTES = 1 << 60
_STRING = 8
"""Type of a text in a GGUF's metadata (llama.cpp ggml/include/gguf.h)."""
_ARCHITECTURE = b"general.architecture"


@dataclass(slots=True)
class Files:
    """Reads below one root. What cannot be read is None, and counted where the sums suffer from it."""

    root: str
    access: Access
    unread: int = 0
    _indices: dict[str, Index | None] = field(default_factory=dict)

    def revision(self, path: str) -> str | None:
        """The revision that a ref of the Hugging Face cache names."""
        try:
            with self._opened(path) as source:
                text = (
                    source.read_at(0, min(source.size_bytes, _HEAD_BYTES)).decode("ascii", "replace").strip()
                )
        except HeaderError:
            self.unread += 1
            return None
        if not _REVISION.fullmatch(text):
            self.unread += 1
            return None
        return text

    def layers(self, path: str) -> tuple[str, ...] | None:
        """Names of the blobs that a manifest of Ollama lists."""
        try:
            found = self._json(path, _SMALL_BYTES)
            return _blobs(found)
        except HeaderError:
            self.unread += 1
            return None

    def index(self, path: str) -> Index | None:
        """The index of shards at a path; one that makes no sense is none."""
        if path not in self._indices:
            try:
                self._indices[path] = _index(self._json(path, LIMITS.index_bytes))
            except HeaderError:
                self._indices[path] = None
        return self._indices[path]

    def family(self, path: str) -> str | None:
        """What a config.json calls the architecture."""
        try:
            config = self._json(path, LIMITS.config_bytes)
        except HeaderError:
            return None
        if not isinstance(config, dict):
            return None
        listed = config.get("architectures")
        said = [*(listed if isinstance(listed, list) else ()), config.get("model_type")]
        return " ".join(one for one in said[:8] if isinstance(one, str))[:256]

    def gguf_family(self, path: str) -> str | None:
        """What a GGUF calls its architecture, in the first of its keys (gguf-py GGUFWriter)."""
        try:
            with self._opened(path) as source:
                return _architecture(source.read_at(0, min(source.size_bytes, _HEAD_BYTES)))
        except HeaderError:
            return None

    def _opened(self, path: str) -> AbstractContextManager[Source]:
        return self.access.opened(f"{self.root}/{path}")

    def _json(self, path: str, most_bytes: int) -> object:
        with self._opened(path) as source:
            if source.size_bytes > most_bytes:
                raise HeaderError(Problem.HEADER_TOO_LARGE, "larger than such a file is")
            return parse_json(source.read_at(0, source.size_bytes))


def _blobs(manifest: object) -> tuple[str, ...]:
    """Raises HeaderError for what is no manifest."""
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    if not isinstance(manifest, dict) or not isinstance(layers, list) or len(layers) > _MOST_LAYERS:
        raise HeaderError(Problem.NOT_A_CHECKPOINT, "the manifest has no list of layers")
    names = []
    for layer in (*layers, manifest.get("config")):
        digest = layer.get("digest") if isinstance(layer, dict) else None
        match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
        if match is not None:
            names.append(f"sha256-{match['hex']}")
        elif layer is not None:
            raise HeaderError(Problem.BAD_VALUE, "a layer of the manifest has no SHA-256 digest")
    return tuple(names)


def _index(found: object) -> Index | None:
    weights = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(weights, dict):
        return None
    files = {name for name in weights.values() if isinstance(name, str)}
    if not files or len(files) > LIMITS.files or any("/" in name for name in files):
        return None
    metadata = found.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    # A number of JSON may be written as 6.8e11.
    if isinstance(total, bool) or not isinstance(total, int | float) or not 0 < total < _MOST_BYTES:
        total = None
    return Index(frozenset(files), None if total is None else int(total))


def _architecture(head: bytes) -> str | None:
    """magic, version, two counts, then the first key: length, name, type, length, text."""
    try:
        magic, _, _, _, length = struct.unpack_from("<4sIQQQ", head)
        if magic != b"GGUF" or length != len(_ARCHITECTURE):
            return None
        at = struct.calcsize("<4sIQQQ")
        kind, size = struct.unpack_from("<IQ", head, at + length)
        text = head[at + length + 12 :][:size]
    except struct.error:
        return None
    if head[at : at + length] != _ARCHITECTURE or kind != _STRING or len(text) != size or size > 64:
        return None
    return text.decode("ascii", "replace")
