"""Text Generation Inference: /info, /metrics. Both are open also where a key is set.

text-generation-inference router/src/server.rs (January 2026, and 2.x for the older fields of /info). There is
no metric of KV use; what a batch may hold is the capacity.
"""

from __future__ import annotations

from exporter.engines.telemetry import values
from exporter.engines.telemetry.ask import Engine, Question
from exporter.engines.telemetry.client import Unanswered
from exporter.engines.telemetry.samples import read_samples
from exporter.engines.telemetry.tokens import counts
from exporter.engines.telemetry.types import Reason, Target, Telemetry

RUNNING = ("tgi_batch_current_size",)
WAITING = ("tgi_queue_size",)
TOKENS = {
    "prompt": ("tgi_request_input_length_sum",),
    "generated": ("tgi_request_generated_tokens_sum",),
}
"""Sums of histograms over finished requests."""
WANTED = frozenset(name for names in (RUNNING, WAITING, *TOKENS.values()) for name in names)


def info(body: bytes, _target: Target) -> Telemetry:
    answer = values.fields(values.parsed(body))
    model = values.name(answer.get("model_id"))
    if model is None:
        raise Unanswered(Reason.NONSENSE)
    return Telemetry(
        engine_version=values.version(answer.get("version")),
        model=model,
        served_model=model,
        max_model_len=values.size(answer.get("max_total_tokens")),
        kv_capacity_tokens=values.size(answer.get("max_batch_total_tokens")),
    )


def metrics(page: bytes, _target: Target) -> Telemetry:
    samples = read_samples(page, WANTED)
    return Telemetry(
        requests_running=samples.count(*RUNNING),
        requests_waiting=samples.count(*WAITING),
        tokens=counts(samples, TOKENS),
    )


ENGINE = Engine((Question(("/info",), info, needed=True), Question(("/metrics",), metrics)))
