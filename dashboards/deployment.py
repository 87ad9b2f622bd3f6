"""Deployments across all their nodes: is this memory what the model should need, and does it suffice?"""

from __future__ import annotations

from board import (
    COMPONENT_COLOURS,
    DEPLOYMENT,
    DEPLOYMENTS,
    HOST,
    HOSTS,
    JOBS,
    board,
    held_by_deployments,
    lowest,
    over_threshold,
    to_board,
)
from links import links
from panels import (
    NO_WANTED,
    NONE_WANTED,
    YES_WANTED,
    Panel,
    Query,
    Row,
    coloured,
    lines,
    override,
    stacked,
    stat,
    table,
    wide,
    words,
)

# Several hosts may carry one deployment; what belongs to it is summed over them.
ACROSS = "job, deployment"
ON_HOST = "instance, job, deployment"
HELD = held_by_deployments(f'{HOST}, holder=~"$deployment"')
EXPECTED = f"deepseek_expected_gpu_memory_bytes{{{DEPLOYMENT}}}"
DEVIATION = f"deepseek_gpu_memory_deviation_bytes{{{DEPLOYMENT}}}"
TOLERANCE = f"deepseek_gpu_memory_deviation_tolerance_bytes{{{DEPLOYMENT}}}"
KV_USAGE = f"deepseek_kv_cache_usage_ratio{{{DEPLOYMENT}}}"
INFO = f"deepseek_deployment_info{{{DEPLOYMENT}}}"
STATES = words(
    warm="green", loading="blue", sleeping="blue", declared_only="orange", unreachable="red", orphaned="red"
)


def per_second(family: str, by: str) -> str:
    return f"sum by ({by}) (rate({family}{{{DEPLOYMENT}}}[$__rate_interval]))"


def stats() -> tuple[Panel, ...]:
    return (
        stat(
            "Expected",
            "GPU memory that the chosen deployments hold once warm, over all their nodes.",
            "bytes",
            f"sum({EXPECTED})",
            decimals=1,
        ),
        stat(
            "Observed",
            "GPU memory that their processes hold now, over all their nodes.",
            "bytes",
            f"sum({HELD})",
            decimals=1,
        ),
        stat(
            "Devices off",
            "Pairs of deployment and device whose observed memory is off the expected by more than the "
            "tolerance.",
            "short",
            f"sum(abs({DEVIATION}) > bool on ({ON_HOST}, uuid) {TOLERANCE})",
            NONE_WANTED,
        ),
        stat(
            "KV cache in use",
            "Share of the fullest KV cache that requests use now.",
            "percentunit",
            f"max({KV_USAGE})",
            decimals=1,
        ),
        stat(
            "KV saturated",
            "KV caches in use above the threshold of their host. A full batch alone is no alarm: see waiting "
            "requests and preemptions.",
            "short",
            f"sum({over_threshold(KV_USAGE, 'kv_cache_saturated_ratio')})",
            NONE_WANTED,
        ),
        stat(
            "Running",
            "Requests that the engines work on.",
            "short",
            f"sum(deepseek_requests_running{{{DEPLOYMENT}}})",
            decimals=0,
        ),
        stat(
            "Waiting",
            "Requests that wait for the engines.",
            "short",
            f"sum(deepseek_requests_waiting{{{DEPLOYMENT}}})",
            decimals=0,
        ),
        stat(
            "Generated",
            "Tokens generated per second, all chosen deployments.",
            "short",
            f'sum(rate(deepseek_tokens_total{{{DEPLOYMENT}, kind="generated"}}[$__rate_interval]))',
            decimals=1,
        ),
    )


def what_runs() -> Panel:
    described = f"{ON_HOST}, engine, engine_version, model, quantization, tp, pp, dp, node_rank"
    started = f"deepseek_deployment_start_time_seconds{{{DEPLOYMENT}}}"
    return table(
        "What runs where",
        "One row for each deployment and host. Nodes: hosts that carry it. As declared: whether what runs "
        "is what was declared; empty where nothing was.",
        "short",
        (
            Query(f"max by ({described}) ({INFO})"),
            Query(f"max by ({ON_HOST}, state) (deepseek_deployment_state{{{DEPLOYMENT}}} == 1)"),
            Query(
                f"count by ({ACROSS}) ({INFO}) * on ({ACROSS}) group_right () max by ({ON_HOST}) ({INFO})",
                column="Nodes",
            ),
            Query(f"max by ({ON_HOST}) (time() - {started})", column="Up for"),
            Query(
                f"min by ({ON_HOST}) (deepseek_deployment_matches_declaration{{{DEPLOYMENT}}})",
                column="As declared",
            ),
        ),
        {
            "deployment": "Deployment",
            "instance": "Host",
            "state": "State",
            "engine": "Engine",
            "engine_version": "Version",
            "model": "Model",
            "quantization": "Quantization",
            "tp": "TP",
            "pp": "PP",
            "dp": "DP",
            "node_rank": "Node",
        },
        hidden=("job",),
        height=8,
        decimals=0,
        overrides=(
            coloured("State", mappings=[STATES]),
            coloured("As declared", mappings=[YES_WANTED]),
            override("byName", "Up for", unit="s", decimals=1),
            *(wide(column, 45) for column in ("TP", "PP", "DP")),
            wide("Host", 110),
            wide("Model", 225),
            wide("Version", 75),
            wide("Node", 55),
            wide("Up for", 95),
            wide("As declared", 100),
            wide("Engine", 80),
            wide("Quantization", 100),
            wide("Nodes", 65),
            wide("Deployment", 105),
            wide("State", 105),
            to_board("Host", "Host and GPU", "deepseek-host-and-gpu", ("instance", "Host")),
        ),
        sort="Deployment",
    )


def memory() -> tuple[Panel, ...]:
    return (
        lines(
            "GPU memory: expected and observed, across nodes",
            "What each deployment holds on all its devices and hosts, and (dashed) what it should hold "
            "once warm.",
            "bytes",
            (
                Query(f"sum by ({ACROSS}) ({HELD})", "{{deployment}}"),
                Query(f"sum by ({ACROSS}) ({EXPECTED})", "expected {{deployment}}"),
            ),
            limits="expected",
        ),
        stacked(
            "GPU memory expected, by component",
            "What the chosen deployments hold once warm, over all their devices and hosts. Where each "
            "number comes from: deepseek_expected_basis_info.",
            "bytes",
            (Query(f"sum by (component) ({EXPECTED})", "{{component}}"),),
            colours=COMPONENT_COLOURS,
        ),
        lines(
            "Deviation of devices",
            "Observed − expected of the devices that are farthest off. Dashed: the widest tolerance, both "
            "ways. Far below: a wrong quantization or placement; far above: a leak.",
            "bytes",
            (
                Query(f"max by ({ON_HOST}) ({DEVIATION})", "{{deployment}} {{instance}} highest"),
                Query(f"min by ({ON_HOST}) ({DEVIATION})", "{{deployment}} {{instance}} lowest"),
                Query(f"max({TOLERANCE})", "tolerance, above"),
                Query(f"-max({TOLERANCE})", "tolerance, below"),
            ),
            limits="tolerance",
            from_zero=False,
        ),
        lines(
            "Plan error",
            "Expected / observed − 1 of what the engine itself says it has: the planner grades itself. "
            "Dashed: the threshold, both ways.",
            "percentunit",
            (
                Query(
                    f"deepseek_exporter_plan_error_ratio{{{DEPLOYMENT}}}",
                    "{{deployment}} {{component}} {{instance}}",
                ),
                Query(lowest("plan_error_ratio"), "threshold, above"),
                Query(f"-{lowest('plan_error_ratio')}", "threshold, below"),
            ),
            limits="threshold",
            from_zero=False,
        ),
        lines(
            "RAM: expected and held",
            "What each deployment holds in RAM, mapped weights included, and (dashed) what it should hold.",
            "bytes",
            (
                Query(
                    f'sum by (job, holder) (deepseek_host_memory_held_bytes{{{HOST}, holder=~"$deployment", '
                    'holder!="other"})',
                    "{{holder}}",
                ),
                Query(
                    f"sum by ({ACROSS}) (deepseek_expected_host_memory_bytes{{{DEPLOYMENT}}})",
                    "expected {{deployment}}",
                ),
            ),
            limits="expected",
        ),
        lines(
            "Mapped weights in RAM",
            "How much of the mapped weights is resident. Below the threshold (dashed) weights are read "
            "again from disk for every token.",
            "percentunit",
            (
                Query(
                    f"deepseek_deployment_weights_resident_ratio{{{DEPLOYMENT}}}",
                    "{{deployment}} {{instance}}",
                ),
                Query(lowest("weights_resident_ratio"), "threshold"),
            ),
            limits="threshold",
            legend=True,
            custom={"axisSoftMax": 1},
        ),
    )


def serving() -> tuple[Panel, ...]:
    def each(family: str) -> str:
        return f"max by ({ON_HOST}) ({family}{{{DEPLOYMENT}}})"

    return (
        lines(
            "KV cache: tokens",
            "Tokens in use. Dashed: what the cache can hold, and what the deployment was planned for.",
            "short",
            (
                Query(each("deepseek_kv_cache_used_tokens"), "{{deployment}} {{instance}}"),
                Query(each("deepseek_kv_cache_planned_tokens"), "planned {{deployment}}"),
                Query(each("deepseek_kv_cache_capacity_tokens"), "capacity {{deployment}}"),
            ),
            limits="(capacity|planned)",
        ),
        lines(
            "KV cache: share in use",
            "Share that requests use now; dashed: above this it is saturated, if requests wait or are "
            "preempted.",
            "percentunit",
            (
                Query(KV_USAGE, "{{deployment}} {{instance}}"),
                Query(lowest("kv_cache_saturated_ratio"), "threshold"),
            ),
            limits="threshold",
            legend=True,
        ),
        lines(
            "Requests",
            "Requests that each engine works on, and that wait for it.",
            "short",
            (
                Query(
                    f"sum by ({ACROSS}) (deepseek_requests_running{{{DEPLOYMENT}}})", "{{deployment}} running"
                ),
                Query(
                    f"sum by ({ACROSS}) (deepseek_requests_waiting{{{DEPLOYMENT}}})", "{{deployment}} waiting"
                ),
            ),
        ),
        lines(
            "Preemptions",
            "Requests put back for want of KV cache, per second: work done twice.",
            "reqps",
            (Query(per_second("deepseek_preemptions_total", ACROSS), "{{deployment}}"),),
        ),
        lines(
            "Tokens per second",
            "By kind: prompt (computed), prompt_cached (found in the cache), generated.",
            "short",
            (Query(per_second("deepseek_tokens_total", f"{ACROSS}, kind"), "{{deployment}} {{kind}}"),),
            width=24,
        ),
        table(
            "Limits",
            "What each deployment was started for, against its KV cache. Overcommit: demand of all "
            "sequences at full length / capacity. Below plan: the cache cannot hold what was planned for.",
            "short",
            (
                Query(each("deepseek_deployment_max_context_tokens"), column="Context"),
                Query(each("deepseek_deployment_max_sequences"), column="Sequences"),
                Query(each("deepseek_deployment_full_length_sequences"), column="Full length"),
                Query(each("deepseek_kv_cache_capacity_tokens"), column="KV capacity"),
                Query(each("deepseek_kv_cache_demand_tokens"), column="Demand"),
                Query(each("deepseek_kv_cache_overcommit_ratio"), column="Overcommit"),
                Query(
                    f"{each('deepseek_kv_cache_capacity_tokens')} < bool on ({ON_HOST}) "
                    f"{each('deepseek_kv_cache_planned_tokens')}",
                    column="Below plan",
                ),
            ),
            {"deployment": "Deployment", "instance": "Host"},
            hidden=("job",),
            height=7,
            decimals=0,
            overrides=(
                *(override("byName", one, unit="locale") for one in ("Context", "KV capacity", "Demand")),
                override("byName", "Full length", decimals=1),
                override("byName", "Overcommit", unit="percentunit", decimals=0),
                coloured("Below plan", mappings=[NO_WANTED]),
                wide("Deployment", 105),
            ),
            sort="Deployment",
        ),
    )


def deployment() -> dict[str, object]:
    """One deployment, or a few, across all their nodes."""
    return board(
        "deployment",
        "deployment",
        "Expected against observed memory, KV cache, requests and tokens of deployments, across their nodes.",
        (JOBS, HOSTS, DEPLOYMENTS),
        (
            *stats(),
            what_runs(),
            Row("Memory"),
            *memory(),
            Row("Serving"),
            *serving(),
            Row("Links between nodes"),
            *links(),
        ),
    )
