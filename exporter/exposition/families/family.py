"""What a metric family is, and how its name is made."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family; `name` is as Prometheus stores it (`…_total`, `…_info`)."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


DEVICE = ("gpu", "uuid")
DEPLOYMENT = ("deployment",)


def gauge(name: str, labels: tuple[str, ...], text: str) -> Family:
    """A value that goes up and down."""
    return Family(f"deepseek_{name}", Kind.GAUGE, labels, text)


def counter(name: str, labels: tuple[str, ...], text: str) -> Family:
    """A value that only grows; `…_total`."""
    return Family(f"deepseek_{name}_total", Kind.COUNTER, labels, text)


def info(name: str, labels: tuple[str, ...], text: str) -> Family:
    """A 1 whose labels describe; `…_info`."""
    return Family(f"deepseek_{name}_info", Kind.INFO, labels, text)
