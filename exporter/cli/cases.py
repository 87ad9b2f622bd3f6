"""A question of `footprint`, one object of settings as the command contract names them.

What a question held never comes back in an error: it may be somebody's command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from exporter.capacity.launched import layers_of
from exporter.engines.launch import Launch, LaunchError, read_command, read_launch

Plain = Any
"""A JSON value: the answer's floors have their own types for it."""

LONGEST_LINE = 4 << 20


class CaseError(ValueError):
    """A question that cannot be answered: `kind` is stable, the message is for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message

    def plain(self) -> dict[str, Plain]:
        return {"error": {"kind": self.kind, "message": self.message}}


@dataclass(frozen=True, slots=True)
class Case:
    """One question. `settings` are fields of DeploymentSpec that were said beside a launch or without one."""

    launch: Launch | None = None
    model: str | None = None
    checkpoint: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    gpu: str | None = None
    gpus: int | None = None
    gpu_memory_bytes: int | None = None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 4096 or not value.isprintable():
        raise ValueError("must be a text")
    return value.strip()


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")
    if not 0 <= value < 1 << 53:
        raise ValueError("must be a whole number from 0 to 2^53")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    return float(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _layers(value: object) -> int | None:
    if value in ("all", "auto"):
        return layers_of(str(value))
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < 1 << 31:
        raise ValueError("must be a number of layers, -1, all or auto")
    return value


def _patterns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > 1024:
        raise ValueError("must be a list of texts")
    return tuple(_text(one) for one in value)


def _mode(value: object) -> int | None:
    """ik_llama.cpp's mode; on is the engine's default."""
    if value is True or value == "on":
        return None
    if value is False or value == "off":
        return 0
    if isinstance(value, int) and 0 <= value <= 3:
        return value
    raise ValueError("must be 0, 1, 2, 3, on or off")


def _experts(value: object) -> int | bool:
    return value if isinstance(value, bool) else _count(value)


_SETTINGS: dict[str, Callable[[object], Any]] = {
    "engine": _text,
    "engine_version": _text,
    "quantization": _text,
    "dtype": _text,
    "kv_cache_dtype": _text,
    "cache_type_k": _text,
    "cache_type_v": _text,
    "draft_model": _text,
    "tp": _count,
    "pp": _count,
    "dp": _count,
    "ep": _experts,
    "nodes": _count,
    "max_model_len": _count,
    "max_num_seqs": _count,
    "max_num_batched_tokens": _count,
    "parallel": _count,
    "micro_batch": _count,
    "n_cpu_moe": _count,
    "kv_cache_bytes": _count,
    "memory_fraction": _number,
    "dp_attention": _flag,
    "flash_attention": _flag,
    "enforce_eager": _flag,
    "kv_unified": _flag,
    "mmap": _flag,
    "mlock": _flag,
    "gpu_layers": _layers,
    "override_tensor": _patterns,
    "mla": _mode,
}
"""Key → reader, for what goes to the estimator under its own name."""

_OTHER_KEYS = (
    "command",
    "argv",
    "env",
    "model",
    "checkpoint",
    "speculative",
    "gpu",
    "gpus",
    "gpu_memory_bytes",
)
KEYS = (*_OTHER_KEYS, *_SETTINGS)


def read_line(line: bytes) -> Case:
    """The question on one line of JSON. Raises CaseError, which repeats nothing of it."""
    if len(line) > LONGEST_LINE:
        raise CaseError("too_long", f"the line is longer than {LONGEST_LINE} bytes")
    try:
        document = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise CaseError("json", "the line is not a JSON object") from None
    if not isinstance(document, dict):
        raise CaseError("json", "the line is not a JSON object")
    return read_case(document)


def _refuse_constant(_: str) -> None:
    raise ValueError("not JSON")


def read_case(document: Mapping[str, Any]) -> Case:
    """The question of an object. Raises CaseError, which repeats nothing of it."""
    for key in document:
        if key not in KEYS:
            near = get_close_matches(key[:64], KEYS, n=1, cutoff=0.6)
            hint = f"; the nearest known one is {near[0]}" if near else f"; known: {', '.join(sorted(KEYS))}"
            raise CaseError("key", f"a key is not known{hint}")
    launch = _launch(document)
    named = [key for key in ("model", "checkpoint") if key in document]
    if launch is not None and named:
        raise CaseError("conflict", f"{named[0]} cannot stand beside command or argv, which name the model")
    if launch is None and not named:
        raise CaseError("missing", "one of command, argv, model or checkpoint must be there")
    return Case(
        launch=launch,
        model=_read("model", _text, document),
        checkpoint=_read("checkpoint", _text, document),
        settings=_settings(document),
        gpu=_read("gpu", _text, document),
        gpus=_read("gpus", _count, document),
        gpu_memory_bytes=_read("gpu_memory_bytes", _count, document),
    )


def _read(key: str, reader: Callable[[object], Any], document: Mapping[str, Any]) -> Any:
    value = document.get(key)
    if value is None:
        return None
    try:
        return reader(value)
    except ValueError as error:
        raise CaseError("type", f"{key} {error}") from None


def _settings(document: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: _read(key, reader, document) for key, reader in _SETTINGS.items() if key in document}
    said = document.get("speculative")
    if isinstance(said, Mapping):
        names = {"method": "speculative", "draft_model": "draft_model", "num_tokens": "speculative_tokens"}
        for key, value in said.items():
            if key not in names:
                raise CaseError("key", "speculative holds a key that is not known")
            found[names[key]] = _read(key, _count if key == "num_tokens" else _text, {key: value})
    elif isinstance(said, bool):
        found["speculative"] = "mtp" if said else None
    elif said is not None:
        found["speculative"] = _read("speculative", _text, document)
    return {key: value for key, value in found.items() if value is not None}


def _launch(document: Mapping[str, Any]) -> Launch | None:
    command, argv, env = document.get("command"), document.get("argv"), document.get("env")
    if command is not None and argv is not None:
        raise CaseError("conflict", "command and argv cannot both be there")
    if env is not None and command is None and argv is None:
        raise CaseError("conflict", "env needs command or argv")
    variables = _variables(env)
    try:
        if command is not None:
            if not isinstance(command, str):
                raise CaseError("type", "command must be a text")
            return read_command(command, variables)
        if argv is not None:
            if not isinstance(argv, list) or not all(isinstance(one, str) for one in argv):
                raise CaseError("type", "argv must be a list of texts")
            return read_launch(argv, variables)
    except LaunchError as error:
        raise CaseError("launch", str(error)) from None
    return None


def _variables(env: object) -> dict[str, str]:
    if env is None:
        return {}
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise CaseError("type", "env must be an object of texts")
    return env
