"""llama-cpp-python's server: /v1/models, and nothing else that tells anything.

llama-cpp-python llama_cpp/server/app.py; whatever it holds is known from its launch.
"""

from __future__ import annotations

from exporter.engines.telemetry import openai
from exporter.engines.telemetry.ask import Engine, Question

ENGINE = Engine((Question(("/v1/models",), openai.models, needed=True),))
