"""The terms in which alerts are defined: what is compared, of whom, for how long, and what people are told.

Nothing here knows an alert; `exporter.capacity.conditions` has the table. Two evaluators read it:
`exporter.alerting.rules` turns it into Prometheus rules, `exporter.alerting.evaluation` judges the daemon's
own snapshots by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]

HOLD_SECONDS = 3600
"""An alert that fires keeps its state this long without data.

Bounded, because a host taken out of service while overcommitted would else page for ever; GpuLost,
MonitoringBlind or ExporterDown speak before that.
"""


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
    DEPLOYMENT = "deployment"
    PLACEMENT = "placement"
    """a deployment on one device"""
    PLACE = "place"
    """what a deployment may use below the host's RAM: a cgroup, or NUMA nodes"""
    RESOURCE = "resource"
    """something of a host that runs out: gpu_memory, ram, or the kv_cache of a deployment"""
    STORE = "store"
    """a disk where checkpoints lie"""
    POOL = "pool"
    """hosts that stand in for each other, across all of them"""
    FLEET = "fleet"

    @property
    def identity(self) -> tuple[str, ...]:
        """Labels that tell two subjects of one host apart.

        A device is its `uuid` alone: indices shift when a neighbour is lost (koordinator issue 2706).
        """
        return {
            Subject.DEVICE: ("uuid",),
            Subject.SOURCE: ("source",),
            Subject.DEPLOYMENT: ("deployment",),
            Subject.PLACEMENT: ("deployment", "uuid"),
            Subject.PLACE: ("deployment", "confinement"),
            Subject.RESOURCE: ("resource", "deployment"),
            Subject.STORE: ("store",),
            Subject.POOL: ("pool",),
        }.get(self, ())

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that people see: the identity, and for a device the index by which they call it."""
        return tuple(
            label for one in self.identity for label in (("gpu", "uuid") if one == "uuid" else (one,))
        )

    @property
    def of_one_host(self) -> bool:
        """Whether the scraper's labels of one host belong to it."""
        return self not in (Subject.POOL, Subject.FLEET)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit that the operator may set; the value in force is exported as `deepseek_threshold{name=…}`."""

    name: str
    default: float
    unit: str
    meaning: str


class Fold(StrEnum):
    """How the samples of one subject become one value."""

    MAX = "max"
    MIN = "min"
    SUM = "sum"


@dataclass(frozen=True, slots=True)
class Series:
    """The samples of one family that carry `labels`, and for each of `choices` one of the values it names.

    Those labels, and `folded`, are no part of the subject: what differs only there is folded into one value.
    `lately_seconds`: the greatest value within that time instead of the present one, for what flickers.
    `absolute`: values without their sign. `recorded`: the recording rule that has the folded value, which
    Prometheus reads instead where a long window would cost too much.
    """

    family: str
    labels: Labels = ()
    choices: tuple[tuple[str, tuple[str, ...]], ...] = ()
    folded: tuple[str, ...] = ()
    fold: Fold = Fold.MAX
    lately_seconds: int = 0
    absolute: bool = False
    recorded: str = ""

    @property
    def aside(self) -> tuple[str, ...]:
        """Labels that are no part of the subject."""
        return (*(name for name, _ in (*self.labels, *self.choices)), *self.folded)


@dataclass(frozen=True, slots=True)
class Above:
    """True where the series is above the threshold of that name in force on the same host."""

    series: Series
    threshold: str


@dataclass(frozen=True, slots=True)
class Positive:
    """True where the series is above zero."""

    series: Series


@dataclass(frozen=True, slots=True)
class AtMost:
    """True where the series is no more than the threshold of that name."""

    series: Series
    threshold: str


@dataclass(frozen=True, slots=True)
class Below:
    """True where the series is below the threshold of that name; `negative`: below minus it."""

    series: Series
    threshold: str
    negative: bool = False


@dataclass(frozen=True, slots=True)
class AboveSeries:
    """True where the series is above another one of the same subject, a limit that the daemon gives."""

    series: Series
    limit: Series


@dataclass(frozen=True, slots=True)
class EqualTo:
    """True where the series has exactly this value: for switches that are 0 or 1."""

    series: Series
    value: int


@dataclass(frozen=True, slots=True)
class Some:
    """True where any sample of the series is above zero, whatever labels it has beside the subject's."""

    series: Series


@dataclass(frozen=True, slots=True)
class RateAbove:
    """True where a counter grew faster, per second over the window, than the threshold."""

    series: Series
    threshold: str
    window_seconds: int


@dataclass(frozen=True, slots=True)
class Grown:
    """True where a counter grew within the window."""

    series: Series
    window_seconds: int


@dataclass(frozen=True, slots=True)
class AgedAtMost:
    """True where a timestamp was, at the host's latest snapshot, no older than the threshold.

    Both times are the host's own, so a difference between its clock and the server's is no age.
    """

    series: Series
    threshold: str


@dataclass(frozen=True, slots=True)
class AgedAtLeast:
    """True where a timestamp was, at the host's latest snapshot, older than the threshold."""

    series: Series
    threshold: str


@dataclass(frozen=True, slots=True)
class WillExceed:
    """True where the straight line through every one of the windows is above the limit after `ahead_seconds`,
    and the first window's rises by more than the threshold over its own length.

    Two windows, because one alone is misled by a step within it. It needs data at the first one's beginning.
    """

    series: Series
    limit: Series
    least_growth: str
    windows_seconds: tuple[int, ...]
    ahead_seconds: int


@dataclass(frozen=True, slots=True)
class Outgrows:
    """True where the series, at the pace of each of several spans of time, is above the limit in
    `ahead_seconds`, and has risen by more than the threshold since the first one's beginning.

    The spans follow each other: (6 h, 1 h) are the five hours until an hour ago, and the last one. A step
    falls into one of them only. What was when each of them began must be known. The value is the first one's.
    """

    series: Series
    limit: Series
    least_growth: str
    since_seconds: tuple[int, ...]
    ahead_seconds: int


@dataclass(frozen=True, slots=True)
class Steady:
    """True where the sum of the series has not changed within the window, and was there at its beginning."""

    series: Series
    window_seconds: int


@dataclass(frozen=True, slots=True)
class Unchanged:
    """True where the series is what it was so long ago; it must have been there."""

    series: Series
    ago_seconds: int


@dataclass(frozen=True, slots=True)
class Within:
    """Judges its part of a wider subject, such as the deployment of a placement or its host."""

    part: Expression
    subject: Subject


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


Comparison: TypeAlias = Above | Positive | AtMost | Below | AboveSeries | EqualTo
"""What looks at present values alone, so that the last ones can stand in through a gap."""

Expression: TypeAlias = (
    Comparison
    | Some
    | RateAbove
    | Grown
    | AgedAtMost
    | AgedAtLeast
    | WillExceed
    | Outgrows
    | Steady
    | Unchanged
    | Within
    | AllOf
    | AnyOf
    | Unless
    | FromOutside
)


@dataclass(frozen=True, slots=True)
class Witness:
    """A series that is there whenever its source speaks of `subject`: while it is absent, data is missing."""

    series: Series
    subject: Subject


class Form(StrEnum):
    """How a fact is written for people."""

    BYTES = "bytes"
    NUMBER = "number"
    DECIMAL = "decimal"
    RATIO = "ratio"
    AGE = "age"
    SHARE = "share"
    COUNT = "count"
    LABEL = "label"
    PAIRS = "pairs"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing beside the alert's own value that its summary tells, looked up for the same subject.

    `BYTES`, `NUMBER` and `DECIMAL` write the value, `RATIO` a percentage, `AGE` the time since a timestamp.
    `LABEL` writes what `label` says on samples above 0 (`zero`: on those that are 0), `PAIRS` that and the
    value as a percentage. Of a counter over `window_seconds`, `SHARE` writes the growth per second as a
    percentage and `COUNT` the growth. `otherwise` stands where there is nothing.
    """

    name: str
    series: Series
    form: Form
    label: str = ""
    window_seconds: int = 0
    otherwise: str = "not known"
    zero: bool = False
    about: Subject | None = None
    """a wider subject than the alert's, such as the deployment of a placement"""


@dataclass(frozen=True, slots=True)
class Condition:
    """One alert: what must hold, for how long, and what people are told.

    `summary` and `description` are templates: `{host}`, `{value}` (written as `value_form`), the subject's
    labels and the names of `facts`.

    Missing data resolves an alert about capacity as little as it fires it: while data are missing, what fires
    and held when they were last there goes on. `witnesses` tell that they are missing; `keeps_state` alone:
    the one series that is compared does.
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
    witnesses: tuple[Witness, ...] = ()
    about_monitoring: bool = False
    value_form: Form = Form.RATIO

    @property
    def held(self) -> bool:
        """Whether it goes on through a gap in the data."""
        return self.keeps_state or bool(self.witnesses)

    @property
    def runbook_anchor(self) -> str:
        """The heading of this alert in docs/ALERTS.md, as GitHub makes anchors."""
        return self.name.lower()
