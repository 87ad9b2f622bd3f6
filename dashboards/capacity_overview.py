"""The board for whoever is on call: is anything over, where, held by whom, and what do we not see?

Queries use the families of docs/METRICS.md and no recording rule, so that the board works before the rules
are loaded; only what tells of alerts needs them. Decisions are read at the low bound, as the pages are.
"""

from __future__ import annotations

from board import (
    DEPLOYMENT,
    DEPLOYMENTS,
    DEVICE,
    GPUS,
    HOST,
    HOSTS,
    JOBS,
    LOW,
    PER_DEVICE,
    VERDICT,
    board,
    gpu_verdict,
    lowest,
    over_threshold,
    to_board,
)
from panels import (
    BLUE,
    GREEN,
    LEFT_STEPS,
    NO_WANTED,
    NONE_WANTED,
    ORANGE,
    RED,
    WHOLE_STEPS,
    Panel,
    Query,
    bars,
    coloured,
    lines,
    override,
    stat,
    table,
    wide,
    words,
)

# Alerts about the whole fleet have no instance; they are shown whatever hosts are chosen.
ALERT = 'alertname=~"DeepSeek.+", alertname!="DeepSeekWatchdog", instance=~"(|$instance)"'
SEVERITY = words(critical=RED, warning=ORANGE, info=BLUE)
DEVICE_STATE = words(
    up=GREEN,
    released=BLUE,
    stalled=RED,
    lost=RED,
    error=RED,
    driver_down=RED,
    source_down=RED,
    no_permission=RED,
)

PER_SOURCE = "instance, job, source"
_EXPECTED = f"deepseek_exporter_source_expected{{{HOST}}}"
_SOURCE_DOWN = f"(1 - deepseek_exporter_source_up{{{HOST}}})"
DOWN_THOUGH_EXPECTED = f"{_EXPECTED} * on ({PER_SOURCE}) {_SOURCE_DOWN}"
PER_DEPLOYMENT = "instance, job, deployment"
OVERCOMMIT = f"deepseek_gpu_memory_overcommit_ratio{{{DEVICE}, {LOW}}}"


def least_left(headroom: str) -> Query:
    """The ten hosts with the least of it."""
    return Query(f"bottomk(10, min by (instance) ({headroom}))", "{{instance}}")


def stats() -> tuple[Panel, ...]:
    firing = f'ALERTS{{{ALERT}, alertstate="firing"}}'
    return (
        stat(
            "GPU committed",
            "Committed / capacity of the fullest device, low bound: above 100 % what is loaded, at its own "
            "limits, does not fit.",
            "percentunit",
            f"max(deepseek_gpu_memory_overcommit_ratio{{{DEVICE}, {LOW}}})",
            WHOLE_STEPS,
            decimals=1,
        ),
        stat(
            "GPUs over",
            "Devices above the threshold in force on their host.",
            "short",
            f"sum({over_threshold(OVERCOMMIT, 'vram_overcommit_ratio')})",
            NONE_WANTED,
        ),
        stat(
            "GPU headroom",
            "Capacity − committed of the fullest device, low bound. Negative is overcommitted.",
            "bytes",
            f"min(deepseek_gpu_memory_headroom_bytes{{{DEVICE}, {LOW}}})",
            LEFT_STEPS,
            decimals=1,
        ),
        stat(
            "RAM committed",
            "Committed / capacity of the fullest host's RAM, low bound.",
            "percentunit",
            f"max(deepseek_host_memory_overcommit_ratio{{{HOST}, {LOW}}})",
            WHOLE_STEPS,
            decimals=1,
        ),
        stat(
            "RAM headroom",
            "Capacity − committed of the fullest host's RAM, low bound. Negative is overcommitted.",
            "bytes",
            f"min(deepseek_host_memory_headroom_bytes{{{HOST}, {LOW}}})",
            LEFT_STEPS,
            decimals=1,
        ),
        stat(
            "Alerts firing",
            "Alerts of this exporter that fire now. Counted only where the rules are evaluated: the "
            "watchdog vouches.",
            "short",
            f'count({firing}) or count(ALERTS{{alertname="DeepSeekWatchdog", alertstate="firing"}}) * 0',
            NONE_WANTED,
            absent="rules not loaded",
        ),
        stat(
            "Sources down",
            "Sources that are expected on their host and do not answer; their figures are absent from this "
            "board.",
            "short",
            f"sum({DOWN_THOUGH_EXPECTED})",
            NONE_WANTED,
        ),
        stat(
            "Hosts silent",
            "Exporters that Prometheus cannot scrape; everything about them is absent from this board.",
            "short",
            f"sum(1 - up{{{HOST}}})",
            NONE_WANTED,
        ),
    )


def alerts_and_headroom() -> tuple[Panel, ...]:
    return (
        table(
            "Alerts",
            "Alerts of this exporter, firing or pending. No rows: none. What to do: docs/ALERTS.md, by the "
            "alert's name.",
            "short",
            (Query(f"ALERTS{{{ALERT}}}"),),
            {
                "severity": "Severity",
                "alertstate": "State",
                "alertname": "Alert",
                "instance": "Host",
                "gpu": "GPU",
                "source": "Source",
            },
            hidden=("job", "uuid"),
            width=12,
            height=7,
            overrides=(
                coloured("Severity", mappings=[SEVERITY]),
                wide("Severity", 75),
                wide("State", 75),
                wide("Alert", 250),
                to_board("Host", "Host and GPU", "deepseek-host-and-gpu", ("instance", "Host")),
                wide("GPU", 50),
            ),
            sort="Severity",
        ),
        bars(
            "GPU headroom by host",
            "The ten hosts whose fullest device has the least left, low bound.",
            "bytes",
            least_left(f"deepseek_gpu_memory_headroom_bytes{{{DEVICE}, {LOW}}}"),
        ),
        bars(
            "RAM headroom by host",
            "The ten hosts with the least RAM left, low bound.",
            "bytes",
            least_left(f"deepseek_host_memory_headroom_bytes{{{HOST}, {LOW}}}"),
        ),
    )


def devices() -> tuple[Panel, ...]:
    def summed(family: str, *matchers: str) -> str:
        return f"sum by ({PER_DEVICE}) ({family}{{{', '.join((DEVICE, *matchers))}}})"

    return (
        table(
            "GPU memory by host and device",
            "Total = used + free + reserved by the driver. Expected: what the deployments on the device "
            "hold once warm. Committed: what must stay free for them plus what others hold. Others: "
            "memory of processes that belong to no deployment, or could not be attributed.",
            "bytes",
            (
                Query(f"max by ({PER_DEVICE}, name) (deepseek_gpu_info{{{DEVICE}}})"),
                Query(f"max by ({PER_DEVICE}, state) (deepseek_gpu_state{{{DEVICE}}} == 1)"),
                Query(f"topk by ({PER_DEVICE}) (1, deepseek_gpu_memory_held_bytes{{{DEVICE}}})"),
                Query(summed("deepseek_gpu_memory_total_bytes"), column="Total"),
                Query(summed("deepseek_expected_gpu_memory_bytes"), column="Expected"),
                Query(summed("deepseek_gpu_memory_used_bytes"), column="Used"),
                Query(
                    summed("deepseek_gpu_memory_held_bytes", 'holder_kind!="deployment"'),
                    column="Others",
                ),
                Query(summed("deepseek_gpu_memory_committed_bytes", LOW), column="Committed"),
                Query(summed("deepseek_gpu_memory_headroom_bytes", LOW), column="Headroom"),
                Query(f"max by ({PER_DEVICE}) ({OVERCOMMIT})", column="Overcommit"),
                Query(f"max by ({PER_DEVICE}) ({gpu_verdict(OVERCOMMIT)})", column="Verdict"),
            ),
            {
                "instance": "Host",
                "gpu": "GPU",
                "name": "Device",
                "state": "State",
                "holder": "Largest holder",
            },
            hidden=("job", "uuid", "holder_kind"),
            height=11,
            overrides=(
                coloured("Headroom", LEFT_STEPS),
                override("byName", "Overcommit", unit="percentunit"),
                coloured("Verdict", unit="none", decimals=0, mappings=[VERDICT]),
                to_board(
                    "Host", "Host and GPU", "deepseek-host-and-gpu", ("instance", "Host"), ("gpu", "GPU")
                ),
                coloured("State", mappings=[DEVICE_STATE]),
                wide("Host", 105),
                wide("GPU", 50),
                wide("Device", 190),
                wide("Largest holder", 120),
                wide("State", 60),
                wide("Overcommit", 100),
                wide("Verdict", 70),
            ),
            sort="Overcommit",
            falling=True,
        ),
        lines(
            "GPU memory committed, fullest device of each host",
            "Committed / capacity, low bound. Dashed: the thresholds in force. A line above the upper "
            "dashes is overcommitted before anything has run out.",
            "percentunit",
            (
                Query(f"max by (instance) ({OVERCOMMIT})", "{{instance}}"),
                Query(lowest("vram_overcommit_ratio"), "threshold"),
                Query(lowest("vram_overcommit_near_ratio"), "threshold, near"),
            ),
            limits="threshold",
            legend=True,
        ),
        lines(
            "GPU memory used, by host",
            "Observed memory / total of all devices of a host, without what the driver reserves. Engines "
            "that take their share at start stand flat near the top: that is no alarm.",
            "percentunit",
            (
                Query(
                    f"sum by (instance) (deepseek_gpu_memory_used_bytes{{{DEVICE}}}) "
                    f"/ sum by (instance) (deepseek_gpu_memory_total_bytes{{{DEVICE}}})",
                    "{{instance}}",
                ),
            ),
        ),
    )


def deployments() -> tuple[Panel, ...]:
    def expected(where: str, *matchers: str) -> str:
        chosen = ", ".join((DEPLOYMENT, *matchers))
        return f"sum by ({PER_DEPLOYMENT}) (deepseek_expected_{where}_memory_bytes{{{chosen}}})"

    def tokens(family: str) -> str:
        return f"max by ({PER_DEPLOYMENT}) ({family}{{{DEPLOYMENT}}})"

    described = f"{PER_DEPLOYMENT}, engine, model, quantization, tp"
    return (
        table(
            "Deployments",
            "What each deployment should hold once warm, over all its devices, by component; RAM beside it. "
            "Requests: how many of the configured length the KV cache holds at once.",
            "bytes",
            (
                Query(f"max by ({described}) (deepseek_deployment_info{{{DEPLOYMENT}}})"),
                Query(f"max by ({PER_DEPLOYMENT}, state) (deepseek_deployment_state{{{DEPLOYMENT}}} == 1)"),
                Query(expected("gpu", 'component="weights"'), column="Weights"),
                Query(expected("gpu", 'component="kv_cache"'), column="KV cache"),
                Query(expected("gpu", 'component!~"weights|kv_cache"'), column="Other"),
                Query(expected("gpu"), column="All GPUs"),
                Query(expected("host"), column="RAM"),
                Query(tokens("deepseek_deployment_max_context_tokens"), column="Context"),
                Query(tokens("deepseek_deployment_full_length_sequences"), column="Requests"),
            ),
            {
                "instance": "Host",
                "deployment": "Deployment",
                "state": "State",
                "engine": "Engine",
                "model": "Model",
                "quantization": "Quantization",
                "tp": "TP",
            },
            hidden=("job",),
            height=9,
            decimals=0,
            overrides=(
                override("byName", "Context", unit="locale", decimals=0),
                override("byName", "Requests", unit="short", decimals=1),
                wide("Host", 115),
                wide("Deployment", 105),
                wide("State", 110),
                wide("Engine", 85),
                wide("Model", 265),
                wide("Quantization", 97),
                wide("TP", 50),
                to_board("Deployment", "Deployment", "deepseek-deployment", ("deployment", "Deployment")),
            ),
            sort="Host",
        ),
    )


def hosts() -> tuple[Panel, ...]:
    return (
        lines(
            "RAM: committed, capacity and available",
            "What deployments and others need in RAM, low bound, against what the host can give (dashed), "
            "and what the kernel says is available. Available falls when weights are read into the page "
            "cache; committed does not.",
            "bytes",
            (
                Query(f"deepseek_host_memory_committed_bytes{{{HOST}, {LOW}}}", "committed {{instance}}"),
                Query(f"deepseek_host_memory_available_bytes{{{HOST}}}", "available {{instance}}"),
                Query(f"deepseek_host_memory_capacity_bytes{{{HOST}}}", "capacity {{instance}}"),
            ),
            limits="capacity",
        ),
        lines(
            "GPU power by host",
            "Draw of all devices of a host; dashed: the sum of the limits that the driver enforces. At the "
            "limit is ordinary under load.",
            "watt",
            (
                Query(f"sum by (instance) (deepseek_gpu_power_watts{{{DEVICE}}})", "{{instance}}"),
                Query(
                    f"sum by (instance) (deepseek_gpu_power_limit_watts{{{DEVICE}}})", "limit {{instance}}"
                ),
            ),
            limits="limit",
        ),
        lines(
            "RAM pressure",
            "Share of time in which some, or all, tasks waited for memory (PSI). Above a few percent the "
            "host is short.",
            "percentunit",
            (
                Query(
                    f"rate(deepseek_host_memory_pressure_seconds_total{{{HOST}}}[$__rate_interval])",
                    "{{scope}} {{instance}}",
                ),
            ),
        ),
        table(
            "Sources",
            "What each exporter reads, how it is, and how long ago it last succeeded. Blind: expected on its "
            "host, and down. NVML without a GPU is not expected.",
            "short",
            (
                Query(f"max by ({PER_SOURCE}, state) (deepseek_exporter_source_state{{{HOST}}} == 1)"),
                Query(f"max by ({PER_SOURCE}) ({DOWN_THOUGH_EXPECTED})", column="Blind"),
                Query(
                    f"max by ({PER_SOURCE}) "
                    f"(time() - deepseek_exporter_source_last_success_timestamp_seconds{{{HOST}}})",
                    column="Last success",
                ),
            ),
            {"instance": "Host", "source": "Source", "state": "State"},
            hidden=("job",),
            width=12,
            height=9,
            overrides=(
                override("byName", "Last success", unit="s"),
                coloured("Blind", decimals=0, mappings=[NO_WANTED]),
            ),
            sort="Host",
        ),
    )


def capacity_overview() -> dict[str, object]:
    """The board for whoever is on call: is anything over, where, held by whom, and what do we not see?"""
    return board(
        "capacity-overview",
        "capacity overview",
        "GPU memory, RAM and power of hosts that serve DeepSeek models, and their limits.",
        (JOBS, HOSTS, GPUS, DEPLOYMENTS),
        (*stats(), *alerts_and_headroom(), *devices(), *deployments(), *hosts()),
    )
