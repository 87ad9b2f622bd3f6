"""TensorRT-LLM: /v1/models, /version, and /prometheus/metrics where return_perf_metrics is set.

TensorRT-LLM serve/openai_server.py, metrics/collector.py (main, 2026). Its /metrics is a queue that every
reader empties for the others: it is never asked for.
"""

from __future__ import annotations

from exporter.engines.telemetry import openai
from exporter.engines.telemetry.ask import Engine, Question
from exporter.engines.telemetry.samples import read_samples
from exporter.engines.telemetry.tokens import counts
from exporter.engines.telemetry.types import Target, Telemetry

RUNNING = ("trtllm_num_requests_running",)
WAITING = ("trtllm_num_requests_waiting",)
USAGE = ("trtllm_kv_cache_utilization",)
MOST_BLOCKS = ("trtllm_kv_cache_max_blocks",)
USED_BLOCKS = ("trtllm_kv_cache_used_blocks",)
BLOCK_SIZE = ("trtllm_kv_cache_tokens_per_block",)
TOKENS = {
    "prompt": ("trtllm_prompt_tokens_total",),
    "generated": ("trtllm_generation_tokens_total",),
}
"""Of finished requests."""
WANTED = frozenset(
    name
    for names in (RUNNING, WAITING, USAGE, MOST_BLOCKS, USED_BLOCKS, BLOCK_SIZE, *TOKENS.values())
    for name in names
)


def metrics(page: bytes, _target: Target) -> Telemetry:
    samples = read_samples(page, WANTED)
    most, used, block = (samples.count(*names) for names in (MOST_BLOCKS, USED_BLOCKS, BLOCK_SIZE))
    capacity = most * block if most and block else None
    return Telemetry(
        kv_capacity_tokens=capacity,
        kv_capacity_from_blocks=capacity is not None,
        kv_used_tokens=used * block if used is not None and block else None,
        kv_usage_ratio=samples.largest_ratio(*USAGE),
        kv_block_size=block or None,
        requests_running=samples.count(*RUNNING),
        requests_waiting=samples.count(*WAITING),
        tokens=counts(samples, TOKENS),
    )


ENGINE = Engine(
    (
        Question(("/prometheus/metrics",), metrics, needed=True),
        Question(("/v1/models",), openai.models, needed=True),
        Question(("/version",), openai.version, steady=True),
    )
)
