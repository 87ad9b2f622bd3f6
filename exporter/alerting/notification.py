"""The daemon's alerts as Alertmanager takes them (API v2, POST /api/v2/alerts).

With the labels that Prometheus would give, so that the two make one alert where both are told: Alertmanager
knows an alert by its labels alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from exporter.capacity.alert import Alert

VALID_RESENDS = 4
"""An alert not sent again ends after this many intervals, as those of Prometheus do (rules/manager.go)."""


def payload(
    firing: Iterable[Alert],
    ended: Iterable[tuple[Alert, float]],
    labels: Mapping[str, str],
    *,
    now_seconds: float,
    valid_seconds: float,
) -> bytes:
    """The body of one push: what fires, and what ended at which time (Unix seconds).

    ``valid_seconds``: how long what fires holds without being sent again.
    """
    rows = [_row(alert, now_seconds + valid_seconds, labels) for alert in firing]
    rows += [_row(alert, at, labels) for alert, at in ended]
    # Escaped, so that a name with half a surrogate pair in it is sent all the same.
    return json.dumps(rows).encode()


def _row(alert: Alert, ends_at_seconds: float, labels: Mapping[str, str]) -> dict[str, object]:
    began = alert.firing_since_seconds or alert.active_since_seconds
    return {
        "labels": {**labels, **alert.subject, "alertname": alert.name, "severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": alert.runbook_url,
        },
        "startsAt": _time(began),
        # A wall clock that was set back must not make an alert end before it began.
        "endsAt": _time(max(ends_at_seconds, began)),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
