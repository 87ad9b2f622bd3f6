"""SGLang: weights and KV pool share a static fraction of the memory that was free before loading; the rest is
slack for activations and graphs.

Source: SGLang 0.5.23 arg_groups/memory_hook.py and mem_cache/kv_cache_configurator.py; tiers by device memory
from server_args.py.
"""

from __future__ import annotations

from exporter.footprint import runtime
from exporter.footprint.deployment import DeviceShape, FootprintError
from exporter.footprint.policies import pool
from exporter.footprint.policies.job import Job, Policy
from exporter.footprint.result import Footprint, Term
from exporter.footprint.weights import Layout, Stage, check_layout
from exporter.models.architecture import LatentAttention
from exporter.models.quantization import Container
from exporter.units import MIB

# (least MiB of device memory, chunked_prefill_size, largest captured batch below TP4, from TP4 on)
_TIERS = (
    (160 * 1024, 16_384, 512, 512),
    (60 * 1024, 8192, 256, 512),
    (35 * 1024, 4096, 32, 160),
    (20 * 1024, 2048, 24, 80),
    (0, 2048, 8, 8),
)
_LATENT_PREFILL_GRAPHS_MIB = 1536
_POST_CAPTURE_RESERVE_MIB = 1536
_DRAFT_RESERVE_MIB = 2048
PAGE_TOKENS = 1


def tier(device: DeviceShape, tp: int) -> tuple[int, int]:
    """chunked_prefill_size and the largest batch captured in CUDA graphs, by the device's total memory."""
    mib = device.total_bytes / MIB
    chunk, small, large = next(row[1:] for row in _TIERS if mib >= row[0])
    return chunk, small if tp < 4 else large


def default_memory_fraction(job: Job, device: DeviceShape) -> float:
    """``--mem-fraction-static`` when it is not given: the device less a reserve, rounded to 3 digits."""
    spec = job.spec
    total_mib = device.total_bytes / MIB
    chunk, batch = tier(device, spec.tp)
    parallel = 1024 * spec.tp * spec.pp / 8
    # SGLang's floor of 10 GiB above 60 GiB never binds: the chunk of such devices alone reserves 12 GiB.
    if isinstance(job.architecture.attention, LatentAttention):
        reserved = 512 + 1.5 * max(chunk, 2048) + parallel + 2 * batch + _LATENT_PREFILL_GRAPHS_MIB
        if spec.dp_attention:
            reserved += 3 * batch * spec.dp + (1.5 * batch * spec.dp if batch > 300 else 0)
    else:
        reserved = _POST_CAPTURE_RESERVE_MIB + parallel
    if spec.speculative is not None:
        reserved += _DRAFT_RESERVE_MIB
    if reserved >= total_mib:
        raise FootprintError(
            f"devices: SGLang would keep {reserved:.0f} MiB free of {total_mib:.0f} MiB; set memory_fraction"
        )
    return round((total_mib - reserved) / total_mib, 3)


def stage_layers(layers: int, stage_count: int) -> tuple[int, ...]:
    """Layers of each stage: the last ones get the rest, one each (distributed/utils.py get_pp_indices)."""
    base, rest = divmod(layers, stage_count)
    return tuple(base + (index >= stage_count - rest) for index in range(stage_count))


def allocate(job: Job) -> Footprint:
    """The footprint of a warm SGLang server. Raises FootprintError for settings that it would refuse."""
    spec, arch = job.spec, job.architecture
    layout = _layout(job)
    check_layout(arch, layout)
    replicas = 1 if spec.dp_attention else spec.dp
    places = pool.placed(job, replicas)
    stages = pool.stages(stage_layers(arch.layers, spec.pp))
    ranks = tuple(
        pool.make_rank(job, place, layout, stages[place[1]], _estimates(job, place[2], stages[place[1]]))
        for place in places
    )
    if spec.kv_cache_bytes is not None:
        shared = pool.known_pool(ranks, spec.kv_cache_bytes, PAGE_TOKENS, PAGE_TOKENS)
    else:
        rooms = tuple(_room(job, rank) for rank in ranks)
        shared = pool.budget_pool(ranks, rooms, PAGE_TOKENS, PAGE_TOKENS)
        if not shared.fits:
            length = job.context_tokens
            shared = pool.Pool(length, length, "architecture", False)
    devices = tuple(
        pool.rank_footprint(
            rank,
            shared,
            rank.device.usable_bytes if shared.fits else 0,
            Term(0, rank.device.usable_bytes, "estimate") if shared.fits else None,
        )
        for rank in ranks
    )
    return Footprint(
        job.model.id,
        arch.name,
        job.quantization,
        devices,
        pool.worker_host(len(ranks)),
        pool.figures(ranks, shared, job.context_tokens, PAGE_TOKENS, spec.dp, spec.max_num_seqs),
        shared.fits,
        _notes(job, places[0][2], shared),
    )


def _layout(job: Job) -> Layout:
    spec = job.spec
    attention = spec.tp
    if spec.dp_attention:
        if spec.tp % spec.dp:
            raise FootprintError(f"dp must divide tp with dp_attention: {spec.dp} does not divide {spec.tp}")
        attention = spec.tp // spec.dp
    if spec.ep is not None and spec.tp % spec.ep:
        raise FootprintError(f"ep must divide tp: {spec.ep} does not divide {spec.tp}")
    return Layout(
        attention, spec.tp, spec.tp, attention, spec.tp, whole_experts=spec.ep == spec.tp and spec.tp > 1
    )


def _room(job: Job, rank: pool.Rank) -> Term:
    fraction = job.spec.memory_fraction
    if fraction is None:
        fraction = default_memory_fraction(job, rank.device)
    before = rank.estimates["runtime"], rank.estimates["communication"]
    free_high = rank.device.usable_bytes - sum(term.low_bytes for term in before)
    free_low = rank.device.usable_bytes - sum(term.high_bytes for term in before)
    graphs = rank.estimates["graphs"]
    # Models without latent attention are sized after graph capture (0.5.23 post_capture_kv_sizing_planned):
    # the graphs come off.
    captured = 0 if isinstance(job.architecture.attention, LatentAttention) else graphs.high_bytes
    low = int(free_low * fraction) - rank.fixed_bytes - captured
    high = int(free_high * fraction) - rank.fixed_bytes
    return Term(max(0, low), max(0, low, high), "estimate")


def _estimates(job: Job, device: DeviceShape, stage: Stage) -> dict[str, Term]:
    spec = job.spec
    chunk, batch = tier(device, spec.tp)
    parts = spec.tp // spec.dp if spec.dp_attention else spec.tp
    sequences = batch if stage.is_last else 0
    return {
        "activations": runtime.activations(job.architecture, chunk, sequences, job.context_tokens, parts),
        "graphs": runtime.cuda_graphs(spec.enforce_eager),
        "runtime": runtime.cuda_context(),
        "communication": runtime.communication(spec.tp * spec.pp),
    }


def _notes(job: Job, device: DeviceShape, shared: pool.Pool) -> tuple[str, ...]:
    spec = job.spec
    notes = []
    if spec.kv_cache_bytes is None and spec.memory_fraction is None:
        notes.append(
            f"memory_fraction {default_memory_fraction(job, device)} is SGLang's default on this device"
        )
    if spec.max_model_len is None:
        notes.append(f"max_model_len {job.architecture.context_tokens} is the model's own")
    if not shared.fits:
        notes.append(
            "does not fit: weights leave no room for a cache in the static fraction of a device; "
            "answered with the cache of one sequence of max_model_len"
        )
    return tuple(notes)


SGLANG = Policy(Container.SAFETENSORS, pool.LLAMA_CPP_SETTINGS | {"max_num_batched_tokens"}, allocate)
