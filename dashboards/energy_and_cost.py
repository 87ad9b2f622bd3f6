"""Energy of the devices and what it costs, by host, day and token.

GPU energy only, from the devices' own counters: what the rest of a node and its cooling take comes on top.
"""

from __future__ import annotations

from board import (
    DEPLOYMENT,
    DEPLOYMENTS,
    HOST,
    HOSTS,
    JOBS,
    POOLS,
    SAME_HOST,
    board,
    held_by_deployments,
    number,
    threshold,
    to_board,
)
from panels import Panel, Query, Row, lines, override, stacked, stat, table, wide

JOULES_PER_KWH = "3.6e6"
PRICE = "$price_per_kwh"
SAME_DEVICE = "on (instance, job, uuid)"
WITH_POOL = f'* {SAME_DEVICE} group_left (pool) deepseek_gpu_info{{{HOST}, pool=~"$pool"}}'
ENERGY = f"deepseek_gpu_energy_joules_total{{{HOST}}}"
POWER = f"deepseek_gpu_power_watts{{{HOST}}}"
LIMIT = f"deepseek_gpu_power_limit_watts{{{HOST}}}"
ACROSS = "job, deployment"
GENERATED = f'deepseek_tokens_total{{{DEPLOYMENT}, kind="generated"}}'
# Windows of a day: what one step of a graph shows is a day's sum, whatever the zoom.
DAY = "1d"
USUAL_MOST = f"quantile_over_time(0.99, {POWER}[$__range])"

_IDLE = f"deepseek_gpu_utilization_ratio{{{HOST}}} <= {SAME_HOST} {threshold('active_utilization_ratio')}"
IDLE_POWER = f"({POWER} and {SAME_DEVICE} ({_IDLE}))"
HELD = held_by_deployments(f'{HOST}, holder=~"$deployment"')
PLACED = f"max by (instance, job, uuid, deployment) ({HELD} > bool 0)"


def joules(window: str, by: str = "") -> str:
    """Energy of the chosen pools within a window."""
    return f"sum{f' by ({by}) ' if by else ''}(increase({ENERGY}[{window}]) {WITH_POOL})"


def watts(of: str, by: str = "") -> str:
    return f"sum{f' by ({by}) ' if by else ''}({of} {WITH_POOL})"


def generated(window: str) -> str:
    """Tokens that each deployment generated, on all its nodes; absent where there are none."""
    return f"(sum by ({ACROSS}) (increase({GENERATED}[{window}])) > 0)"


def of_deployments(window: str) -> str:
    """Energy of the devices that serve each deployment."""
    of_device = f"sum by (instance, job, uuid) (increase({ENERGY}[{window}]))"
    return f"sum by ({ACROSS}) ({PLACED} * {SAME_DEVICE} group_left () {of_device})"


def per_token(window: str) -> str:
    return f"{of_deployments(window)} / on ({ACROSS}) {generated(window)}"


def stats() -> tuple[Panel, ...]:
    idle_share = f"(({watts(IDLE_POWER)}) or {watts(POWER)} * 0) / {watts(POWER)}"
    all_tokens = f"sum(increase({GENERATED}[$__range]))"
    all_energy = f"sum({of_deployments('$__range')})"
    return (
        stat(
            "Energy",
            "Energy of all chosen devices over the period shown, GPUs only.",
            "kwatth",
            f"{joules('$__range')} / {JOULES_PER_KWH}",
            decimals=1,
            width=4,
        ),
        stat(
            "Cost",
            "That energy at the price chosen above, in the currency of that price. The rest of the node, "
            "cooling and purchase are not in it.",
            "none",
            f"{joules('$__range')} / {JOULES_PER_KWH} * {PRICE}",
            decimals=2,
            width=4,
        ),
        stat(
            "Energy per token",
            "Energy of the devices that serve the chosen deployments / tokens they generated. Depends on "
            "batch, context and hardware; prompts are paid for by the tokens generated.",
            "suffix: J",
            f"{all_energy} / ({all_tokens} > 0)",
            decimals=2,
            width=4,
            absent="no tokens",
        ),
        stat(
            "Cost of a million tokens",
            "The same as cost of one million generated tokens, at the price chosen above.",
            "none",
            f"{all_energy} / ({all_tokens} > 0) * 1e6 / {JOULES_PER_KWH} * {PRICE}",
            decimals=2,
            width=4,
            absent="no tokens",
        ),
        stat(
            "Drawn without work",
            "Share of the power that devices drew while they did not work: utilization at or below its "
            "threshold, looked at every 30 minutes.",
            "percentunit",
            f"avg_over_time(({idle_share})[$__range:30m])",
            decimals=1,
            width=4,
        ),
        stat(
            "Stranded power",
            "Enforced limits − what was drawn in 99 % of the time, all devices: power that is paid for and "
            "planned for, and not used.",
            "watt",
            f"sum(({LIMIT} - {SAME_DEVICE} {USUAL_MOST}) {WITH_POOL})",
            decimals=1,
            width=4,
        ),
    )


def over_time() -> tuple[Panel, ...]:
    return (
        stacked(
            "Energy by host and day",
            "Energy of each host's devices in the day that ends at each bar.",
            "kwatth",
            (Query(f"{joules(DAY, 'instance')} / {JOULES_PER_KWH}", "{{instance}}"),),
            style="bars",
            interval=DAY,
        ),
        stacked(
            "Cost by pool and day",
            "The same at the price chosen above, in its currency, by pool.",
            "none",
            (Query(f"{joules(DAY, 'pool')} / {JOULES_PER_KWH} * {PRICE}", "{{pool}}"),),
            style="bars",
            interval=DAY,
        ),
        lines(
            "Energy per generated token",
            "Energy of the devices that serve a deployment / tokens it generated, over one day. A device "
            "that serves several counts whole for each; devices count as they are placed at that time.",
            "suffix: J",
            (Query(per_token(DAY), "{{deployment}}"),),
            interval="2h",
        ),
        lines(
            "Cost of a million generated tokens",
            "The same as cost, at the price chosen above.",
            "none",
            (Query(f"{per_token(DAY)} * 1e6 / {JOULES_PER_KWH} * {PRICE}", "{{deployment}}"),),
            interval="2h",
        ),
        lines(
            "Power draw and limits by host",
            "Draw of all devices of a host; dashed: the sum of their enforced limits.",
            "watt",
            (
                Query(f"sum by (instance) (avg_over_time({POWER}[$__interval]) {WITH_POOL})", "{{instance}}"),
                Query(
                    f"sum by (instance) (max_over_time({LIMIT}[$__interval]) {WITH_POOL})",
                    "limit {{instance}}",
                ),
            ),
            limits="limit",
            interval="2h",
        ),
        lines(
            "Power without work by host",
            "Draw of the devices that do not work now: a loaded model keeps clocks and memory up.",
            "watt",
            (
                Query(
                    f"sum by (instance) (avg_over_time({IDLE_POWER}[$__interval:30m]) {WITH_POOL})",
                    "{{instance}}",
                ),
            ),
            interval="2h",
        ),
    )


def by_host() -> tuple[Panel, ...]:
    days = "($__range_s / 86400)"
    return (
        table(
            "Hosts",
            "Over the period shown. A month is 30 days like these. Stranded: limits − the draw of 99 % of "
            "the time.",
            "none",
            (
                Query(
                    f"{joules('$__range', 'instance, job, pool')} / {JOULES_PER_KWH} / {days}",
                    column="kWh/day",
                ),
                Query(
                    f"{joules('$__range', 'instance, job, pool')} / {JOULES_PER_KWH} / {days} * {PRICE}",
                    column="Cost/day",
                ),
                Query(
                    f"{joules('$__range', 'instance, job, pool')} / {JOULES_PER_KWH} / {days} * {PRICE} * 30",
                    column="Cost/month",
                ),
                Query(watts(f"avg_over_time({POWER}[$__range])", "instance, job, pool"), column="Mean draw"),
                Query(
                    f"sum by (instance, job, pool) (({LIMIT} - {SAME_DEVICE} {USUAL_MOST}) {WITH_POOL})",
                    column="Stranded",
                ),
            ),
            {"instance": "Host", "pool": "Pool"},
            hidden=("job",),
            width=12,
            height=8,
            overrides=(
                *(override("byName", f"Cost/{one}", decimals=2) for one in ("day", "month")),
                *(override("byName", one, unit="watt", decimals=1) for one in ("Mean draw", "Stranded")),
                wide("Host", 110),
                wide("Pool", 85),
                to_board("Host", "Host and GPU", "deepseek-host-and-gpu", ("instance", "Host")),
            ),
            sort="Host",
        ),
        table(
            "Deployments",
            "Over the period shown, across nodes. Tokens are those generated. Devices count as they are "
            "placed now, and whole for each deployment that they serve.",
            "none",
            (
                Query(f"{of_deployments('$__range')} / {JOULES_PER_KWH}", column="kWh"),
                Query(f"{generated('$__range')} and on ({ACROSS}) {PLACED}", column="Tokens"),
                Query(per_token("$__range"), column="Per token"),
                Query(
                    f"{per_token('$__range')} * 1e6 / {JOULES_PER_KWH} * {PRICE}", column="Cost of a million"
                ),
            ),
            {"deployment": "Deployment"},
            hidden=("job",),
            width=12,
            height=8,
            overrides=(
                override("byName", "Tokens", unit="short", decimals=1),
                override("byName", "Per token", unit="suffix: J", decimals=2),
                override("byName", "Cost of a million", decimals=2),
                to_board("Deployment", "Deployment", "deepseek-deployment", ("deployment", "Deployment")),
            ),
            sort="Deployment",
        ),
    )


def energy_and_cost() -> dict[str, object]:
    """Energy of the devices and what it costs."""
    price = number(
        "price_per_kwh",
        "Price of 1 kWh",
        "0.15",
        "What one kWh costs you, in your currency. The value that stands here at first is an example, no "
        "tariff.",
    )
    return board(
        "energy-and-cost",
        "energy and cost",
        "GPU energy by host, day and token, at a price that you type. Boundary: GPUs only; node, cooling "
        "and purchase come on top.",
        (JOBS, POOLS, HOSTS, DEPLOYMENTS, price),
        (*stats(), Row("Over time"), *over_time(), Row("By host and deployment"), *by_host()),
        since="now-7d",
        refresh="",
    )
