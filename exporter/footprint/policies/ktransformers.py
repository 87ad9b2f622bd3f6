"""KTransformers: attention, shared experts and cache on the device, routed experts in RAM.

Sources: KTransformers doc/en/DeepseekR1_V3_tutorial.md, deepseek-v2-injection.md, optimize rules
DeepSeek-V3-Chat.yaml; since 2026 the device part is SGLang with kt-kernel (kt-kernel/python/cli).
"""

from __future__ import annotations

from exporter.footprint import runtime
from exporter.footprint.deployment import DeploymentSpec, DeviceShape, FootprintError
from exporter.footprint.policies import pool
from exporter.footprint.policies.gguf_layers import LayerBytes, layer_bytes, stored_layer_bytes
from exporter.footprint.policies.job import Job, Policy
from exporter.footprint.policies.sglang import cache_layout
from exporter.footprint.pool_layout import PoolLayout
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
from exporter.models.quantization import Container
from exporter.models.roles import ROUTED_EXPERTS

DEFAULT_CACHE_TOKENS = 32_768
"""``--cache_lens`` of its own server (server/args.py)."""
_CHUNK_TOKENS = 8192


def allocate(job: Job) -> Footprint:
    """The footprint of a warm server. Raises FootprintError for a model without routed experts."""
    spec, arch = job.spec, job.architecture
    if arch.experts is None:
        raise FootprintError(f"model: {arch.name} has no routed experts to keep in RAM")
    if not job.devices:
        raise FootprintError("devices: KTransformers needs at least one, and none were given")
    layout = Layout(spec.tp, spec.tp, 1, spec.tp, spec.tp)
    check_layout(arch, layout)
    whole = Stage(0, arch.layers, arch.layers)
    cache = cache_layout(job, whole, 0, job.devices[0])
    tokens = spec.max_total_tokens or spec.max_model_len or DEFAULT_CACHE_TOKENS
    if spec.kv_cache_bytes is not None:
        tokens = cache.tokens(cache.blocks(spec.kv_cache_bytes), job.context_tokens)
    kept = min(spec.experts_on_gpu or 0, arch.experts.routed)
    dense, experts = _weights(job, layout, whole)
    on_device = None if dense is None else dense + (experts or 0) * kept // arch.experts.routed // spec.tp
    devices = tuple(
        _device(job, cache, tokens, on_device, index, device)
        for index, device in enumerate(job.devices[: spec.tp])
    )
    host = _host(job, experts)
    fits: bool | None = None
    if all(device.is_sized for device in job.devices) and on_device is not None:
        fits = all(
            rank.total.low_bytes <= device.usable_bytes
            for rank, device in zip(devices, job.devices, strict=False)
        )
    length = spec.max_model_len or tokens
    return Footprint(
        job.model.id,
        arch.name,
        job.quantization,
        devices,
        HostFootprint(host, complete=experts is not None, token_read_bytes=_token_reads(job, experts, kept)),
        KvCacheFigures(
            round(cache.token_bytes),
            tokens,
            spec.max_num_seqs * length if spec.max_num_seqs else None,
            tokens / length,
        ),
        fits,
        ("weights on the device are as the file has them; operators that dequantize hold more",),
        "what lies on a device exceeds its memory" if fits is False else None,
    )


def _host(job: Job, experts: int | None) -> dict[str, Term]:
    host: dict[str, Term] = {"runtime": worker_processes(job.spec.tp)}
    if experts is not None:
        host["experts"] = _copies(job, experts)
        embedding = 2 * job.architecture.vocabulary * job.architecture.hidden
        if job.container is Container.GGUF:
            rows = _rows(job)
            embedding = rows[0].embedding
        host["weights"] = exact(embedding, "architecture", "token embedding")
    return host


def _copies(job: Job, experts: int) -> Term:
    """Experts in anonymous memory. Its own server, built with USE_NUMA=1, keeps a copy on each node;
    kt-kernel cuts every expert over the nodes instead (operators/moe-tp.hpp, TP_MOE).
    """
    copies = job.spec.expert_copies
    if copies is not None:
        return exact(copies * experts, "architecture", f"{copies} copies" if copies > 1 else "")
    nodes = job.host.numa_nodes if job.host is not None else None
    if nodes == 1:
        return exact(experts, "architecture")
    note = "once more for each further NUMA node where each keeps a copy (USE_NUMA=1)"
    return Term(experts, experts * (nodes or 2), "architecture", note, likely_bytes=experts)


def _token_reads(job: Job, experts: int | None, kept: int) -> int | None:
    """The chosen ones of the experts that are computed in RAM, were all chosen equally often; the rest is on
    the device, or looked up by row. None with drafted tokens, of which one reading may give several.
    """
    routed = job.architecture.experts
    if experts is None or routed is None or job.spec.speculative is not None:
        return None
    return experts * (routed.routed - kept) * routed.active // routed.routed**2


def _weights(job: Job, layout: Layout, whole: Stage) -> tuple[int | None, int | None]:
    """Bytes on each device without routed experts, and the routed experts."""
    if not job.weights_known:
        return None, None
    if job.container is Container.GGUF:
        rows = _rows(job)
        return sum(row.dense for row in rows) + rows[0].output, sum(row.experts for row in rows)
    if job.stored is not None:
        whole_bytes = stored_rank_bytes(job.architecture, job.stored, layout, whole)[0]
        routed = sum(one.bytes for one in job.stored.roles if one.role in ROUTED_EXPERTS)
        return max(0, whole_bytes - routed), routed
    groups = dict(rank_weights(job.architecture, job.quantization, layout, whole))
    experts = groups.pop("experts")
    return sum(groups.values()), experts


def _rows(job: Job) -> tuple[LayerBytes, ...]:
    if job.stored is not None:
        return stored_layer_bytes(job.architecture, job.stored)
    return layer_bytes(job.architecture, job.quantization)


def _device(
    job: Job, cache: PoolLayout, tokens: int, weights: int | None, index: int, device: DeviceShape
) -> RankFootprint:
    components: dict[str, Term] = {}
    if weights is not None:
        # Marlin and bf16 operators repack or widen what a GGUF holds in few bits.
        gguf = job.container is Container.GGUF
        components["weights"] = (
            Term(weights, 2 * weights, "estimate", likely_bytes=weights)
            if gguf
            else exact(weights, "architecture")
        )
    blocks = -(-tokens // (cache.block_tokens or 1))
    components["kv_cache"] = exact(cache.bytes_of(blocks), "engine")
    components["activations"] = runtime.activations(
        job.architecture, job.spec.chunked_prefill or _CHUNK_TOKENS, 1, job.context_tokens, job.spec.tp
    )
    components["graphs"] = runtime.cuda_graphs(job.spec.enforce_eager)
    components["runtime"] = runtime.cuda_context()
    return RankFootprint(index, 0, device.index, components, sum_terms(components), weights is not None)


def _unsized(spec: DeploymentSpec, gpus: int | None) -> tuple[DeviceShape, ...]:
    return pool.unsized_devices(max(gpus if gpus is not None else spec.tp, spec.tp))


KTRANSFORMERS = Policy(
    Container.GGUF,
    (pool.LLAMA_CPP_SETTINGS - {"cpu_moe", "parallel"}) | {"pp", "dcp"},
    allocate,
    other_container=Container.SAFETENSORS,
    unsized=_unsized,
)
