"""LMDeploy: /metrics (on unless switched off), /v1/models.

LMDeploy 0.18 lmdeploy/metrics. It does not tell its version, nor the size of its pool.
"""

from __future__ import annotations

from exporter.engines.telemetry import openai
from exporter.engines.telemetry.ask import Engine, Question
from exporter.engines.telemetry.samples import read_samples
from exporter.engines.telemetry.tokens import counts
from exporter.engines.telemetry.types import Target, Telemetry

RUNNING = ("lmdeploy:num_requests_running",)
WAITING = ("lmdeploy:num_requests_waiting",)
USAGE = ("lmdeploy:gpu_cache_usage_perc",)
"""0 to 1 in spite of the name."""
TOKENS = {
    "prompt": ("lmdeploy:prompt_tokens_total",),
    "prompt_cached": ("lmdeploy:cached_tokens_total",),
    "generated": ("lmdeploy:generation_tokens_total",),
}
WANTED = frozenset(name for names in (RUNNING, WAITING, USAGE, *TOKENS.values()) for name in names)


def metrics(page: bytes, _target: Target) -> Telemetry:
    samples = read_samples(page, WANTED)
    return Telemetry(
        requests_running=samples.count(*RUNNING),
        requests_waiting=samples.count(*WAITING),
        kv_usage_ratio=samples.largest_ratio(*USAGE),
        tokens=counts(samples, TOKENS),
    )


ENGINE = Engine(
    (
        Question(("/metrics",), metrics, needed=True),
        Question(("/v1/models",), openai.models, needed=True),
    )
)
