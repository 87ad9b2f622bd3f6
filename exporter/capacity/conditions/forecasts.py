"""Alerts that need many hosts or many days, which only Prometheus has: loss of a host, exhaustion to come."""

from __future__ import annotations

from exporter.capacity.conditions.words import HOUR, MINUTE, prose
from exporter.capacity.terms import (
    Condition,
    Fact,
    Form,
    FromOutside,
    Series,
    Severity,
    Subject,
)

_DAYS = "resource:deepseek_capacity_exhaustion_days:deriv14d"
_FIT = "resource:deepseek_capacity_fit_quality:r2_14d"


def _exhausted_within(threshold: str) -> str:
    joined = "on (instance, job) group_left ()"
    return (
        f'{_DAYS} < {joined} deepseek_threshold{{name="{threshold}"}}\n'
        "and on (instance, job, resource, deployment)\n"
        f'({_FIT} >= {joined} deepseek_threshold{{name="exhaustion_fit_r2"}})'
    )


_EXHAUSTION_SUMMARY = (
    "{resource}{of_deployment} on {host} will be used up in {value} days at the pace of the last two weeks: "
    "peak of the last day {peak}, growth {growth} a day, fit {fit}."
)
_EXHAUSTION_DESCRIPTION = prose(
    """
    The straight line through the daily peaks of the last 14 days or more reaches what the host, or the KV
    cache of the deployment, can give. Peaks are of committed memory and of tokens in use, never of memory
    that an engine reserves at its start. First action: take it to the next capacity review (board
    'Capacity review'): move load, choose a smaller quantization, or order hardware while there is time.
    """
)
_EXHAUSTION_FACTS = (
    Fact("peak", Series("resource:deepseek_capacity_used_ratio:max1d"), Form.RATIO),
    Fact("growth", Series("resource:deepseek_capacity_growth_ratio_per_day:deriv14d"), Form.RATIO),
    Fact("fit", Series(_FIT), Form.DECIMAL),
)

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        name="DeepSeekCapacityNMinusOne",
        severity=Severity.WARNING,
        subject=Subject.POOL,
        expression=FromOutside(
            'max without (bound) (pool:deepseek_gpu_memory_committed_bytes:sum{bound="low", pool!=""})\n'
            "> on (job, pool) (pool:deepseek_gpu_memory_capacity_bytes:n_minus_1 > 0)"
        ),
        for_seconds=10 * MINUTE,
        keep_firing_for_seconds=0,
        value_form=Form.BYTES,
        summary=(
            "Pool {pool} cannot lose its largest host: {value} of GPU memory are committed, {remaining} "
            "remain without it."
        ),
        description=prose(
            """
            What the deployments of this pool hold and need together is more than its hosts can
            give when the largest one fails or is taken out for maintenance: some deployment will
            have no place. Pools of one host are not told. First action: before the next
            maintenance, free or add a host, or declare the deployments that may wait as optional
            (required = false).
            """
        ),
        facts=(Fact("remaining", Series("pool:deepseek_gpu_memory_capacity_bytes:n_minus_1"), Form.BYTES),),
    ),
    Condition(
        name="DeepSeekCapacityExhaustion",
        severity=Severity.WARNING,
        subject=Subject.RESOURCE,
        expression=FromOutside(_exhausted_within("exhaustion_warning_days")),
        for_seconds=6 * HOUR,
        keep_firing_for_seconds=24 * HOUR,
        value_form=Form.DECIMAL,
        summary=_EXHAUSTION_SUMMARY,
        description=_EXHAUSTION_DESCRIPTION,
        facts=_EXHAUSTION_FACTS,
    ),
    Condition(
        name="DeepSeekCapacityExhaustion",
        severity=Severity.INFO,
        subject=Subject.RESOURCE,
        expression=FromOutside(_exhausted_within("exhaustion_info_days")),
        for_seconds=6 * HOUR,
        keep_firing_for_seconds=24 * HOUR,
        value_form=Form.DECIMAL,
        summary=_EXHAUSTION_SUMMARY,
        description=_EXHAUSTION_DESCRIPTION,
        facts=_EXHAUSTION_FACTS,
    ),
)
