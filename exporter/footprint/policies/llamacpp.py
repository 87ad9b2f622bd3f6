"""llama.cpp and its family: weights, cache and compute buffers are allocated exactly, nothing is pooled.

Sources: llama.cpp b11434 src/llama-model.cpp (layers to devices, buffer types), src/llama-kv-cache.cpp,
common/fit.cpp, ggml-cpu repack; defaults of each engine: flavours.py. What a CPU-only server holds was
measured (docs/METHOD.md).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

from exporter.footprint import kv_cache, runtime
from exporter.footprint.cells import CellMode, cell_cache
from exporter.footprint.deployment import DeploymentSpec, DeviceShape, FootprintError
from exporter.footprint.policies.explain import explain_cells
from exporter.footprint.policies.gguf_layers import (
    LayerBytes,
    Placement,
    place,
)
from exporter.footprint.policies.job import Job, Policy
from exporter.footprint.policies.llamacpp_host import host_footprint
from exporter.footprint.policies.llamacpp_plan import (
    FIT_FREE_BYTES,
    Plan,
    cache_term,
    compute_bytes,
    plan_of,
    refuses_one_type,
)
from exporter.footprint.policies.speculation import draft_layers, uses_draft_model
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
from exporter.models.quantization import Container, total_bytes

ALL_LAYERS = 10**6

_ONLY_FOR_POOLS = frozenset(
    {
        "tp",
        "pp",
        "dp",
        "ep",
        "dp_attention",
        "max_num_batched_tokens",
        "memory_fraction",
        "enforce_eager",
        "max_total_tokens",
        "redundant_experts",
        "layer_partition",
        "dcp",
        "moe_dense_tp",
        "dp_lm_head",
        "chunked_prefill",
        "cpu_offload_bytes",
        "swap_space_bytes",
        "kv_offload_bytes",
        "hicache",
        "experts_on_gpu",
        "expert_copies",
    }
)


def allocate(job: Job) -> Footprint:
    """The footprint of a llama-server. Raises FootprintError for settings that it would refuse."""
    plan = plan_of(job)
    placement = _placement(job, plan)
    plan = _limited(job, plan, placement)
    devices = tuple(_device(job, plan, placement, index, device) for index, device in enumerate(job.devices))
    host = host_footprint(job, plan, placement)
    capacity = plan.low.layout.tokens
    fits = _fits(job, devices, host)
    return Footprint(
        job.model.id,
        job.architecture.name,
        job.quantization,
        devices,
        host,
        KvCacheFigures(
            bytes_per_token=round(plan.low.token_bytes),
            capacity_tokens=capacity,
            demand_tokens=plan.slots * plan.low.layout.cells if plan.slots_declared else None,
            full_length_sequences=capacity / plan.low.layout.cells,
        ),
        fits,
        _notes(job, plan, placement),
        _limiting(job, devices, host) if fits is False else None,
        explain_cells(job, plan.low, plan.mode),
    )


def _placement(job: Job, plan: Plan) -> Placement:
    spec, count = job.spec, job.architecture.layers
    rows = plan.layers or (LayerBytes(0, 0, 0, 0),) * count
    moe = count if spec.cpu_moe else spec.n_cpu_moe or 0
    if not job.devices:
        if spec.gpu_layers:
            raise FootprintError(f"gpu_layers {spec.gpu_layers} needs devices, and none were given")
        return place(rows, (), 0, count, solved=False)
    _check_devices(job, rows)
    weights = _split(job)
    counts_output = plan.flavour.counts_output
    wanted = spec.gpu_layers if spec.gpu_layers is not None else plan.flavour.gpu_layers
    if wanted is not None or plan.layers is None or not all(device.is_sized for device in job.devices):
        # -1 and below mean all (common/arg.cpp); so it is answered where it cannot be solved.
        layers = wanted if wanted is not None and wanted >= 0 else count + 1
        return place(rows, weights, layers, moe, solved=False, counts_output=counts_output)
    return _solve(job, plan, plan.layers, weights)


def _split(job: Job) -> tuple[int, ...]:
    declared = job.spec.tensor_split
    if declared:
        if len(declared) > len(job.devices) or not sum(declared) > 0:
            raise FootprintError(
                f"tensor_split has {len(declared)} shares for {len(job.devices)} devices, or none above 0"
            )
        scale = 10**6
        shares = [round(share * scale) for share in declared]
        return tuple(shares + [0] * (len(job.devices) - len(shares)))
    if all(device.is_sized for device in job.devices):
        return tuple(device.usable_bytes for device in job.devices)
    return (1,) * len(job.devices)


def _check_devices(job: Job, rows: tuple[LayerBytes, ...]) -> None:
    highest = max(
        (moved.device for row in rows for moved in row.moved if moved.device is not None), default=-1
    )
    if highest >= len(job.devices):
        raise FootprintError(f"override_tensor names device {highest}, but {len(job.devices)} are given")


def _solve(job: Job, plan: Plan, layers: tuple[LayerBytes, ...], weights: tuple[int, ...]) -> Placement:
    # common/fit.cpp: everything if it leaves 1 GiB free on each device, else experts of the first layers go
    # to RAM, else layers. It can also cut within a layer, so that the truth lies less than one layer from
    # this.
    count, spec = len(layers), job.spec
    least = count if spec.cpu_moe else spec.n_cpu_moe or 0
    by_experts = any(layer.experts for layer in layers) and spec.n_cpu_moe is None and not spec.cpu_moe
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
            _needed_by_fit(_device(job, plan, placement, number, device)) <= device.usable_bytes
            for number, device in enumerate(job.devices)
        )

    # Every candidate needs less of the devices than the one before it.
    found = 0 if leaves_room(0) else bisect_left(range(len(candidates)), True, key=leaves_room)
    return placement_of(min(found, len(candidates) - 1))


def _needed_by_fit(rank: RankFootprint) -> int:
    # The context shrinks before any layer leaves the device.
    rest = sum(term.expected_bytes for name, term in rank.components.items() if name != "kv_cache")
    return rank.components["kv_cache"].low_bytes + rest + FIT_FREE_BYTES


def device_weights(layers: tuple[LayerBytes, ...], placement: Placement, index: int) -> int:
    """Bytes of tensors on one device."""
    weights = 0
    for number, (row, where) in enumerate(zip(layers, placement.layers, strict=True)):
        if where == index:
            weights += row.dense + (row.experts if number >= placement.n_cpu_moe else 0)
        weights += sum(moved.size for moved in row.moved if moved.device == index)
    if placement.output == index:
        weights += layers[0].output
    return weights


def _device(job: Job, plan: Plan, placement: Placement, index: int, device: DeviceShape) -> RankFootprint:
    here = [layer for layer, where in enumerate(placement.layers) if where == index]
    components: dict[str, Term] = {}
    if plan.layers is not None:
        components["weights"] = exact(device_weights(plan.layers, placement, index), job.weights_basis)
    components["kv_cache"] = cache_term(plan, () if job.spec.kv_on_host else tuple(here))
    last = placement.output == index
    drafts = _draft_term(job, plan) if last else None
    if drafts is not None:
        components["speculative"] = drafts
    missing = last and drafts is None and uses_draft_model(job)
    low_compute, high_compute = _device_compute(job, plan, bool(here) or last)
    components["activations"] = Term(low_compute, high_compute, "estimate")
    components["runtime"] = runtime.bare_context()
    return RankFootprint(
        index,
        0,
        device.index,
        components,
        sum_terms(components),
        complete=plan.layers is not None and not missing,
    )


def _draft_term(job: Job, plan: Plan) -> Term | None:
    """Draft layers of the file, or a second model with a cache of the same context; None where there is none
    or its file is not known.
    """
    if uses_draft_model(job):
        recipe = gguf_recipe(job.draft_quantization or "")
        if job.draft is None or recipe is None:
            return None
        draft = job.draft.architecture
        weights = total_bytes(draft, recipe, Container.GGUF)
        cache = cell_cache(
            draft,
            plan.low.layout.cells,
            slots=plan.low.layout.streams,
            unified=False,
            type_k="F16",
            type_v="F16",
            mode=CellMode(),
            micro_batch=plan.micro_batch,
        )
        return exact(weights + sum(cache.layers), "architecture")
    if not draft_layers(job) or not job.weights_known:
        return None
    if job.stored is not None:
        return exact(job.stored.draft_bytes, job.weights_basis)
    return exact(total_bytes(job.architecture, job.quantization, Container.GGUF, True), job.weights_basis)


def _limited(job: Job, plan: Plan, placement: Placement) -> Plan:
    """A context that was left to the engine grows until 1 GiB is free, and no further (common/fit.cpp)."""
    if plan.is_settled or plan.flavour.context != "fit":
        return plan
    cells = plan.high.layout.cells
    streams = plan.high.layout.streams
    per_layer = float(plan.high.token_bytes) / job.architecture.layers
    for index, device in enumerate(job.devices):
        here = placement.layers.count(index)
        if here and device.is_sized and per_layer:
            rank = _device(job, plan, placement, index, device)
            taken = rank.total.low_bytes - rank.components["kv_cache"].low_bytes
            room = device.usable_bytes - FIT_FREE_BYTES - taken
            cells = min(cells, int(room // (here * per_layer * streams)))
    if job.host is not None and not job.devices and plan.layers is not None and per_layer:
        rows = plan.layers
        weights = rows[0].embedding + rows[0].output + sum(row.dense + row.experts for row in rows)
        room = job.host.total_bytes - FIT_FREE_BYTES - weights
        cells = min(cells, int(room // (len(rows) * per_layer * streams)))
    cells = max(plan.low.layout.cells, cells // kv_cache.CELL_MULTIPLE * kv_cache.CELL_MULTIPLE)
    if cells == plan.high.layout.cells:
        return plan
    share = cells / plan.high.layout.cells
    layers = tuple(
        max(low, int(size * share)) for size, low in zip(plan.high.layers, plan.low.layers, strict=True)
    )
    layout = replace(plan.high.layout, cells=cells)
    return replace(plan, high=replace(plan.high, layout=layout, layers=layers))


def _device_compute(job: Job, plan: Plan, used: bool) -> tuple[int, int]:
    # Measured on a CPU only: a GPU's graph differs, and older builds add logits for every token of the batch.
    if not used:
        return 0, 0
    low_whole, low_growing = compute_bytes(job, plan, plan.low)
    high_whole, _ = compute_bytes(job, plan, plan.high)
    logits = 4 * plan.micro_batch * job.architecture.vocabulary
    return (low_whole - low_growing) // 2, high_whole + logits


def _fits(job: Job, devices: tuple[RankFootprint, ...], host: HostFootprint) -> bool | None:
    sized = bool(devices) and all(device.is_sized for device in job.devices)
    if not job.weights_known or (devices and not sized) or (not devices and job.host is None):
        return None
    return _limiting(job, devices, host) is None


def _limiting(job: Job, devices: tuple[RankFootprint, ...], host: HostFootprint) -> str | None:
    for rank, device in zip(devices, job.devices, strict=True):
        if rank.total.low_bytes > device.usable_bytes:
            return f"device {device.index}: what lies on it exceeds its memory"
    if job.host is not None and host.total.low_bytes > job.host.total_bytes:
        return "RAM: what stays on the host exceeds it"
    return None


def _notes(job: Job, plan: Plan, placement: Placement) -> tuple[str, ...]:
    spec = job.spec
    notes = []
    if not plan.is_settled:
        notes.append(
            "max_model_len is not declared: the server takes as memory allows, "
            f"between {plan.low.layout.cells} and {plan.high.layout.cells} cells"
        )
    elif spec.max_model_len is None:
        notes.append(f"max_model_len {plan.low.layout.cells} is the engine's default here")
    if not plan.slots_declared:
        shape = "sharing one cache" if plan.low.layout.streams == 1 else "each with its own cache"
        notes.append(f"parallel {plan.slots} is the engine's default, {shape}")
    if placement.solved:
        notes.append(
            "gpu_layers is not declared: solved as the engine does, to within one layer: "
            f"{placement.gpu_layers} on devices, experts of {placement.n_cpu_moe} in RAM"
        )
    elif job.devices and spec.gpu_layers is None:
        if plan.flavour.gpu_layers is not None:
            notes.append(f"gpu_layers {plan.flavour.gpu_layers} is the engine's default")
        elif not all(device.is_sized for device in job.devices):
            notes.append("gpu_layers is not declared and the devices' memory not known: all layers on them")
    if refuses_one_type(spec, job.architecture.attention, plan.mode):
        notes.append("cache_type_v is not said: current builds refuse any but that of the keys")
    if uses_draft_model(job) and (job.draft is None or job.draft_quantization is None):
        notes.append("the draft model's file is not known: what it holds is left out")
    if not plan.mode.latent and spec.mla is None:
        notes.append("this release keeps keys and values of all heads: latent rows came later")
    return tuple(notes)


def _unsized(spec: DeploymentSpec, gpus: int | None) -> tuple[DeviceShape, ...]:
    if gpus is None:
        gpus = max(len(spec.tensor_split), 1) if spec.gpu_layers or spec.tensor_split else 0
    return tuple(DeviceShape(index, 0) for index in range(gpus))


LLAMA_CPP = Policy(Container.GGUF, _ONLY_FOR_POOLS, allocate, unsized=_unsized)
OLLAMA = Policy(Container.GGUF, _ONLY_FOR_POOLS, allocate, registry_names=True, unsized=_unsized)
