"""What the engines of a recorded host answer over HTTP: shapes of their releases, numbers of the scene.

Shapes: vLLM 0.33 v1/metrics/loggers.py and config/cache.py, SGLang 0.5.23 v1_loads.py and internal_state.py,
llama.cpp b11434 tools/server: the same that `engines/telemetry` reads and its tests have recorded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from exporter.demo.scene import Serving

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Answer:
    body: str
    content_type: str = "application/json"
    status: int = 200


NOT_FOUND = Answer('{"detail": "Not Found"}', status=404)


def answer(serving: Serving, path: str) -> Answer:
    """The answer to a GET of `path`, without its query."""
    return _ENGINES[serving.engine.kind](serving).get(path, NOT_FOUND)


def _json(value: object) -> Answer:
    return Answer(json.dumps(value))


def _page(samples: Mapping[str, float], labels: Json, *more: str) -> Answer:
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    lines = [
        f"{name}{{{inside}}} {value}" if inside else f"{name} {value}" for name, value in samples.items()
    ]
    return Answer("\n".join((*lines, *more)) + "\n", "text/plain; version=0.0.4; charset=utf-8")


def _models(owner: str, entry: Json) -> Answer:
    return _json({"object": "list", "data": [{"object": "model", "owned_by": owner, **entry}]})


def _vllm(now: Serving) -> Mapping[str, Answer]:
    engine = now.engine
    labels: Json = {"engine": "0", "model_name": engine.served}
    config = {
        "block_size": 64,
        "cache_dtype": "auto",
        "engine": 0,
        "kv_cache_size_tokens": engine.kv_capacity_tokens,
        "kv_cache_max_concurrency": round(engine.kv_capacity_tokens / engine.max_model_len, 2),
        "num_gpu_blocks": engine.kv_capacity_tokens // 64,
    }
    info = ",".join(f'{key}="{value}"' for key, value in config.items())
    samples = {
        "vllm:num_requests_running": now.running,
        "vllm:num_requests_waiting": now.waiting,
        "vllm:kv_cache_usage_perc": round(now.kv_usage, 4),
        "vllm:num_preemptions_total": now.preemptions,
        "vllm:prompt_tokens_total": now.prompt_tokens,
        "vllm:prompt_tokens_cached_total": now.cached_tokens,
        "vllm:generation_tokens_total": now.generated_tokens,
    }
    card: Json = {"id": engine.served, "root": engine.model, "parent": None}
    return {
        "/metrics": _page(samples, labels, f"vllm:cache_config_info{{{info}}} 1.0"),
        "/version": _json({"version": engine.version}),
        "/v1/models": _models("vllm", {**card, "max_model_len": engine.max_model_len, "permission": []}),
    }


def _sglang(now: Serving) -> Mapping[str, Answer]:
    """One entry for each data-parallel rank; what does not divide goes to the first."""
    engine = now.engine
    dp = engine.dp
    memory: Json = {"weight_gb": engine.weights_gib, "kv_cache_gb": engine.kv_gib, "graph_gb": 1.6}
    loads = [
        {
            "dp_rank": rank,
            "num_running_reqs": _part(now.running, rank, dp),
            "num_waiting_reqs": _part(now.waiting, rank, dp),
            "num_used_tokens": _part(now.kv_used_tokens, rank, dp),
            "max_total_num_tokens": _part(engine.kv_capacity_tokens, rank, dp),
            "token_usage": round(now.kv_usage, 4),
            "memory": memory,
        }
        for rank in range(dp)
    ]
    samples = {
        'sglang:realtime_tokens_total{mode="prefill_compute"}': now.prompt_tokens - now.cached_tokens,
        'sglang:realtime_tokens_total{mode="prefill_cache"}': now.cached_tokens,
        'sglang:realtime_tokens_total{mode="decode"}': now.generated_tokens,
        "sglang:num_retracted_requests_total": now.preemptions,
    }
    model: Json = {"model_path": engine.model, "served_model_name": engine.served}
    server: Json = {
        **model,
        "max_running_requests": engine.max_num_seqs,
        "context_length": engine.max_model_len,
        "kv_cache_dtype": "auto",
        "version": engine.version,
    }
    return {
        "/v1/loads": _json({"version": engine.version, "loads": loads}),
        "/metrics": _page(samples, {}),
        "/model_info": _json(model),
        "/server_info": _json(server),
        "/v1/models": _models(
            "sglang", {"id": engine.served, "root": engine.served, "max_model_len": engine.max_model_len}
        ),
    }


def _llama(now: Serving) -> Mapping[str, Answer]:
    """Slots that are busy share what is used."""
    engine = now.engine
    running = min(now.running, engine.max_num_seqs)
    used = now.kv_used_tokens
    slots = [
        {"id": slot, "n_ctx": engine.max_model_len, "is_processing": slot < running}
        | ({"id_task": 7, "n_prompt_tokens": _part(used, slot, running)} if slot < running else {})
        for slot in range(engine.max_num_seqs)
    ]
    settings: Json = {"n_ctx": engine.max_model_len}
    samples = {
        "llamacpp:prompt_tokens_total": now.prompt_tokens - now.cached_tokens,
        "llamacpp:prompt_tokens_cached_total": now.cached_tokens,
        "llamacpp:tokens_predicted_total": now.generated_tokens,
        "llamacpp:requests_processing": running,
        "llamacpp:requests_deferred": now.waiting,
    }
    return {
        "/props": _json(
            {
                "default_generation_settings": settings,
                "total_slots": engine.max_num_seqs,
                "model_alias": engine.served,
                "model_path": engine.model,
                "model_ftype": engine.quantization,
                "build_info": engine.version,
                "is_sleeping": False,
            }
        ),
        "/metrics": _page(samples, {}),
        "/slots": _json(slots),
        "/v1/models": _models("llamacpp", {"id": engine.served, "meta": {}}),
    }


_ENGINES: Mapping[str, Callable[[Serving], Mapping[str, Answer]]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "llama.cpp": _llama,
}


def _part(whole: int, index: int, count: int) -> int:
    """Share of the `index`-th of `count`; the first takes what is left over."""
    return whole // count + (whole % count if index == 0 else 0)
