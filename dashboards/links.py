"""Links between the nodes of a deployment as panels: how full they are, and what they allow."""

from __future__ import annotations

from board import DEPLOYMENT, lowest
from panels import Panel, Query, lines

_CEILING = f"deepseek_deployment_link_ceiling_tokens_per_second{{{DEPLOYMENT}}}"
_COMPUTED = f'deepseek_tokens_total{{{DEPLOYMENT}, kind=~"prompt|generated"}}'


def links() -> tuple[Panel, ...]:
    return (
        lines(
            "Link usage",
            "Of deployments on several nodes: use of the fullest interface that carries their traffic, "
            "averaged over a minute, by direction. Dashed: the threshold.",
            "percentunit",
            (
                Query(
                    f"deepseek_deployment_link_usage_ratio{{{DEPLOYMENT}}}",
                    "{{deployment}} {{direction}} {{instance}}",
                ),
                Query(lowest("link_saturated_ratio"), "threshold"),
            ),
            limits="threshold",
        ),
        lines(
            "Tokens against what the link allows",
            "Tokens that are computed, prompt and generated together, and what the slowest link of the "
            "deployment allows, at both ends of the bytes that a token is expected to send.",
            "short",
            (
                Query(
                    f"sum by (job, deployment) (rate({_COMPUTED}[$__rate_interval]))\n"
                    f"and on (job, deployment) {_CEILING}",
                    "{{deployment}} computed",
                ),
                Query(
                    f"min by (job, deployment, bound) ({_CEILING})", "{{deployment}} link allows ({{bound}})"
                ),
            ),
        ),
    )
