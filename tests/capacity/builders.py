"""Small hosts to judge: devices of 100 GiB, deployments with footprints of round numbers."""

from __future__ import annotations

from exporter.capacity.observation import Declared, Observation
from exporter.engines.process import ProcessMemory
from exporter.footprint.result import (
    Footprint,
    HostFootprint,
    KvCacheFigures,
    RankFootprint,
    Term,
)
from exporter.hardware.gpu import Gpu, GpuIdentity, GpuProcess, GpuReading, GpuState
from exporter.hardware.host import HostReading

GIB = 2**30


def gpu(
    index: int,
    *,
    used: int = 0,
    processes: dict[int, int | None] | None = None,
    state: GpuState = GpuState.UP,
    total: int = 100 * GIB,
    reserved: int | None = 1 * GIB,
) -> Gpu:
    identity = GpuIdentity(f"GPU-{index}", index, "H", "nvidia", f"0000:{index:02x}:00.0", "dedicated")
    if state is not GpuState.UP:
        return Gpu(identity, state)
    rows = None if processes is None else tuple(GpuProcess(pid, size) for pid, size in processes.items())
    reading = GpuReading(
        memory_total_bytes=total,
        memory_used_bytes=used,
        memory_free_bytes=total - used - (reserved or 0),
        memory_reserved_bytes=reserved,
        processes=rows,
    )
    return Gpu(identity, state, reading=reading, last_success_seconds=1.0)


def footprint(
    ranks: int, *, weights: int, estimate: tuple[int, int] = (0, 0), ram: int = 0, ram_mapped: int = 0
) -> Footprint:
    """Each rank: `weights` exactly, and a runtime term known only as a range."""
    runtime = Term(*estimate, "estimate")
    total = Term(weights + estimate[0], weights + estimate[1], "estimate")
    return Footprint(
        model_id="deepseek-ai/DeepSeek-R1",
        architecture="deepseek-v3",
        quantization="fp8",
        devices=tuple(
            RankFootprint(
                rank,
                0,
                rank,
                {"weights": Term(weights, weights, "architecture"), "runtime": runtime},
                total,
            )
            for rank in range(ranks)
        ),
        host=HostFootprint(
            {"weights": Term(ram, ram, "architecture")} if ram else {}, mapped_bytes=ram_mapped
        ),
        kv_cache=KvCacheFigures(70272),
    )


def declared(
    name: str, need: Footprint | None, *, devices: tuple[int, ...] = (), required: bool = True
) -> Declared:
    return Declared(
        name=name,
        model="deepseek-ai/DeepSeek-R1",
        engine="vllm",
        required=required,
        device_indices=devices,
        ranks=tuple(f"GPU-{index}" for index in devices),
        programs=("vllm", "VLLM::*"),
        unit=None,
        tp=max(1, len(devices)),
        pp=1,
        dp=1,
        max_model_len=None,
        max_num_seqs=None,
        kv_cache_dtype=None,
        footprint=need,
        problem="" if need else "unknown model",
    )


def observation(
    gpus: tuple[Gpu, ...] = (),
    deployments: tuple[Declared, ...] = (),
    *,
    owned: dict[str, frozenset[int]] | None = None,
    memory: dict[int, ProcessMemory] | None = None,
    host: HostReading | None = None,
) -> Observation:
    return Observation(gpus, host, deployments, owned or {}, memory or {})


def ram(total: int, available: int) -> HostReading:
    return HostReading(memory_total_bytes=total, memory_available_bytes=available)
