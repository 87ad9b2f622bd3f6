"""Engines of llama.cpp's family: what each takes where the launch is silent, and what changed with releases.

Sources: llama.cpp b11434 common/common.h, common/arg.cpp, tools/server/server.cpp; ik_llama.cpp
common/common.cpp; llama-cpp-python llama_cpp/server/settings.py; Ollama server/routes.go and
llm/llama_server.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exporter.footprint.cells import CellMode, ik_mode
from exporter.footprint.deployment import DeploymentSpec
from exporter.footprint.versions import before
from exporter.models.quantization import GgufLayout
from exporter.units import GIB, MIB

Context = Literal["fit", "trained", "fixed", "by_memory"]

OLLAMA_CONTEXTS = ((47 * GIB, 262_144), (23 * GIB, 32_768), (0, 4096))
"""Ollama server/routes.go: (least GPU memory of all devices, default num_ctx)."""
OLLAMA_OLD_CONTEXTS = ((0, 4096),)
OLLAMA_OLDEST_CONTEXTS = ((0, 2048),)

DEFAULT_CACHE_RAM_BYTES = 8192 * MIB


@dataclass(frozen=True, slots=True)
class Flavour:
    """``gpu_layers`` None is solved by the engine; ``slots`` and ``unified`` where ``--parallel`` is not
    said; ``context`` how the length is found, ``fixed_context`` its value; ``counts_output``: ``-ngl`` counts
    the output layer.
    """

    name: str
    gpu_layers: int | None
    slots: int
    unified: bool
    context: Context
    fixed_context: int
    counts_output: bool
    flash_attention: bool
    cache_ram_bytes: int
    context_per_slot: bool = False


_COUNTS_OUTPUT_SINCE = (7400,)
"""llama.cpp builds before counted repeating layers only (src/llama-model.cpp i_gpu_start); the build number
is between those whose logs were seen.
"""
_FIT_SINCE = (7400,)
_LATENT_SINCE = (5140,)
"""llama.cpp keeps latent rows since April 2025 (#12801)."""
_OLLAMA_LATENT_SINCE = (0, 7)
_OLLAMA_SERVER_SINCE = (0, 30)
"""Ollama starts llama.cpp's own server since May 2026; the runners before counted repeating layers only."""

_LLAMA_CPP = Flavour("llama.cpp", None, 4, True, "fit", 0, True, True, DEFAULT_CACHE_RAM_BYTES)
_LLAMA_CPP_OLD = Flavour("llama.cpp", 0, 1, False, "fixed", 4096, False, False, 0)
_IK = Flavour("ik_llama.cpp", 0, 1, False, "trained", 0, False, True, 0)
_PYTHON = Flavour("llama-cpp-python", 0, 1, False, "fixed", 2048, False, False, 0)
_OLLAMA = Flavour(
    "ollama", None, 1, False, "by_memory", 0, True, True, DEFAULT_CACHE_RAM_BYTES, context_per_slot=True
)
_OLLAMA_OLD = Flavour("ollama", None, 1, False, "by_memory", 0, False, False, 0, context_per_slot=True)


def flavour_of(spec: DeploymentSpec) -> Flavour:
    """The rules of an engine and release; a release that was not stated is the current one."""
    engine, version = spec.engine.lower(), spec.engine_version
    if engine == "ik_llama.cpp":
        return _IK
    if engine == "llama-cpp-python":
        return _PYTHON
    if engine == "ollama":
        return _OLLAMA_OLD if before(version, _OLLAMA_SERVER_SINCE) else _OLLAMA
    return _LLAMA_CPP_OLD if before(version, _COUNTS_OUTPUT_SINCE) else _LLAMA_CPP


def ollama_contexts(version: str | None) -> tuple[tuple[int, int], ...]:
    """(least GPU memory, default num_ctx) of a release."""
    if before(version, (0, 6)):
        return OLLAMA_OLDEST_CONTEXTS
    return OLLAMA_OLD_CONTEXTS if before(version, (0, 15)) else OLLAMA_CONTEXTS


def latent_mode(spec: DeploymentSpec, flash_attention: bool) -> CellMode:
    """How latent attention is cached: ``mla`` as said, else by release."""
    engine = spec.engine.lower()
    if engine == "ik_llama.cpp":
        return ik_mode(3 if spec.mla is None else spec.mla, flash_attention)
    latent = spec.mla != 0
    if spec.mla is None:
        since = _OLLAMA_LATENT_SINCE if engine == "ollama" else _LATENT_SINCE
        latent = not before(spec.engine_version, since) if engine != "llama-cpp-python" else True
    return CellMode(latent=latent, one_type=latent)


def gguf_layout(spec: DeploymentSpec, mode: CellMode) -> GgufLayout:
    """How the file keeps kv_b: whole where the cache holds all heads, both ways for ik_llama.cpp."""
    if not mode.latent:
        return GgufLayout.JOINT
    return GgufLayout.BOTH if spec.engine.lower() == "ik_llama.cpp" else GgufLayout.SPLIT
