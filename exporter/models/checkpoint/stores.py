"""Where the files of a checkpoint lie: a file or folder, a Hugging Face cache, an Ollama store.

Hugging Face: huggingface_hub's cache layout (``models--ORG--NAME/{refs,snapshots,blobs}``, snapshots made of
links into blobs). Ollama: ``manifests/HOST/NAMESPACE/MODEL/TAG`` and ``blobs/sha256-…`` (ollama
server/modelpath.go, manifest.go). Split GGUF: llama.cpp llama_split_path, ``-%05d-of-%05d.gguf``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from exporter.models.checkpoint.files import Access, is_folder, real_place
from exporter.models.checkpoint.safetensors import parse_json, read_index
from exporter.models.checkpoint.tensors import LIMITS, Format, HeaderError, Limits, Problem

_SPLIT = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_SHARD = re.compile(r".*-\d{5}-of-\d{5,6}\.safetensors", re.DOTALL)
_SNAPSHOT = re.compile(r"(?P<repository>.*)/snapshots/[^/]+(?:/.*)?", re.DOTALL)
_REVISION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")
_DIGEST = re.compile(r"sha256[:-](?P<hex>[0-9a-f]{64})")
_OLLAMA_NAME = re.compile(
    r"(?:(?:(?P<host>[A-Za-z0-9][A-Za-z0-9.:-]{0,127})/)?(?P<namespace>[A-Za-z0-9_][A-Za-z0-9_.-]{0,79})/)?"
    r"(?P<model>[A-Za-z0-9_][A-Za-z0-9_.-]{0,79})(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}))?"
)
_MANIFEST_BYTES = 1 << 20
_INDEX = "model.safetensors.index.json"
_OLLAMA_MEDIA = "application/vnd.ollama.image."
OLLAMA_SETTINGS = frozenset(
    {"num_batch", "num_ctx", "num_gpu", "num_keep", "num_thread", "use_mlock", "use_mmap"}
)
"""Numbers of an Ollama model's parameters that decide memory (ollama api/types.go, Options and Runner)."""


@dataclass(slots=True)
class Layout:
    """The files to read, in order; ``config`` and ``quantization_config`` are JSON files beside them."""

    format: Format
    files: list[str] = field(default_factory=list)
    index: dict[str, str] | None = None
    config: str | None = None
    quantization_config: str | None = None
    settings: dict[str, int | float | bool] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def locate(path: str, access: Access, limits: Limits = LIMITS) -> Layout:
    """The checkpoint at a path: a GGUF or safetensors file, a folder, a Hugging Face cache, a config.json.

    Where ``access`` has no roots it gets them: the folder itself, what the given path links to, and the
    repository folder of a Hugging Face cache. Raises HeaderError.
    """
    path = path.rstrip("/") or "/"
    if is_folder(path):
        access.roots = access.roots or _own_roots(path)
        names = access.names(path, limits.folder_entries)
        if "snapshots" in names and "blobs" in names:
            path = _snapshot(path, names, access, limits)
            names = access.names(path, limits.folder_entries)
        return _folder(path, names, access, limits)
    parent, _, name = path.rpartition("/")
    parent = parent or ("/" if path.startswith("/") else ".")
    access.roots = access.roots or (*_own_roots(parent), real_place(path).rpartition("/")[0] or "/")
    if name == _INDEX or _SHARD.fullmatch(name):
        return _folder(parent, access.names(parent, limits.folder_entries), access, limits)
    if name.endswith(".json"):
        return Layout(Format.CONFIG, config=path)
    return _file(parent, name)


def locate_ollama(name: str, store: str, access: Access, limits: Limits = LIMITS) -> Layout:
    """The files of a model of an Ollama store, the folder of manifests and blobs. Raises HeaderError."""
    store = store.rstrip("/")
    access.roots = access.roots or (real_place(store),)
    layers = _small_json(f"{store}/manifests/{_manifest_path(name)}", access).get("layers")
    if not isinstance(layers, list) or len(layers) > limits.files:
        raise HeaderError(Problem.NOT_A_CHECKPOINT, "the manifest has no list of layers")
    layout = Layout(Format.GGUF)
    for layer in layers:
        media = layer.get("mediaType") if isinstance(layer, dict) else None
        if not isinstance(layer, dict) or not isinstance(media, str):
            raise HeaderError(Problem.BAD_VALUE, "a layer of the manifest has no media type")
        kind = media.removeprefix(_OLLAMA_MEDIA)
        if kind == "model":
            layout.files.append(_blob(store, layer))
        elif kind == "params":
            layout.settings = _ollama_settings(_small_json(_blob(store, layer), access))
        elif kind in ("projector", "adapter"):
            layout.notes.append(f"the model has a {kind} beside it, which is not counted")
        elif kind == "tensor":
            raise HeaderError(
                Problem.NOT_A_CHECKPOINT,
                "the model is stored tensor by tensor, not as one GGUF: not supported",
            )
    if not layout.files:
        raise HeaderError(Problem.NOT_A_CHECKPOINT, "the manifest names no model file (a cloud model?)")
    return layout


def split_parts(name: str) -> list[str] | None:
    """Names of all parts of a split GGUF, given one of them; None for a file that is not a part."""
    match = _SPLIT.fullmatch(name)
    if match is None:
        return None
    count = int(match["count"])
    if not 1 <= int(match["number"]) <= count or count > LIMITS.files:
        raise HeaderError(Problem.SPLIT_MISMATCH, "a part number outside the number of parts")
    return [f"{match['stem']}-{number:05d}-of-{match['count']}.gguf" for number in range(1, count + 1)]


def _own_roots(folder: str) -> tuple[str, ...]:
    place = real_place(folder)
    cache = _SNAPSHOT.fullmatch(place)
    return (cache["repository"],) if cache is not None else (place,)


def _snapshot(path: str, names: Sequence[str], access: Access, limits: Limits) -> str:
    """The snapshot that ``refs/main`` names, or the only one."""
    if "refs" in names:
        try:
            with access.opened(f"{path}/refs/main") as source:
                revision = source.read_at(0, min(source.size_bytes, 256)).decode("ascii", "replace").strip()
        except HeaderError as error:
            if error.kind is not Problem.NOT_FOUND:
                raise
        else:
            if not _REVISION.fullmatch(revision):
                raise HeaderError(Problem.BAD_VALUE, "refs/main of the cache names no revision")
            return f"{path}/snapshots/{revision}"
    revisions = access.names(f"{path}/snapshots", limits.folder_entries)
    if len(revisions) != 1:
        raise HeaderError(
            Problem.AMBIGUOUS, f"the cache holds {len(revisions)} snapshots: name one of snapshots/"
        )
    return f"{path}/snapshots/{revisions[0]}"


def _folder(path: str, names: Sequence[str], access: Access, limits: Limits) -> Layout:
    present = set(names)
    config = f"{path}/config.json" if "config.json" in present else None
    modelopt = f"{path}/hf_quant_config.json" if "hf_quant_config.json" in present else None
    if _INDEX in present:
        with access.opened(f"{path}/{_INDEX}") as source:
            index = read_index(source, limits)
        shards = sorted(set(index.values()))
        missing = sum(shard not in present for shard in shards)
        if missing:
            raise HeaderError(
                Problem.MISSING_FILE, f"{missing} of {len(shards)} shards of the index are not there"
            )
        files = [f"{path}/{shard}" for shard in shards]
        return Layout(Format.SAFETENSORS, files, index, config, modelopt)
    loose = [name for name in names if name.endswith(".safetensors")]
    # Mistral's second copy, and adapters, are not what engines load from such a folder.
    loose = [name for name in loose if not name.startswith(("consolidated", "adapter_"))]
    if len(loose) > limits.files:
        raise HeaderError(Problem.TOO_MANY_TENSORS, f"a folder of more than {limits.files} files of weights")
    if loose:
        return Layout(Format.SAFETENSORS, [f"{path}/{name}" for name in loose], None, config, modelopt)
    gguf = _only_gguf([name for name in names if name.endswith(".gguf")])
    if gguf is not None:
        layout = _file(path, gguf)
        layout.config = config
        return layout
    if config is not None:
        return Layout(Format.CONFIG, config=config, quantization_config=modelopt)
    raise HeaderError(Problem.NOT_A_CHECKPOINT, "a folder without safetensors, GGUF or config.json")


def _only_gguf(names: Sequence[str]) -> str | None:
    """The model among the GGUF files of a folder: projectors are left out, parts are one."""
    models = {parts[0] if (parts := split_parts(name)) else name for name in names if "mmproj" not in name}
    if len(models) > 1:
        raise HeaderError(
            Problem.AMBIGUOUS, f"the folder holds {len(models)} GGUF models: name one of the files"
        )
    return next(iter(models), None)


def _file(parent: str, name: str) -> Layout:
    if name.endswith(".safetensors"):
        return Layout(Format.SAFETENSORS, [f"{parent}/{name}"])
    return Layout(Format.GGUF, [f"{parent}/{part}" for part in split_parts(name) or [name]])


def _manifest_path(name: str) -> str:
    """Where Ollama keeps the manifest of a name; its own registry and ``library`` are the defaults."""
    match = _OLLAMA_NAME.fullmatch(name.removeprefix("https://").removeprefix("http://"))
    if match is None or any(part in (".", "..") for part in match.groups()):
        raise HeaderError(Problem.NOT_FOUND, "not a name of an Ollama model")
    host, namespace = match["host"] or "registry.ollama.ai", match["namespace"] or "library"
    return f"{host}/{namespace}/{match['model']}/{match['tag'] or 'latest'}"


def _blob(store: str, layer: dict[str, object]) -> str:
    digest = layer.get("digest")
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None:
        raise HeaderError(Problem.BAD_VALUE, "a layer of the manifest has no SHA-256 digest")
    return f"{store}/blobs/sha256-{match['hex']}"


def _small_json(path: str, access: Access) -> dict[str, object]:
    with access.opened(path) as source:
        if source.size_bytes > _MANIFEST_BYTES:
            raise HeaderError(Problem.HEADER_TOO_LARGE, f"a manifest larger than {_MANIFEST_BYTES} bytes")
        found = parse_json(source.read_at(0, source.size_bytes))
    if not isinstance(found, dict):
        raise HeaderError(Problem.BAD_VALUE, "the manifest is not a JSON object")
    return found


def _ollama_settings(raw: dict[str, object]) -> dict[str, int | float | bool]:
    return {
        key: value
        for key, value in raw.items()
        if key in OLLAMA_SETTINGS and isinstance(value, (int, float)) and abs(value) < 1 << 53
    }
