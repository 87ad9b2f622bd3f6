"""config.json and its like, filtered: numbers, switches, and the few strings that decide tensors or types.

What passes is bounded in depth and number; names of files, code (``auto_map``) and free text never pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import TypeGuard

from exporter.models.checkpoint.files import Source
from exporter.models.checkpoint.safetensors import parse_json
from exporter.models.checkpoint.tensors import ConfigValue, HeaderError, Limits, Problem

STRINGS = frozenset(
    {
        "architectures",
        "bnb_4bit_compute_dtype",
        "bnb_4bit_quant_storage",
        "bnb_4bit_quant_type",
        "dtype",
        "exclude_modules",
        "expert_dtype",
        "fmt",
        "format",
        "ignore",
        "ignored_layers",
        "kv_cache_quant_algo",
        "layer_types",
        "mlp_layer_types",
        "model_type",
        "modules_to_not_convert",
        "observer",
        "quant_algo",
        "quant_method",
        "quantization",
        "scale_fmt",
        "scale_dtype",
        "scoring_func",
        "strategy",
        "targets",
        "topk_method",
        "torch_dtype",
        "type",
        "version",
        "zero_point",
    }
)
"""Keys whose value may be a string or a list of strings (Hugging Face config.json, quantization_config and
ModelOpt's hf_quant_config.json).
"""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_TEXT = re.compile(r"[A-Za-z0-9_.,:*^$()|\\+?\[\]/ -]{1,200}")
_MOST_DEPTH = 6
_MOST_VALUES = 65536
_MOST_INTEGER = 1 << 63


def read_config(source: Source, limits: Limits) -> dict[str, ConfigValue]:
    """The filtered content of a JSON configuration file. Raises HeaderError."""
    if source.size_bytes > limits.config_bytes:
        raise HeaderError(
            Problem.HEADER_TOO_LARGE, f"the configuration is larger than {limits.config_bytes} bytes"
        )
    raw = parse_json(source.read_at(0, source.size_bytes))
    if not isinstance(raw, dict):
        raise HeaderError(Problem.BAD_VALUE, "the configuration is not a JSON object")
    return filtered(raw)


def filtered(raw: Mapping[str, object]) -> dict[str, ConfigValue]:
    """What of a configuration passes the filter. Raises HeaderError when it is deeper or larger than any real
    one.
    """
    left = [_MOST_VALUES]
    return _table(raw, 1, left)


def _table(raw: Mapping[str, object], depth: int, left: list[int]) -> dict[str, ConfigValue]:
    if depth > _MOST_DEPTH:
        raise HeaderError(Problem.NESTED_TOO_DEEP, f"a configuration nested deeper than {_MOST_DEPTH}")
    kept: dict[str, ConfigValue] = {}
    for key, value in raw.items():
        left[0] -= 1 + (len(value) if isinstance(value, list) else 0)
        if left[0] < 0:
            raise HeaderError(Problem.TOO_MANY_KEYS, f"a configuration of more than {_MOST_VALUES} values")
        if not _KEY.fullmatch(key):
            continue
        if isinstance(value, dict):
            kept[key] = _table(value, depth + 1, left)
        elif isinstance(value, list):
            tables = [_table(one, depth + 1, left) for one in value if isinstance(one, dict)]
            single = [one for one in value if _passes(one, key)]
            if len(tables) == len(value):
                kept[key] = [*tables]
            elif len(single) == len(value):
                kept[key] = [*single]
        elif _passes(value, key):
            kept[key] = value
    return kept


def _passes(value: object, key: str) -> TypeGuard[int | float | str | None]:
    if isinstance(value, str):
        return key in STRINGS and _TEXT.fullmatch(value) is not None
    if isinstance(value, float):
        return isfinite(value)
    return value is None or (isinstance(value, int) and abs(value) <= _MOST_INTEGER)
