"""What else fits: another replica of each deployment on each host, by what the deployment itself should need.

PromQL cannot pair every deployment with every host, so one panel is repeated for each deployment. The figures
are the exporter's expected footprint and headroom; models that run nowhere are not known here.
"""

from __future__ import annotations

from board import HIGH, HOST, HOSTS, JOBS, PER_HOST, POOLS, board, choice, to_board
from panels import (
    LEFT_STEPS,
    YES_WANTED,
    Panel,
    Query,
    Row,
    bars,
    coloured,
    lines,
    override,
    stat,
    table,
    wide,
)

OF = 'job=~"$job", deployment=~"$deployment"'
IN_POOL = f'and on (instance, job, uuid) deepseek_gpu_info{{{HOST}, pool=~"$pool"}}'
# What is not promised to anyone, estimates at their high end: a plan must not rest on luck.
ROOM = f"(clamp_min(deepseek_gpu_memory_headroom_bytes{{{HOST}, {HIGH}}}, 0) {IN_POOL})"
EMPTY = f"(deepseek_gpu_memory_capacity_bytes{{{HOST}}} {IN_POOL})"

_PER_RANK = f"sum by (instance, uuid) (deepseek_expected_gpu_memory_bytes{{{OF}}})"
_KV_PER_RANK = f'sum by (instance, uuid) (deepseek_expected_gpu_memory_bytes{{{OF}, component="kv_cache"}})'
_HEADS = f'count(deepseek_deployment_info{{{OF}, node_rank=~"|0"}})'
NEED = f"scalar(max({_PER_RANK}))"
FIXED = f"scalar(max({_PER_RANK}) - (max({_KV_PER_RANK}) or vector(0)))"
# Replicas of one name on several hosts, each with a first node, are counted once.
RANKS = f"scalar(count({_PER_RANK}) / {_HEADS})"
NEED_RAM = f"scalar(max(sum by (instance) (deepseek_expected_host_memory_bytes{{{OF}}})) or vector(0))"
TOKEN_BYTES = f"scalar(max(deepseek_kv_cache_bytes_per_token{{{OF}}}))"
CONTEXT = f"scalar(max(deepseek_deployment_max_context_tokens{{{OF}}}))"
RAM_LEFT = f"min by ({PER_HOST}) (deepseek_host_memory_headroom_bytes{{{HOST}, {HIGH}}})"


def tightest(room: str) -> str:
    """The least room among as many devices of a host as the deployment takes, the emptiest chosen."""
    return f"min by ({PER_HOST}) (topk by ({PER_HOST}) ({RANKS}, {room}))"


def fits(room: str) -> str:
    """1 where a host has the devices, the room on each, and the RAM; else 0."""
    enough = f"(count by ({PER_HOST}) ({room}) >= bool {RANKS})"
    return f"{enough} * on ({PER_HOST}) ({tightest(room)} >= bool {NEED})"


def fit() -> Panel:
    tokens = f"clamp_min({tightest(ROOM)} - {FIXED}, 0) / {TOKEN_BYTES}"
    with_devices = f"* on ({PER_HOST}) (count by ({PER_HOST}) ({ROOM}) >= bool {RANKS})"
    return table(
        "Another $deployment",
        "Would one more replica fit on each host, as it is now or empty? GPUs: how many it takes and how "
        "many the host has. Needs, room and missing: per GPU, on the tightest of those that would be used, "
        "high bound. A deployment that spans hosts is asked of each host alone. Context and requests: "
        "what the room that is left would hold as KV cache, at the deployment's own context length.",
        "bytes",
        (
            Query(
                f"({fits(ROOM)}) * on ({PER_HOST}) ({RAM_LEFT} >= bool {NEED_RAM})",
                column="Fits now",
            ),
            Query(fits(EMPTY), column="Fits empty"),
            Query(f"count by ({PER_HOST}) ({ROOM}) * 0 + {RANKS}", column="GPUs taken"),
            Query(f"count by ({PER_HOST}) ({ROOM})", column="GPUs here"),
            Query(f"count by ({PER_HOST}) ({ROOM}) * 0 + {NEED}", column="Needs"),
            Query(tightest(ROOM), column="Room"),
            Query(f"clamp_min({NEED} - {tightest(ROOM)}, 0)", column="Missing"),
            Query(f"clamp_min({NEED_RAM} - {RAM_LEFT}, 0) and on ({PER_HOST}) {ROOM}", column="Missing RAM"),
            Query(f"clamp_max(floor({tokens}), {CONTEXT}) {with_devices}", column="Context"),
            Query(f"{tokens} / {CONTEXT} {with_devices}", column="Requests"),
        ),
        {"instance": "Host"},
        hidden=("job",),
        height=7,
        overrides=(
            *(
                coloured(one, unit="none", decimals=0, mappings=[YES_WANTED])
                for one in ("Fits now", "Fits empty")
            ),
            *(override("byName", one, unit="none", decimals=0) for one in ("GPUs taken", "GPUs here")),
            override("byName", "Context", unit="locale", decimals=0),
            override("byName", "Requests", unit="none", decimals=1),
            wide("Host", 130),
            to_board("Host", "Host and GPU", "deepseek-host-and-gpu", ("instance", "Host")),
        ),
        sort="Host",
        repeat="deployment",
    )


def room() -> tuple[Panel, ...]:
    per_host_room = f"sum by ({PER_HOST}) ({ROOM})"
    return (
        stat(
            "Room in all",
            "Headroom of all chosen devices together, high bound, overcommitted ones counting nothing. One "
            "replica can only use what its own devices have.",
            "bytes",
            f"sum({ROOM})",
            decimals=1,
            width=6,
        ),
        stat(
            "Emptiest device",
            "The largest room on one device, high bound.",
            "bytes",
            f"max({ROOM})",
            decimals=1,
            width=6,
        ),
        stat(
            "Devices with nothing promised",
            "Devices whose whole capacity is free at the high bound.",
            "short",
            f"sum({ROOM} >= bool on (instance, job, uuid) {EMPTY})",
            width=6,
        ),
        stat(
            "Reclaimable",
            "Held by KV pools and not in use by any request now: smaller pools would give this back, and a "
            "replica could use it.",
            "bytes",
            f"sum(deepseek_gpu_memory_reclaimable_bytes{{{HOST}}} {IN_POOL})",
            decimals=1,
            width=6,
        ),
        bars(
            "Room by host",
            "Headroom of all devices of a host together, high bound: the ten hosts with most.",
            "bytes",
            Query(f"topk(10, {per_host_room})", "{{instance}}"),
        ),
        table(
            "Hosts",
            "What each host could give to something new. Emptiest: the room on one device, the largest "
            "rank that fits without moving anything.",
            "bytes",
            (
                Query(f'max by ({PER_HOST}, name, pool) (deepseek_gpu_info{{{HOST}, pool=~"$pool"}})'),
                Query(f"count by ({PER_HOST}) ({ROOM})", column="GPUs"),
                Query(f"sum by ({PER_HOST}) ({EMPTY})", column="Capacity"),
                Query(per_host_room, column="Room"),
                Query(f"max by ({PER_HOST}) ({ROOM})", column="Emptiest"),
                Query(f"{RAM_LEFT} and on ({PER_HOST}) {ROOM}", column="RAM"),
            ),
            {"instance": "Host", "pool": "Pool", "name": "Device"},
            hidden=("job",),
            width=18,
            height=7,
            overrides=(
                override("byName", "GPUs", unit="none", decimals=0),
                coloured("RAM", LEFT_STEPS),
                wide("Device", 200),
            ),
            sort="Host",
        ),
        lines(
            "Room over time",
            "Headroom of all devices of each host together, high bound: whether the room of now is the "
            "usual room.",
            "bytes",
            (Query(per_host_room, "{{instance}}"),),
            width=24,
            height=7,
        ),
    )


def model_fit() -> dict[str, object]:
    """What else fits."""
    deployments = choice(
        "deployment",
        "Deployment",
        'label_values(deepseek_expected_gpu_memory_bytes{job=~"$job"}, deployment)',
    )
    return board(
        "model-fit",
        "model fit",
        "Whether one more replica of a deployment would fit on each host, what is missing, and what "
        "context it would have. Models that run nowhere yet: deepseek-exporter footprint.",
        (JOBS, POOLS, HOSTS, deployments),
        (*room(), Row("Would one more fit?"), fit()),
    )
