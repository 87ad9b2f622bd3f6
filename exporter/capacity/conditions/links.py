"""Alerts about links between the nodes of a deployment: full, or too slow for how it is placed."""

from __future__ import annotations

from exporter.capacity.conditions.words import BOUND_HIGH, MINUTE, PROCESSES_SPEAK, prose
from exporter.capacity.terms import (
    Above,
    AboveSeries,
    AllOf,
    Condition,
    Fact,
    Fold,
    Form,
    Series,
    Severity,
    Some,
    Subject,
    Witness,
)

_USAGE = "deepseek_deployment_link_usage_ratio"
_CEILING = "deepseek_deployment_link_ceiling_tokens_per_second"
_NEEDED = "deepseek_deployment_link_needed_tokens_per_second"

NETWORK_SPEAKS = Witness(Series("deepseek_host_network_interfaces"), Subject.HOST)
"""Absent while the interfaces cannot be read, one that carries a deployment among them."""

_INTERFACES = Fact("interfaces", Series("deepseek_deployment_link_info"), Form.LABEL, "interface")
_SPEED = Fact("speed", Series("deepseek_deployment_link_speed_bytes_per_second"), Form.NUMBER)

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        name="DeepSeekLinkSaturated",
        severity=Severity.WARNING,
        subject=Subject.DEPLOYMENT,
        # Each direction on its own: a link carries its speed both ways at once.
        expression=AllOf(
            (
                Above(Series(_USAGE, folded=("direction",), fold=Fold.MAX), "link_saturated_ratio"),
                Some(Series("deepseek_deployment_active", lately_seconds=2 * MINUTE)),
            )
        ),
        for_seconds=10 * MINUTE,
        keep_firing_for_seconds=10 * MINUTE,
        witnesses=(PROCESSES_SPEAK, NETWORK_SPEAKS),
        summary=(
            "The link of {deployment} on {host} to its other nodes is full: {sent} of its speed sent, "
            "{received} received. Interfaces: {interfaces}, {speed} bytes a second together."
        ),
        description=prose(
            """
            While the deployment works, an interface that carries the traffic between its nodes is
            at its speed, so the GPUs wait for the network and more requests make every answer
            slower. First action: see whether the traffic is the deployment's own (runbook): a
            copy of a checkpoint or a backup on the same link is moved elsewhere or slowed down;
            else spread the requests, or place it so that fewer bytes cross the link for a token
            (pipeline instead of tensor parallelism over the nodes, RDMA ports instead of sockets).
            """
        ),
        facts=(
            Fact("sent", Series(_USAGE, (("direction", "sent"),)), Form.RATIO),
            Fact("received", Series(_USAGE, (("direction", "received"),)), Form.RATIO),
            _INTERFACES,
            _SPEED,
        ),
    ),
    Condition(
        name="DeepSeekLinkTooSlow",
        severity=Severity.WARNING,
        subject=Subject.DEPLOYMENT,
        # At the optimistic end of what is expected to cross the link: a guess alone opens no ticket.
        expression=AboveSeries(Series(_NEEDED), Series(_CEILING, BOUND_HIGH)),
        for_seconds=10 * MINUTE,
        keep_firing_for_seconds=0,
        witnesses=(PROCESSES_SPEAK, NETWORK_SPEAKS),
        value_form=Form.NUMBER,
        summary=(
            "The link of {deployment} on {host} is too slow for its placement: it allows at most {ceiling} "
            "tokens a second, prompt and generated, and {value} are the least for its GPUs. Interfaces: "
            "{interfaces}, {speed} bytes a second together."
        ),
        description=prose(
            """
            As its ranks are laid over the nodes, every token sends so much over this link that
            the GPUs can never be used, however few requests there are. Usually tensor or expert
            parallelism over Ethernet, or an engine that does not use the RDMA ports. First
            action: see which interface the engine really uses (runbook); then use the faster
            ports, or start it with pipeline parallelism between the nodes and tensor parallelism
            inside them.
            """
        ),
        facts=(
            Fact("ceiling", Series(_CEILING, BOUND_HIGH), Form.NUMBER),
            _INTERFACES,
            _SPEED,
        ),
    ),
)
