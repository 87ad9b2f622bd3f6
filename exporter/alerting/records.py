"""What Prometheus records from the metrics: levels upwards, trends and forecasts, and how often.

Names are `level:metric:operation`. What one host knows of itself the daemon adds up, and long windows read
series that are recorded seldom: a thousand hosts of eight devices would cost seconds otherwise
(benchmarks/rule_evaluation.py measures it).
"""

from __future__ import annotations

from dataclasses import dataclass

# The scraper's labels that name one host; every join stays within them, so one Prometheus serves many hosts.
HOST_LABELS = ("instance", "job")

MINUTE = 60


@dataclass(frozen=True, slots=True)
class Record:
    """One recording rule; `labels` are put on what it gives."""

    name: str
    expr: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are worked out together, records before alerts. `interval_seconds` 0: the server's own."""

    name: str
    records: tuple[Record, ...] = ()
    interval_seconds: int = 0


_IN_POOL = "on (instance, job) group_left (pool) host:deepseek_gpu_info:max"
_HOUR = "[1h]"
"""A host that is not scraped counts as it was, so that its silence neither frees nor takes capacity."""

CAPACITY = Group(
    "capacity",
    (
        Record(
            "deployment:deepseek_expected_gpu_memory_bytes:sum",
            "sum by (instance, job, deployment) (deepseek_expected_gpu_memory_sum_bytes)",
        ),
        Record(
            "deployment:deepseek_expected_host_memory_bytes:sum",
            "sum by (instance, job, deployment) (deepseek_expected_host_memory_bytes)",
        ),
    ),
)

FLEET = Group(
    "fleet",
    (
        # A service is a deployment over all its hosts, which know it by the same name.
        Record(
            "service:deepseek_expected_gpu_memory_bytes:sum",
            "sum by (job, deployment) (deployment:deepseek_expected_gpu_memory_bytes:sum)",
        ),
        Record(
            "service:deepseek_deployment_hosts:count",
            "count by (job, deployment) (deployment:deepseek_expected_gpu_memory_bytes:sum)",
        ),
        Record(
            # As tight as its tightest rank, on whichever host that is.
            "service:deepseek_gpu_memory_headroom_bytes:min",
            'min by (job, deployment) (deepseek_deployment_gpu_memory_headroom_min_bytes{bound="low"})',
        ),
        Record("host:deepseek_gpu_info:max", "max by (instance, job, pool) (deepseek_gpu_info)"),
        Record(
            "host:deepseek_gpu_memory_capacity_bytes:sum",
            f"deepseek_host_gpu_memory_capacity_bytes\n* {_IN_POOL}",
        ),
        Record(
            "host:deepseek_gpu_memory_committed_bytes:sum",
            f"deepseek_host_gpu_memory_committed_bytes\n* {_IN_POOL}",
        ),
        Record(
            "pool:deepseek_gpu_memory_capacity_bytes:sum",
            f"sum by (job, pool) (last_over_time(host:deepseek_gpu_memory_capacity_bytes:sum{_HOUR}))",
        ),
        Record(
            "pool:deepseek_gpu_memory_capacity_bytes:n_minus_1",
            "pool:deepseek_gpu_memory_capacity_bytes:sum\n"
            f"- max by (job, pool) (last_over_time(host:deepseek_gpu_memory_capacity_bytes:sum{_HOUR}))",
        ),
        Record(
            "pool:deepseek_gpu_memory_committed_bytes:sum",
            "sum by (job, pool, bound) (\n"
            f"last_over_time(host:deepseek_gpu_memory_committed_bytes:sum{_HOUR})\n)",
        ),
        Record(
            "pool:deepseek_gpu_memory_headroom_bytes:min",
            f"min by (job, pool, bound) (\ndeepseek_host_gpu_memory_headroom_min_bytes\n* {_IN_POOL}\n)",
        ),
        Record(
            "fleet:deepseek_gpu_memory_headroom_bytes:min",
            "min by (job, bound) (deepseek_host_gpu_memory_headroom_min_bytes)",
        ),
        Record(
            "fleet:deepseek_host_memory_headroom_bytes:min",
            "min by (job, bound) (deepseek_host_memory_headroom_bytes)",
        ),
    ),
)

TRENDS = Group(
    "trends",
    (
        Record(
            "store:deepseek_model_store_occupied_bytes:max",
            "max by (instance, job, store) (deepseek_model_store_occupied_bytes)",
        ),
        Record(
            "deployment:deepseek_tokens:sum",
            "sum by (instance, job, deployment) (deepseek_tokens_total)",
        ),
    ),
    interval_seconds=2 * MINUTE,
)


def _peak(resource: str, expr: str) -> Record:
    return Record("resource:deepseek_capacity_used_ratio:max10m", expr, (("resource", resource),))


_PEAKS = "resource:deepseek_capacity_used_ratio:max1d[15d:1d]"
_GROWTH = "resource:deepseek_capacity_growth_ratio_per_day:deriv14d"

FORECAST = Group(
    "forecast",
    (
        # Committed memory and tokens in use, never what an engine reserves at its start.
        _peak(
            "gpu_memory",
            "max without (bound) (\n"
            'max_over_time(deepseek_host_gpu_memory_overcommit_max_ratio{bound="low"}[10m])\n)',
        ),
        _peak(
            "ram",
            'max without (bound) (max_over_time(deepseek_host_memory_overcommit_ratio{bound="low"}[10m]))',
        ),
        _peak("kv_cache", "max_over_time(deepseek_kv_cache_usage_ratio[10m])"),
        Record(
            "resource:deepseek_capacity_used_ratio:max1d",
            "max_over_time(resource:deepseek_capacity_used_ratio:max10m[1d])",
        ),
        Record(
            # One peak a day, at midnight UTC; nothing is forecast from fewer than 14.
            "resource:deepseek_capacity_used_ratio:count15d",
            f"count_over_time({_PEAKS}) >= 14",
        ),
        Record(_GROWTH, f"86400 * deriv({_PEAKS})\nand resource:deepseek_capacity_used_ratio:count15d"),
        Record(
            # Share of the variance that the line explains: slope² · var(t) / var(y), and n instants a day
            # apart have the variance (n² - 1) / 12.
            "resource:deepseek_capacity_fit_quality:r2_14d",
            f"{_GROWTH} ^ 2\n* (resource:deepseek_capacity_used_ratio:count15d ^ 2 - 1) / 12\n"
            f"/ (stdvar_over_time({_PEAKS}) > 0)",
        ),
        Record(
            "resource:deepseek_capacity_exhaustion_days:deriv14d",
            f"clamp_min(1 - resource:deepseek_capacity_used_ratio:max1d, 0) / ({_GROWTH} > 0)",
        ),
    ),
    interval_seconds=5 * MINUTE,
)

MONITORING = Group("monitoring")

GROUPS = (CAPACITY, FLEET, TRENDS, FORECAST, MONITORING)
