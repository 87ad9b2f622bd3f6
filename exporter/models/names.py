"""What a name says: a model's own name, and after it the quantization, by the habits of hub repositories,
GGUF publishers, Ollama and local folders.

Rules, not resemblance: a part of a name that no rule knows leaves the whole name unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from exporter.models.gguf import gguf_name, gguf_tables
from exporter.models.safetensors import has_convention

MAX_NAME = 1024
"""Characters of a name that are looked at; longer ones are no names."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A reading of a name: ``name`` may be a model's, ``quantization`` is canonical or None, ``how`` says
    which rules were applied. ``may_be_tag``: it is whole, so it may be a tag of the Ollama library.
    """

    name: str
    quantization: str | None
    how: str
    may_be_tag: bool = False


# Spellings of vLLM and SGLang (--dtype, --quantization), of repositories and of configs (quant_method),
# lower-cased with underscores.
_SPELLINGS = {
    "bfloat16": "bf16",
    "float16": "f16",
    "fp16": "f16",
    "half": "f16",
    "float": "f32",
    "float32": "f32",
    "fp32": "f32",
    "fp8_e4m3": "fp8",
    "f8_e4m3": "fp8",
    "fp8_block": "fp8",
    "block_fp8": "fp8",
    "fp8_dynamic": "fp8_channel",
    "fp8_per_channel": "fp8_channel",
    "channel_fp8": "fp8_channel",
    "ptpc_fp8": "fp8_channel",
    "fbgemm_fp8": "fp8_channel",
    "w8a8_fp8": "fp8_channel",
    "fp8_per_tensor": "fp8_tensor",
    "modelopt_fp8": "fp8_tensor",
    "w8a8_int8": "w8a8",
    "int8_w8a8": "w8a8",
    "channel_int8": "w8a8",
    "eetq": "w8a8",
    "quantized.w8a8": "w8a8",
    "quantized.w4a16": "w4a16",
    "quantized.w8a16": "w8a16",
    "awq_marlin": "awq",
    "awq_int4": "awq",
    "w4a16_awq": "awq",
    "moe_wna16": "awq",
    "awq_4bit": "awq",
    "int4_awq": "awq",
    "4bit_awq": "awq",
    "gptq_marlin": "gptq",
    "gptq_int4": "gptq",
    "gptq_4bit": "gptq",
    "int4_gptq": "gptq",
    "w4a16_gptq": "gptq",
    "gptq_8bit": "gptq_int8",
    "modelopt_fp4": "nvfp4",
    "petit_nvfp4": "nvfp4",
    "fp4": "nvfp4",
    "nvfp4_v2": "nvfp4_wo",
    "fp4_v2": "nvfp4_wo",
    "bitsandbytes": "nf4",
    "bitsandbytes_nf4": "nf4",
    "bitsandbytes_fp4": "nf4",
    "bnb_nf4": "nf4",
    "bnb_4bit": "nf4_double",
    "bnb_8bit": "bnb_int8",
    "block_int8": "int8_block",
    "blockwise_int8": "int8_block",
}
# Real, but a name alone does not tell which tensors are stored how.
_UNSIZED = frozenset(
    {
        "4bit",
        "8bit",
        "auto_round",
        "autoround",
        "compressed_tensors",
        "exl2",
        "exl3",
        "hqq",
        "int4",
        "int8",
        "mlx",
        "mlx_2bit",
        "mlx_3bit",
        "mlx_4bit",
        "mlx_6bit",
        "mlx_8bit",
        "modelopt",
        "quark",
        "torchao",
        "unsloth_bnb_4bit",
        "w4afp8",
        "w4a8",
        "w4a8_awq",
    }
)
# A container, a habit, nothing about the bytes.
_NEUTRAL = frozenset({"gguf", "hf", "i1", "imat", "imatrix", "merged", "safetensors"})
# Experts and their size, as llama.cpp's converter writes into default file names: 256x20B.
_SIZE_LABEL = re.compile(r"\d{1,4}x\d{1,4}(\.\d{1,2})?[BbMm]")

_SPLIT_PART = re.compile(r"-\d{5}-of-\d{5}$")
_SEPARATOR = re.compile(r"[-._@:]")
_MAX_SUFFIX = 40
_GROUP = re.compile(r"[-_]?(?:g|gs|group)[-_]?(\d{2,4})g?$")
_HUB_CACHE = re.compile(r"models--(?P<organisation>[^/]+?)--(?P<name>[^/]+)")
_REVISION = re.compile(r"[0-9a-f]{40}")
_FILE_ENDINGS = (".gguf", ".safetensors")
# Folders and files that name no model: the name is in the folder above.
_NAMELESS = frozenset(
    {
        "checkpoint",
        "ggml-model",
        "gguf",
        "hf",
        "latest",
        "main",
        "model",
        "original",
        "safetensors",
        "snapshot",
        "snapshots",
        "weights",
    }
)
_REGISTRIES = ("registry.ollama.ai/library/", "ollama.com/library/", "library/")
_HUBS = ("https://huggingface.co/", "huggingface.co/", "hf.co/")
_MAX_SUFFIXES = 4
_MAX_FOLDERS = 4


def canonical_quantization(spelling: str) -> str | None:
    """The canonical name of a quantization, of whatever container: ``fp8``, ``awq``, ``awq_g64``, ``Q4_K_M``,
    or one that is known by name alone (see ``is_sized``); None for anything else.
    """
    key = spelling.strip().lower().replace("-", "_").replace(" ", "_")
    if not key or len(key) > 40:
        return None
    found = _safetensors_name(key)
    if found is not None:
        return found
    if key in _UNSIZED:
        return key
    upper = spelling.strip().upper()
    return gguf_name(upper) or gguf_name(upper.replace("-", "_"))


def is_sized(quantization: str) -> bool:
    """Whether the bytes under a canonical quantization are known, not its name alone."""
    return has_convention(quantization) or quantization in gguf_tables().recipes


def candidates(name: str) -> Iterator[Candidate]:
    """The readings of a name, likeliest first: the whole of it, its last parts, with suffixes taken off."""
    text = name.strip()
    if not text or len(text) > MAX_NAME or not text.isprintable():
        return
    yield Candidate(text, None, "name", not _is_path(text))
    for prefix in _REGISTRIES:
        if text.lower().startswith(prefix):
            yield Candidate(text[len(prefix) :], None, "tag of the Ollama library", True)
    for prefix in _HUBS:
        text = text.removeprefix(prefix)
    seen: set[tuple[str, str | None]] = set()
    for found in _readings(text):
        if (found.name.lower(), found.quantization) not in seen:
            seen.add((found.name.lower(), found.quantization))
            yield found


def _readings(text: str) -> Iterator[Candidate]:
    hint: str | None = None
    cached = _HUB_CACHE.search(text)
    if cached is not None:
        hint = _file_hint(text[cached.end() :])
        whole = f"{cached['organisation']}/{cached['name']}"
        yield from _without_suffixes(whole, hint, "hub cache folder")
        yield from _without_suffixes(cached["name"], hint, "hub cache folder")
        return
    parts = [part for part in text.split("/") if part not in ("", ".", "..", "~")]
    hub = len(parts) == 2 and not _is_path(text)
    for depth, part in enumerate(reversed(parts[-_MAX_FOLDERS:])):
        stem, own_hint, nameless = _strip_file(part)
        hint = hint or own_hint
        if not nameless:
            how = "hub id" if hub else "file or folder name" if len(parts) > 1 else "name"
            if hub and depth == 0:
                yield from _without_suffixes(f"{parts[0]}/{stem}", hint, how)
            yield from _without_suffixes(stem, hint, how)
            return


def _strip_file(part: str) -> tuple[str, str | None, bool]:
    """A path's part without file ending and split number, the quantization if it is nothing but one, and
    whether it names no model.
    """
    stem = part
    for ending in _FILE_ENDINGS:
        if stem.lower().endswith(ending):
            stem = stem[: -len(ending)]
            break
    stem = _SPLIT_PART.sub("", stem)
    quantization = canonical_quantization(stem)
    if quantization is not None:
        return stem, quantization, True
    base, hint = _taken_off(stem)
    if base.lower() in _NAMELESS or _REVISION.fullmatch(stem):
        return stem, hint, True
    return stem, None, False


def _file_hint(rest: str) -> str | None:
    """The quantization that a file below a hub cache folder tells."""
    for part in reversed(rest.split("/")[-_MAX_FOLDERS:]):
        if part:
            stem, hint, _ = _strip_file(part)
            hint = hint or _taken_off(stem)[1]
            if hint is not None:
                return hint
    return None


def _without_suffixes(stem: str, hint: str | None, how: str) -> Iterator[Candidate]:
    for base in _organisation_forms(stem):
        yield Candidate(base, hint, how)
        quantization = hint
        current = base
        for _ in range(_MAX_SUFFIXES):
            taken = _one_suffix(current)
            if taken is None:
                break
            current, found = taken
            quantization = quantization or found
            yield Candidate(current, quantization, f"{how}, suffix {base[len(current) :]}")


def _organisation_forms(stem: str) -> Iterator[str]:
    yield stem
    # bartowski and llama.cpp's download cache write the organisation into the file name.
    for separator in ("_", "__"):
        organisation, found, rest = stem.partition(separator)
        if found and organisation and rest.lower().startswith(("deepseek", "janus")):
            yield rest


def _taken_off(stem: str) -> tuple[str, str | None]:
    quantization: str | None = None
    for _ in range(_MAX_SUFFIXES):
        taken = _one_suffix(stem)
        if taken is None:
            break
        stem, found = taken
        quantization = quantization or found
    return stem, quantization


def _one_suffix(text: str) -> tuple[str, str | None] | None:
    """Takes the longest known suffix off: what is left, and its quantization (None for a neutral one)."""
    for separator in _SEPARATOR.finditer(text, max(1, len(text) - _MAX_SUFFIX)):
        stem, suffix = text[: separator.start()], text[separator.end() :]
        if suffix.lower() in _NEUTRAL or _SIZE_LABEL.fullmatch(suffix):
            return stem, None
        quantization = canonical_quantization(suffix)
        if quantization is not None:
            return stem, quantization
    return None


def _safetensors_name(key: str) -> str | None:
    key = _SPELLINGS.get(key, key)
    if has_convention(key):
        return _plain_group(key)
    group = _GROUP.search(key)
    if group is not None:
        base = key[: group.start()]
        base = _SPELLINGS.get(base, base)
        sized = f"{base}_g{int(group[1])}"
        if has_convention(sized):
            return _plain_group(sized)
    return None


def _plain_group(key: str) -> str:
    # 128 is what every convention means without a number.
    return key.removesuffix("_g128")


def _is_path(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~")) or text.count("/") > 1 or text.lower().endswith(".gguf")
