"""A llama.cpp launch with its defaults, and what follows from it for any part of the layers."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.footprint import runtime
from exporter.footprint.cells import CellCache, CellMode
from exporter.footprint.policies.flavours import Flavour
from exporter.footprint.policies.gguf_layers import LayerBytes
from exporter.footprint.policies.job import Job
from exporter.footprint.result import Term
from exporter.models.quantization import GgufLayout


@dataclass(frozen=True, slots=True)
class Plan:
    """The launch with its defaults, and the cache at the least and at the most context that the server may
    have taken.
    """

    flavour: Flavour
    mode: CellMode
    flash_attention: bool
    micro_batch: int
    slots: int
    slots_declared: bool
    low: CellCache
    high: CellCache
    layers: tuple[LayerBytes, ...] | None
    layout: GgufLayout

    @property
    def is_settled(self) -> bool:
        return self.low.layout == self.high.layout


def cache_term(plan: Plan, layers: tuple[int, ...]) -> Term:
    """The cache of some layers, at the least and at the most context."""
    low = sum(plan.low.layers[layer] for layer in layers)
    high = sum(plan.high.layers[layer] for layer in layers)
    return Term(low, high, "architecture" if low == high else "estimate")


def compute_bytes(job: Job, plan: Plan, cache: CellCache) -> tuple[int, int]:
    """The compute buffer, and its part that grows with the cells in use."""
    return runtime.llamacpp_compute_bytes(
        job.architecture,
        plan.micro_batch,
        cache.layout.cells,
        plan.flash_attention,
        latent=plan.mode.latent,
    )
