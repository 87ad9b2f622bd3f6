"""/v1/models and /version, which most engines answer in OpenAI's shape.

``owned_by`` tells whose answer it is: engines share default ports, and a foreign answer is refused.
"""

from __future__ import annotations

from exporter.engines.telemetry import values
from exporter.engines.telemetry.client import Unanswered
from exporter.engines.telemetry.types import Reason, Target, Telemetry

OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llama.cpp",
    "lmdeploy": "lmdeploy",
    "tensorrt_llm": "tensorrt-llm",
}
"""Value of ``owned_by`` → engine."""
_FAMILIES = {"ik_llama.cpp": "llama.cpp", "ktransformers": "sglang"}


def models(body: bytes, target: Target) -> Telemetry:
    """The first model that is no adapter: its name, its path or id where the engine tells, its length."""
    cards = values.items(values.fields(values.parsed(body)).get("data"))
    card = next((card for card in cards if card.get("parent") is None), None)
    if card is None:
        raise Unanswered(Reason.NONSENSE)
    owner = card.get("owned_by")
    engine = OWNERS.get(owner) if isinstance(owner, str) else None
    if engine is not None and engine != _FAMILIES.get(target.engine, target.engine):
        raise Unanswered(Reason.NONSENSE)
    return Telemetry(
        # SGLang's root is the served name again.
        model=values.name(card.get("root")) if engine == "vllm" else None,
        served_model=values.name(card.get("id")),
        max_model_len=values.size(card.get("max_model_len")),
    )


def version(body: bytes, _target: Target) -> Telemetry:
    found = values.version(values.fields(values.parsed(body)).get("version"))
    if found is None:
        raise Unanswered(Reason.NONSENSE)
    return Telemetry(engine_version=found)
