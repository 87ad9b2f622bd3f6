"""The display facts of one host: plain words and numbers, ready for a page or a terminal.

Sizes are bytes, times Unix seconds, ratios 0–1; None means not known. Every text is already harmless
(`words.shown`), and still has to be escaped for the medium that shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from exporter.units import format_bytes


class Level(StrEnum):
    """How much something matters, least first."""

    GOOD = "good"
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Level).index(self)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a bar. ``kind`` is a component of the footprint, or `deployment`, `other`, `unattributed`."""

    kind: str
    label: str
    owner: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of one device, or RAM. ``key`` is the uuid, or `ram`.

    ``expected`` adds up to what is promised of it, with what strangers hold; ``held`` to what is in use.
    Both are drawn to ``scale_bytes``, the largest of everything that must find room in the bar.
    """

    key: str
    name: str
    product: str
    state: str
    level: Level
    verdict: str
    """one word or two"""
    headroom: str
    """a sentence"""
    total_bytes: int | None
    used_bytes: int | None
    capacity_bytes: int | None
    committed_low_bytes: int | None
    committed_high_bytes: int | None
    headroom_low_bytes: int | None
    expected: tuple[Piece, ...]
    held: tuple[Piece, ...]
    scale_bytes: int
    power_watts: float | None = None
    power_limit_watts: float | None = None
    facts: tuple[tuple[str, str], ...] = ()
    """name and value of everything else that is known"""

    @property
    def expected_bytes(self) -> int:
        return sum(piece.size_bytes for piece in self.expected)

    @property
    def owners(self) -> tuple[str, ...]:
        """Deployments that hold it or must find room on it."""
        pieces = (*self.expected, *self.held)
        names = (piece.label if piece.kind == "deployment" else piece.owner for piece in pieces)
        return tuple(dict.fromkeys(name for name in names if name))

    @property
    def summary(self) -> str:
        """Everything that the bar shows, in one sentence for those who do not see it."""
        parts = [f"{self.name}: {self.headroom}"]
        for word, pieces in (("expected", self.expected), ("in use", self.held)):
            if pieces:
                parts.append(f"{word}: " + ", ".join(_told(piece) for piece in pieces))
        return ". ".join(parts) + "."


@dataclass(frozen=True, slots=True)
class Component:
    """One term of a deployment's expectation, of its fullest device or in RAM."""

    label: str
    size: str
    basis: str


@dataclass(frozen=True, slots=True)
class OnDevice:
    """A deployment on one device, observed against expected."""

    device: str
    held: str
    expected: str
    difference: str


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """One served model."""

    name: str
    level: Level
    state: str
    state_words: str
    model: str
    what: str
    """model, quantization, engine and parallelism, in one line"""
    where: str
    comparison: str
    """how what it holds compares with what it should, as a sentence"""
    headroom: str
    """what room it has for more requests, as a sentence; empty when that is not known"""
    about_ram: str
    """where in RAM it must stay, what is missing there and how fast it can be, in a sentence; or empty"""
    requests: str
    kv_usage_ratio: float | None
    link: str
    """what carries it to its other nodes and what that allows, as a sentence; empty on one node"""
    differs: tuple[str, ...]
    """declared settings that what runs does not have"""
    per_device: str
    """`8 × 127.6 GiB`, or a dash"""
    ram: str
    full_length: str
    on_devices: tuple[OnDevice, ...]
    components: tuple[Component, ...]
    in_ram: tuple[Component, ...]


@dataclass(frozen=True, slots=True)
class AlertFacts:
    """An alert of the daemon's own evaluation. ``runbook_link`` is None where the address is no safe link."""

    name: str
    severity: str
    level: Level
    state: str
    """`firing` or `pending`"""
    held: bool
    subject: tuple[str, ...]
    summary: str
    description: str
    since: str
    runbook_link: str | None
    runbook_text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, seen in the snapshot itself. ``alert`` is the one that tells it
    once it has lasted; ``key`` the device or deployment that it is about.
    """

    level: Level
    text: str
    alert: str = ""
    key: str = ""

    @property
    def runbook_link(self) -> str | None:
        """Where the daemon's own runbook says what to do."""
        return f"docs/ALERTS.md#{self.alert.lower()}" if self.alert else None


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One thing that is polled."""

    name: str
    state: str
    level: Level
    words: str


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """One disk where checkpoints lie. ``models``: the largest of them, with state and size."""

    name: str
    level: Level
    words: str
    size_bytes: int | None
    free_bytes: int | None
    used_bytes: int | None
    details: tuple[str, ...]
    models: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class View:
    """Everything that is shown of one host at one time."""

    host_name: str
    pool: str
    version: str
    demo: str
    taken_at_seconds: float
    age_seconds: float
    stale: bool
    stale_after_seconds: float
    level: Level
    verdict: str
    headline: str
    alerts: tuple[AlertFacts, ...]
    findings: tuple[Finding, ...]
    """those that no alert tells yet, worst first"""
    devices: tuple[Memory, ...]
    ram: Memory | None
    deployments: tuple[DeploymentFacts, ...]
    sources: tuple[SourceFacts, ...]
    energy: str
    """power and energy of all devices, as a sentence; empty where nothing measures"""
    stores: tuple[StoreFacts, ...] = ()

    @property
    def legend(self) -> tuple[tuple[str, str], ...]:
        """Kind and label of everything that is drawn, in order of appearance."""
        memories = (*self.devices, *((self.ram,) if self.ram else ()))
        pieces = [
            *(piece for one in memories for piece in one.expected),
            *(piece for one in memories for piece in one.held),
        ]
        return tuple({piece.kind: _LEGEND.get(piece.kind, piece.label) for piece in pieces}.items())


_LEGEND = {"deployment": "a deployment", "other": "others", "unattributed": "no process"}


def worst(levels: list[Level]) -> Level:
    """The one that matters most; GOOD where there is none."""
    return max(levels, key=lambda level: level.rank, default=Level.GOOD)


def _told(piece: Piece) -> str:
    owner = f" of {piece.owner}" if piece.owner and piece.owner != piece.label else ""
    return f"{piece.label}{owner} {format_bytes(piece.size_bytes)}"
