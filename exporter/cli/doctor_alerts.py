"""`doctor`: can every configured Alertmanager be told of alerts?"""

from __future__ import annotations

from exporter.cli.checks import Check
from exporter.settings.options import Settings


def alertmanagers(settings: Settings) -> list[Check]:
    """One check for each `[[alertmanagers]]` entry; none without any."""
    if not settings.alertmanagers:
        return []
    from exporter.alerting.alertmanager import AlertmanagerClient, NotSent

    checks = []
    for entry in settings.alertmanagers:
        client = AlertmanagerClient(entry)
        name = f"alertmanager {client.name}"
        try:
            checks.append(Check(name, "ok", f"version {client.version()}"))
        except NotSent as error:
            advice = (
                "correct its [[alertmanagers]] entry, or start it; alerts are kept and sent when it answers"
            )
            checks.append(Check(name, "problem", str(error), advice))
    return checks
