"""An alert as it stands now, by the daemon's own evaluation: what the snapshot carries and the views show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alert:
    """One condition that holds for one subject. Times are Unix seconds."""

    name: str
    severity: str
    """critical, warning or info"""
    subject: Mapping[str, str]
    """labels that say whom it is about, such as gpu and uuid; empty: the host itself"""
    firing: bool
    """False: pending, the condition does not hold for long enough yet"""
    active_since_seconds: float
    """when the condition began to hold"""
    firing_since_seconds: float | None
    held: bool
    """True: its data are missing, and the alert keeps the state that it had"""
    summary: str
    description: str
    runbook_url: str
