"""Plain transformers: weights dealt over the devices by layers, a cache that grows with each conversation.

Source: transformers 5.23 integrations/accelerate.py (device_map), cache_utils.py DynamicCache; its DeepSeek
models keep keys and values of all heads.
"""

from __future__ import annotations

from math import ceil

from exporter.footprint import runtime
from exporter.footprint.deployment import DeploymentSpec, DeviceShape, FootprintError
from exporter.footprint.policies import pool
from exporter.footprint.policies.job import Job, Policy
from exporter.footprint.pool_layout import compressed_token_bytes
from exporter.footprint.result import (
    Footprint,
    HostFootprint,
    KvCacheFigures,
    RankFootprint,
    Term,
    exact,
    sum_terms,
)
from exporter.footprint.runtime import worker_processes
from exporter.footprint.weights import Layout, Stage, check_layout, rank_weights, stored_rank_bytes
from exporter.models.architecture import Architecture
from exporter.models.blocks import CompressedAttention, GroupedQueryAttention, LatentAttention
from exporter.models.quantization import Container

_CACHE_ELEMENT_BYTES = 2
_BATCHED_TOKENS = 2048


def token_bytes(architecture: Architecture, stage: Stage, parts: int) -> int:
    """Keys and values of one token in the layers of a stage, in 16 bits; of compressed attention what a token
    adds.
    """
    attention = architecture.attention
    if isinstance(attention, CompressedAttention):
        layers = range(stage.first, stage.end)
        return ceil(compressed_token_bytes(attention, layers, "bf16"))
    return len(stage) * _row_bytes(attention, parts)


def _row_bytes(attention: GroupedQueryAttention | LatentAttention, parts: int) -> int:
    if isinstance(attention, GroupedQueryAttention):
        heads = max(1, -(-attention.kv_heads // parts))
        return 2 * heads * attention.head_dim * _CACHE_ELEMENT_BYTES
    width = attention.nope_head_dim + attention.rope_head_dim + attention.value_head_dim
    return max(1, attention.heads // parts) * width * _CACHE_ELEMENT_BYTES


def allocate(job: Job) -> Footprint:
    """The footprint of a script that has loaded the model and holds one conversation of full length at most.
    Raises FootprintError for settings that it does not have.
    """
    spec, arch = job.spec, job.architecture
    parts = spec.tp
    layout = Layout(parts, parts, parts, parts, parts, absorbed=False)
    check_layout(arch, layout)
    groups = max(1, len(job.devices) // parts)
    stages = _even_stages(arch.layers, groups)
    whole = Stage(0, arch.layers, arch.layers)
    token = token_bytes(arch, whole, parts)
    sequences = spec.max_num_seqs or 1
    devices = tuple(
        _device(job, layout, stages[index // parts], index, device, sequences)
        for index, device in enumerate(job.devices[: groups * parts])
    )
    host: dict[str, Term] = {"runtime": worker_processes(1)}
    if not job.devices and job.weights_known:
        host["weights"] = exact(_weights(job, layout, whole), job.weights_basis)
        host["kv_cache"] = Term(0, token * job.context_tokens * sequences, "estimate")
    fits: bool | None = None
    if devices and all(rank.complete for rank in devices) and all(d.is_sized for d in job.devices):
        fits = all(
            rank.total.low_bytes <= device.usable_bytes
            for rank, device in zip(devices, job.devices, strict=False)
        )
    return Footprint(
        job.model.id,
        arch.name,
        job.quantization,
        devices,
        HostFootprint(host, complete=job.weights_known),
        KvCacheFigures(
            token,
            demand_tokens=spec.max_num_seqs * job.context_tokens if spec.max_num_seqs else None,
        ),
        fits,
        ("the cache grows with the conversation: no pool is reserved",),
        "weights exceed a device's memory" if fits is False else None,
    )


def _device(
    job: Job, layout: Layout, stage: Stage, index: int, device: DeviceShape, sequences: int
) -> RankFootprint:
    components: dict[str, Term] = {}
    if job.weights_known:
        components["weights"] = exact(_weights(job, layout, stage), job.weights_basis)
    most = token_bytes(job.architecture, stage, layout.attention) * job.context_tokens * sequences
    components["kv_cache"] = Term(0, most, "estimate", "grows with the conversation")
    components["activations"] = runtime.activations(
        job.architecture, _BATCHED_TOKENS, 1, job.context_tokens, layout.attention
    )
    components["runtime"] = runtime.cuda_context()
    return RankFootprint(
        index,
        index // layout.attention,
        device.index,
        components,
        sum_terms(components),
        job.weights_known,
    )


def _weights(job: Job, layout: Layout, stage: Stage) -> int:
    if job.stored is not None:
        return stored_rank_bytes(job.architecture, job.stored, layout, stage)[0]
    return sum(rank_weights(job.architecture, job.quantization, layout, stage).values())


def _even_stages(layers: int, groups: int) -> tuple[Stage, ...]:
    if groups > layers:
        raise FootprintError(f"gpus must be at most the {layers} layers, not {groups}")
    ends = [layers * (index + 1) // groups for index in range(groups)]
    return tuple(Stage(start, end, layers) for start, end in zip([0, *ends], ends, strict=False))


def _unsized(spec: DeploymentSpec, gpus: int | None) -> tuple[DeviceShape, ...]:
    return pool.unsized_devices(gpus if gpus is not None else spec.tp)


TRANSFORMERS = Policy(
    Container.SAFETENSORS,
    pool.LLAMA_CPP_SETTINGS
    | {
        "pp",
        "dp",
        "ep",
        "dp_attention",
        "memory_fraction",
        "max_num_batched_tokens",
        "hicache",
        "speculative",
        "kv_cache_bytes",
        "dcp",
        "chunked_prefill",
        "moe_dense_tp",
    },
    allocate,
    unsized=_unsized,
)
