"""Alerts about the monitoring itself: what cannot be seen, and who is not told."""

from __future__ import annotations

from exporter.capacity.conditions.words import MINUTE, prose
from exporter.capacity.terms import (
    AgedAtMost,
    AllOf,
    AnyOf,
    Condition,
    EqualTo,
    Fact,
    Fold,
    Form,
    FromOutside,
    Series,
    Severity,
    Subject,
    Unless,
)

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        name="DeepSeekMonitoringBlind",
        severity=Severity.WARNING,
        subject=Subject.SOURCE,
        expression=AnyOf(
            (
                # "Expected and not known to be well", so that a source whose `up` is missing counts as blind.
                Unless(
                    EqualTo(Series("deepseek_exporter_source_expected"), 1),
                    AllOf(
                        (
                            EqualTo(Series("deepseek_exporter_source_up"), 1),
                            AgedAtMost(
                                Series("deepseek_exporter_source_last_success_timestamp_seconds"),
                                "source_stale_seconds",
                            ),
                        )
                    ),
                ),
                # A web server that outlives its poll loop serves the same snapshot for ever. Ten minutes
                # leave room for long poll intervals; a hang that the service manager sees ends before.
                FromOutside(
                    "label_replace(\n"
                    '  deepseek_exporter_snapshot_timestamp_seconds{job=~"${jobs}"}\n'
                    '  == deepseek_exporter_snapshot_timestamp_seconds{job=~"${jobs}"} offset 10m,\n'
                    '  "source", "snapshot", "", ""\n'
                    ")"
                ),
            )
        ),
        about_monitoring=True,
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        summary="Source {source} of {host} is blind: state {state}, last success {last_success}.",
        description=prose(
            """
            This source is expected here, and it does not answer or its answers are old. Figures
            that need it are absent, so capacity alerts that need them can neither fire nor
            resolve. First action: run 'deepseek-exporter doctor' on the host; it names the reason
            and the remedy. Source 'snapshot' means that the daemon still answers but has stopped
            polling: restart it and keep its log.
            """
        ),
        facts=(
            Fact("state", Series("deepseek_exporter_source_state"), Form.LABEL, "state"),
            Fact("last_success", Series("deepseek_exporter_source_last_success_timestamp_seconds"), Form.AGE),
        ),
    ),
    Condition(
        name="DeepSeekExporterDown",
        severity=Severity.WARNING,
        subject=Subject.HOST,
        expression=FromOutside('up{job=~"${jobs}"} == 0'),
        about_monitoring=True,
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        summary="The exporter of {host} does not answer.",
        description=prose(
            """
            Prometheus cannot scrape this host's exporter. Nothing is known of its memory
            meanwhile. First action: 'systemctl status deepseek-exporter' on the host; when the
            host itself does not answer, that is the alert to follow.
            """
        ),
    ),
    Condition(
        name="DeepSeekExporterAbsent",
        severity=Severity.CRITICAL,
        subject=Subject.FLEET,
        expression=FromOutside('absent(up{job=~"${jobs}"})'),
        about_monitoring=True,
        for_seconds=15 * MINUTE,
        keep_firing_for_seconds=0,
        summary="Prometheus has no target of this exporter at all.",
        description=prose(
            """
            Not one host is scraped: the job was renamed or dropped, or service discovery returns
            nothing. No other alert of this exporter can fire. First action: open the targets page
            of Prometheus and compare the job's name with the pattern in these rules.
            """
        ),
    ),
    Condition(
        name="DeepSeekConfigReloadFailed",
        severity=Severity.WARNING,
        subject=Subject.HOST,
        expression=EqualTo(Series("deepseek_exporter_config_last_reload_successful"), 0),
        about_monitoring=True,
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        summary="The exporter of {host} runs on an older configuration: the last reload failed.",
        description=prose(
            """
            The configuration file on the host was rejected; the daemon keeps the one before.
            Declared deployments and thresholds may be out of date. First action:
            'deepseek-exporter config check /etc/deepseek-exporter/config.toml' on the host names
            the key and line.
            """
        ),
    ),
    Condition(
        name="DeepSeekNotificationsFailing",
        severity=Severity.WARNING,
        subject=Subject.HOST,
        expression=EqualTo(
            Series("deepseek_exporter_notifications_up", folded=("alertmanager",), fold=Fold.MIN), 0
        ),
        about_monitoring=True,
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        value_form=Form.NUMBER,
        summary="The exporter of {host} cannot reach Alertmanager {receivers} with its own alerts.",
        description=prose(
            """
            The daemon is configured to push its alerts and an Alertmanager does not take them, so
            that this host depends on Prometheus alone. First action: the daemon's log
            ('journalctl -u deepseek-exporter') names the reason: address, certificate, password
            file or HTTP status.
            """
        ),
        facts=(
            Fact(
                "receivers",
                Series("deepseek_exporter_notifications_up"),
                Form.LABEL,
                "alertmanager",
                zero=True,
            ),
        ),
    ),
    Condition(
        name="DeepSeekWatchdog",
        severity=Severity.NONE,
        subject=Subject.FLEET,
        expression=FromOutside("vector(1)"),
        about_monitoring=True,
        for_seconds=0,
        keep_firing_for_seconds=0,
        summary="The way from rule evaluation to the receiver works.",
        description=prose(
            """
            This alert always fires. Send it to a dead man's switch outside this installation: the
            switch should raise an alarm when the alert stops arriving. Nothing is to be done
            while it fires.
            """
        ),
    ),
)
