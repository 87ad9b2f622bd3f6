"""Ollama: /api/ps, /api/version.

ollama server/routes.go (main, August 2026). Asking for the loaded models does not keep them loaded. There are
no counters; the runner of a current version is a llama-server with an endpoint of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.engines.telemetry import openai, values
from exporter.engines.telemetry.ask import Engine, Question
from exporter.engines.telemetry.client import Unanswered
from exporter.engines.telemetry.types import LoadedModel, Reason, Target, Telemetry

_MODELS_LIMIT = 64


def loaded(body: bytes, _target: Target) -> Telemetry:
    answer = values.fields(values.parsed(body))
    models = answer.get("models")
    if "models" not in answer or not (models is None or isinstance(models, list)):
        raise Unanswered(Reason.NONSENSE)
    found = (_model(entry) for entry in values.items(models, _MODELS_LIMIT))
    return Telemetry(loaded_models=tuple(model for model in found if model is not None))


def _model(entry: Mapping[str, object]) -> LoadedModel | None:
    name = values.name(entry.get("model")) or values.name(entry.get("name"))
    if name is None:
        return None
    level = values.fields(entry.get("details")).get("quantization_level")
    return LoadedModel(
        name,
        size_bytes=values.count(entry.get("size")),
        vram_bytes=values.count(entry.get("size_vram")),
        context_tokens=values.size(entry.get("context_length")),
        quantization=values.file_type(level),
        digest=values.digest(entry.get("digest")),
    )


ENGINE = Engine(
    (
        Question(("/api/ps",), loaded, needed=True),
        Question(("/api/version",), openai.version, steady=True),
    )
)
