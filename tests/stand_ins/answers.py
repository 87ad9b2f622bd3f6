"""What engines answer over HTTP, in the shapes of several releases; the values are the test's.

Shapes: vLLM 0.33.0 v1/metrics/loggers.py and 0.6.6 engine/metrics.py, SGLang 0.5.23 v1_loads.py and
http_server.py, llama.cpp b11434 tools/server, Ollama api/types.go, LMDeploy 0.18 metrics, TensorRT-LLM
metrics/collector.py, TGI 3 router, llama-cpp-python server/app.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

GB = 10**9
Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class State:
    """What a stand-in says of itself; `StandIn.update` changes it while it runs."""

    model: str
    served: str
    version: str
    max_model_len: int = 32_768
    max_num_seqs: int = 64
    tp: int = 1
    kv_capacity: int = 400_000
    """tokens of one rank's pool"""
    kv_usage: float = 0.0
    running: int = 0
    waiting: int = 0
    preemptions: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    weights_gb: float = 80.0
    kv_gb: float = 30.0
    quantization: str = ""
    secret: str = ""
    """what an endpoint gives away that nobody may repeat: a key, a prompt"""

    @property
    def kv_used(self) -> int:
        return round(self.kv_usage * self.kv_capacity)


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response."""

    body: str
    content_type: str = "application/json"
    status: int = 200

    def encode(self) -> bytes:
        body = self.body.encode()
        reason = {200: "OK", 401: "Unauthorized", 501: "Not Implemented", 503: "Service Unavailable"}
        head = (
            f"HTTP/1.1 {self.status} {reason.get(self.status, 'Other')}\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body


Answers = Mapping[str, Answer]
"""Path → what is answered there; any other is not found."""


def _json(value: object) -> Answer:
    return Answer(json.dumps(value))


def _text(*lines: str) -> Answer:
    return Answer("\n".join(lines) + "\n", "text/plain; version=0.0.4; charset=utf-8")


def _sample(name: str, labels: Mapping[str, object], value: float, kind: str = "gauge") -> str:
    inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
    family = name.removesuffix("_total") if kind == "counter" else name
    return f"# HELP {family} {family}.\n# TYPE {family} {kind}\n{name}{{{inside}}} {value}"


def _openai_models(owner: str, entry: Json) -> Answer:
    return _json({"object": "list", "data": [{"object": "model", "owned_by": owner, **entry}]})


def vllm(state: State) -> Answers:
    """0.33; 0.9 with the names of the year before; 0.6 with those of V0."""
    release = tuple(int(part) for part in state.version.split(".")[:2])
    labels: Json = {"model_name": state.served, "engine": "0"} if release >= (0, 8) else {}
    labels = labels or {"model_name": state.served}
    usage = "kv_cache_usage_perc" if release >= (0, 10) else "gpu_cache_usage_perc"
    blocks = state.kv_capacity // 16
    config: Json = {
        "block_size": 16,
        "cache_dtype": "auto",
        "enable_prefix_caching": True,
        "gpu_memory_utilization": 0.92,
        "kv_cache_memory_bytes": None,
        "num_cpu_blocks": None,
        "num_gpu_blocks": blocks,
        "sliding_window": None,
    }
    if release >= (0, 20):
        config |= {"kv_cache_size_tokens": state.kv_capacity, "kv_cache_max_concurrency": 12.2}
    if release >= (0, 8):
        config |= {"engine": "0"}
    lines = [
        _sample("vllm:num_requests_running", labels, state.running),
        _sample("vllm:num_requests_waiting", labels, state.waiting),
        _sample(f"vllm:{usage}", labels, state.kv_usage),
        _sample("vllm:cache_config_info", config, 1.0),
        _sample("vllm:num_preemptions_total", labels, state.preemptions, "counter"),
        _sample("vllm:prompt_tokens_total", labels, state.prompt_tokens, "counter"),
        _sample("vllm:generation_tokens_total", labels, state.generated_tokens, "counter"),
    ]
    if release < (0, 8):
        lines += [
            _sample("vllm:num_requests_swapped", labels, 0),
            _sample("vllm:cpu_cache_usage_perc", labels, 0.0),
        ]
    if release >= (0, 20):
        lines.append(
            _sample("vllm:prompt_tokens_cached_total", labels, state.cached_tokens, "counter"),
        )
    entry: Json = {"id": state.served, "root": state.model, "max_model_len": state.max_model_len}
    return {
        "/metrics": _text(*lines),
        "/version": _json({"version": state.version}),
        "/health": Answer(""),
        "/v1/models": _openai_models("vllm", {**entry, "parent": None, "permission": []}),
    }


def sglang(state: State) -> Answers:
    """0.5.23; 0.4 under the old routes, without `/v1/loads`, its numbers in `/metrics`."""
    memory: Json = {
        "weight": state.weights_gb,
        "kvcache": state.kv_gb,
        "startup_available": 140.0,
        "token_capacity": state.kv_capacity,
        "graph": {"decode": 1.2},
    }
    server: Json = {
        "model_path": state.model,
        "served_model_name": state.served,
        "tp_size": state.tp,
        "pp_size": 1,
        "dp_size": 1,
        "ep_size": 1,
        "quantization": state.quantization or None,
        "kv_cache_dtype": "auto",
        "context_length": state.max_model_len,
        "max_running_requests": state.max_num_seqs,
        "mem_fraction_static": 0.88,
        "api_key": state.secret,
        "admin_api_key": state.secret,
        "launch_command": f"python -m sglang.launch_server --api-key {state.secret}",
        "max_total_num_tokens": state.kv_capacity,
        "version": state.version,
        "internal_states": [{"memory_usage": memory, "last_gen_throughput": 31.5}],
    }
    model: Json = {"model_path": state.model, "tokenizer_path": state.model, "is_generation": True}
    entry: Json = {"id": state.served, "root": state.served, "max_model_len": state.max_model_len}
    common = {"/health": Answer(""), "/v1/models": _openai_models("sglang", entry)}
    if state.version.startswith("0.4"):
        labels: Json = {"model_name": state.served}
        return {
            **common,
            "/get_server_info": _json(server),
            "/get_model_info": _json(model),
            "/metrics": _text(
                _sample("sglang:token_usage", labels, state.kv_usage),
                _sample("sglang:num_used_tokens", labels, state.kv_used),
                _sample("sglang:num_running_reqs", labels, state.running),
                _sample("sglang:num_queue_reqs", labels, state.waiting),
                _sample("sglang:prompt_tokens_total", labels, state.prompt_tokens, "counter"),
                _sample("sglang:generation_tokens_total", labels, state.generated_tokens, "counter"),
            ),
        }
    load: Json = {
        "dp_rank": 0,
        "num_running_reqs": state.running,
        "num_waiting_reqs": state.waiting,
        "num_used_tokens": state.kv_used,
        "max_total_num_tokens": state.kv_capacity,
        "token_usage": state.kv_usage,
        "memory": {
            "weight_gb": state.weights_gb,
            "kv_cache_gb": state.kv_gb,
            "graph_gb": 1.2,
            "token_capacity": state.kv_capacity,
        },
    }
    return {
        **common,
        "/server_info": _json(server),
        "/get_server_info": _json(server),
        "/model_info": _json({**model, "served_model_name": state.served}),
        "/get_model_info": _json(model),
        "/v1/loads": _json({"timestamp": "2026-11-21T00:00:00Z", "version": state.version, "loads": [load]}),
    }


def llama_server(state: State) -> Answers:
    """b11434: no KV metric, so `/slots` with the tokens in each; four slots share one cache."""
    slots = 4
    busy = [slot < state.running for slot in range(slots)]
    share = state.kv_used // max(1, sum(busy))

    def slot(number: int) -> Json:
        told: Json = {
            "id": number,
            "n_ctx": state.kv_capacity,
            "speculative": False,
            "is_processing": busy[number],
        }
        if busy[number]:
            told |= {"id_task": 7 + number, "n_prompt_tokens": share, "prompt": state.secret}
            told |= {"next_token": [{"n_decoded": 12, "n_remain": -1}]}
        return told

    settings: Json = {"n_ctx": state.kv_capacity, "params": {"seed": 1}}
    meta: Json = {"n_ctx": state.kv_capacity, "n_ctx_train": 163_840, "size": int(state.weights_gb * GB)}
    return {
        "/health": _json({"status": "ok"}),
        "/props": _json(
            {
                "default_generation_settings": settings,
                "total_slots": slots,
                "model_alias": state.served,
                "model_path": state.model,
                "model_ftype": state.quantization,
                "build_info": state.version,
                "is_sleeping": False,
                "endpoint_slots": True,
                "endpoint_metrics": False,
                "chat_template": state.secret,
            }
        ),
        "/slots": _json([slot(number) for number in range(slots)]),
        "/v1/models": _openai_models("llamacpp", {"id": state.served, "meta": meta}),
        "/metrics": Answer('{"error": {"code": 501}}', status=501),
    }


def ollama(state: State) -> Answers:
    """What is loaded and how much of it lies on GPUs; no numbers of the cache."""
    size = int((state.weights_gb + state.kv_gb) * GB)
    loaded: Json = {
        "name": state.served,
        "model": state.served,
        "size": size,
        "size_vram": size,
        "digest": "0a8c266910232fd3291e71e5ba1e058cc5af9d411192cf88b6d30e92b6e73163",
        "details": {
            "format": "gguf",
            "family": "deepseek2",
            "families": ["deepseek2"],
            "parameter_size": "671.0B",
            "quantization_level": state.quantization,
        },
        "expires_at": "2026-11-21T10:00:00Z",
        "context_length": state.max_model_len,
    }
    return {
        "/api/version": _json({"version": state.version}),
        "/api/ps": _json({"models": [loaded]}),
        "/api/tags": _json({"models": [loaded]}),
    }


def ollama_idle(state: State) -> Answers:
    """Nothing is loaded."""
    return {"/api/version": _json({"version": state.version}), "/api/ps": _json({"models": []})}


def lmdeploy(state: State) -> Answers:
    """0.18: `/metrics` unless switched off; `/v1/models` without a length."""
    labels: Json = {"model_name": state.served, "engine": "0"}
    config: Json = {**labels, "backend": "pytorch", "tp": state.tp, "session_len": state.max_model_len}
    return {
        "/metrics": _text(
            _sample("lmdeploy:gpu_cache_usage_perc", labels, state.kv_usage),
            _sample("lmdeploy:num_requests_running", labels, state.running),
            _sample("lmdeploy:num_requests_waiting", labels, state.waiting),
            _sample("lmdeploy:backend_config_info", config, 1.0),
            _sample("lmdeploy:prompt_tokens_total", labels, state.prompt_tokens, "counter"),
            _sample("lmdeploy:generation_tokens_total", labels, state.generated_tokens, "counter"),
        ),
        "/v1/models": _openai_models("lmdeploy", {"id": state.served, "root": state.served}),
        "/health": Answer(""),
    }


def tensorrt_llm(state: State) -> Answers:
    """With `return_perf_metrics`. `/metrics` drains a queue that belongs to somebody else."""
    labels: Json = {"model_name": state.served, "engine_type": "pytorch"}
    blocks = state.kv_capacity // 32
    return {
        "/prometheus/metrics": _text(
            _sample("trtllm_kv_cache_utilization", labels, state.kv_usage),
            _sample("trtllm_kv_cache_max_blocks", labels, blocks),
            _sample("trtllm_kv_cache_used_blocks", labels, round(blocks * state.kv_usage)),
            _sample("trtllm_kv_cache_tokens_per_block", labels, 32),
            _sample("trtllm_num_requests_running", labels, state.running),
            _sample("trtllm_num_requests_waiting", labels, state.waiting),
            _sample("trtllm_prompt_tokens_total", labels, state.prompt_tokens, "counter"),
            _sample("trtllm_generation_tokens_total", labels, state.generated_tokens, "counter"),
        ),
        "/metrics": _json([{"iter": 1}]),
        "/version": _json({"version": state.version}),
        "/health": Answer(""),
        "/v1/models": _openai_models("tensorrt_llm", {"id": state.served}),
    }


def tgi(state: State) -> Answers:
    """3.x: no use of the cache, tokens in a histogram."""
    lines = [
        _sample("tgi_batch_current_size", {}, state.running),
        _sample("tgi_batch_current_max_tokens", {}, state.kv_used),
        _sample("tgi_queue_size", {}, state.waiting),
        "# TYPE tgi_request_generated_tokens histogram",
        f'tgi_request_generated_tokens_bucket{{le="+Inf"}} {state.running}',
        f"tgi_request_generated_tokens_sum {state.generated_tokens}",
        f"tgi_request_generated_tokens_count {state.running}",
    ]
    return {
        "/info": _json(
            {
                "model_id": state.model,
                "model_sha": "2c06fd8b",
                "max_concurrent_requests": 128,
                "max_input_tokens": state.max_model_len - 1024,
                "max_total_tokens": state.max_model_len,
                "router": "text-generation-router",
                "version": state.version,
                "docker_label": None,
            }
        ),
        "/metrics": _text(*lines),
        "/health": Answer(""),
    }


def llama_cpp_python(state: State) -> Answers:
    """Names and nothing else."""
    return {"/v1/models": _openai_models("me", {"id": state.served, "permissions": []})}
