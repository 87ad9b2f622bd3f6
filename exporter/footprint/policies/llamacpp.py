"""llama.cpp, and Ollama which starts its server: weights, cache and compute buffers are allocated exactly,
nothing is pooled.

Sources: llama.cpp b11434 src/llama-model.cpp (layers to devices, buffer types), llama-kv-cache.cpp,
common/fit.cpp, ggml-cpu repack; Ollama server/routes.go. What a CPU-only server holds was measured
(docs/METHOD.md).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace

from exporter.footprint import kv_cache, runtime
from exporter.footprint.deployment import DeviceShape, FootprintError, HostShape
from exporter.footprint.policies.gguf_layers import (
    REPACKED_TYPES,
    LayerBytes,
    Placement,
    host_repack,
    layer_bytes,
    place,
)
from exporter.footprint.policies.job import Job, Policy
from exporter.footprint.result import (
    Footprint,
    HostFootprint,
    KvCacheFigures,
    RankFootprint,
    Term,
    exact,
    sum_terms,
)
from exporter.models.catalog import gguf_recipe
from exporter.models.quantization import Container
from exporter.units import GIB, MIB

DEFAULT_SLOTS = 4
"""``--parallel`` auto: four slots that share one cache (tools/server/server.cpp)."""
DEFAULT_MICRO_BATCH = 512
DEFAULT_CACHE_RAM_BYTES = 8192 * MIB
FIT_LEAST_CONTEXT = 4096
FIT_FREE_BYTES = 1024 * MIB
"""common/common.h fit_params_target and fit_params_min_ctx."""

# Ollama server/routes.go: (least GPU memory of all devices, default num_ctx).
_OLLAMA_CONTEXTS = ((47 * GIB, 262_144), (23 * GIB, 32_768), (0, 4096))

# Measured on llama-server b11434: work buffer of the thread pool, binary and shared libraries, pages not
# reached.
_WORK_BYTES = 16 * MIB
_LIBRARIES_BYTES = 15 * MIB
_UNTOUCHED_BYTES = 12 * MIB
_DRIVER_HOST_BYTES = GIB

_ONLY_FOR_POOLS = frozenset(
    {
        "tp",
        "pp",
        "dp",
        "ep",
        "dp_attention",
        "max_num_batched_tokens",
        "memory_fraction",
        "kv_cache_dtype",
        "kv_cache_bytes",
        "speculative",
        "enforce_eager",
    }
)


@dataclass(frozen=True, slots=True)
class _Cache:
    """The cache at the least and at the most context that the server may have taken."""

    low: kv_cache.CellLayout
    high: kv_cache.CellLayout
    cell_bytes: int
    slots: int
    slots_declared: bool


def allocate(job: Job) -> Footprint:
    """The footprint of a llama-server. Raises FootprintError for settings that it would refuse."""
    arch = job.architecture
    recipe = gguf_recipe(job.quantization)
    assert recipe is not None, "the caller checked the container"
    cache = _cache(job)
    layers = layer_bytes(arch, recipe)
    placement = _placement(job, layers, cache)
    cache = _limited(job, layers, placement, cache)
    devices = tuple(
        _device(job, layers, placement, cache, index, device) for index, device in enumerate(job.devices)
    )
    host = _host(job, recipe, layers, placement, cache)
    capacity = cache.low.tokens
    return Footprint(
        job.model.id,
        arch.name,
        job.quantization,
        devices,
        host,
        KvCacheFigures(
            bytes_per_token=arch.layers * cache.cell_bytes,
            capacity_tokens=capacity,
            demand_tokens=cache.slots * cache.low.cells if cache.slots_declared else None,
            full_length_sequences=capacity / cache.low.cells,
        ),
        _fits(job, devices, host),
        _notes(job, cache, placement),
    )


def _cache(job: Job) -> _Cache:
    spec = job.spec
    slots = spec.parallel if spec.parallel is not None else spec.max_num_seqs
    if spec.max_num_seqs is not None and slots != spec.max_num_seqs:
        raise FootprintError(
            f"max_num_seqs {spec.max_num_seqs} contradicts parallel {spec.parallel}: slots are sequences here"
        )
    type_k = kv_cache.cache_type(spec.cache_type_k, "cache_type_k")
    type_v = kv_cache.cache_type(spec.cache_type_v, "cache_type_v")
    if spec.flash_attention is False and kv_cache.is_quantized_cache(type_v):
        raise FootprintError(
            "flash_attention must not be off where cache_type_v is quantized: llama.cpp refuses it"
        )
    declared = slots is not None
    if spec.engine.lower() == "ollama":
        slots = slots or 1
        contexts = (_ollama_context(job) * slots,) * 2
        unified = spec.kv_unified or False
    else:
        unified = spec.kv_unified if spec.kv_unified is not None else not declared
        slots = slots or DEFAULT_SLOTS
        trained = job.architecture.context_tokens
        contexts = (spec.max_model_len or min(FIT_LEAST_CONTEXT, trained), spec.max_model_len or trained)
    low, high = (kv_cache.cell_layout(context, slots, unified) for context in contexts)
    return _Cache(low, high, kv_cache.cell_bytes(job.architecture, type_k, type_v), slots, declared)


def _ollama_context(job: Job) -> int:
    if job.spec.max_model_len is not None:
        return job.spec.max_model_len
    memory = sum(device.usable_bytes for device in job.devices)
    context = next(tokens for least, tokens in _OLLAMA_CONTEXTS if memory >= least)
    return min(context, job.architecture.context_tokens)


def _placement(job: Job, layers: tuple[LayerBytes, ...], cache: _Cache) -> Placement:
    spec, count = job.spec, len(layers)
    if not job.devices:
        if spec.gpu_layers:
            raise FootprintError(f"gpu_layers {spec.gpu_layers} needs devices, and none were given")
        return place(layers, (), 0, count, solved=False)
    weights = tuple(device.usable_bytes for device in job.devices)
    if spec.gpu_layers is not None:
        # -1 and below mean all (common/arg.cpp).
        wanted = spec.gpu_layers if spec.gpu_layers >= 0 else count + 1
        return place(layers, weights, wanted, spec.n_cpu_moe or 0, solved=False)
    return _solve(job, layers, weights, cache)


def _solve(job: Job, layers: tuple[LayerBytes, ...], weights: tuple[int, ...], cache: _Cache) -> Placement:
    # common/fit.cpp: everything if it leaves 1 GiB free on each device, else experts of the first layers go
    # to RAM, else layers. It can also cut within a layer, so that the truth lies less than one layer from
    # this.
    count, least = len(layers), job.spec.n_cpu_moe or 0
    by_experts = any(layer.experts for layer in layers) and job.spec.n_cpu_moe is None
    candidates = [(count + 1, least)]
    if by_experts:
        candidates += [(count + 1, moe) for moe in range(1, count + 1)]
    most = count if by_experts else least
    candidates += [(gpu, most) for gpu in range(count, -1, -1)]

    def placement_of(index: int) -> Placement:
        return place(layers, weights, *candidates[index], solved=index > 0)

    def leaves_room(index: int) -> bool:
        placement = placement_of(index)
        return all(
            _needed_by_fit(_device(job, layers, placement, cache, number, device)) <= device.usable_bytes
            for number, device in enumerate(job.devices)
        )

    # Every candidate needs less of the devices than the one before it.
    found = 0 if leaves_room(0) else bisect_left(range(len(candidates)), True, key=leaves_room)
    return placement_of(min(found, len(candidates) - 1))


def _needed_by_fit(rank: RankFootprint) -> int:
    # The context shrinks before any layer leaves the device.
    rest = sum(term.expected_bytes for name, term in rank.components.items() if name != "kv_cache")
    return rank.components["kv_cache"].low_bytes + rest + FIT_FREE_BYTES


def _device(
    job: Job,
    layers: tuple[LayerBytes, ...],
    placement: Placement,
    cache: _Cache,
    index: int,
    device: DeviceShape,
) -> RankFootprint:
    here = [layer for layer, where in enumerate(placement.layers) if where == index]
    weights = sum(layers[layer].dense for layer in here)
    weights += sum(layers[layer].experts for layer in here if layer >= placement.n_cpu_moe)
    if placement.output == index:
        weights += layers[0].output
    cell = cache.cell_bytes * len(here)
    low_compute, high_compute = _device_compute(job, cache, bool(here) or placement.output == index)
    components = {
        "weights": exact(weights, "architecture"),
        "kv_cache": _cache_term(cache, cell),
        "activations": Term(low_compute, high_compute, "estimate"),
        "runtime": runtime.bare_context(),
    }
    return RankFootprint(index, 0, device.index, components, sum_terms(components))


def _limited(job: Job, layers: tuple[LayerBytes, ...], placement: Placement, cache: _Cache) -> _Cache:
    """A context that was left to the engine grows until 1 GiB is free, and no further (common/fit.cpp)."""
    if cache.low == cache.high:
        return cache
    cells = cache.high.cells
    for index, device in enumerate(job.devices):
        here = placement.layers.count(index)
        if here:
            rank = _device(job, layers, placement, cache, index, device)
            taken = rank.total.low_bytes - rank.components["kv_cache"].low_bytes
            room = device.usable_bytes - FIT_FREE_BYTES - taken
            cells = min(cells, room // (here * cache.cell_bytes * cache.high.streams))
    if job.host is not None and not job.devices:
        weights = layers[0].embedding + layers[0].output + sum(row.dense + row.experts for row in layers)
        room = job.host.total_bytes - FIT_FREE_BYTES - weights
        cells = min(cells, room // (len(layers) * cache.cell_bytes * cache.high.streams))
    cells = max(cache.low.cells, cells // kv_cache.CELL_MULTIPLE * kv_cache.CELL_MULTIPLE)
    return replace(cache, high=replace(cache.high, cells=cells))


def _cache_term(cache: _Cache, cell: int) -> Term:
    low, high = cache.low.tokens * cell, cache.high.tokens * cell
    return Term(low, high, "architecture" if low == high else "estimate")


def _device_compute(job: Job, cache: _Cache, used: bool) -> tuple[int, int]:
    # Measured on a CPU only: a GPU's graph differs, and older builds add logits for every token of the batch.
    if not used:
        return 0, 0
    low_whole, low_growing = _compute(job, cache.low)
    high_whole, _ = _compute(job, cache.high)
    logits = 4 * _micro_batch(job) * job.architecture.vocabulary
    return (low_whole - low_growing) // 2, high_whole + logits


def _host(
    job: Job, recipe: str, layers: tuple[LayerBytes, ...], placement: Placement, cache: _Cache
) -> HostFootprint:
    spec = job.spec
    on_host = [layer for layer, where in enumerate(placement.layers) if where is None]
    dense = layers[0].embedding + sum(layers[layer].dense for layer in on_host)
    dense += layers[0].output if placement.output is None else 0
    experts = sum(
        layer.experts
        for index, layer in enumerate(layers)
        if placement.layers[index] is None or index < placement.n_cpu_moe
    )
    repacked_dense, repacked_experts = _repacked(job, recipe)
    mapped = spec.mmap is not False
    components = {"weights": _weights_term(dense, repacked_dense, mapped, spec.mlock)}
    if experts:
        components["experts"] = _weights_term(experts, repacked_experts, mapped, spec.mlock)
    if on_host:
        components["kv_cache"] = _cache_term(cache, cache.cell_bytes * len(on_host))
    components["runtime"] = _host_runtime(job, cache)
    limit = spec.cache_ram_bytes if spec.cache_ram_bytes is not None else DEFAULT_CACHE_RAM_BYTES
    if limit:
        note = "a limit: empty at start, fills with prompts that differ"
        components["prompt_cache"] = Term(0, limit, "engine", note, likely_bytes=0)
    pageable = mapped and not spec.mlock
    return HostFootprint(
        components,
        mapped_bytes=dense + experts - repacked_dense - repacked_experts if pageable else 0,
        reclaimable_bytes=repacked_dense + repacked_experts if pageable else 0,
    )


def _repacked(job: Job, recipe: str) -> tuple[int, int]:
    instructions = (job.host or HostShape(0)).instruction_set
    if instructions not in REPACKED_TYPES:
        raise FootprintError(f"host: instruction_set is not known; known: {', '.join(REPACKED_TYPES)}")
    # With a GPU its host buffers come before the repacking ones (llama-model.cpp make_cpu_buft_list).
    if job.devices or job.spec.repack is False:
        return 0, 0
    return host_repack(job.architecture, recipe, instructions)


def _weights_term(size: int, repacked: int, mapped: bool, locked: bool) -> Term:
    """Low: every tensor once, in the form that is computed with. High: also the file pages behind repacked
    copies, which a fresh server holds until the kernel wants them back.
    """
    if not mapped:
        return exact(size, "architecture")
    if locked:
        return exact(
            size + repacked, "architecture", "the whole mapping is locked beside the repacked copies"
        )
    return Term(size, size + repacked, "architecture", likely_bytes=size + repacked)


def _host_runtime(job: Job, cache: _Cache) -> Term:
    arch = job.architecture
    rest_low = runtime.llamacpp_rest_bytes(arch, cache.low.tokens)
    rest_high = runtime.llamacpp_rest_bytes(arch, cache.high.tokens)
    output = runtime.llamacpp_output_bytes(arch, cache.slots)
    high_whole, _ = _compute(job, cache.high)
    fixed_high = rest_high + output + _LIBRARIES_BYTES + high_whole
    if job.devices:
        return Term(rest_low + output, fixed_high + _DRIVER_HOST_BYTES, "estimate")
    whole, growing = _compute(job, cache.low)
    touched = max(0, whole - growing - _UNTOUCHED_BYTES)
    return Term(rest_low + output + touched, fixed_high + _WORK_BYTES, "estimate")


def _compute(job: Job, layout: kv_cache.CellLayout) -> tuple[int, int]:
    flash = job.spec.flash_attention is not False
    return runtime.llamacpp_compute_bytes(job.architecture, _micro_batch(job), layout.cells, flash)


def _micro_batch(job: Job) -> int:
    return job.spec.micro_batch or DEFAULT_MICRO_BATCH


def _fits(job: Job, devices: tuple[RankFootprint, ...], host: HostFootprint) -> bool | None:
    if not devices and job.host is None:
        return None
    roomy = all(
        rank.total.low_bytes <= device.usable_bytes for rank, device in zip(devices, job.devices, strict=True)
    )
    return roomy and (job.host is None or host.total.low_bytes <= job.host.total_bytes)


def _notes(job: Job, cache: _Cache, placement: Placement) -> tuple[str, ...]:
    spec = job.spec
    notes = []
    if cache.low != cache.high:
        notes.append(
            "max_model_len is not declared: the server takes as memory allows, "
            f"between {cache.low.cells} and {cache.high.cells} cells"
        )
    elif spec.max_model_len is None:
        notes.append(f"max_model_len {cache.low.cells} is the engine's default here")
    if not cache.slots_declared:
        shape = "sharing one cache" if cache.low.streams == 1 else "each with its own cache"
        notes.append(f"parallel {cache.slots} is the engine's default, {shape}")
    if placement.solved:
        notes.append(
            "gpu_layers is not declared: solved as the engine does, to within one layer: "
            f"{placement.gpu_layers} on devices, experts of {placement.n_cpu_moe} in RAM"
        )
    return tuple(notes)


LLAMA_CPP = Policy(Container.GGUF, _ONLY_FOR_POOLS, allocate)
OLLAMA = Policy(Container.GGUF, _ONLY_FOR_POOLS, allocate, registry_names=True)
