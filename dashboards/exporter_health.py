"""The monitoring itself: does every exporter answer, see what it should, and get its messages out?"""

from __future__ import annotations

from board import HOST, HOSTS, JOBS, PER_HOST, board, lowest
from panels import (
    NO_WANTED,
    NONE_WANTED,
    YES_WANTED,
    Panel,
    Query,
    Row,
    coloured,
    lines,
    override,
    stat,
    table,
    wide,
)

PER_SOURCE = f"{PER_HOST}, source"
SNAPSHOT = f"deepseek_exporter_snapshot_timestamp_seconds{{{HOST}}}"
DOWN = f"(1 - deepseek_exporter_source_up{{{HOST}}})"
DOWN_THOUGH_EXPECTED = f"deepseek_exporter_source_expected{{{HOST}}} * on ({PER_SOURCE}) {DOWN}"
RATE = "[$__rate_interval]"


def stats() -> tuple[Panel, ...]:
    return (
        stat(
            "Hosts silent",
            "Exporters that Prometheus cannot scrape.",
            "short",
            f"sum(1 - up{{{HOST}}})",
            NONE_WANTED,
        ),
        stat(
            "Sources down",
            "Sources that are expected on their host and do not answer.",
            "short",
            f"sum({DOWN_THOUGH_EXPECTED})",
            NONE_WANTED,
        ),
        stat(
            "Oldest snapshot",
            "Age of the oldest figures that an exporter serves.",
            "s",
            f"max(time() - {SNAPSHOT})",
            decimals=0,
        ),
        stat(
            "Workers stuck",
            "Worker processes inside a driver call that does not return.",
            "short",
            f"sum(deepseek_exporter_workers_stuck{{{HOST}}})",
            NONE_WANTED,
        ),
        stat(
            "Reloads failed",
            "Exporters that run on an older configuration because the new one is wrong.",
            "short",
            f"sum(1 - deepseek_exporter_config_last_reload_successful{{{HOST}}})",
            NONE_WANTED,
        ),
        stat(
            "Sending fails",
            "Pairs of exporter and Alertmanager between which notifications fail; absent where the daemon "
            "sends none.",
            "short",
            f"sum(1 - deepseek_exporter_notifications_up{{{HOST}}})",
            NONE_WANTED,
            absent="sends none",
        ),
        stat(
            "Versions",
            "Different versions that run; more than one during an upgrade.",
            "short",
            f"count(count by (version) (deepseek_exporter_build_info{{{HOST}}}))",
        ),
        stat(
            "Series in all",
            "Series of all exporters together, process metrics not counted.",
            "short",
            f"sum(deepseek_exporter_series{{{HOST}}})",
        ),
    )


def tables() -> tuple[Panel, ...]:
    return (
        table(
            "Exporters",
            "What runs on each host. Reload: whether the configuration on disk is in force, and since when.",
            "short",
            (
                Query(
                    f"max by ({PER_HOST}, version, revision, python) (deepseek_exporter_build_info{{{HOST}}})"
                ),
                Query(f"max by ({PER_HOST}) (time() - {SNAPSHOT})", column="Age"),
                Query(
                    f"min by ({PER_HOST}) (deepseek_exporter_config_last_reload_successful{{{HOST}}})",
                    column="Reload",
                ),
                Query(
                    f"max by ({PER_HOST}) "
                    f"(time() - deepseek_exporter_config_last_reload_timestamp_seconds{{{HOST}}})",
                    column="Read",
                ),
                Query(f"max by ({PER_HOST}) (deepseek_exporter_series{{{HOST}}})", column="Series"),
                Query(f"max by ({PER_HOST}) (process_resident_memory_bytes{{{HOST}}})", column="Memory"),
            ),
            {"instance": "Host", "version": "Version", "revision": "Revision", "python": "Python"},
            hidden=("job",),
            width=12,
            height=9,
            decimals=0,
            overrides=(
                override("byName", "Age", unit="s"),
                override("byName", "Read", unit="s", decimals=1),
                override("byName", "Memory", unit="bytes", decimals=1),
                coloured("Reload", mappings=[YES_WANTED]),
                wide("Host", 110),
            ),
            sort="Host",
        ),
        table(
            "Sources",
            "What each exporter reads, how it is, how long ago it last succeeded, and how long that took. "
            "Blind: expected on its host, and down. NVML without a GPU is not expected.",
            "short",
            (
                Query(f"max by ({PER_SOURCE}, state) (deepseek_exporter_source_state{{{HOST}}} == 1)"),
                Query(f"max by ({PER_SOURCE}) ({DOWN_THOUGH_EXPECTED})", column="Blind"),
                Query(
                    f"max by ({PER_SOURCE}) "
                    f"(time() - deepseek_exporter_source_last_success_timestamp_seconds{{{HOST}}})",
                    column="Last success",
                ),
                Query(
                    f"max by ({PER_SOURCE}) (deepseek_exporter_source_duration_seconds{{{HOST}}})",
                    column="Took",
                ),
            ),
            {"instance": "Host", "source": "Source", "state": "State"},
            hidden=("job",),
            width=12,
            height=9,
            overrides=(
                override("byName", "Last success", unit="s"),
                override("byName", "Took", unit="s"),
                coloured("Blind", decimals=0, mappings=[NO_WANTED]),
            ),
            sort="Host",
        ),
    )


def reading() -> tuple[Panel, ...]:
    return (
        lines(
            "Age of the figures",
            "How old the figures are that each exporter serves. Dashed: above this a source counts as stale.",
            "s",
            (
                Query(f"time() - {SNAPSHOT}", "{{instance}}"),
                Query(lowest("source_stale_seconds"), "threshold"),
            ),
            limits="threshold",
            legend=True,
        ),
        lines(
            "Time to read a snapshot",
            "How long each exporter takes to read everything once; a scrape itself reads nothing.",
            "s",
            (Query(f"deepseek_exporter_snapshot_duration_seconds{{{HOST}}}", "{{instance}}"),),
        ),
        lines(
            "Time to read a source",
            "How long the last reading of each source took.",
            "s",
            (Query(f"deepseek_exporter_source_duration_seconds{{{HOST}}}", "{{source}} {{instance}}"),),
        ),
        lines(
            "Errors of sources",
            "Errors per second, by source and reason. Nothing drawn: none since the daemons started.",
            "cps",
            (
                Query(
                    f"sum by ({PER_SOURCE}, reason) "
                    f"(rate(deepseek_exporter_source_errors_total{{{HOST}}}{RATE}))",
                    "{{source}} {{reason}} {{instance}}",
                ),
            ),
        ),
        lines(
            "Worker restarts",
            "Worker processes given up in the last hour: a driver call that did not return in time.",
            "short",
            (
                Query(
                    f"sum by ({PER_SOURCE}) "
                    f"(increase(deepseek_exporter_worker_restarts_total{{{HOST}}}[1h]))",
                    "{{source}} {{instance}}",
                ),
            ),
            custom={"axisSoftMax": 1},
        ),
        lines(
            "Plan error",
            "Expected / observed − 1 where the engine itself says what it has. Dashed: the threshold, both "
            "ways.",
            "percentunit",
            (
                Query(
                    f"max by ({PER_HOST}, deployment) (abs(deepseek_exporter_plan_error_ratio{{{HOST}}}))",
                    "{{deployment}} {{instance}}",
                ),
                Query(lowest("plan_error_ratio"), "threshold"),
            ),
            limits="threshold",
            legend=True,
        ),
    )


def cost() -> tuple[Panel, ...]:
    return (
        lines(
            "Time of a scrape",
            "How long Prometheus takes to fetch the figures: they are ready made.",
            "s",
            (Query(f"scrape_duration_seconds{{{HOST}}}", "{{instance}}"),),
        ),
        lines(
            "Series",
            "Series of each exporter, and those left out because a family had too many in the last hour.",
            "short",
            (
                Query(f"deepseek_exporter_series{{{HOST}}}", "{{instance}}"),
                Query(
                    f"sum by ({PER_HOST}, family) "
                    f"(increase(deepseek_exporter_series_dropped_total{{{HOST}}}[1h])) > 0",
                    "dropped {{family}} {{instance}}",
                ),
            ),
        ),
        lines(
            "Memory of the exporter",
            "Resident memory of the supervisor process.",
            "bytes",
            (Query(f"process_resident_memory_bytes{{{HOST}}}", "{{instance}}"),),
        ),
        lines(
            "CPU of the exporter",
            "Share of one core that the supervisor process takes.",
            "percentunit",
            (Query(f"rate(process_cpu_seconds_total{{{HOST}}}{RATE})", "{{instance}}"),),
        ),
        lines(
            "Notifications sent by the daemon",
            "Per second, by outcome, to each Alertmanager. No data: the daemon sends none.",
            "cps",
            (
                Query(
                    "sum by (alertmanager, outcome) "
                    f"(rate(deepseek_exporter_notifications_total{{{HOST}}}{RATE}))",
                    "{{outcome}} {{alertmanager}}",
                ),
            ),
        ),
        lines(
            "Steps of the wall clock",
            "Steps noticed in the last hour. Sampling runs on monotonic time and does not mind; rates of "
            "counters do.",
            "short",
            (Query(f"increase(deepseek_exporter_clock_steps_total{{{HOST}}}[1h])", "{{instance}}"),),
            custom={"axisSoftMax": 1},
        ),
    )


def exporter_health() -> dict[str, object]:
    """The monitoring itself."""
    return board(
        "exporter-health",
        "exporter health",
        "Whether every exporter answers, sees what it should and gets its messages out, and what it costs.",
        (JOBS, HOSTS),
        (*stats(), *tables(), Row("Reading"), *reading(), Row("Cost and messages"), *cost()),
    )
