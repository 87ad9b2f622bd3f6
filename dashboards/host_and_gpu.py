"""A host, or a few, in depth: expected, used and possible memory, who holds it, and power."""

from __future__ import annotations

from board import (
    COMPONENT_COLOURS,
    DEVICE,
    GPUS,
    HIGH,
    HOLDER_COLOURS,
    HOST,
    HOSTS,
    JOBS,
    LOW,
    PER_DEVICE,
    PER_HOST,
    VERDICT,
    board,
    gpu_verdict,
    held_by_deployments,
    lowest,
    to_board,
)
from panels import (
    LEFT_STEPS,
    NONE_WANTED,
    ORANGE,
    RED,
    WHOLE_STEPS,
    Panel,
    Query,
    Row,
    coloured,
    lines,
    override,
    said,
    stacked,
    stat,
    table,
    wide,
    words,
)
from ram import ram
from stores import stores

PER_DEPLOYED = f"{PER_DEVICE}, deployment"
DEVIATION_VERDICT = said(("as expected", "green"), ("off", ORANGE))


def stats() -> tuple[Panel, ...]:
    return (
        stat(
            "Committed",
            "Committed / capacity over all chosen devices together, low bound. One device may be over "
            "while this is not: see the table.",
            "percentunit",
            f"sum(deepseek_gpu_memory_committed_bytes{{{DEVICE}, {LOW}}}) "
            f"/ sum(deepseek_gpu_memory_capacity_bytes{{{DEVICE}}})",
            WHOLE_STEPS,
            decimals=1,
        ),
        stat(
            "Least headroom",
            "Capacity − committed of the fullest chosen device, low bound. Negative is overcommitted.",
            "bytes",
            f"min(deepseek_gpu_memory_headroom_bytes{{{DEVICE}, {LOW}}})",
            LEFT_STEPS,
            decimals=1,
        ),
        stat(
            "Held by others",
            "Memory of processes that belong to no deployment, or could not be attributed, over all chosen "
            "devices.",
            "bytes",
            f'sum(deepseek_gpu_memory_held_bytes{{{DEVICE}, holder_kind!="deployment"}})',
            decimals=1,
        ),
        stat(
            "Reclaimable",
            "Held by KV pools and not in use by any request now: what a smaller pool would give back.",
            "bytes",
            f"sum(deepseek_gpu_memory_reclaimable_bytes{{{DEVICE}}})",
            decimals=1,
        ),
        stat(
            "Devices down",
            "Known devices that do not answer: lost, stalled, failing or released. Their figures are "
            "absent below.",
            "short",
            f"sum(1 - deepseek_gpu_up{{{DEVICE}}})",
            NONE_WANTED,
        ),
        stat(
            "RAM headroom",
            "Capacity − committed of the fullest chosen host's RAM, low bound.",
            "bytes",
            f"min(deepseek_host_memory_headroom_bytes{{{HOST}, {LOW}}})",
            LEFT_STEPS,
            decimals=1,
        ),
        stat(
            "Power draw",
            "Draw of all chosen devices together.",
            "watt",
            f"sum(deepseek_gpu_power_watts{{{DEVICE}}})",
            decimals=1,
        ),
        stat(
            "Hottest",
            "The highest temperature of the chosen devices, any sensor.",
            "celsius",
            f"max(deepseek_gpu_temperature_celsius{{{DEVICE}}})",
            decimals=0,
        ),
    )


def gpu_memory() -> tuple[Panel, ...]:
    kv_pool = f'sum(deepseek_expected_gpu_memory_bytes{{{DEVICE}, component="kv_cache"}})'
    reclaimable = f"sum(deepseek_gpu_memory_reclaimable_bytes{{{DEVICE}}})"
    return (
        stacked(
            "GPU memory: expected, used and capacity",
            "Stack: what the deployments hold once warm, by component. Line: what is used. Dashed: what "
            "can be promised. A stack above the dashes cannot be had; a line above the stack is held by "
            "others or leaks.",
            "bytes",
            (
                Query(
                    f"sum by (component) (deepseek_expected_gpu_memory_bytes{{{DEVICE}}})", "{{component}}"
                ),
                Query(f"sum(deepseek_gpu_memory_used_bytes{{{DEVICE}}})", "used"),
                Query(f"sum(deepseek_gpu_memory_capacity_bytes{{{DEVICE}}})", "capacity"),
            ),
            line="used",
            limits="capacity",
            colours=COMPONENT_COLOURS,
        ),
        stacked(
            "GPU memory by holder",
            "Used memory by deployment, by processes that belong to none (other), and of no known process "
            "(unattributed). Dashed: total.",
            "bytes",
            (
                Query(f"sum by (holder) (deepseek_gpu_memory_held_bytes{{{DEVICE}}})", "{{holder}}"),
                Query(f"sum(deepseek_gpu_memory_total_bytes{{{DEVICE}}})", "total"),
            ),
            limits="total",
            colours=HOLDER_COLOURS,
        ),
        stacked(
            "KV cache: in use and reclaimable",
            "The KV pools of the chosen devices: what requests use now, and what is held for later. "
            "Engines take the whole pool at their start.",
            "bytes",
            (
                Query(f"clamp_min({kv_pool} - {reclaimable}, 0)", "in use"),
                Query(reclaimable, "reclaimable"),
            ),
            colours={"in use": "green", "reclaimable": "super-light-green"},
        ),
        lines(
            "GPU memory committed",
            "Committed / capacity by device: solid at the low bound, thin at the high one. Dashed: the "
            "threshold in force.",
            "percentunit",
            (
                Query(f"deepseek_gpu_memory_overcommit_ratio{{{DEVICE}, {LOW}}}", "{{instance}} GPU {{gpu}}"),
                Query(lowest("vram_overcommit_ratio"), "threshold"),
                Query(lowest("vram_overcommit_near_ratio"), "threshold, near"),
            ),
            limits="threshold",
            legend=True,
        ),
        _device_table(),
        _deployments_on_devices(),
    )


def _device_table() -> Panel:
    def one(family: str, *matchers: str) -> str:
        return f"sum by ({PER_DEVICE}) ({family}{{{', '.join((DEVICE, *matchers))}}})"

    ratio = f"deepseek_gpu_memory_overcommit_ratio{{{DEVICE}, {LOW}}}"
    return table(
        "Devices",
        "Total = used + free + reserved. Committed at both bounds: pages are decided on the low one, "
        "tickets on the high one. Pending: expected and not held yet. Overlap: two generations of one "
        "deployment during a restart.",
        "bytes",
        (
            Query(f"max by ({PER_DEVICE}, name) (deepseek_gpu_info{{{DEVICE}}})"),
            Query(f"max by ({PER_DEVICE}, state) (deepseek_gpu_state{{{DEVICE}}} == 1)"),
            Query(one("deepseek_gpu_memory_total_bytes"), column="Total"),
            Query(one("deepseek_gpu_memory_used_bytes"), column="Used"),
            Query(one("deepseek_expected_gpu_memory_bytes"), column="Expected"),
            Query(one("deepseek_gpu_memory_committed_bytes", LOW), column="Committed"),
            Query(one("deepseek_gpu_memory_committed_bytes", HIGH), column="High bound"),
            Query(one("deepseek_gpu_memory_pending_bytes", LOW), column="Pending"),
            Query(one("deepseek_gpu_rollout_overlap_bytes"), column="Overlap"),
            Query(one("deepseek_gpu_memory_headroom_bytes", LOW), column="Headroom"),
            Query(f"max by ({PER_DEVICE}) ({gpu_verdict(ratio)})", column="Verdict"),
            Query(f"max by ({PER_DEVICE}) (deepseek_gpu_temperature_celsius{{{DEVICE}}})", column="Hottest"),
        ),
        {"instance": "Host", "gpu": "GPU", "name": "Device", "state": "State"},
        hidden=("job", "uuid"),
        height=11,
        overrides=(
            coloured("Headroom", LEFT_STEPS),
            coloured("Verdict", unit="none", decimals=0, mappings=[VERDICT]),
            coloured(
                "State", mappings=[words(up="green", released="blue", stalled=RED, lost=RED, error=RED)]
            ),
            override("byName", "Hottest", unit="celsius", decimals=0),
            wide("Host", 105),
            wide("GPU", 50),
            wide("Device", 175),
            wide("State", 60),
        ),
        sort="Host",
    )


def _deployments_on_devices() -> Panel:
    held = held_by_deployments(DEVICE)
    deviation = f"deepseek_gpu_memory_deviation_bytes{{{DEVICE}}}"
    tolerance = f"deepseek_gpu_memory_deviation_tolerance_bytes{{{DEVICE}}}"
    off = f"abs({deviation}) > bool on ({PER_DEPLOYED}) {tolerance}"
    return table(
        "Deployments on these devices",
        "Observed − expected for each deployment and device. Off: beyond the tolerance, which is wider "
        "where the expectation is an estimate. Absent while a deployment loads or does not run.",
        "bytes",
        (
            Query(
                f"sum by ({PER_DEPLOYED}) (deepseek_expected_gpu_memory_bytes{{{DEVICE}}})", column="Expected"
            ),
            Query(f"sum by ({PER_DEPLOYED}) ({held})", column="Held"),
            Query(f"max by ({PER_DEPLOYED}) ({deviation})", column="Deviation"),
            Query(f"max by ({PER_DEPLOYED}) ({tolerance})", column="Tolerance"),
            Query(f"max by ({PER_DEPLOYED}) ({off})", column="Verdict"),
        ),
        {"instance": "Host", "gpu": "GPU", "deployment": "Deployment"},
        hidden=("job", "uuid"),
        height=11,
        overrides=(
            coloured("Verdict", unit="none", decimals=0, mappings=[DEVIATION_VERDICT]),
            wide("Host", 115),
            wide("GPU", 50),
            to_board("Deployment", "Deployment", "deepseek-deployment", ("deployment", "Deployment")),
        ),
        sort="Host",
    )


def power() -> tuple[Panel, ...]:
    limited = f"sum by (reason) (deepseek_gpu_clocks_limited{{{DEVICE}}}) > 0"
    return (
        lines(
            "Power draw and limit",
            "Draw of each device; dashed: the limit that the driver enforces. At the limit is ordinary "
            "under load.",
            "watt",
            (
                Query(f"deepseek_gpu_power_watts{{{DEVICE}}}", "{{instance}} GPU {{gpu}}"),
                Query(f"max(deepseek_gpu_power_limit_watts{{{DEVICE}}})", "limit, highest"),
            ),
            limits="limit",
            legend=True,
        ),
        stacked(
            "Clocks held down",
            "Devices whose clocks are held down now, by reason. The software power cap is ordinary under "
            "load; a thermal or hardware slowdown is not.",
            "short",
            (Query(limited, "{{reason}}"),),
            style="bars",
        ),
        lines(
            "Utilization",
            "Share of time in which a kernel ran; dashed: above this a device counts as working.",
            "percentunit",
            (
                Query(f"deepseek_gpu_utilization_ratio{{{DEVICE}}}", "{{instance}} GPU {{gpu}}"),
                Query(lowest("active_utilization_ratio"), "threshold"),
            ),
            limits="threshold",
            legend=True,
        ),
        lines(
            "Temperature",
            "The hottest sensor of each device.",
            "celsius",
            (
                Query(
                    f"max by ({PER_DEVICE}) (deepseek_gpu_temperature_celsius{{{DEVICE}}})",
                    "{{instance}} GPU {{gpu}}",
                ),
            ),
            from_zero=False,
        ),
    )


def errors_and_alerts() -> tuple[Panel, ...]:
    per_xid = f"{PER_DEVICE}, xid"
    return (
        table(
            "Alerts by the daemon's own evaluation",
            "What each chosen host says of itself, pending or firing, with no rule loaded anywhere. No "
            "rows: none.",
            "short",
            (Query(f"max by ({PER_HOST}, severity, alert, subject) (deepseek_alert_active{{{HOST}}} == 1)"),),
            {"severity": "Severity", "alert": "Alert", "instance": "Host", "subject": "Of"},
            hidden=("job",),
            width=12,
            height=8,
            overrides=(
                coloured("Severity", mappings=[words(critical=RED, warning=ORANGE, info="blue")]),
                wide("Severity", 80),
                wide("Alert", 250),
            ),
            sort="Severity",
        ),
        table(
            "Xid errors",
            "What the driver reported of each device: how often since the daemon started, and how long ago "
            "the last was. No rows: none. What a number means: NVIDIA's Xid catalogue.",
            "short",
            (
                Query(f"max by ({per_xid}) (deepseek_gpu_xid_errors_total{{{DEVICE}}})", column="Times"),
                Query(
                    f"max by ({per_xid}) (time() - deepseek_gpu_xid_last_timestamp_seconds{{{DEVICE}}})",
                    column="Last",
                ),
            ),
            {"instance": "Host", "gpu": "GPU", "xid": "Xid"},
            hidden=("job", "uuid"),
            width=12,
            height=8,
            decimals=0,
            overrides=(override("byName", "Last", unit="s", decimals=0),),
            sort="Host",
        ),
    )


def host_and_gpu() -> dict[str, object]:
    """One host, or a few, in depth."""
    return board(
        "host-and-gpu",
        "host and GPU",
        "Expected, used and possible memory of the devices and the RAM of chosen hosts, who holds it, and "
        "power.",
        (JOBS, HOSTS, GPUS),
        (
            *stats(),
            Row("GPU memory"),
            *gpu_memory(),
            Row("RAM"),
            *ram(),
            Row("Disks of checkpoints"),
            *stores(),
            Row("Power and clocks"),
            *power(),
            Row("Alerts and errors"),
            *errors_and_alerts(),
        ),
    )
