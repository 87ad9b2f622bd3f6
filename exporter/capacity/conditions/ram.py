"""Alerts about a host's RAM: what is promised of it, what the kernel says of it, weights that leave it."""

from __future__ import annotations

from exporter.capacity.conditions.words import (
    BOUND_LOW,
    IN_RAM,
    MINUTE,
    PROCESSES_SPEAK,
    RUNNING,
    STATE,
    prose,
)
from exporter.capacity.terms import (
    Above,
    AllOf,
    AnyOf,
    Below,
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

_STALLED = Series("deepseek_host_memory_pressure_seconds_total", (("scope", "full"),))
_OOM_KILLS = Series("deepseek_host_oom_kills_total")
# Longer than the alert waits, else a single kill would be forgotten before it could be told.
_OOM_WINDOW_SECONDS = 15 * MINUTE

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        name="DeepSeekHostMemoryOvercommitted",
        severity=Severity.CRITICAL,
        subject=Subject.HOST,
        expression=Above(
            Series("deepseek_host_memory_overcommit_ratio", BOUND_LOW), "host_memory_overcommit_ratio"
        ),
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=10 * MINUTE,
        keeps_state=True,
        summary=(
            "RAM of {host} is overcommitted at {value}: {committed} committed, {capacity} to give, "
            "{available} available now. Deployments: {deployments}."
        ),
        description=prose(
            """
            Weights, experts, KV caches and prompt caches in RAM, at the limits of their
            deployments, plus what others hold, exceed what this host can give. Weights will be
            evicted and read again from disk, or the kernel will kill a process. First action: see
            what is committed (panel 'RAM: committed, capacity and available'), then stop or move
            a deployment, choose a smaller quantization or a shorter context.
            """
        ),
        facts=(
            Fact("committed", Series("deepseek_host_memory_committed_bytes", BOUND_LOW), Form.BYTES),
            Fact("capacity", Series("deepseek_host_memory_capacity_bytes"), Form.BYTES),
            Fact("available", Series("deepseek_host_memory_available_bytes"), Form.BYTES),
            IN_RAM,
        ),
    ),
    Condition(
        name="DeepSeekHostMemoryPressure",
        severity=Severity.CRITICAL,
        subject=Subject.HOST,
        expression=AnyOf(
            (
                RateAbove(_STALLED, "host_memory_pressure_ratio", 5 * MINUTE),
                AllOf(
                    (
                        Above(Series("deepseek_host_swap_used_bytes"), "host_swap_used_bytes"),
                        Some(Series(STATE, choices=(("state", RUNNING),))),
                    )
                ),
                Grown(_OOM_KILLS, _OOM_WINDOW_SECONDS),
            )
        ),
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        witnesses=(Witness(Series("deepseek_host_memory_total_bytes"), Subject.HOST),),
        summary=(
            "RAM of {host} is short: all tasks waited for it {stalled} of the last 5 minutes, {swapped} are "
            "in swap, processes killed in the last 15 minutes: {kills}. Deployments: {deployments}."
        ),
        description=prose(
            """
            The kernel says itself that RAM does not suffice: tasks stand still until pages are
            freed, memory went to swap while a deployment runs, or a process was killed. Answers
            slow down to the speed of the disk, or the engine is the next to be killed. First
            action: 'journalctl -k' names a process that was killed; then see who holds RAM (panel
            'RAM: committed, capacity and available') and stop or move what is not needed.
            """
        ),
        facts=(
            Fact("stalled", _STALLED, Form.SHARE, window_seconds=5 * MINUTE),
            Fact("swapped", Series("deepseek_host_swap_used_bytes"), Form.BYTES),
            Fact("kills", _OOM_KILLS, Form.COUNT, window_seconds=_OOM_WINDOW_SECONDS),
            IN_RAM,
        ),
    ),
    Condition(
        name="DeepSeekWeightsEvicted",
        severity=Severity.WARNING,
        subject=Subject.DEPLOYMENT,
        expression=AllOf(
            (
                Below(Series("deepseek_deployment_weights_resident_ratio"), "weights_resident_ratio"),
                Some(Series(STATE, choices=(("state", ("warm", "unreachable")),))),
            )
        ),
        for_seconds=10 * MINUTE,
        keep_firing_for_seconds=0,
        witnesses=(PROCESSES_SPEAK,),
        summary=(
            "Only {value} of the mapped weights of {deployment} on {host} are in RAM; {available} of RAM are "
            "available."
        ),
        description=prose(
            """
            Weights that are mapped from a file are page cache: the kernel calls them available
            and gives them away when something else wants memory, and every token then waits for
            the disk. First action: see what took the RAM (panel 'RAM: committed, capacity and
            available'), stop or move that, and start the engine with --mlock, or read the file
            once ('cat FILE > /dev/null') to bring it back.
            """
        ),
        facts=(
            Fact("available", Series("deepseek_host_memory_available_bytes"), Form.BYTES, about=Subject.HOST),
        ),
    ),
)
