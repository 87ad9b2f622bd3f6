"""SGLang, and KTransformers on it: /v1/loads, /metrics, /model_info, /server_info, /v1/models.

SGLang 0.5.23 entrypoints/v1_loads.py, metrics_collector.py, managers (internal_state.py, memory_usage.py).
/server_info returns every setting, keys included, and costs each scheduler a round trip: it is asked for once
a minute and only the fields below are kept. Memory is printed in GiB, rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from exporter.engines.telemetry import openai, values
from exporter.engines.telemetry.ask import Engine, Question
from exporter.engines.telemetry.client import Unanswered
from exporter.engines.telemetry.samples import Sample, Samples, read_samples
from exporter.engines.telemetry.types import Reason, Target, Telemetry

GAUGES = {
    "requests_running": ("sglang:num_running_reqs",),
    "requests_waiting": ("sglang:num_queue_reqs",),
    "kv_used_tokens": ("sglang:num_used_tokens",),
    "kv_capacity_tokens": ("sglang:max_total_num_tokens",),
}
USAGE = ("sglang:token_usage",)
PAGE_SIZE = ("sglang:page_size",)
CONTEXT = ("sglang:context_len",)
WEIGHTS = ("sglang:weight_memory_usage_gb",)
KV_CACHE = ("sglang:kv_cache_memory_usage_gb",)
RETRACTED = ("sglang:num_retracted_requests_total",)
REALTIME = ("sglang:realtime_tokens_total",)
"""Moves while answers are generated, where it exists; the others move when a request ends."""
FINISHED = {
    "prompt": ("sglang:prompt_tokens_total",),
    "prompt_cached": ("sglang:cached_tokens_total",),
    "generated": ("sglang:generation_tokens_total",),
}
MODES = {
    "prompt": ("prefill_compute", "prefill_cache"),
    "prompt_cached": ("prefill_cache",),
    "generated": ("decode",),
}
"""Kind → modes of the real-time counter that make it up."""
WANTED = frozenset(
    name
    for names in (
        *GAUGES.values(),
        USAGE,
        PAGE_SIZE,
        CONTEXT,
        WEIGHTS,
        KV_CACHE,
        RETRACTED,
        REALTIME,
        *FINISHED.values(),
    )
    for name in names
)
_RANKS = ("tp_rank", "pp_rank", "moe_ep_rank")


def loads(body: bytes, _target: Target) -> Telemetry:
    """/v1/loads: one entry per data-parallel rank; their pools and requests add up."""
    answer = values.fields(values.parsed(body))
    ranks = values.items(answer.get("loads"))
    if not ranks:
        raise Unanswered(Reason.NONSENSE)
    memory = [values.fields(rank.get("memory")) for rank in ranks]
    capacity = _sum(ranks, "max_total_num_tokens")
    used = _sum(ranks, "num_used_tokens")
    return Telemetry(
        engine_version=values.version(answer.get("version")),
        kv_capacity_tokens=capacity or None,
        kv_used_tokens=used,
        kv_usage_ratio=_usage(used, capacity, [values.ratio(rank.get("token_usage")) for rank in ranks]),
        requests_running=_sum(ranks, "num_running_reqs"),
        requests_waiting=_sum(ranks, "num_waiting_reqs"),
        weights_bytes=_largest(values.gib(part.get("weight_gb")) for part in memory),
        kv_bytes=_largest(values.gib(part.get("kv_cache_gb")) for part in memory),
    )


def metrics(page: bytes, _target: Target) -> Telemetry:
    samples = read_samples(page, WANTED)
    found = {name: _over_ranks(samples.all(*aliases)) for name, aliases in GAUGES.items()}
    return Telemetry(
        requests_running=found["requests_running"],
        requests_waiting=found["requests_waiting"],
        kv_used_tokens=found["kv_used_tokens"],
        kv_capacity_tokens=found["kv_capacity_tokens"] or None,
        kv_usage_ratio=_usage(
            found["kv_used_tokens"], found["kv_capacity_tokens"], [samples.largest_ratio(*USAGE)]
        ),
        kv_block_size=_largest(values.size(sample.value) for sample in samples.all(*PAGE_SIZE)),
        max_model_len=_largest(values.size(sample.value) for sample in samples.all(*CONTEXT)),
        weights_bytes=_largest(values.gib(sample.value) for sample in samples.all(*WEIGHTS)),
        kv_bytes=_largest(values.gib(sample.value) for sample in samples.all(*KV_CACHE)),
        preemptions_total=_over_ranks(samples.all(*RETRACTED)),
        tokens=_tokens(samples),
    )


def server_info(body: bytes, _target: Target) -> Telemetry:
    answer = values.fields(values.parsed(body))
    states = values.items(answer.get("internal_states"))
    memory = [values.fields(state.get("memory_usage")) for state in states]
    model = values.name(answer.get("model_path"))
    if model is None and not states:
        raise Unanswered(Reason.NONSENSE)
    ranks = values.size(answer.get("dp_size")) or 1
    capacity = _sum(memory, "token_capacity")
    one_rank = values.size(answer.get("max_total_num_tokens"))
    return Telemetry(
        engine_version=values.version(answer.get("version")),
        model=model,
        served_model=values.name(answer.get("served_model_name")),
        quantization=values.word(answer.get("quantization")),
        max_model_len=values.size(answer.get("context_length")),
        max_num_seqs=values.size(answer.get("max_running_requests")),
        kv_capacity_tokens=capacity or (one_rank if ranks == 1 else None),
        kv_block_size=values.size(answer.get("page_size")),
        kv_cache_dtype=values.dtype(answer.get("kv_cache_dtype")),
        weights_bytes=_largest(values.gib(part.get("weight")) for part in memory),
        kv_bytes=_largest(values.gib(part.get("kvcache")) for part in memory),
    )


def model_info(body: bytes, _target: Target) -> Telemetry:
    answer = values.fields(values.parsed(body))
    model = values.name(answer.get("model_path"))
    if model is None:
        raise Unanswered(Reason.NONSENSE)
    return Telemetry(model=model, served_model=values.name(answer.get("served_model_name")))


def _tokens(samples: Samples) -> dict[str, int]:
    realtime = samples.all(*REALTIME)
    if realtime:
        found = {
            kind: _over_ranks([sample for sample in realtime if sample.labels.get("mode") in modes])
            for kind, modes in MODES.items()
        }
    else:
        found = {kind: _over_ranks(samples.all(*aliases)) for kind, aliases in FINISHED.items()}
    return {kind: tokens for kind, tokens in found.items() if tokens is not None}


def _over_ranks(samples: Sequence[Sample]) -> int | None:
    """Summed over data-parallel ranks and other labels; of the GPUs of one rank, which repeat it, the most.

    Only rank 0 reports unless --enable-metrics-for-all-schedulers.
    """
    gpus: dict[str, dict[tuple[str, ...], int]] = {}
    for sample in samples:
        if (found := values.count(sample.value)) is not None:
            rank = gpus.setdefault(sample.labels.get("dp_rank", ""), {})
            gpu = tuple(sample.labels.get(label, "") for label in _RANKS)
            rank[gpu] = rank.get(gpu, 0) + found
    return sum(max(rank.values()) for rank in gpus.values()) if gpus else None


def _sum(ranks: Sequence[Mapping[str, object]], key: str) -> int | None:
    """Over all ranks; None unless every rank says it."""
    found = [values.count(rank.get(key)) for rank in ranks]
    return values.total(found) if None not in found else None


def _usage(used: int | None, capacity: int | None, stated: Sequence[float | None]) -> float | None:
    if used is not None and capacity:
        return min(used / capacity, 1.0)
    return max((ratio for ratio in stated if ratio is not None), default=None)


def _largest(found: Iterable[int | None]) -> int | None:
    return max((value for value in found if value is not None), default=None)


ENGINE = Engine(
    (
        Question(("/v1/loads?include=core,memory",), loads, needed=True),
        Question(("/metrics",), metrics, needed=True),
        Question(("/model_info", "/get_model_info"), model_info, needed=True),
        Question(("/server_info", "/get_server_info"), server_info, steady=True),
        Question(("/v1/models",), openai.models, steady=True),
    )
)
