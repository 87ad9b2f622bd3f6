"""vLLM: /metrics, /version, /v1/models.

vLLM 0.33 v1/metrics/loggers.py, config/cache.py (metrics_info), entrypoints/serve; older names from vLLM PRs
14136, 18354, 24110 and 29330. Of these paths only /v1 wants the key, where there is one.
"""

from __future__ import annotations

from exporter.engines.telemetry import openai, values
from exporter.engines.telemetry.ask import Engine, Question
from exporter.engines.telemetry.samples import Sample, Samples, read_samples
from exporter.engines.telemetry.tokens import counts, drafts
from exporter.engines.telemetry.types import Target, Telemetry

RUNNING = ("vllm:num_requests_running",)
WAITING = ("vllm:num_requests_waiting",)
USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
"""0 to 1 in spite of the name; the second is V0's, hidden since PR 18354 and gone since PR 29330."""
CACHE = ("vllm:cache_config_info",)
SLEEP = ("vllm:engine_sleep_state",)
PREEMPTIONS = ("vllm:num_preemptions_total",)
TOKENS = {
    "prompt": ("vllm:prompt_tokens_total",),
    "prompt_cached": (
        "vllm:prompt_tokens_cached_total",
        "vllm:prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_hits_total",
    ),
    "generated": ("vllm:generation_tokens_total",),
}
DRAFTED = ("vllm:spec_decode_num_draft_tokens_total",)
ACCEPTED = ("vllm:spec_decode_num_accepted_tokens_total",)
WANTED = frozenset(
    name
    for names in (RUNNING, WAITING, USAGE, CACHE, SLEEP, PREEMPTIONS, DRAFTED, ACCEPTED, *TOKENS.values())
    for name in names
)


def metrics(page: bytes, _target: Target) -> Telemetry:
    """The page's numbers over all data-parallel engines. With --disable-log-stats it has none of them."""
    samples = read_samples(page, WANTED)
    cache = samples.labels(*CACHE)
    capacities = {_engine(sample): _capacity(sample) for sample in samples.all(*CACHE)}
    usages = {_engine(sample): values.ratio(sample.value) for sample in samples.all(*USAGE)}
    capacity, used = _pool(capacities, usages)
    return Telemetry(
        kv_capacity_tokens=capacity,
        kv_capacity_from_blocks=capacity is not None
        and values.size(cache.get("kv_cache_size_tokens")) is None,
        kv_used_tokens=used,
        kv_usage_ratio=used / capacity if used is not None and capacity else _single(usages),
        kv_block_size=values.size(cache.get("block_size")),
        kv_cache_dtype=values.dtype(cache.get("cache_dtype")),
        requests_running=samples.count(*RUNNING),
        requests_waiting=samples.count(*WAITING),
        preemptions_total=samples.count(*PREEMPTIONS),
        tokens=counts(samples, TOKENS) | drafts(samples, DRAFTED, ACCEPTED),
        sleeping=_sleeping(samples),
    )


def _engine(sample: Sample) -> str:
    """Data-parallel index; before vLLM had one, there was one engine."""
    return sample.labels.get("engine", "0")


def _capacity(sample: Sample) -> int | None:
    stated = values.size(sample.labels.get("kv_cache_size_tokens"))
    blocks = values.size(sample.labels.get("num_gpu_blocks"))
    tokens = values.size(sample.labels.get("block_size"))
    return stated or (blocks * tokens if blocks and tokens else None)


def _pool(
    capacities: dict[str, int | None], usages: dict[str, float | None]
) -> tuple[int | None, int | None]:
    """Capacity and use over all engines; None where one engine's part is not known."""
    capacity = used = 0
    for engine in capacities.keys() | usages.keys():
        size = capacities.get(engine)
        if size is None:
            return None, None
        capacity += size
    if not capacities:
        return None, None
    for engine, size in capacities.items():
        usage = usages.get(engine)
        if usage is None or size is None:
            return capacity, None
        used += round(usage * size)
    return capacity, used


def _single(usages: dict[str, float | None]) -> float | None:
    """The use of the fullest pool, where the sizes of the pools are not known."""
    return max((usage for usage in usages.values() if usage is not None), default=None)


def _sleeping(samples: Samples) -> bool:
    return any(
        sample.labels.get("sleep_state") == "awake" and sample.value == 0 for sample in samples.all(*SLEEP)
    )


ENGINE = Engine(
    (
        Question(("/metrics",), metrics, needed=True),
        Question(("/version",), openai.version, steady=True),
        Question(("/v1/models",), openai.models, steady=True),
    )
)
