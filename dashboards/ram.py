"""RAM of hosts as panels: the same picture as of devices, and what the kernel says of its shortage."""

from __future__ import annotations

from board import COMPONENT_COLOURS, HOLDER_COLOURS, HOST, lowest
from panels import Panel, Query, lines, stacked


def ram() -> tuple[Panel, ...]:
    total = f"deepseek_host_memory_total_bytes{{{HOST}}}"
    held = f"deepseek_host_memory_held_bytes{{{HOST}}}"
    return (
        stacked(
            "RAM: expected, held and capacity",
            "Stack: what the deployments hold in RAM once warm, by component. Line: what is held, mapped "
            "weights included. Dashed: what can be promised.",
            "bytes",
            (
                Query(f"sum by (component) (deepseek_expected_host_memory_bytes{{{HOST}}})", "{{component}}"),
                Query(f"sum({held})", "held"),
                Query(f"sum(deepseek_host_memory_capacity_bytes{{{HOST}}})", "capacity"),
            ),
            line="held",
            limits="capacity",
            colours=COMPONENT_COLOURS,
        ),
        stacked(
            "RAM by holder",
            "RAM by deployment and by everything else. Line: what can be had without swapping, which "
            "counts mapped weights as available. Dashed: total.",
            "bytes",
            (
                Query(f"sum by (holder) ({held})", "{{holder}}"),
                Query(f"sum(deepseek_host_memory_available_bytes{{{HOST}}})", "available"),
                Query(f"sum({total})", "total"),
            ),
            line="available",
            limits="total",
            colours=HOLDER_COLOURS,
        ),
        lines(
            "RAM pressure",
            "Share of time in which some, or all (full), tasks waited for memory (PSI). Dashed: the "
            "threshold for full.",
            "percentunit",
            (
                Query(
                    f"rate(deepseek_host_memory_pressure_seconds_total{{{HOST}}}[$__rate_interval])",
                    "{{scope}} {{instance}}",
                ),
                Query(lowest("host_memory_pressure_ratio"), "threshold"),
            ),
            limits="threshold",
            legend=True,
        ),
        lines(
            "Swap in use, and free RAM by NUMA node",
            "Swap in use on a host that serves is slow memory. A NUMA node that runs empty makes its "
            "neighbours slow while the host still looks fine.",
            "bytes",
            (
                Query(f"deepseek_host_swap_used_bytes{{{HOST}}}", "swap {{instance}}"),
                Query(f"deepseek_host_numa_memory_free_bytes{{{HOST}}}", "node {{node}} free {{instance}}"),
            ),
        ),
    )
