"""RAM that serving engines hold beside their devices: processes, pinned pools, offloaded weights and caches.

Sources: vLLM 0.33 v1/simple_kv_offload/cuda_mem_ops.py (PyTorch rounds each pinned allocation up to a power
of two), config/engram.py, config/offload.py; SGLang 0.5.23 mem_cache/memory_pool_host.py (HiCache).
"""

from __future__ import annotations

from exporter.footprint.deployment import DeploymentSpec
from exporter.footprint.policies.job import Job
from exporter.footprint.policies.pool import Pool, Rank
from exporter.footprint.result import HostFootprint, Term, exact
from exporter.footprint.runtime import worker_processes
from exporter.footprint.versions import before
from exporter.footprint.weights import table_bytes
from exporter.models.roles import Role
from exporter.units import GIB

HICACHE_RATIO = 2.0
"""SGLang's ``--hicache-ratio``: the host pool in units of the device pool, on every rank."""

SWAP_SPACE_BYTES = 4 * GIB
SWAP_REMOVED = (0, 8)
"""vLLM's first engine kept 4 GiB of pinned swap space per device; the second has none."""

_TABLE_SCALE_SHARE = 33
# V4.1's rows of 256 elements have 8 bytes of scales: an allocation of its own, one 33rd of the whole.


def engine_host(job: Job, ranks: tuple[Rank, ...], pool: Pool | None) -> HostFootprint:
    """RAM of an engine whose weights and cache are on devices, offloading included."""
    components: dict[str, Term] = {"runtime": worker_processes(len(ranks))}
    pinned = [
        term
        for term in (_offloaded_weights(job.spec, ranks), _tables(job), _swap(job.spec, len(ranks)))
        if term is not None
    ]
    if pinned:
        components["pinned"] = Term(
            sum(term.low_bytes for term in pinned),
            sum(term.high_bytes for term in pinned),
            "estimate" if any(term.low_bytes != term.high_bytes for term in pinned) else "architecture",
            likely_bytes=sum(term.expected_bytes for term in pinned),
        )
    cache = _host_cache(job.spec, ranks, pool)
    if cache is not None:
        components["kv_cache"] = cache
    known = not (job.spec.hicache and cache is None)
    return HostFootprint(components, complete=known)


def power_of_two(size: int) -> int:
    """What PyTorch pins for an allocation of ``size`` bytes."""
    return 1 << (size - 1).bit_length() if size > 0 else 0


def _offloaded_weights(spec: DeploymentSpec, ranks: tuple[Rank, ...]) -> Term | None:
    # --cpu-offload-gb is per device; every parameter is pinned for itself, so that rounding costs up to
    # twice.
    if not spec.cpu_offload_bytes:
        return None
    size = spec.cpu_offload_bytes * len(ranks)
    return Term(size, 2 * size, "engine", "rounded up to powers of two, tensor by tensor")


def _tables(job: Job) -> Term | None:
    arch, spec = job.architecture, job.spec
    if arch.engram is None or spec.engram_on_device or not job.weights_known:
        return None
    tables = (
        sum(one.bytes for one in job.stored.roles if one.role is Role.ENGRAM_TABLE)
        if job.stored is not None
        else table_bytes(arch, job.quantization)
    )
    size = tables * spec.dp
    shards = spec.tp * spec.dp
    pinned = 0
    for rows in arch.engram.rows:
        whole = size // spec.dp * rows // sum(arch.engram.rows)
        scales = whole // _TABLE_SCALE_SHARE
        pinned += shards * (
            power_of_two(-(-(whole - scales) // spec.tp)) + power_of_two(-(-scales // spec.tp))
        )
    note = "n-gram tables; pinned in powers of two unless huge pages or shared memory are used"
    return Term(size, max(size, pinned), "architecture", note, likely_bytes=max(size, pinned))


def _swap(spec: DeploymentSpec, ranks: int) -> Term | None:
    if spec.engine.lower() != "vllm" or not before(spec.engine_version, SWAP_REMOVED):
        return None
    per_device = spec.swap_space_bytes if spec.swap_space_bytes is not None else SWAP_SPACE_BYTES
    return exact(per_device * ranks, "engine", "swap space of vLLM's first engine") if per_device else None


def _host_cache(spec: DeploymentSpec, ranks: tuple[Rank, ...], pool: Pool | None) -> Term | None:
    if spec.kv_offload_bytes:
        return exact(spec.kv_offload_bytes, "engine", "registered as it is, all tensor ranks together")
    if not spec.hicache:
        return None
    if spec.hicache_bytes:
        return exact(spec.hicache_bytes * len(ranks), "engine")
    if pool is None:
        return None
    ratio = spec.hicache_ratio or HICACHE_RATIO
    low, high = (
        int(ratio * sum(rank.layout.bytes_of(blocks) for rank in ranks))
        for blocks in (pool.low_blocks, pool.high_blocks)
    )
    return Term(low, high, "estimate", "reduced to 80 % of the RAM that is free where that is less")
