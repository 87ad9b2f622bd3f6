"""Families of RAM as one deployment has it: where it must stay, what is locked or swapped, how fast it is."""

from __future__ import annotations

from exporter.exposition.families.family import DEPLOYMENT, Family, counter, gauge, info

PLACE = (*DEPLOYMENT, "confinement")

LIMIT_STATE = gauge(
    "deployment_memory_limit_state",
    (*DEPLOYMENT, "state"),
    "1 for what is known of its cgroup: limited, unlimited, no_cgroup, hidden (outside of what the exporter"
    " sees), unreadable.",
)
NUMA_NODES = info(
    "deployment_numa_nodes", (*DEPLOYMENT, "nodes"), "NUMA nodes that it is bound to; absent without a bond."
)
CONFINED_CAPACITY = gauge(
    "confined_memory_capacity_bytes",
    PLACE,
    "What a place gives that a deployment may not leave, where it is smaller than the host: cgroup (the"
    " tightest limit around it), numa (the nodes that it is bound to).",
)
CONFINED_COMMITTED = gauge(
    "confined_memory_committed_bytes",
    (*PLACE, "bound"),
    "What all deployments in that place need, plus what others hold in it; estimates at this end.",
)
CONFINED_HEADROOM = gauge(
    "confined_memory_headroom_bytes", (*PLACE, "bound"), "Capacity - committed of that place."
)
CONFINED_OVERCOMMIT = gauge(
    "confined_memory_overcommit_ratio", (*PLACE, "bound"), "Committed / capacity of that place."
)
CONFINED_USED = gauge(
    "confined_memory_used_bytes", PLACE, "In use in that place now, without page cache that can be dropped."
)
CONFINED_PRESSURE = counter(
    "confined_memory_pressure_seconds",
    (*DEPLOYMENT, "scope"),
    "Time in which some or all (full) tasks of its limited cgroup waited for memory, from PSI.",
)
CONFINED_OOM_KILLS = counter(
    "confined_oom_kills", DEPLOYMENT, "Processes that the kernel killed in its limited cgroup."
)
LOCKED = gauge("deployment_locked_bytes", DEPLOYMENT, "Memory that its processes have locked (mlock).")
SWAPPED = gauge("deployment_swapped_bytes", DEPLOYMENT, "Private memory of its processes that is in swap.")
MAJOR_FAULTS = counter(
    "deployment_major_page_faults",
    DEPLOYMENT,
    "Pages for which its processes waited for a disk: weights that are read again.",
)
TOKEN_READS = gauge(
    "expected_token_read_bytes",
    DEPLOYMENT,
    "Weights in RAM that one token of one sequence reads: active experts, and what else is computed there.",
)
TOKENS_PER_SECOND = gauge(
    "expected_tokens_per_second",
    (*DEPLOYMENT, "bound", "basis"),
    "Tokens a second of one sequence that the bandwidth of RAM allows at the most; basis is that of the"
    " bandwidth.",
)

FAMILIES: tuple[Family, ...] = (
    LIMIT_STATE,
    NUMA_NODES,
    CONFINED_CAPACITY,
    CONFINED_COMMITTED,
    CONFINED_HEADROOM,
    CONFINED_OVERCOMMIT,
    CONFINED_USED,
    CONFINED_PRESSURE,
    CONFINED_OOM_KILLS,
    LOCKED,
    SWAPPED,
    MAJOR_FAULTS,
    TOKEN_READS,
    TOKENS_PER_SECOND,
)
