"""The answer of the estimate: bytes per device and component, with the two ends of what is known and where it
comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Basis = Literal["checkpoint", "architecture", "engine", "estimate"]

DEVICE_COMPONENTS = (
    "weights",
    "kv_cache",
    "activations",
    "graphs",
    "runtime",
    "speculative",
    "communication",
)
HOST_COMPONENTS = ("weights", "experts", "kv_cache", "pinned", "runtime", "prompt_cache")


@dataclass(frozen=True, slots=True)
class Term:
    """Bytes between ``low_bytes`` and ``high_bytes``; an exact term has both equal.

    ``basis``: counted from the checkpoint or the architecture, said by the engine or its settings, or
    estimated. Raises ValueError for a negative size or ends in the wrong order.
    """

    low_bytes: int
    high_bytes: int
    basis: Basis
    note: str = ""
    likely_bytes: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.low_bytes <= self.expected_bytes <= self.high_bytes:
            raise ValueError(f"a term runs from 0 <= low to high, not {self.low_bytes} to {self.high_bytes}")

    @property
    def expected_bytes(self) -> int:
        """What a warm engine is seen to hold where that is known better, else the middle of the two ends."""
        if self.likely_bytes is not None:
            return self.likely_bytes
        return (self.low_bytes + self.high_bytes) // 2


def exact(size_bytes: int, basis: Basis, note: str = "") -> Term:
    """A term that is known to the byte."""
    return Term(size_bytes, size_bytes, basis, note)


def sum_terms(terms: Mapping[str, Term]) -> Term:
    """Both ends added up; the basis is the weakest of the parts."""
    weakest: Basis = "checkpoint"
    order: tuple[Basis, ...] = ("checkpoint", "architecture", "engine", "estimate")
    for term in terms.values():
        weakest = max(weakest, term.basis, key=order.index)
    return Term(
        sum(term.low_bytes for term in terms.values()),
        sum(term.high_bytes for term in terms.values()),
        weakest,
        likely_bytes=sum(term.expected_bytes for term in terms.values()),
    )


@dataclass(frozen=True, slots=True)
class RankFootprint:
    """What one rank holds on its device once warm.

    ``total`` is never wider than the sum of the components: where the engine fills a budget, a component that
    turns out larger makes another one smaller, so the whole is known better than its parts. Use it for
    capacity, the components for explanation.
    """

    rank: int
    stage: int
    device_index: int
    components: Mapping[str, Term]
    total: Term
    complete: bool = True
    """False: a component is not known (size of the device, bytes of an unknown quantization), and ``total``
    is only the sum of the others.
    """


@dataclass(frozen=True, slots=True)
class HostFootprint:
    """What the deployment holds in RAM once warm.

    ``mapped_bytes``: the part of the components' low ends that is file-backed page cache which every token
    reads: the kernel counts it as available, capacity must not. ``reclaimable_bytes``: the part between low
    and high ends that is a second, clean copy in page cache, which the kernel takes back without cost.
    ``looked_up_bytes``: of the mapped part, tensors of which a token reads one row: they are not missed.
    ``locked_bytes``: what the engine is told to lock down. ``mapped_lazily``: pages are mapped when they are
    first read, so that weights which are not there may never have been needed. ``token_read_bytes``: weights
    in RAM that one token of one sequence reads; None where that does not decide how fast it comes.
    """

    components: Mapping[str, Term]
    mapped_bytes: int = 0
    reclaimable_bytes: int = 0
    complete: bool = True
    looked_up_bytes: int = 0
    locked_bytes: int = 0
    mapped_lazily: bool = False
    token_read_bytes: int | None = None

    @property
    def total(self) -> Term:
        return sum_terms(self.components)


@dataclass(frozen=True, slots=True)
class KvCacheFigures:
    """``bytes_per_token`` is what one rank stores for one token (of the widest pipeline stage).

    Capacity is that of the whole deployment, from the low end of the pool; demand is sequences x length where
    both were declared; ``full_length_sequences`` is how many requests of full length fit at once and may be a
    fraction. The ``likely`` figures are of the expected pool, and None where it is exact.
    """

    bytes_per_token: int
    capacity_tokens: int | None = None
    demand_tokens: int | None = None
    full_length_sequences: float | None = None
    likely_capacity_tokens: int | None = None
    likely_full_length_sequences: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a number comes from: formula, what was put into it, source, and how far it was checked."""

    component: str
    formula: str
    inputs: Mapping[str, str | int | float]
    source: str
    checked: str = ""


NETWORK_KINDS = ("tp", "pp", "dp", "ep", "kv_transfer")


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that leave one node for each token, between the two ends of what is known."""

    low_bytes: int
    high_bytes: int


@dataclass(frozen=True, slots=True)
class NetworkFootprint:
    """What the link of one node must carry for each token that the deployment reads as prompt or generates.

    ``kinds``: tensor (tp), pipeline (pp) and expert parallelism (ep), tokens gathered for experts from
    data-parallel attention (dp), and the cache that a prefill hands to a decode server (kv_transfer). The
    last is per prompt token, and of a decode server received, not sent: ``total`` has it only where every
    token pays it. ``total`` None: no token crosses a link but as a transferred cache.
    """

    nodes: int
    gpus: int
    kinds: Mapping[str, Traffic]
    total: Traffic | None


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a deployment needs. ``fits`` says whether the engine could start within its own budget; None: it
    has none, or what decides it is not known. ``limiting`` is what would have to change first.
    """

    model_id: str
    architecture: str
    quantization: str
    devices: tuple[RankFootprint, ...]
    host: HostFootprint
    kv_cache: KvCacheFigures
    fits: bool | None = None
    notes: tuple[str, ...] = field(default=())
    limiting: str | None = None
    explanations: tuple[Explanation, ...] = field(default=(), compare=False)
    network: NetworkFootprint | None = None
    """None: all of it is on one node, or what its nodes exchange is not known"""
