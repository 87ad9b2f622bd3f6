"""Builds stores of checkpoints on disk: a Hugging Face cache, a store of Ollama, plain folders."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

KIB = 1024
OLD_SECONDS = 40 * 86400.0


def grown(path: Path, size_bytes: int, *, stored_bytes: int | None = None, age_seconds: float = 0) -> Path:
    """A file of a size, of which so much is written; by default all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(b"\xa5" * (size_bytes if stored_bytes is None else stored_bytes))
        stream.truncate(size_bytes)
    aged(path, age_seconds)
    return path


def aged(path: Path, age_seconds: float) -> None:
    """As if it had been written so long ago."""
    at = time.time() - age_seconds
    os.utime(path, (at, at), follow_symlinks=False)


def settle(root: Path, age_seconds: float = OLD_SECONDS) -> None:
    """As if everything below had been there for long."""
    for folder, folders, files in os.walk(root, topdown=False):
        for name in (*files, *folders):
            aged(Path(folder) / name, age_seconds)
    aged(root, age_seconds)


class Repository:
    """One repository of a Hugging Face cache."""

    def __init__(self, hub: Path, name: str) -> None:
        self.path = hub / ("models--" + name.replace("/", "--"))
        (self.path / "blobs").mkdir(parents=True)

    def ref(self, name: str, revision: str) -> None:
        path = self.path / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(revision)

    def add(self, revision: str, name: str, size_bytes: int = 64 * KIB, content: bytes = b"") -> Path:
        """A file of a revision: a blob and the link to it. The same content is the same blob."""
        etag = hashlib.sha256(content or f"{name} {size_bytes}".encode()).hexdigest()
        blob = self.path / "blobs" / etag
        if not blob.exists():
            if content:
                blob.write_bytes(content)
            else:
                grown(blob, size_bytes)
        link = self.path / "snapshots" / revision / name
        link.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (len(Path(name).parts) + 1)
        link.symlink_to(f"{up}blobs/{etag}")
        return blob

    def shards(
        self, revision: str, count: int, size_bytes: int = 64 * KIB, *, present: int | None = None
    ) -> None:
        """Numbered shards, the first `present` of them."""
        for number in range(1, (count if present is None else present) + 1):
            name = f"model-{number:05d}-of-{count:06d}.safetensors"
            self.add(
                revision, name, size_bytes, content=f"{revision}{number}".encode().ljust(size_bytes, b".")
            )

    def fetching(self, size_bytes: int, *, stored_bytes: int | None = None, age_seconds: float = 0) -> Path:
        etag = hashlib.sha256(f"fetch {size_bytes} {age_seconds}".encode()).hexdigest()
        blob = self.path / "blobs" / f"{etag}.incomplete"
        return grown(blob, size_bytes, stored_bytes=stored_bytes, age_seconds=age_seconds)


class OllamaStore:
    """A store of Ollama."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs").mkdir(parents=True)
        (path / "manifests").mkdir()

    def blob(self, content: str, size_bytes: int, *, age_seconds: float = 0) -> str:
        digest = hashlib.sha256(content.encode()).hexdigest()
        grown(self.path / "blobs" / f"sha256-{digest}", size_bytes, age_seconds=age_seconds)
        return f"sha256:{digest}"

    def model(self, name: str, tag: str, layers: Mapping[str, int]) -> None:
        """`layers`: content → size."""
        listed = [
            {
                "mediaType": "application/vnd.ollama.image.model",
                "digest": self.blob(content, size),
                "size": size,
            }
            for content, size in layers.items()
        ]
        self.manifest(name, tag, json.dumps({"schemaVersion": 2, "layers": listed}).encode())

    def manifest(self, name: str, tag: str, content: bytes) -> Path:
        path = self.path / "manifests" / "registry.ollama.ai" / "library" / name / tag
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def fetching(self, size_bytes: int, stored_bytes: int, *, age_seconds: float = 0) -> Path:
        digest = hashlib.sha256(f"fetch {size_bytes}".encode()).hexdigest()
        name = self.path / "blobs" / f"sha256-{digest}-partial"
        (self.path / "blobs" / f"sha256-{digest}-partial-0").write_text('{"N":0,"Offset":0,"Size":1}')
        return grown(name, size_bytes, stored_bytes=stored_bytes, age_seconds=age_seconds)


def index(total_bytes: object, files: list[str]) -> bytes:
    """A model.safetensors.index.json."""
    weights = {f"model.layers.{number}.weight": name for number, name in enumerate(files)}
    return json.dumps({"metadata": {"total_size": total_bytes}, "weight_map": weights}).encode()
