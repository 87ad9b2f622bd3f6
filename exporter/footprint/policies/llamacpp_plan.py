"""A llama.cpp launch with its defaults, and what follows from it for any part of the layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from exporter.footprint import kv_cache, runtime
from exporter.footprint.cells import CellCache, CellMode, cell_cache
from exporter.footprint.deployment import DeploymentSpec, FootprintError
from exporter.footprint.policies.flavours import (
    Flavour,
    flavour_of,
    gguf_layout,
    latent_mode,
    ollama_contexts,
)
from exporter.footprint.policies.gguf_layers import LayerBytes, layer_bytes, stored_layer_bytes
from exporter.footprint.policies.job import Job
from exporter.footprint.result import Term
from exporter.models.blocks import Attention, GroupedQueryAttention
from exporter.models.quantization import GgufLayout
from exporter.units import MIB

DEFAULT_MICRO_BATCH = 512
FIT_LEAST_CONTEXT = 4096
FIT_FREE_BYTES = 1024 * MIB
"""common/common.h fit_params_target and fit_params_min_ctx."""


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


def plan_of(job: Job) -> Plan:
    """The launch as the server takes it. Raises FootprintError for settings that it would refuse."""
    spec, arch = job.spec, job.architecture
    flavour = flavour_of(spec)
    slots = spec.parallel if spec.parallel is not None else spec.max_num_seqs
    if spec.max_num_seqs is not None and slots != spec.max_num_seqs:
        raise FootprintError(
            f"max_num_seqs {spec.max_num_seqs} contradicts parallel {spec.parallel}: slots are sequences here"
        )
    type_k = kv_cache.cache_type(spec.cache_type_k or spec.kv_cache_dtype, "cache_type_k")
    type_v = kv_cache.cache_type(spec.cache_type_v or spec.kv_cache_dtype, "cache_type_v")
    flash = flavour.flash_attention if spec.flash_attention is None else spec.flash_attention
    mode = latent_mode(spec, flash)
    if spec.flash_attention is False and kv_cache.is_quantized_cache(type_v) and not mode.row_in_v:
        raise FootprintError(
            "flash_attention must not be off where cache_type_v is quantized: llama.cpp refuses it"
        )
    if refuses_one_type(spec, arch.attention, mode):
        type_v = type_k
    declared = slots is not None
    unified = spec.kv_unified if spec.kv_unified is not None else flavour.unified and not declared
    slots = slots or flavour.slots
    micro_batch = spec.micro_batch or DEFAULT_MICRO_BATCH
    cache_of = partial(
        cell_cache,
        arch,
        slots=slots,
        unified=unified,
        type_k=type_k,
        type_v=type_v,
        mode=mode,
        micro_batch=micro_batch,
        swa_full=spec.swa_full,
    )
    low, high = (cache_of(context) for context in _contexts(job, flavour, slots))
    if spec.kv_cache_bytes is not None and spec.max_model_len is None:
        # A cache whose size is known holds as many cells as fit.
        tokens = int(spec.kv_cache_bytes // low.token_bytes)
        whole = tokens // kv_cache.CELL_MULTIPLE * kv_cache.CELL_MULTIPLE
        low = high = cache_of(max(kv_cache.CELL_MULTIPLE, whole))
    layout = gguf_layout(spec, mode)
    layers = None
    if job.stored is not None:
        layers = stored_layer_bytes(arch, job.stored, spec.override_tensor)
    elif job.weights_known:
        layers = layer_bytes(arch, job.quantization, spec.override_tensor, layout)
    return Plan(flavour, mode, flash, micro_batch, slots, declared, low, high, layers, layout)


def refuses_one_type(spec: DeploymentSpec, attention: Attention, mode: CellMode) -> bool:
    """Whether only the keys' type was said where the engine wants one for both: older builds took it so."""
    alone = spec.cache_type_k is not None and spec.cache_type_v is None
    return alone and mode.one_type and not isinstance(attention, GroupedQueryAttention)


def _contexts(job: Job, flavour: Flavour, slots: int) -> tuple[int, int]:
    spec, trained = job.spec, job.architecture.context_tokens
    factor = slots if flavour.context_per_slot else 1
    if spec.max_model_len is not None:
        return spec.max_model_len * factor, spec.max_model_len * factor
    if flavour.context == "fit":
        return min(FIT_LEAST_CONTEXT, trained), trained
    if flavour.context == "trained":
        return trained, trained
    if flavour.context == "fixed":
        return min(flavour.fixed_context, trained), min(flavour.fixed_context, trained)
    tiers = ollama_contexts(spec.engine_version)
    if any(not device.is_sized for device in job.devices):
        low, high = tiers[-1][1], tiers[0][1]
    else:
        memory = sum(device.usable_bytes for device in job.devices)
        low = high = next(tokens for least, tokens in tiers if memory >= least)
    return min(low, trained) * factor, min(high, trained) * factor


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
