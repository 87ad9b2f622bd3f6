"""Families of deployments: what they are, what they should hold, what their engines say."""

from __future__ import annotations

from exporter.exposition.families.family import DEPLOYMENT, DEVICE, Family, counter, gauge, info

DEPLOYMENTS_RUNNING = gauge(
    "deployments_running", (), "Deployments whose processes exist; absent while processes cannot be read."
)
DEPLOYMENT_INFO = info(
    "deployment",
    (
        *DEPLOYMENT,
        "engine",
        "engine_version",
        "model",
        "served_model",
        "architecture",
        "quantization",
        "kv_cache_dtype",
        "tp",
        "pp",
        "dp",
        "ep",
        "speculative",
        "node_rank",
        "origin",
    ),
    "What a deployment is; model is the hub id, origin is declared or discovered.",
)
DEPLOYMENT_UP = gauge(
    "deployment_up", DEPLOYMENT, "Whether the engine answers; absent while it has no endpoint to ask."
)
DEPLOYMENT_START = gauge(
    "deployment_start_time_seconds", DEPLOYMENT, "When its first process started, Unix time."
)
DEPLOYMENT_STATE = gauge(
    "deployment_state",
    (*DEPLOYMENT, "state"),
    "1 for the present state: declared_only (not running), loading, warm, sleeping, unreachable,"
    " orphaned (its server is gone), unknown (no expectation).",
)
WEIGHTS_RESIDENT = gauge(
    "deployment_weights_resident_ratio",
    DEPLOYMENT,
    "How much of the mapped weights that tokens read is in RAM.",
)
MATCHES_DECLARATION = gauge(
    "deployment_matches_declaration",
    (*DEPLOYMENT, "field"),
    "0 where what runs differs from what was declared: model, quantization, tp, pp, dp, limits.",
)
EXPECTED_GPU = gauge(
    "expected_gpu_memory_bytes",
    (*DEPLOYMENT, *DEVICE, "component"),
    "What the engine will hold on a device once warm; the middle where a component is only estimated.",
)
EXPECTED_GPU_SUM = gauge(
    "expected_gpu_memory_sum_bytes",
    (*DEPLOYMENT, *DEVICE),
    "The same of all components together: what rules read, of many hosts, without adding up.",
)
TIGHTEST_HEADROOM = gauge(
    "deployment_gpu_memory_headroom_min_bytes",
    (*DEPLOYMENT, "bound"),
    "Headroom of the fullest device that it has a place on.",
)
EXPECTED_HOST = gauge(
    "expected_host_memory_bytes",
    (*DEPLOYMENT, "component"),
    "What the engine will hold in RAM once warm, mapped weights included.",
)
EXPECTED_BASIS = info(
    "expected_basis",
    (*DEPLOYMENT, "component", "basis"),
    "Where an expected component comes from: engine, checkpoint, architecture, estimate.",
)
DEVIATION = gauge(
    "gpu_memory_deviation_bytes", (*DEPLOYMENT, *DEVICE), "What a running deployment holds - what it should."
)
DEVIATION_RATIO = gauge(
    "gpu_memory_deviation_ratio", (*DEPLOYMENT, *DEVICE), "Deviation / what it should hold."
)
DEVIATION_TOLERANCE = gauge(
    "gpu_memory_deviation_tolerance_bytes",
    (*DEPLOYMENT, *DEVICE),
    "By how much the two may differ: tight where bytes are counted, wide where they are estimated.",
)
KV_CAPACITY = gauge(
    "kv_cache_capacity_tokens",
    DEPLOYMENT,
    "Tokens that the KV cache can hold, by the engine's word where it gives one.",
)
KV_USED = gauge("kv_cache_used_tokens", DEPLOYMENT, "Tokens in the KV cache that requests use now.")
KV_USAGE = gauge("kv_cache_usage_ratio", DEPLOYMENT, "Share of the KV cache that requests use now.")
KV_BYTES_PER_TOKEN = gauge(
    "kv_cache_bytes_per_token", DEPLOYMENT, "KV cache of one token on one rank, bytes."
)
KV_DEMAND = gauge(
    "kv_cache_demand_tokens", DEPLOYMENT, "Tokens that the configured sequences at full length would need."
)
KV_OVERCOMMIT = gauge("kv_cache_overcommit_ratio", DEPLOYMENT, "Demand / capacity of the KV cache.")
KV_PLANNED = gauge(
    "kv_cache_planned_tokens",
    DEPLOYMENT,
    "Tokens that the KV cache must hold by the operator's plan: planned_sequences x planned_context.",
)
KV_SHORTFALL = gauge(
    "kv_cache_plan_shortfall_tokens",
    DEPLOYMENT,
    "Planned tokens - capacity, by the engine's word or else the optimistic end of the estimate;"
    " above 0 the plan cannot be met.",
)
MAX_CONTEXT = gauge("deployment_max_context_tokens", DEPLOYMENT, "Longest request, tokens.")
MAX_SEQUENCES = gauge("deployment_max_sequences", DEPLOYMENT, "Requests that may run at once.")
FULL_LENGTH = gauge(
    "deployment_full_length_sequences", DEPLOYMENT, "Requests of full length that the KV cache holds at once."
)
REQUESTS_RUNNING = gauge("requests_running", DEPLOYMENT, "Requests that the engine works on.")
REQUESTS_WAITING = gauge("requests_waiting", DEPLOYMENT, "Requests that wait for the engine.")
PREEMPTIONS = counter(
    "preemptions", DEPLOYMENT, "Requests put back for want of KV cache, since the engine's start."
)
TOKENS = counter(
    "tokens",
    (*DEPLOYMENT, "kind"),
    "Tokens since the engine's start: prompt, prompt_cached, generated, draft_accepted, draft_rejected.",
)

FAMILIES: tuple[Family, ...] = (
    DEPLOYMENTS_RUNNING,
    DEPLOYMENT_INFO,
    DEPLOYMENT_UP,
    DEPLOYMENT_START,
    DEPLOYMENT_STATE,
    WEIGHTS_RESIDENT,
    MATCHES_DECLARATION,
    EXPECTED_GPU,
    EXPECTED_GPU_SUM,
    TIGHTEST_HEADROOM,
    EXPECTED_HOST,
    EXPECTED_BASIS,
    DEVIATION,
    DEVIATION_RATIO,
    DEVIATION_TOLERANCE,
    KV_CAPACITY,
    KV_USED,
    KV_USAGE,
    KV_BYTES_PER_TOKEN,
    KV_DEMAND,
    KV_OVERCOMMIT,
    KV_PLANNED,
    KV_SHORTFALL,
    MAX_CONTEXT,
    MAX_SEQUENCES,
    FULL_LENGTH,
    REQUESTS_RUNNING,
    REQUESTS_WAITING,
    PREEMPTIONS,
    TOKENS,
)
