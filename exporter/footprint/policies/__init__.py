"""One allocation policy per engine: how it turns settings and hardware into bytes. Adding an engine is a file
and a row here.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.footprint.deployment import FootprintError
from exporter.footprint.policies.free_memory import FREE_MEMORY
from exporter.footprint.policies.job import Policy
from exporter.footprint.policies.ktransformers import KTRANSFORMERS
from exporter.footprint.policies.llamacpp import LLAMA_CPP, OLLAMA
from exporter.footprint.policies.plain import TRANSFORMERS
from exporter.footprint.policies.sglang import SGLANG
from exporter.footprint.policies.vllm import VLLM

POLICIES: Mapping[str, Policy] = {
    "vllm": VLLM,
    "sglang": SGLANG,
    "llama.cpp": LLAMA_CPP,
    "ik_llama.cpp": LLAMA_CPP,
    "llama-cpp-python": LLAMA_CPP,
    "ollama": OLLAMA,
    "ktransformers": KTRANSFORMERS,
    "lmdeploy": FREE_MEMORY,
    "tensorrt-llm": FREE_MEMORY,
    "tgi": FREE_MEMORY,
    "transformers": TRANSFORMERS,
}


def policy_of(engine: str) -> Policy:
    """The policy of an engine by the name that the command contract gives it. Raises FootprintError for any
    other.
    """
    policy = POLICIES.get(engine.lower())
    if policy is None:
        raise FootprintError(
            f"no allocation policy for engine {_printable(engine)!r}; known: {', '.join(POLICIES)}"
        )
    return policy


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:40])
