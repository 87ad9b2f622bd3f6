"""Weeks and months of a fleet: what is left, how fast it goes, what a lost host would mean, what to decide.

Reads recording rules, because raw series of many devices over 90 days are too much for one panel.
"""

from __future__ import annotations

from board import (
    HOST,
    HOSTS,
    JOBS,
    LOW,
    POOL,
    POOLS,
    SAME_HOST,
    board,
    held_by_deployments,
    lowest,
    threshold,
    to_board,
)
from panels import (
    BLUE,
    GREEN,
    LEFT_STEPS,
    NONE_WANTED,
    ORANGE,
    RED,
    YES_WANTED,
    Panel,
    Query,
    Row,
    coloured,
    lines,
    override,
    said,
    stat,
    table,
    wide,
)

# No finer: a review looks at days, and a window of one step loses no minimum in between.
STEP = "3h"
# Shares of time are taken of even samples, however densely which part of the period was stored.
SAMPLED = "$__range:30m"
SAME_DEVICE = "on (instance, job, uuid)"
PER_RESOURCE = "instance, job, resource, deployment"
DECISIONS = said(("–", "text"), ("move", BLUE), ("requantise", ORANGE), ("buy", RED))

HEADROOM = f"pool:deepseek_gpu_memory_headroom_bytes:min{{{POOL}, {LOW}}}"
CAPACITY = f"max by (job, pool) (pool:deepseek_gpu_memory_capacity_bytes:sum{{{POOL}}})"
COMMITTED = f"max by (job, pool) (pool:deepseek_gpu_memory_committed_bytes:sum{{{POOL}, {LOW}}})"
WITHOUT_LARGEST = f"max by (job, pool) (pool:deepseek_gpu_memory_capacity_bytes:n_minus_1{{{POOL}}})"
DAYS = f"resource:deepseek_capacity_exhaustion_days:deriv14d{{{HOST}}}"
QUALITY = f"resource:deepseek_capacity_fit_quality:r2_14d{{{HOST}}}"
GROWTH = f"resource:deepseek_capacity_growth_ratio_per_day:deriv14d{{{HOST}}}"
PEAK = f"resource:deepseek_capacity_used_ratio:max1d{{{HOST}}}"
TRUSTED = f"({QUALITY} >= {SAME_HOST} {threshold('exhaustion_fit_r2')})"
SOON = f"({DAYS} < {SAME_HOST} {threshold('exhaustion_info_days')} and on ({PER_RESOURCE}) {TRUSTED})"


def quantile(share: float, values: str, window: str) -> str:
    return f"quantile_over_time({share}, {values}[{window}])"


def stats() -> tuple[Panel, ...]:
    return (
        stat(
            "Headroom now",
            "Headroom of the fullest device of the chosen pools, low bound.",
            "bytes",
            f"min({HEADROOM})",
            LEFT_STEPS,
            decimals=1,
            width=4,
        ),
        stat(
            "Headroom, least",
            "The least that the fullest device of the chosen pools ever had in the period shown, low bound.",
            "bytes",
            f"min(min_over_time({HEADROOM}[$__range]))",
            LEFT_STEPS,
            decimals=1,
            width=4,
        ),
        stat(
            "Pools without N-1",
            "Pools whose committed memory exceeds what remains without their largest host.",
            "short",
            f"sum({COMMITTED} > bool on (job, pool) {WITHOUT_LARGEST})",
            NONE_WANTED,
            width=4,
        ),
        stat(
            "Full soon",
            "GPU memory, RAM and KV caches that reach their capacity within the days set as threshold, by "
            "a trend that fits well enough.",
            "short",
            f"count({SOON}) or count({DAYS}) * 0",
            NONE_WANTED,
            width=4,
        ),
        stat(
            "First to be full",
            "Days until the first of them is full, trends that fit only.",
            "suffix: d",
            f"min({DAYS} and on ({PER_RESOURCE}) {TRUSTED})",
            decimals=0,
            absent="none grows",
            width=4,
        ),
        stat(
            "Trends of no fit",
            "Resources that grow in no straight line: their days are shown below and not to be trusted.",
            "short",
            f"count({DAYS} unless on ({PER_RESOURCE}) {TRUSTED}) or count({DAYS}) * 0",
            width=4,
        ),
    )


def pools() -> tuple[Panel, ...]:
    return (
        table(
            "Pools",
            "Headroom is that of a pool's fullest device over the period: p50 half of the time, p95 in 95 "
            "% of the time at least this much was left. Survives: whether what is committed fits without "
            "the largest host.",
            "bytes",
            (
                Query(CAPACITY, column="Capacity"),
                Query(COMMITTED, column="Committed"),
                Query(f"max by (job, pool) ({quantile(0.5, HEADROOM, SAMPLED)})", column="Headroom p50"),
                Query(f"max by (job, pool) ({quantile(0.05, HEADROOM, SAMPLED)})", column="Headroom p95"),
                Query(f"min by (job, pool) (min_over_time({HEADROOM}[$__range]))", column="Headroom min"),
                Query(WITHOUT_LARGEST, column="Without largest"),
                Query(f"{COMMITTED} <= bool on (job, pool) {WITHOUT_LARGEST}", column="Survives"),
            ),
            {"pool": "Pool", "job": "Job"},
            height=5,
            overrides=(
                *(coloured(f"Headroom {which}", LEFT_STEPS) for which in ("p50", "p95", "min")),
                coloured("Survives", unit="none", decimals=0, mappings=[YES_WANTED]),
            ),
            sort="Pool",
        ),
        lines(
            "Headroom of the fullest device, by pool and day",
            "For each day: p50, p95 (95 % of the time at least this much) and the least. Below zero is "
            "overcommitted.",
            "bytes",
            (
                Query(quantile(0.5, HEADROOM, "1d"), "{{pool}} p50"),
                Query(quantile(0.05, HEADROOM, "1d"), "{{pool}} p95"),
                Query(f"min_over_time({HEADROOM}[1d])", "{{pool}} min"),
            ),
            interval=STEP,
        ),
        lines(
            "Committed, and capacity without the largest host",
            "Committed memory of each pool, low bound. Dashed: what the pool can give, with and without "
            "its largest host. Between the dashes the pool does not survive the loss of that host.",
            "bytes",
            (
                Query(
                    "max_over_time("
                    f"pool:deepseek_gpu_memory_committed_bytes:sum{{{POOL}, {LOW}}}[$__interval])",
                    "{{pool}}",
                ),
                Query(
                    f"max_over_time(pool:deepseek_gpu_memory_capacity_bytes:sum{{{POOL}}}[$__interval])",
                    "capacity {{pool}}",
                ),
                Query(
                    f"max_over_time(pool:deepseek_gpu_memory_capacity_bytes:n_minus_1{{{POOL}}}[$__interval])",
                    "capacity {{pool}}, without its largest host",
                ),
            ),
            limits="capacity",
            interval=STEP,
        ),
    )


def trends() -> tuple[Panel, ...]:
    def per_resource(values: str) -> str:
        return f"max by ({PER_RESOURCE}) ({values})"

    def peaks(resources: str) -> str:
        series = f'resource:deepseek_capacity_used_ratio:max1d{{{HOST}, resource=~"{resources}"}}'
        return f"max_over_time({series}[$__interval])"

    def growing(values: str) -> str:
        return f"{per_resource(values)} and on ({PER_RESOURCE}) {DAYS}"

    def sooner(name: str) -> str:
        return f"({DAYS} < bool {SAME_HOST} {threshold(name)})"

    fits_well = f"({QUALITY} >= bool {SAME_HOST} {threshold('exhaustion_fit_r2')})"
    urgency = f"(1 + {sooner('exhaustion_info_days')} + {sooner('exhaustion_warning_days')})"
    verdict = f"{fits_well} * on ({PER_RESOURCE}) {urgency}"
    return (
        lines(
            "Daily peaks: GPU memory and RAM",
            "The highest committed / capacity of each day. Dashed: where it is overcommitted.",
            "percentunit",
            (
                Query(peaks("gpu_memory|ram"), "{{resource}} {{instance}}"),
                Query(lowest("vram_overcommit_ratio"), "threshold"),
            ),
            limits="threshold",
            interval=STEP,
            legend=True,
        ),
        lines(
            "Daily peaks: KV caches",
            "The highest share in use of each day. Dashed: where a cache counts as saturated.",
            "percentunit",
            (
                Query(peaks("kv_cache"), "{{deployment}} {{instance}}"),
                Query(lowest("kv_cache_saturated_ratio"), "threshold"),
            ),
            limits="threshold",
            interval=STEP,
            legend=True,
        ),
        table(
            "Days to exhaustion",
            "What grows, by a straight line through 14 days of daily peaks. Fit: how well (r²); below the "
            "threshold the days are not to be trusted. Peaks are those of the last seven days and of the "
            "seven before.",
            "percentunit",
            (
                Query(growing(f"max_over_time({PEAK}[7d])"), column="Peak, 7 d"),
                Query(growing(f"max_over_time({PEAK}[7d] offset 7d)"), column="7 d before"),
                Query(growing(GROWTH), column="Growth a day"),
                Query(per_resource(DAYS), column="Days left"),
                Query(growing(QUALITY), column="Fit"),
                Query(per_resource(verdict), column="Verdict"),
            ),
            {"instance": "Host", "resource": "Resource", "deployment": "Deployment"},
            hidden=("job",),
            height=9,
            overrides=(
                override("byName", "Growth a day", unit="percentunit", decimals=2),
                override("byName", "Days left", unit="suffix: d", decimals=0),
                override("byName", "Fit", unit="none", decimals=2),
                coloured(
                    "Verdict",
                    unit="none",
                    decimals=0,
                    mappings=[
                        said(
                            ("no straight line", "text"),
                            ("time enough", GREEN),
                            ("plan", ORANGE),
                            ("act", RED),
                        )
                    ],
                ),
                to_board("Host", "Host and GPU", "deepseek-host-and-gpu", ("instance", "Host")),
            ),
            sort="Days left",
        ),
    )


def waste() -> Panel:
    across = "job, deployment"
    placed = f"max by (instance, job, uuid, deployment) ({held_by_deployments(HOST)} > bool 0)"
    busy = (
        f"avg by ({across}) ({placed} * on (instance, job, uuid) group_left () "
        f"avg_over_time(deepseek_gpu_utilization_ratio{{{HOST}}}[$__range]))"
    )
    reserved = f"sum by ({across}) ({placed}) * $__range_s / 3600"
    usage = f"max_over_time(deepseek_kv_cache_usage_ratio{{{HOST}}}[$__range])"
    peak = f"max by ({across}) ({usage}) and on ({across}) {reserved}"
    pool = f'sum by ({across}) (deepseek_expected_gpu_memory_bytes{{{HOST}, component="kv_cache"}})'
    idle = f"({reserved}) * on ({across}) (1 - {busy})"
    return table(
        "Waste",
        "The ten deployments with most GPU-hours without work, as placed now, over the whole period. KV "
        "unused: the part of the KV cache that no moment of the period needed, for which a smaller pool "
        "would have sufficed.",
        "bytes",
        (
            Query(f"topk(10, {idle})", column="GPU-h idle"),
            Query(reserved, column="GPU-h held"),
            Query(busy, column="Utilization"),
            Query(f"sum by ({across}) ({held_by_deployments(HOST)})", column="GPU memory"),
            Query(peak, column="KV peak"),
            Query(f"(1 - {peak}) * on ({across}) {pool}", column="KV unused"),
        ),
        {"deployment": "Deployment"},
        hidden=("job",),
        width=14,
        height=7,
        overrides=(
            *(override("byName", f"GPU-h {one}", unit="locale", decimals=0) for one in ("idle", "held")),
            *(override("byName", one, unit="percentunit", decimals=0) for one in ("Utilization", "KV peak")),
            to_board("Deployment", "Deployment", "deepseek-deployment", ("deployment", "Deployment")),
        ),
        sort="GPU-h idle",
        falling=True,
    )


def decisions() -> Panel:
    per_host = "instance, job"
    headroom = f"deepseek_gpu_memory_headroom_bytes{{{HOST}, {LOW}}}"
    least = f"min by ({per_host}) ({headroom})"
    pool_of = f'{SAME_DEVICE} group_left (pool) deepseek_gpu_info{{job=~"$job", pool=~"$pool"}}'
    everywhere = f'deepseek_gpu_memory_headroom_bytes{{job=~"$job", {LOW}}}'
    emptiest = f"max by (job, pool) ({everywhere} * {pool_of})"
    room = (
        f"max by ({per_host}) (0 * max by ({per_host}, pool) ({headroom} * {pool_of}) "
        f"+ on (job, pool) group_left () {emptiest})"
    )
    growing = (
        f"max by ({per_host}) "
        f'(resource:deepseek_capacity_growth_ratio_per_day:deriv14d{{{HOST}, resource="gpu_memory"}})'
    )
    largest = f"max by ({per_host}) (deepseek_gpu_memory_capacity_bytes{{{HOST}}})"
    grown = f"30 * clamp_min({growing}, 0) * on ({per_host}) {largest}"
    missing = f"(clamp_min(-({least}), 0) + on ({per_host}) ({grown} or {least} * 0))"
    soon = SOON.replace(f"{{{HOST}}}", f'{{{HOST}, resource="gpu_memory"}}')
    tight = f"(max by ({per_host}) (({least} < 0) or {soon}) * 0)"
    wide_weights = (
        f"sum by ({per_host}) "
        f'(deepseek_expected_gpu_memory_bytes{{{HOST}, component="weights"}} '
        f"and on (instance, job, deployment) "
        f'deepseek_deployment_info{{{HOST}, quantization=~"bf16|bfloat16|f16|fp16|float16|f32|fp32"}})'
    )
    movable = f"({room} >= bool on ({per_host}) {missing})"
    smaller = f"(({wide_weights} > bool 0) or {tight})"
    # 1 move where a device of the pool has the room, else 2 requantise what is 16 bit, else 3 buy.
    code = f"{tight} + 3 - 2 * {movable} - (1 - {movable}) * {smaller}"
    return table(
        "Decisions",
        "Hosts with a device that is overcommitted now, or full soon by a trend that fits. Missing: what "
        "is over on the fullest device plus 30 days of growth. Move: one device of the pool has that room. "
        "Requantise: none has, and weights in 16 bit are loaded here. Buy: neither. No rows: nothing to "
        "decide.",
        "bytes",
        (
            Query(code, column="Decision"),
            Query(f"{missing} + on ({per_host}) {tight}", column="Missing"),
            Query(f"{room} + on ({per_host}) {tight}", column="Most room"),
            Query(f"{wide_weights} + on ({per_host}) {tight}", column="In 16 bit"),
        ),
        {"instance": "Host"},
        hidden=("job",),
        width=10,
        height=7,
        overrides=(
            coloured("Decision", unit="none", decimals=0, mappings=[DECISIONS]),
            wide("Host", 110),
            to_board("Host", "Model fit", "deepseek-model-fit", keep=("pool",)),
        ),
        sort="Missing",
        falling=True,
    )


def capacity_review() -> dict[str, object]:
    """Weeks and months of a fleet."""
    return board(
        "capacity-review",
        "capacity review",
        "What is left, how fast it goes, what a lost host would mean and what to decide; choose 30 or 90 "
        "days. Needs the recording rules.",
        (JOBS, POOLS, HOSTS),
        (
            *stats(),
            Row("Room"),
            *pools(),
            Row("Trends"),
            *trends(),
            Row("Decide"),
            decisions(),
            waste(),
        ),
        since="now-30d",
        refresh="",
    )
