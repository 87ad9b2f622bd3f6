"""What this exporter alerts on: the table of conditions, and of the thresholds that they compare with.

One definition serves two evaluators: `exporter.alerting.rules` turns it into Prometheus rules, and the daemon
can read the same table against its own snapshot. Names, severities and durations follow docs/ALERTS.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]


class Severity(StrEnum):
    """Where an alert goes: `critical` pages a person, `warning` opens a ticket, `info` is for boards.

    `none` is for the dead man's switch, which has a route of its own.
    """

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"
    NONE = "none"


class Subject(StrEnum):
    """What one alert speaks about. The host is named by the scraper's labels, and by nothing of ours."""

    HOST = "host"
    DEVICE = "device"
    SOURCE = "source"
    FLEET = "fleet"

    @property
    def identity(self) -> tuple[str, ...]:
        """Labels that tell two subjects of one host apart.

        A device is its `uuid` alone: indices shift when a neighbour is lost (koordinator issue 2706).
        """
        return {Subject.DEVICE: ("uuid",), Subject.SOURCE: ("source",)}.get(self, ())

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that people see: the identity, and for a device the index by which they call it."""
        return ("gpu", "uuid") if self is Subject.DEVICE else self.identity


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit that the operator may set; the value in force is exported as `deepseek_threshold{name=…}`."""

    name: str
    default: float
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Series:
    """The samples of one family that carry `labels`; those labels are then no part of the subject."""

    family: str
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Above:
    """True where the series is above the threshold of that name in force on the same host."""

    series: Series
    threshold: str


@dataclass(frozen=True, slots=True)
class EqualTo:
    """True where the series has exactly this value: for switches that are 0 or 1."""

    series: Series
    value: int


@dataclass(frozen=True, slots=True)
class AgedAtMost:
    """True where a timestamp was, at the host's latest snapshot, no older than the threshold.

    Both times are the host's own, so a difference between its clock and the server's is no age.
    """

    series: Series
    threshold: str


@dataclass(frozen=True, slots=True)
class AllOf:
    """True where every part is, for the same subject."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True where some part is."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Unless:
    """True where `base` is and `exempt` is not, for the same subject; an absent `exempt` exempts nothing."""

    base: Expression
    exempt: Expression


@dataclass(frozen=True, slots=True)
class FromOutside:
    """A truth about the daemon that the daemon cannot see, so it is PromQL.

    `${jobs}` in it stands for the pattern of the scrape jobs.
    """

    promql: str


Expression: TypeAlias = Above | EqualTo | AgedAtMost | AllOf | AnyOf | Unless | FromOutside


class Form(StrEnum):
    """How a fact is written for people."""

    BYTES = "bytes"
    AGE = "age"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing beside the alert's own value that its summary tells, looked up for the same subject.

    `BYTES` writes the value, `AGE` the time since a timestamp, `LABEL` what `label` says on samples above 0.
    """

    name: str
    series: Series
    form: Form
    label: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """One alert: what must hold, for how long, and what people are told.

    `summary` and `description` are templates: `{host}`, `{value}` (a ratio, as a percentage), the subject's
    labels and the names of `facts`. `keeps_state`: missing data resolves the alert as little as it fires it.
    """

    name: str
    severity: Severity
    subject: Subject
    expression: Expression
    for_seconds: int
    keep_firing_for_seconds: int
    summary: str
    description: str
    facts: tuple[Fact, ...] = ()
    keeps_state: bool = False

    @property
    def runbook_anchor(self) -> str:
        """The heading of this alert in docs/ALERTS.md, as GitHub makes anchors."""
        return self.name.lower()


MINUTE = 60


def _prose(text: str) -> str:
    return " ".join(text.split())


THRESHOLDS: tuple[Threshold, ...] = (
    Threshold(
        name="vram_overcommit_ratio",
        default=1.0,
        unit="ratio",
        meaning="A device is overcommitted when committed / capacity is above this.",
    ),
    Threshold(
        name="host_memory_overcommit_ratio",
        default=1.0,
        unit="ratio",
        meaning="A host's RAM is overcommitted when committed / capacity is above this.",
    ),
    Threshold(
        # Twelve polls of the default 5 s: a slow sweep or one restart of a worker is no blindness.
        name="source_stale_seconds",
        default=60.0,
        unit="seconds",
        meaning="A source is blind when its last success is older than this at the latest snapshot.",
    ),
)

_BOUND_LOW: Labels = (("bound", "low"),)

_ON_DEVICE = Fact("deployments", Series("deepseek_expected_gpu_memory_bytes"), Form.LABEL, "deployment")

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        name="DeepSeekVramOvercommitted",
        severity=Severity.CRITICAL,
        subject=Subject.DEVICE,
        expression=Above(Series("deepseek_gpu_memory_overcommit_ratio", _BOUND_LOW), "vram_overcommit_ratio"),
        for_seconds=2 * MINUTE,
        keep_firing_for_seconds=10 * MINUTE,
        keeps_state=True,
        summary=(
            "GPU {gpu} of {host} is overcommitted at {value}: {committed} committed, {capacity} to give. "
            "Deployments: {deployments}."
        ),
        description=_prose(
            """
            What is loaded on this device, at its own limits, plus what others hold and what
            required deployments still need, exceeds what the device can give. Estimates count at
            their low end. The next allocation can fail with CUDA out of memory. First action: see
            who holds the memory (panel 'GPU memory by host and device'), then stop or move what
            does not belong there, or lower the context length, the number of sequences or the
            memory fraction of the newest deployment.
            """
        ),
        facts=(
            Fact("committed", Series("deepseek_gpu_memory_committed_bytes", _BOUND_LOW), Form.BYTES),
            Fact("capacity", Series("deepseek_gpu_memory_capacity_bytes"), Form.BYTES),
            _ON_DEVICE,
        ),
    ),
    Condition(
        name="DeepSeekHostMemoryOvercommitted",
        severity=Severity.CRITICAL,
        subject=Subject.HOST,
        expression=Above(
            Series("deepseek_host_memory_overcommit_ratio", _BOUND_LOW), "host_memory_overcommit_ratio"
        ),
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=10 * MINUTE,
        keeps_state=True,
        summary=(
            "RAM of {host} is overcommitted at {value}: {committed} committed, {capacity} to give, "
            "{available} available now. Deployments: {deployments}."
        ),
        description=_prose(
            """
            Weights, experts, KV caches and prompt caches in RAM, at the limits of their
            deployments, plus what others hold, exceed what this host can give. Weights will be
            evicted and read again from disk, or the kernel will kill a process. First action: see
            what is committed (panel 'RAM: committed, capacity and available'), then stop or move
            a deployment, choose a smaller quantization or a shorter context.
            """
        ),
        facts=(
            Fact("committed", Series("deepseek_host_memory_committed_bytes", _BOUND_LOW), Form.BYTES),
            Fact("capacity", Series("deepseek_host_memory_capacity_bytes"), Form.BYTES),
            Fact("available", Series("deepseek_host_memory_available_bytes"), Form.BYTES),
            Fact("deployments", Series("deepseek_expected_host_memory_bytes"), Form.LABEL, "deployment"),
        ),
    ),
    Condition(
        name="DeepSeekGpuLost",
        severity=Severity.CRITICAL,
        subject=Subject.DEVICE,
        # Released on purpose is no reason to page; a forgotten release is MonitoringBlind's to tell.
        expression=Unless(
            EqualTo(Series("deepseek_gpu_up"), 0),
            EqualTo(Series("deepseek_gpu_state", (("state", "released"),)), 1),
        ),
        for_seconds=2 * MINUTE,
        keep_firing_for_seconds=0,
        # Else every restart of the daemon would tell people that the device is back.
        keeps_state=True,
        summary="GPU {gpu} ({uuid}) of {host} is lost: state {state}. Deployments: {deployments}.",
        description=_prose(
            """
            A device that this host has, by its inventory or its configuration, does not answer.
            Its memory figures are absent until it does, and capacity alerts of this device keep
            their last state meanwhile. First action: look for Xid messages of this device in the
            kernel log (journalctl -k), then drain the host and reset the device or restart the
            host.
            """
        ),
        facts=(Fact("state", Series("deepseek_gpu_state"), Form.LABEL, "state"), _ON_DEVICE),
    ),
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
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        summary="Source {source} of {host} is blind: state {state}, last success {last_success}.",
        description=_prose(
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
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        summary="The exporter of {host} does not answer.",
        description=_prose(
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
        for_seconds=15 * MINUTE,
        keep_firing_for_seconds=0,
        summary="Prometheus has no target of this exporter at all.",
        description=_prose(
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
        for_seconds=5 * MINUTE,
        keep_firing_for_seconds=0,
        summary="The exporter of {host} runs on an older configuration: the last reload failed.",
        description=_prose(
            """
            The configuration file on the host was rejected; the daemon keeps the one before.
            Declared deployments and thresholds may be out of date. First action:
            'deepseek-exporter config check /etc/deepseek-exporter/config.toml' on the host names
            the key and line.
            """
        ),
    ),
    Condition(
        name="DeepSeekWatchdog",
        severity=Severity.NONE,
        subject=Subject.FLEET,
        expression=FromOutside("vector(1)"),
        for_seconds=0,
        keep_firing_for_seconds=0,
        summary="The way from rule evaluation to the receiver works.",
        description=_prose(
            """
            This alert always fires. Send it to a dead man's switch outside this installation: the
            switch should raise an alarm when the alert stops arriving. Nothing is to be done
            while it fires.
            """
        ),
    ),
)
