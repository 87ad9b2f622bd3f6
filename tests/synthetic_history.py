"""The made-up fleet as a history in OpenMetrics text: six hours by the minute after 90 days in coarse steps.

The coarse part holds only what reviews read: records, energy and work. Records of the fine part are added up
from its own samples, as the recording rules do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from synthetic_fleet import moment
from synthetic_hosts import (
    DAY,
    GIB,
    HOSTS,
    SERVED,
    THRESHOLDS,
    Host,
    Sample,
    device_labels,
    energy_and_work,
    load,
    running,
    serving,
    wave,
)

FINE_SECONDS = 6 * 3600 + 1200
"""More than boards show, so that a rate has what to look back on."""
FINE_STEP_SECONDS = 60
COARSE_SECONDS = 90 * DAY
COARSE_STEP_SECONDS = 7200
KNEE_DAYS = 20
"""Since when what grows has grown."""

# Share of capacity at the end, growth a day, fit, and how much a day's peak differs from the next.
RESOURCES: dict[tuple[str, str, str], tuple[float, float, float, float]] = {
    ("gpu-01:9671", "gpu_memory", ""): (1.1232, 0.0, 0.12, 0.004),
    ("gpu-02:9671", "gpu_memory", ""): (0.9102, 0.0, 0.05, 0.003),
    ("gpu-03:9671", "gpu_memory", ""): (0.9355, 0.0062, 0.97, 0.004),
    ("gpu-04:9671", "gpu_memory", ""): (0.9008, 0.0078, 0.91, 0.006),
    ("gpu-05:9671", "gpu_memory", ""): (0.2815, 0.0011, 0.34, 0.06),
    ("cpu-01:9671", "ram", ""): (0.8434, 0.0021, 0.88, 0.004),
    **{
        (host.name, "ram", ""): (host.ram_committed_gib / (host.ram_gib - 1), 0.0, 0.02, 0.002)
        for host in HOSTS[:-1]
    },
    ("gpu-01:9671", "kv_cache", "r1"): (0.97, 0.0093, 0.86, 0.03),
    ("gpu-02:9671", "kv_cache", "v31-awq"): (0.52, 0.0004, 0.09, 0.08),
    ("gpu-04:9671", "kv_cache", "distill-14b"): (0.17, 0.0, 0.01, 0.05),
    ("gpu-05:9671", "kv_cache", "distill-8b"): (0.02, 0.0, 0.01, 0.01),
}


def openmetrics(end_seconds: int) -> str:
    """The history that ends at a Unix time."""
    series: dict[str, list[str]] = defaultdict(list)

    def write(samples: Iterable[Sample], at: int) -> None:
        for name, labels, value in samples:
            written = ",".join([f'{key}="{text}"' for key, text in labels.items() if text])
            series[name].append(f"{name}{{{written}}} {value} {at}")

    # On whole steps, so that a query at whole hours finds a sample whenever the history ends.
    first = (end_seconds - COARSE_SECONDS) // COARSE_STEP_SECONDS * COARSE_STEP_SECONDS
    for at in range(first, end_seconds - FINE_SECONDS, COARSE_STEP_SECONDS):
        write(coarse(at, end_seconds - at), at)
    for back in range(FINE_SECONDS, -1, -FINE_STEP_SECONDS):
        at = end_seconds - back
        now = list(moment(at, back))
        write(now, at)
        write(recorded(now), at)
        write(resources(at, back), at)
    # Untyped on purpose: the type line of a counter would have to name it without `_total`.
    blocks = [f"# TYPE {name} unknown\n" + "\n".join(lines) for name, lines in sorted(series.items())]
    return "\n".join(blocks) + "\n# EOF\n"


def coarse(at: int, back: int) -> Iterator[Sample]:
    """What reviews read, long before the fine part."""
    for host in HOSTS:
        for index in range(host.gpus):
            device = {**host.where, **device_labels(index, host)}
            for name, labels, value in _device_long_ago(host, index, at):
                yield name, {**device, **labels}, value
        for name in ("active_utilization_ratio", "vram_overcommit_ratio", "kv_cache_saturated_ratio"):
            yield "deepseek_threshold", {**host.where, "name": name}, THRESHOLDS[name]
    for one in SERVED:
        where = {"instance": one.host, "job": "deepseek", "deployment": one.name}
        for name, labels, value in load(one, at, back):
            yield name, {**where, **labels}, value
    yield from resources(at, back)
    yield from _pools_long_ago(at, back)


def _device_long_ago(host: Host, index: int, at: int) -> Iterator[Sample]:
    yield from energy_and_work(host, index, at)
    yield "deepseek_gpu_info", {"name": host.device[0], "vendor": "nvidia", "pool": host.pool}, 1
    one = serving(host, index)
    if one is None:
        return
    holder = {"holder": one.name, "holder_kind": "deployment"}
    yield "deepseek_gpu_memory_held_bytes", holder, round(one.per_device * 0.99 * GIB)
    for part, gib in one.gib.items():
        label = {"deployment": one.name, "component": part}
        yield "deepseek_expected_gpu_memory_bytes", label, round(gib * GIB)


def resources(at: int, back: int) -> Iterator[Sample]:
    """The records of daily peaks and their trend."""
    for (host, resource, deployment), (end, growth, fit, differs) in RESOURCES.items():
        labels = {"instance": host, "job": "deepseek", "resource": resource, "deployment": deployment}
        incident = end > 1 and back > DAY / 2
        peak = 0.9233 if incident else end
        peak -= growth * min(back / DAY, KNEE_DAYS)
        peak += differs * wave(at // DAY, period=6.7) * min(1.0, back / DAY)
        yield "resource:deepseek_capacity_used_ratio:max1d", labels, round(max(peak, 0.01), 4)
        yield "resource:deepseek_capacity_growth_ratio_per_day:deriv14d", labels, growth
        yield "resource:deepseek_capacity_fit_quality:r2_14d", labels, fit
        if growth:
            days = (1 - peak) / growth
            yield "resource:deepseek_capacity_exhaustion_days:deriv14d", labels, round(days, 2)


def _pools_long_ago(at: int, back: int) -> Iterator[Sample]:
    days = back / DAY
    restart = -3 if 40 < days < 40.3 else 0
    usual = {
        "production": 7.1 + 0.9 * wave(at, period=7 * DAY) + restart * 3,
        "research": 4.4 + 0.35 * min(days, KNEE_DAYS),
    }
    for pool, headroom in usual.items():
        hosts = [host for host in HOSTS if host.pool == pool]
        capacities = [host.capacity * host.gpus for host in hosts]
        labels = {"job": "deepseek", "pool": pool}
        yield "pool:deepseek_gpu_memory_capacity_bytes:sum", labels, sum(capacities)
        yield "pool:deepseek_gpu_memory_capacity_bytes:n_minus_1", labels, sum(capacities) - max(capacities)
        held = sum(one.per_device * len(one.devices) for host in hosts for one in running(host))
        for bound, more in (("low", 0), ("high", 9)):
            bounded = {**labels, "bound": bound}
            yield (
                "pool:deepseek_gpu_memory_headroom_bytes:min",
                bounded,
                round((headroom - more / 9 * 2) * GIB),
            )
            size = round((held + more + max(0.0, 11 - 0.4 * min(days, KNEE_DAYS))) * GIB)
            yield "pool:deepseek_gpu_memory_committed_bytes:sum", bounded, size


def recorded(now: Iterable[Sample]) -> Iterator[Sample]:
    """What the recording rules make of the samples of one moment."""
    pools = {host.name: host.pool for host in HOSTS}
    sums: dict[tuple[str, str, str], float] = defaultdict(float)
    least: dict[tuple[str, str], float] = {}
    for name, labels, value in now:
        host, bound = labels.get("instance", ""), labels.get("bound", "")
        if name in ("deepseek_gpu_memory_capacity_bytes", "deepseek_gpu_memory_committed_bytes"):
            sums[name, host, bound] += value
        elif name == "deepseek_gpu_memory_headroom_bytes":
            least[host, bound] = min(value, least.get((host, bound), value))
    by_pool: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for (name, host, bound), value in sums.items():
        labels = {"instance": host, "job": "deepseek", "pool": pools[host], "bound": bound}
        yield f"host:{name}:sum", labels, value
        by_pool[name, pools[host], bound].append(value)
    for (name, pool, bound), values in by_pool.items():
        labels = {"job": "deepseek", "pool": pool, "bound": bound}
        yield f"pool:{name}:sum", labels, sum(values)
        if name == "deepseek_gpu_memory_capacity_bytes":
            yield f"pool:{name}:n_minus_1", labels, sum(values) - max(values)
    for bound in ("low", "high"):
        for pool in {pools[host] for host, _ in least}:
            labels = {"job": "deepseek", "pool": pool, "bound": bound}
            value = min(v for (host, b), v in least.items() if b == bound and pools[host] == pool)
            yield "pool:deepseek_gpu_memory_headroom_bytes:min", labels, value
