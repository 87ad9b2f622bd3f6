"""Alerts about KV caches: full while requests suffer, or too small for what was promised."""

from __future__ import annotations

from exporter.capacity.conditions.words import MINUTE, PROCESSES_SPEAK, prose
from exporter.capacity.terms import (
    Above,
    AllOf,
    AnyOf,
    Condition,
    Fact,
    Form,
    Grown,
    Positive,
    Series,
    Severity,
    Some,
    Subject,
)

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        name="DeepSeekKvCacheSaturated",
        severity=Severity.WARNING,
        subject=Subject.DEPLOYMENT,
        # A full pool alone is a busy engine; only with requests that suffer from it is it a shortage.
        expression=AllOf(
            (
                Above(
                    Series("deepseek_kv_cache_usage_ratio", lately_seconds=2 * MINUTE),
                    "kv_cache_saturated_ratio",
                ),
                AnyOf(
                    (
                        Some(Series("deepseek_requests_waiting", lately_seconds=2 * MINUTE)),
                        Grown(Series("deepseek_preemptions_total"), 10 * MINUTE),
                    )
                ),
            )
        ),
        for_seconds=10 * MINUTE,
        keep_firing_for_seconds=10 * MINUTE,
        keeps_state=True,
        witnesses=(PROCESSES_SPEAK,),
        summary=(
            "KV cache of {deployment} on {host} is full at {value}: {waiting} requests wait, {preempted} "
            "were put back in the last 10 minutes. Requests of full length that fit at once: {fit}."
        ),
        description=prose(
            """
            The KV cache is used up and requests wait for it or are put back and computed again:
            answers take longer, and throughput falls. Memory itself is not short, it was reserved
            at the start. First action: see whether a few very long requests hold it (board,
            'KV cache'); then spread the load, limit the length of requests, store the cache in
            fp8, or give the engine a larger pool where the device has headroom.
            """
        ),
        facts=(
            Fact("waiting", Series("deepseek_requests_waiting"), Form.NUMBER, otherwise="no"),
            Fact(
                "preempted",
                Series("deepseek_preemptions_total"),
                Form.COUNT,
                window_seconds=10 * MINUTE,
                otherwise="none",
            ),
            Fact("fit", Series("deepseek_deployment_full_length_sequences"), Form.DECIMAL),
        ),
    ),
    Condition(
        name="DeepSeekKvCapacityBelowPlan",
        severity=Severity.CRITICAL,
        subject=Subject.DEPLOYMENT,
        # By the engine's own word, or at the optimistic end of the estimate: a guess alone never pages.
        expression=Positive(Series("deepseek_kv_cache_plan_shortfall_tokens")),
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        witnesses=(PROCESSES_SPEAK,),
        value_form=Form.NUMBER,
        summary=(
            "KV cache of {deployment} on {host} cannot hold what is planned: {planned} tokens are, "
            "{capacity} fit, {value} are missing."
        ),
        description=prose(
            """
            The operator's plan for this deployment (planned_sequences requests of planned_context
            tokens) does not fit into its KV cache, so the promised load will queue. Usually a
            launch with other limits than before, or a neighbour that took memory before the
            engine measured what is free. First action: compare the launch with the last one that
            served the load (memory fraction, KV cache type, context); restart with it.
            """
        ),
        facts=(
            Fact("planned", Series("deepseek_kv_cache_planned_tokens"), Form.NUMBER),
            Fact("capacity", Series("deepseek_kv_cache_capacity_tokens"), Form.NUMBER),
        ),
    ),
)
