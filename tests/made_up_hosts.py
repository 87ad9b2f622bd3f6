"""A made-up host with eight H200 and four deployments, quiet and in trouble: what pages and pictures show.

Devices, processes and what engines say are invented; expectations and the judgement are the program's own.
"""

from __future__ import annotations

import dataclasses
from functools import cache

from fixed_snapshot import NOW_SECONDS

from exporter.capacity.alert import Alert
from exporter.capacity.assessment import assess
from exporter.capacity.declaration import declare, host_shape, shapes_of
from exporter.capacity.observation import Declared, Observation, Running
from exporter.engines.process import ProcessMemory
from exporter.engines.telemetry.types import Telemetry
from exporter.hardware.gpu import Gpu, GpuIdentity, GpuProcess, GpuReading, GpuState
from exporter.hardware.host import Cpu, HostReading
from exporter.models.catalog import catalog
from exporter.settings.options import Deployment, Thresholds
from exporter.snapshot import Reload, Snapshot, Source
from exporter.units import GIB, MIB

HOST_NAME = "gpu-01"
H200_BYTES = 143_771 * MIB
RESERVED_BYTES = 626 * MIB

ENTRIES = (
    Deployment(
        name="r1",
        model="deepseek-ai/DeepSeek-R1",
        quantization="awq",
        engine="vllm",
        devices=[0, 1, 2, 3],
        tp=4,
        max_model_len=32_768,
        max_num_seqs=16,
    ),
    Deployment(
        name="distill-70b",
        model="deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
        engine="sglang",
        devices=[4, 5],
        tp=2,
        max_model_len=65_536,
        memory_fraction=0.85,
    ),
    Deployment(
        name="coder-lite",
        model="deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct",
        engine="vllm",
        devices=[6],
        max_model_len=16_384,
        memory_fraction=0.6,
    ),
    Deployment(
        name="v3-in-ram",
        model="deepseek-ai/DeepSeek-V3",
        quantization="Q4_K_M",
        engine="llama.cpp",
        max_model_len=16_384,
        parallel=1,
    ),
)
SECOND = Deployment(
    name="distill-32b",
    model="deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
    engine="vllm",
    devices=[6],
    max_model_len=32_768,
    memory_fraction=0.55,
)
UNHEARD = Deployment(name="v9", model="deepseek-ai/DeepSeek-V9", engine="vllm", devices=[7], required=False)

_HOST = HostReading(
    memory_total_bytes=1536 * GIB,
    memory_available_bytes=1130 * GIB,
    swap_total_bytes=8 * GIB,
    swap_used_bytes=0,
    cpu=Cpu("AMD EPYC 9654 96-Core Processor", 2, 192, 384, frozenset({"avx2", "avx512f"})),
)


def _gpu(index: int, used: int, processes: dict[int, int], watts: float) -> Gpu:
    identity = GpuIdentity(
        uuid=f"GPU-{index:08x}-1f2e-4b3d-9c4a-5d6e7f809{index:03x}",
        index=index,
        name="NVIDIA H200",
        vendor="nvidia",
        pci_bus_id=f"00000000:{0x18 + index:02X}:00.0",
        memory_kind="dedicated",
        numa_node=index // 4,
        driver_version="570.133.20",
    )
    reading = GpuReading(
        memory_total_bytes=H200_BYTES,
        memory_used_bytes=used,
        memory_free_bytes=H200_BYTES - RESERVED_BYTES - used,
        memory_reserved_bytes=RESERVED_BYTES,
        power_watts=watts,
        power_limit_watts=700.0,
        energy_joules=(41.5 + index) * 3.6e6,
        utilization_ratio=0.9 if watts > 200 else 0.0,
        temperature_celsius={"core": 34 + watts / 20, "memory": 40 + watts / 20},
        ecc_errors={"corrected": 0, "uncorrected": 0},
        processes=tuple(GpuProcess(pid, size) for pid, size in processes.items()),
    )
    return Gpu(identity, GpuState.UP, reading=reading, last_success_seconds=NOW_SECONDS)


def _running(one: Declared, telemetry: Telemetry | None, version: str) -> Running:
    footprint = one.footprint
    assert footprint is not None
    return Running(
        engine=one.engine,
        engine_version=version,
        model=footprint.model_id,
        model_known=True,
        served_model=one.name,
        quantization=footprint.quantization,
        tp=one.tp,
        max_model_len=one.max_model_len,
        max_num_seqs=one.max_num_seqs,
        answered=True,
        has_answered=True,
        state="warm",
        telemetry=telemetry,
    )


def _on(deployments: tuple[Declared, ...], index: int) -> dict[int, int]:
    """pid → bytes of what should be on a device; the pid is the deployment's place and the rank."""
    found = {}
    for at, one in enumerate(deployments):
        ranks = one.footprint.devices if one.footprint else ()
        for rank, device in zip(ranks, one.device_indices, strict=True):
            if device == index:
                found[1000 * (at + 1) + rank.rank] = rank.total.expected_bytes + (37 - 13 * rank.rank) * MIB
    return found


@cache
def quiet() -> Snapshot:
    """All as it should be: one full tensor-parallel deployment, two others, one in RAM, one GPU free."""
    return _host(ENTRIES, {})


@cache
def in_trouble() -> Snapshot:
    """Two deployments overcommit GPU 6, a stranger is on GPU 2, GPU 5 is lost, and one model is not known."""
    calm = _host((*ENTRIES, SECOND, UNHEARD), {2: 10 * GIB})
    uuids = {gpu.identity.index: gpu.identity.uuid for gpu in calm.gpus}
    sources = (
        *calm.sources[:-1],
        Source("engines", "unreadable", True, NOW_SECONDS - 310, 0.0, {"timeout": 62}),
    )
    return dataclasses.replace(calm, sources=sources, alerts=_alerts(uuids))


def _host(entries: tuple[Deployment, ...], strangers: dict[int, int]) -> Snapshot:
    bare = tuple(_gpu(index, 0, {}, 80.0) for index in range(8))
    declared = declare(entries, shapes_of(bare, {}), host_shape(_HOST), catalog())
    trouble = bool(strangers)
    served = tuple(one for one in declared if one.name not in ("distill-32b", "v9"))
    gpus = []
    for index in range(8):
        processes = _on(served, index)
        if stranger := strangers.get(index):
            processes[77] = stranger
        used = sum(processes.values()) + 3 * MIB
        gpus.append(_gpu(index, used, processes, 415.0 + 9 * index if processes else 78.0))
    if trouble:
        lost = gpus[5].identity
        gpus[5] = Gpu(
            lost,
            GpuState.LOST,
            reason="fell off the bus",
            last_success_seconds=NOW_SECONDS - 540,
            xid_errors={79: (1, NOW_SECONDS - 541)},
        )
    owned = {
        one.name: frozenset(1000 * (at + 1) + rank for rank in range(max(1, len(one.ranks))))
        for at, one in enumerate(served)
    }
    memory = {pid: ProcessMemory(2 * GIB, 300 * MIB, 100 * MIB, 0) for pids in owned.values() for pid in pids}
    in_ram = next(one for one in served if not one.device_indices)
    assert in_ram.footprint is not None
    whole, mapped = in_ram.footprint.host.total.low_bytes, in_ram.footprint.host.mapped_bytes
    (pid,) = owned[in_ram.name]
    memory[pid] = ProcessMemory(whole - mapped + 5 * GIB, mapped, 0, 0)
    observation = Observation(
        gpus=tuple(gpus),
        host=_HOST,
        declared=declared,
        owned=owned,
        memory=memory,
        running={one.name: _running(one, *_said(one.name, busy=trouble)) for one in served},
    )
    names = ("nvml", "host", "processes", "engines")
    return Snapshot(
        taken_at_seconds=NOW_SECONDS,
        duration_seconds=0.042,
        gpus=observation.gpus,
        visible_gpus={"nvidia": 7 if trouble else 8},
        expected_gpus=8,
        driver_version="570.133.20",
        host=_HOST,
        assessment=assess(observation, gpu_margin=0, host_margin=GIB),
        sources=tuple(Source(name, "up", True, NOW_SECONDS, 0.01) for name in names),
        thresholds={
            one.name: float(getattr(Thresholds(), one.name)) for one in dataclasses.fields(Thresholds)
        },
        pool="production",
        reload=Reload(True, NOW_SECONDS - 86_400),
        workers_stuck=0,
        clock_steps=0,
    )


def _said(name: str, *, busy: bool) -> tuple[Telemetry, str]:
    """What an engine says, and its version; a busy one has no room left."""
    match name:
        case "r1":
            said = Telemetry(kv_capacity_tokens=1_412_096, kv_usage_ratio=0.12, requests_running=6)
            return dataclasses.replace(said, requests_waiting=0), "0.33.0"
        case "distill-70b":
            used, running, waiting = (598_000, 9, 3) if busy else (171_000, 4, 0)
            said = Telemetry(kv_capacity_tokens=620_000, kv_used_tokens=used, requests_running=running)
            return dataclasses.replace(said, requests_waiting=waiting), "0.5.23"
        case "coder-lite":
            return Telemetry(kv_usage_ratio=0.31, requests_running=2, requests_waiting=0), "0.33.0"
        case _:
            return Telemetry(requests_running=1, requests_waiting=0), "b11434"


def _alerts(uuids: dict[int, str]) -> tuple[Alert, ...]:
    def of_device(index: int) -> dict[str, str]:
        return {"gpu": str(index), "uuid": uuids[index]}

    return (
        _alert(
            "DeepSeekVramOvercommitted",
            "critical",
            of_device(6),
            "GPU 6 of gpu-01 is overcommitted at 1.14: 159.8 GiB committed, 139.8 GiB to give. "
            "Deployments: coder-lite, distill-32b.",
            "What is loaded on this device, at its own limits, plus what others hold and what required "
            "deployments still need, exceeds what the device can give. First action: see who holds the "
            "memory, then stop or move what should not be there.",
            minutes=7,
        ),
        _alert(
            "DeepSeekGpuLost",
            "critical",
            of_device(5),
            "GPU 5 of gpu-01 is lost: fell off the bus.",
            "The device was here and the driver no longer has it. First action: `nvidia-smi` and the "
            "kernel log; drain the host and reset the device.",
            minutes=9,
        ),
        _alert(
            "DeepSeekForeignVram",
            "warning",
            of_device(2),
            "10.0 GiB of GPU 2 of gpu-01 belong to no deployment.",
            "Somebody else's process is on a device that serves. First action: `nvidia-smi` names it.",
            minutes=None,
        ),
        _alert(
            "DeepSeekKvCacheSaturated",
            "warning",
            {"deployment": "distill-70b"},
            "The KV cache of distill-70b is full and 3 requests wait.",
            "Requests queue because no blocks are free. First action: see whether the limits fit the load.",
            minutes=31,
            held=True,
        ),
    )


def _alert(
    name: str,
    severity: str,
    subject: dict[str, str],
    summary: str,
    description: str,
    *,
    minutes: int | None,
    held: bool = False,
) -> Alert:
    """Firing for so many minutes; None: pending."""
    return Alert(
        name=name,
        severity=severity,
        subject=subject,
        firing=minutes is not None,
        active_since_seconds=NOW_SECONDS - 60 * ((minutes or 0) + 2),
        firing_since_seconds=None if minutes is None else NOW_SECONDS - 60 * minutes,
        held=held,
        summary=summary,
        description=description,
        runbook_url=f"https://docs.example.org/ALERTS.md#{name.lower()}",
    )
