"""RAM of a llama.cpp server: tensors once or twice, the host's part of the cache, heap and prompt cache.

Measured on CPU-only servers (docs/METHOD.md section 5).
"""

from __future__ import annotations

from fractions import Fraction

from exporter.footprint import runtime
from exporter.footprint.deployment import FootprintError, HostShape
from exporter.footprint.policies.gguf_layers import (
    REPACKED_TYPES,
    LayerBytes,
    Placement,
    host_repack,
    stored_repack,
)
from exporter.footprint.policies.job import Job
from exporter.footprint.policies.llamacpp_plan import Plan, cache_term, compute_bytes
from exporter.footprint.result import HostFootprint, Term, exact
from exporter.units import GIB, MIB

# Measured on llama-server b11434: work buffer of the thread pool, binary and shared libraries, pages not
# reached.
_WORK_BYTES = 16 * MIB
_LIBRARIES_BYTES = 15 * MIB
_UNTOUCHED_BYTES = 12 * MIB
_DRIVER_HOST_BYTES = GIB


def host_footprint(job: Job, plan: Plan, placement: Placement) -> HostFootprint:
    """What the server holds in RAM."""
    spec = job.spec
    components: dict[str, Term] = {}
    dense = experts = repacked_dense = repacked_experts = 0
    mapped = spec.mmap is not False
    if plan.layers is not None:
        dense, experts = host_bytes(plan.layers, placement)
        repacked_dense, repacked_experts = _repacked(job, plan)
        components["weights"] = _weights_term(job, dense, repacked_dense, mapped)
        if experts:
            components["experts"] = _weights_term(job, experts, repacked_experts, mapped)
    on_host = [layer for layer, where in enumerate(placement.layers) if where is None or spec.kv_on_host]
    if on_host:
        components["kv_cache"] = cache_term(plan, tuple(on_host))
    components["runtime"] = _host_runtime(job, plan)
    limit = spec.cache_ram_bytes if spec.cache_ram_bytes is not None else plan.flavour.cache_ram_bytes
    if limit:
        note = "a limit: empty at start, fills with prompts that differ"
        components["prompt_cache"] = Term(0, limit, "engine", note, likely_bytes=0)
    repacked = repacked_dense + repacked_experts
    return HostFootprint(
        components,
        # Locked too: where the lock is refused (RLIMIT_MEMLOCK) the server goes on without it.
        mapped_bytes=dense + experts - repacked if mapped else 0,
        reclaimable_bytes=repacked if mapped and not spec.mlock else 0,
        complete=plan.layers is not None,
        looked_up_bytes=_looked_up(plan) if mapped else 0,
        locked_bytes=dense + experts if spec.mlock else 0,
        mapped_lazily=mapped and _maps_lazily(job),
        token_read_bytes=_token_reads(job, plan, placement),
    )


def _maps_lazily(job: Job) -> bool:
    """Whether ``--numa`` is in force, which leaves out MAP_POPULATE: of one node it does nothing
    (src/llama-mmap.cpp, ggml-cpu.c ggml_is_numa).
    """
    nodes = job.host.numa_nodes if job.host is not None else None
    return job.spec.numa is not None and nodes != 1


def _looked_up(plan: Plan) -> int:
    """The token embedding, where it is in RAM: it stays there unless a rule moves it."""
    if plan.layers is None:
        return 0
    moved = plan.layers[0].moved
    return plan.layers[0].embedding + sum(one.size for one in moved if one.looked_up and one.device is None)


def _token_reads(job: Job, plan: Plan, placement: Placement) -> int | None:
    """Weights in RAM that one token reads: all but the embedding, of which it is one row, and of the routed
    experts those that are chosen. None with drafted tokens, of which one reading may give several.
    """
    if plan.layers is None or job.spec.speculative is not None or job.spec.draft_model is not None:
        return None
    dense, experts = host_bytes(plan.layers, placement)
    routed = job.architecture.experts
    share = Fraction(routed.active, routed.routed) if routed is not None else Fraction(1)
    return dense - _looked_up(plan) + int(experts * share)


def host_bytes(layers: tuple[LayerBytes, ...], placement: Placement) -> tuple[int, int]:
    """Tensors that stay in RAM: without routed experts, and these."""
    dense, experts = layers[0].embedding, 0
    if placement.output is None:
        dense += layers[0].output
    for number, (row, where) in enumerate(zip(layers, placement.layers, strict=True)):
        if where is None:
            dense += row.dense
        if where is None or number < placement.n_cpu_moe:
            experts += row.experts
        for moved in row.moved:
            if moved.device is None and moved.experts:
                experts += moved.size
            elif moved.device is None:
                dense += moved.size
    return dense, experts


def _repacked(job: Job, plan: Plan) -> tuple[int, int]:
    instructions = (job.host or HostShape(0)).instruction_set
    if instructions not in REPACKED_TYPES:
        raise FootprintError(f"host: instruction_set is not known; known: {', '.join(REPACKED_TYPES)}")
    # With a GPU its host buffers come before the repacking ones (llama-model.cpp make_cpu_buft_list);
    # ik_llama.cpp repacks on request alone (-rtr).
    repacks = job.spec.repack is not False and plan.flavour.name != "ik_llama.cpp"
    if job.devices or not (repacks or job.spec.repack):
        return 0, 0
    if job.stored is not None:
        return stored_repack(job.stored, instructions)
    return host_repack(job.architecture, job.quantization, instructions, plan.layout)


def _weights_term(job: Job, size: int, repacked: int, mapped: bool) -> Term:
    """Low: every tensor once, in the form that is computed with. High: also the file pages behind repacked
    copies, which a fresh server holds until the kernel wants them back.
    """
    basis = job.weights_basis
    if not mapped:
        return exact(size, basis)
    if job.spec.mlock:
        return exact(size + repacked, basis, "the whole mapping is locked beside the repacked copies")
    return Term(size, size + repacked, basis, likely_bytes=size + repacked)


def _host_runtime(job: Job, plan: Plan) -> Term:
    arch = job.architecture
    rest_low = runtime.llamacpp_rest_bytes(arch, plan.low.layout.tokens)
    rest_high = runtime.llamacpp_rest_bytes(arch, plan.high.layout.tokens)
    output = runtime.llamacpp_output_bytes(arch, plan.slots)
    high_whole, _ = compute_bytes(job, plan, plan.high)
    fixed_high = rest_high + output + _LIBRARIES_BYTES + high_whole
    if job.devices:
        return Term(rest_low + output, fixed_high + _DRIVER_HOST_BYTES, "estimate")
    whole, growing = compute_bytes(job, plan, plan.low)
    touched = max(0, whole - growing - _UNTOUCHED_BYTES)
    return Term(rest_low + output + touched, fixed_high + _WORK_BYTES, "estimate")
