"""Alerts about RAM that one deployment has to itself: its cgroup, its NUMA nodes, its pages in swap."""

from __future__ import annotations

from exporter.capacity.conditions.words import BOUND_LOW, MINUTE, PROCESSES_SPEAK, STATE, prose
from exporter.capacity.terms import (
    Above,
    AllOf,
    AnyOf,
    Condition,
    Fact,
    Form,
    Grown,
    RateAbove,
    Series,
    Severity,
    Some,
    Subject,
    Witness,
)

_STALLED = Series("deepseek_confined_memory_pressure_seconds_total", (("scope", "full"),))
_OOM_KILLS = Series("deepseek_confined_oom_kills_total")
_SWAPPED = Series("deepseek_deployment_swapped_bytes")
_CGROUP = (("confinement", "cgroup"),)
_OOM_WINDOW_SECONDS = 15 * MINUTE

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        name="DeepSeekConfinedMemoryOvercommitted",
        severity=Severity.CRITICAL,
        subject=Subject.PLACE,
        expression=Above(
            Series("deepseek_confined_memory_overcommit_ratio", BOUND_LOW),
            "confined_memory_overcommit_ratio",
        ),
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=10 * MINUTE,
        # Not kept for want of its own series: that goes when the deployment is stopped, which is a remedy.
        witnesses=(PROCESSES_SPEAK, Witness(Series("deepseek_host_memory_total_bytes"), Subject.HOST)),
        summary=(
            "What confines {deployment} on {host} ({confinement}) is overcommitted at {value}: {committed} "
            "committed, {capacity} to give, {used} in use now. NUMA nodes: {nodes}."
        ),
        description=prose(
            """
            The deployment may not use all RAM of its host: its cgroup has a limit (a container's,
            MemoryMax of a unit), or its memory is bound to some NUMA nodes. What it needs there at
            its own limits, plus what others hold there, is more than that place gives, however much
            the host has free. Mapped weights will be evicted and read again from disk at every
            token, or the kernel will kill a process in that place. First action: raise the limit or
            take the binding away if the host has room, else choose a smaller quantization or a
            shorter context.
            """
        ),
        facts=(
            Fact("committed", Series("deepseek_confined_memory_committed_bytes", BOUND_LOW), Form.BYTES),
            Fact("capacity", Series("deepseek_confined_memory_capacity_bytes"), Form.BYTES),
            Fact("used", Series("deepseek_confined_memory_used_bytes"), Form.BYTES),
            Fact(
                "nodes",
                Series("deepseek_deployment_numa_nodes_info"),
                Form.LABEL,
                "nodes",
                otherwise="all",
                about=Subject.DEPLOYMENT,
            ),
        ),
    ),
    Condition(
        name="DeepSeekConfinedMemoryPressure",
        severity=Severity.CRITICAL,
        subject=Subject.DEPLOYMENT,
        expression=AnyOf(
            (
                RateAbove(_STALLED, "deployment_memory_pressure_ratio", 5 * MINUTE),
                Grown(_OOM_KILLS, _OOM_WINDOW_SECONDS),
            )
        ),
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        witnesses=(PROCESSES_SPEAK,),
        summary=(
            "The cgroup of {deployment} on {host} is short of RAM: all its tasks waited for it {stalled} of "
            "the last 5 minutes, processes killed in it in the last 15 minutes: {kills}; limit {capacity}, "
            "{used} in use."
        ),
        description=prose(
            """
            The kernel says itself that the limit of this deployment's cgroup does not suffice, while
            the host may have RAM left: tasks stand still until pages of the group are freed, or a
            process in it was killed. Answers slow down to the speed of the disk, or the engine is
            the next to be killed. First action: 'journalctl -k' names a process that was killed;
            then raise the limit of the container or unit, or lower what the engine may take.
            """
        ),
        facts=(
            Fact("stalled", _STALLED, Form.SHARE, window_seconds=5 * MINUTE),
            Fact("kills", _OOM_KILLS, Form.COUNT, window_seconds=_OOM_WINDOW_SECONDS),
            Fact("capacity", Series("deepseek_confined_memory_capacity_bytes", _CGROUP), Form.BYTES),
            Fact(
                "used",
                Series("deepseek_confined_memory_used_bytes", (("confinement", "cgroup"),)),
                Form.BYTES,
            ),
        ),
    ),
    Condition(
        name="DeepSeekDeploymentSwapped",
        severity=Severity.WARNING,
        subject=Subject.DEPLOYMENT,
        expression=AllOf(
            (
                Above(_SWAPPED, "deployment_swapped_bytes"),
                Some(Series(STATE, choices=(("state", ("warm", "unreachable")),))),
            )
        ),
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        witnesses=(PROCESSES_SPEAK,),
        value_form=Form.BYTES,
        summary=(
            "{value} of the memory of {deployment} on {host} are in swap while it serves; {available} of RAM "
            "are available."
        ),
        description=prose(
            """
            The kernel moved private memory of the engine itself to swap: experts, rearranged
            weights, KV cache or prompt cache that a request reads again at the speed of the disk.
            First action: see what took the RAM (panel 'RAM: committed, capacity and available'),
            stop or move that, and give the engine's unit MemorySwapMax=0; a restart of the engine,
            or 'swapoff -a && swapon -a' where RAM suffices, brings the pages back.
            """
        ),
        facts=(
            Fact("available", Series("deepseek_host_memory_available_bytes"), Form.BYTES, about=Subject.HOST),
        ),
    ),
)
