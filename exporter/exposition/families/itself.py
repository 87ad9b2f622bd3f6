"""Families of the exporter: its sources, snapshot, configuration and notifications."""

from __future__ import annotations

from exporter.exposition.families.family import DEPLOYMENT, Family, counter, gauge, info

BUILD_INFO = info("exporter_build", ("version", "revision", "python"), "What is running.")
DEMO_INFO = info(
    "exporter_demo",
    ("profile",),
    "A recorded host is played: nothing here is this machine's. Absent where the host is real.",
)
SOURCE_UP = gauge("exporter_source_up", ("source",), "Whether the source answers.")
SOURCE_STATE = gauge("exporter_source_state", ("source", "state"), "1 for the present state; up, or why not.")
SOURCE_EXPECTED = gauge(
    "exporter_source_expected",
    ("source",),
    "Whether this host should have the source, so that silence is a fault.",
)
SOURCE_LAST = gauge(
    "exporter_source_last_success_timestamp_seconds", ("source",), "When the source last answered, Unix time."
)
SOURCE_DURATION = gauge("exporter_source_duration_seconds", ("source",), "How long the last reading took.")
SOURCE_ERRORS = counter(
    "exporter_source_errors", ("source", "reason"), "Errors of a source by reason, since the daemon started."
)
WORKER_RESTARTS = counter(
    "exporter_worker_restarts", ("source",), "Worker processes given up since the start."
)
WORKERS_STUCK = gauge(
    "exporter_workers_stuck", (), "Worker processes inside a driver call that does not return."
)
SNAPSHOT_TIME = gauge("exporter_snapshot_timestamp_seconds", (), "When the values were read, Unix time.")
SNAPSHOT_DURATION = gauge("exporter_snapshot_duration_seconds", (), "How long the reading took.")
SERIES = gauge("exporter_series", (), "Series in this exposition, process metrics not counted.")
SERIES_DROPPED = counter(
    "exporter_series_dropped", ("family",), "Series left out because a family had too many, since the start."
)
PLAN_ERROR = gauge(
    "exporter_plan_error_ratio",
    (*DEPLOYMENT, "component"),
    "Expected / observed - 1, where the engine itself says what it has.",
)
RELOAD_SUCCESSFUL = gauge(
    "exporter_config_last_reload_successful", (), "Whether the last reading of the configuration succeeded."
)
RELOAD_TIME = gauge(
    "exporter_config_last_reload_timestamp_seconds", (), "When the configuration was last read, Unix time."
)
NOTIFICATIONS_UP = gauge(
    "exporter_notifications_up", ("alertmanager",), "Whether Alertmanager took the daemon's last push."
)
NOTIFICATIONS = counter(
    "exporter_notifications",
    ("alertmanager", "outcome"),
    "Pushes of the daemon's alerts by outcome, sent or failed, since it started.",
)
CLOCK_STEPS = counter("exporter_clock_steps", (), "Steps of the wall clock noticed since the daemon started.")

FAMILIES: tuple[Family, ...] = (
    BUILD_INFO,
    DEMO_INFO,
    SOURCE_UP,
    SOURCE_STATE,
    SOURCE_EXPECTED,
    SOURCE_LAST,
    SOURCE_DURATION,
    SOURCE_ERRORS,
    WORKER_RESTARTS,
    WORKERS_STUCK,
    SNAPSHOT_TIME,
    SNAPSHOT_DURATION,
    SERIES,
    SERIES_DROPPED,
    PLAN_ERROR,
    RELOAD_SUCCESSFUL,
    RELOAD_TIME,
    NOTIFICATIONS_UP,
    NOTIFICATIONS,
    CLOCK_STEPS,
)
