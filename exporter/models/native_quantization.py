"""The quantization that a config.json says its weights have, by canonical name.

Fields: ``quantization_config`` of transformers 5.23 (utils/quantization_config.py) and of compressed-tensors;
ModelOpt's hf_quant_config.json has the same place in a merged configuration.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.models.names import canonical_quantization

_DTYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
_FP4_DTYPES = frozenset({"fp4", "mxfp4"})
_FP8_BLOCK = [128, 128]
_V41_BLOCK = [32, 32]


def quantization_from_config(config: Mapping[str, object]) -> str | None:
    """Canonical quantization of a checkpoint from its config.json; None when the configuration does not tell.

    A method whose sizes are not known here comes back as its name (see ``is_sized``).
    """
    inner = _first_table(config, ("text_config", "language_config"))
    quantized = _first_table(config, ("quantization_config", "quantization")) or _first_table(
        inner, ("quantization_config",)
    )
    if quantized:
        return _quantized(quantized, {**config, **inner})
    for place in (config, inner):
        for field in ("dtype", "torch_dtype"):
            dtype = place.get(field)
            if isinstance(dtype, str) and dtype in _DTYPES:
                return _DTYPES[dtype]
    return None


def _quantized(quantized: Mapping[str, object], config: Mapping[str, object]) -> str | None:
    method = _text(quantized, "quant_method") or _text(quantized, "quant_algo")
    if method is None:
        return None
    known = _METHODS.get(method.lower())
    if known is not None:
        return known(quantized, config)
    return canonical_quantization(method)


def _fp8(quantized: Mapping[str, object], config: Mapping[str, object]) -> str | None:
    block = quantized.get("weight_block_size")
    fp4_experts = _text(config, "expert_dtype") in _FP4_DTYPES
    if block is None:
        return "fp8_tensor"
    if block == _FP8_BLOCK:
        return "mxfp4_fp8" if fp4_experts else "fp8"
    if block == _V41_BLOCK and fp4_experts:
        return "mxfp4_mxfp8"
    return None


def _awq(quantized: Mapping[str, object], config: Mapping[str, object]) -> str | None:
    if _number(quantized, "bits", _number(quantized, "w_bit", 4)) != 4:
        return None
    return _with_group("awq", quantized)


def _gptq(quantized: Mapping[str, object], config: Mapping[str, object]) -> str | None:
    names = {4: "gptq", 8: "gptq_int8"}
    name = names.get(_number(quantized, "bits", 4))
    return None if name is None else _with_group(name, quantized)


def _with_group(name: str, quantized: Mapping[str, object]) -> str | None:
    group = _number(quantized, "group_size", _number(quantized, "q_group_size", 128))
    return canonical_quantization(f"{name}_g{group}")


def _bitsandbytes(quantized: Mapping[str, object], config: Mapping[str, object]) -> str | None:
    if quantized.get("load_in_8bit") is True:
        return "bnb_int8"
    return "nf4_double" if quantized.get("bnb_4bit_use_double_quant") is True else "nf4"


def _modelopt(quantized: Mapping[str, object], config: Mapping[str, object]) -> str | None:
    algorithm = (_text(quantized, "quant_algo") or "").upper()
    if algorithm == "NVFP4":
        return _nvfp4(quantized, config)
    return "fp8_tensor" if algorithm == "FP8" else canonical_quantization("modelopt")


def _nvfp4(quantized: Mapping[str, object], config: Mapping[str, object]) -> str | None:
    if _text(config, "model_type") == "deepseek_v4":
        return "nvfp4_fp8"
    excluded = quantized.get("exclude_modules") or quantized.get("ignore") or []
    named = [one for one in excluded if isinstance(one, str)] if isinstance(excluded, list) else []
    attention = [one for one in named if "self_attn" in one]
    # Where the excluded modules are named one by one and o_proj is not among them, it is quantized.
    every = any(one.endswith(("self_attn*", "self_attn.*", "o_proj", "o_proj*")) for one in attention)
    return "nvfp4" if every or not attention else "nvfp4_wo"


def _compressed_tensors(quantized: Mapping[str, object], config: Mapping[str, object]) -> str | None:
    groups = quantized.get("config_groups")
    tables = (
        [one for one in groups.values() if isinstance(one, Mapping)] if isinstance(groups, Mapping) else []
    )
    if len(tables) != 1:
        # Several groups store different tensors differently: the header tells, the name does not.
        return canonical_quantization("compressed-tensors")
    weights = _first_table(tables[0], ("weights",))
    activations = _first_table(tables[0], ("input_activations",))
    bits, kind = _number(weights, "num_bits", 0), _text(weights, "type")
    strategy = _text(weights, "strategy")
    found: str | None = None
    if kind == "int" and strategy == "group" and bits in (4, 8):
        found = _with_group("w4a16" if bits == 4 else "w8a16", weights)
    elif kind == "int" and strategy == "channel" and bits == 8 and activations:
        found = "w8a8"
    elif kind == "float" and bits == 8:
        found = {"channel": "fp8_channel", "tensor": "fp8_tensor", "block": "fp8"}.get(strategy or "")
    elif kind == "float" and bits == 4 and _number(weights, "group_size", 16) == 16:
        found = _nvfp4(quantized, config)
    return found or canonical_quantization("compressed-tensors")


_METHODS = {
    "fp8": _fp8,
    "awq": _awq,
    "gptq": _gptq,
    "bitsandbytes": _bitsandbytes,
    "modelopt": _modelopt,
    "modelopt_fp4": _nvfp4,
    "nvfp4": _nvfp4,
    "compressed-tensors": _compressed_tensors,
}


def _first_table(place: Mapping[str, object], fields: tuple[str, ...]) -> Mapping[str, object]:
    for field in fields:
        found = place.get(field)
        if isinstance(found, Mapping):
            return found
    return {}


def _text(place: Mapping[str, object], field: str) -> str | None:
    found = place.get(field)
    return found if isinstance(found, str) else None


def _number(place: Mapping[str, object], field: str, default: int) -> int:
    found = place.get(field)
    return found if isinstance(found, int) and not isinstance(found, bool) else default
