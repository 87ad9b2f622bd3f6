"""What a running engine says of itself over HTTP on its own host: limits, KV pool, requests, tokens.

`reader.TelemetryReader` reads it; it is loaded by whoever has an engine to ask.
"""

from exporter.engines.telemetry.types import (
    LoadedModel,
    Reason,
    State,
    Target,
    Telemetry,
    TelemetryResult,
)

__all__ = [
    "LoadedModel",
    "Reason",
    "State",
    "Target",
    "Telemetry",
    "TelemetryResult",
]
