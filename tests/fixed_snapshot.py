"""One snapshot with everything in it, and one with nothing, for the tests of what is made from snapshots.

The figures are plausible for a host with two H200, of which one is lost; they are written down here and not
worked out, so that these tests hold still when the arithmetic learns something. Of the first
device another exporter is said to tell, so that its families have samples too.
"""

from __future__ import annotations

from dataclasses import replace

from exporter.capacity.alert import Alert
from exporter.capacity.assessment import Assessment, Commitment, DeploymentStatus
from exporter.capacity.attribution import Holding
from exporter.capacity.bounds import Bounds
from exporter.capacity.comparison import Deviation, KvUse
from exporter.capacity.confined import Confined, Limit
from exporter.capacity.decode import DecodeBound
from exporter.capacity.links import LinkStatus
from exporter.capacity.observation import Declared, Running
from exporter.engines.process import ProcessMemory
from exporter.engines.telemetry.types import Telemetry
from exporter.footprint.result import (
    Footprint,
    HostFootprint,
    KvCacheFigures,
    NetworkFootprint,
    RankFootprint,
    Term,
    Traffic,
    exact,
    sum_terms,
)
from exporter.hardware.bandwidth import Bandwidth
from exporter.hardware.gpu import Gpu, GpuIdentity, GpuProcess, GpuReading, GpuState, MigSlice
from exporter.hardware.host import Cpu, HostReading, NumaNode
from exporter.hardware.network import Interface, NetworkReading
from exporter.snapshot import Receiver, Reload, Snapshot, Source
from exporter.storage.facts import (
    Checkpoint,
    CheckpointState,
    Kind,
    NextModel,
    RootState,
    RootStatus,
    Store,
)
from exporter.units import GIB, MIB

NOW_SECONDS = 1_767_225_600.0
UUIDS = ("GPU-11111111-2222-3333-4444-555555555555", "GPU-66666666-7777-8888-9999-000000000000")


def identity(index: int) -> GpuIdentity:
    return GpuIdentity(
        uuid=UUIDS[index],
        index=index,
        name="NVIDIA H200",
        vendor="nvidia",
        pci_bus_id=f"00000000:{0x18 + index:02X}:00.0",
        memory_kind="dedicated",
        numa_node=index,
        driver_version="570.133.20",
    )


SLICE = replace(
    identity(1),
    uuid="MIG-11111111-2222-3333-4444-555555555555",
    name="NVIDIA H200 MIG 3g.71gb",
    memory_kind="mig",
    mig=MigSlice(UUIDS[1], 3, "3g.71gb", ("MIG-11111111-2222-3333-4444-555555555555",), (0,)),
)
READING = GpuReading(
    memory_total_bytes=150_754_820_096,
    memory_used_bytes=120 * GIB,
    memory_free_bytes=150_754_820_096 - 120 * GIB - 600 * MIB,
    memory_reserved_bytes=600 * MIB,
    power_watts=412.733,
    power_limit_watts=700.0,
    energy_joules=98_765_432.101,
    utilization_ratio=0.93,
    memory_bandwidth_utilization_ratio=0.41,
    temperature_celsius={"core": 61.0, "memory": 72.0},
    clocks_limited={"power_cap": True, "thermal": False, "hw_thermal_slowdown": False},
    ecc_errors={"corrected": 3, "uncorrected": 0},
    pcie_bytes={"sent": 5_000_000_000, "received": 7_000_000_000},
    nvlink_bytes={"sent": 9_000_000_000_000, "received": 9_000_000_000_000},
    gtt_total_bytes=768 * GIB,
    gtt_used_bytes=59 * MIB,
    visible_memory_total_bytes=150_754_820_096,
    visible_memory_used_bytes=120 * GIB,
    firmware={"vbios": "96.00.A5.00.01"},
    healthy=True,
    partitioning={"compute": "SPX", "memory": "NPS1"},
    mig_enabled={"current": False, "pending": True},
    mig_slices=0,
    processes=(GpuProcess(4242, 110 * GIB), GpuProcess(77, 4 * GIB)),
)

GPUS = (
    Gpu(
        replace(identity(0), source="elsewhere"),
        GpuState.UP,
        reading=READING,
        last_success_seconds=NOW_SECONDS,
    ),
    Gpu(
        identity(1),
        GpuState.LOST,
        reason="fell off the bus",
        last_success_seconds=NOW_SECONDS - 90,
        xid_errors={79: (1, NOW_SECONDS - 88)},
    ),
    Gpu(SLICE, GpuState.LOST, reason="its GPU: fell off the bus", last_success_seconds=NOW_SECONDS - 90),
)

HOST = HostReading(
    memory_total_bytes=1536 * GIB,
    memory_available_bytes=1400 * GIB,
    swap_total_bytes=8 * GIB,
    swap_used_bytes=512 * MIB,
    hugepages_total_bytes=64 * GIB,
    hugepages_free_bytes=32 * GIB,
    shared_bytes=3 * GIB,
    pressure_some_seconds=12.345678,
    pressure_full_seconds=0.5,
    oom_kills=2,
    numa={0: NumaNode(768 * GIB, 700 * GIB, 8 * GIB), 1: NumaNode(768 * GIB, 690 * GIB)},
    cpu=Cpu("AMD EPYC 9654 96-Core Processor", sockets=2, cores=192, threads=384),
    bandwidth=Bandwidth(921_600_000_000, "processor"),
)

NETWORK = NetworkReading(
    (
        Interface("eth0", "network", None, None, {"sent": 4_000_000, "received": 9_000_000}),
        Interface(
            "mlx5_0:1",
            "rdma",
            True,
            50_000_000_000,
            {"sent": 7_000_000_000_000, "received": 6_900_000_000_000},
            {"sent": 41_000_000_000.0, "received": 40_500_000_000.0},
        ),
    )
)

_COMPONENTS = {
    "weights": exact(90 * GIB, "architecture"),
    "kv_cache": Term(20 * GIB, 24 * GIB, "engine"),
    "runtime": Term(1 * GIB, 2 * GIB, "estimate"),
}

FOOTPRINT = Footprint(
    model_id="deepseek-ai/DeepSeek-R1",
    architecture="DeepseekV3ForCausalLM",
    quantization="fp8",
    devices=tuple(
        RankFootprint(
            rank=rank, stage=0, device_index=rank, components=_COMPONENTS, total=sum_terms(_COMPONENTS)
        )
        for rank in (0, 1)
    ),
    host=HostFootprint({"runtime": Term(8 * GIB, 16 * GIB, "estimate")}),
    kv_cache=KvCacheFigures(
        bytes_per_token=70_272, capacity_tokens=366_720, demand_tokens=524_288, full_length_sequences=11.19
    ),
)


def declared(
    name: str = "r1", model: str = "deepseek-ai/DeepSeek-R1", problem: str = "", engine: str = "vllm"
) -> Declared:
    """A declared deployment; with a problem it has no footprint."""
    return Declared(
        name=name,
        model=model,
        engine=engine,
        required=True,
        device_indices=(0, 1),
        ranks=UUIDS,
        programs=("vllm",),
        unit=None,
        tp=2,
        pp=1,
        dp=1,
        max_model_len=32_768,
        max_num_seqs=16,
        kv_cache_dtype="fp8",
        footprint=None if problem else FOOTPRINT,
        problem=problem,
        planned_tokens=None if problem else 12 * 32_768,
    )


RUNNING = Running(
    engine="vllm",
    engine_version="0.33.0",
    model="deepseek-ai/DeepSeek-R1",
    model_known=True,
    served_model="r1",
    quantization="fp8",
    kv_cache_dtype="fp8",
    tp=2,
    ep=2,
    speculative="mtp",
    node_rank=0,
    max_model_len=65_536,
    max_num_seqs=16,
    unit="vllm-r1.service",
    started_seconds=NOW_SECONDS - 7200,
    answered=True,
    state="warm",
    telemetry=Telemetry(
        kv_capacity_tokens=360_000,
        kv_usage_ratio=0.25,
        requests_running=5,
        requests_waiting=2,
        preemptions_total=3,
        tokens={"prompt": 1000, "generated": 700},
    ),
    network=NetworkFootprint(
        2, 4, {"tp": Traffic(1_763_328, 3_092_480)}, total=Traffic(1_763_328, 3_092_480)
    ),
)

STORE = Store(
    name="huggingface",
    size_bytes=3500 * GIB,
    free_bytes=900 * GIB,
    used_bytes=1604 * GIB,
    other_models_bytes=70 * GIB,
    orphaned_bytes=640 * GIB,
    incomplete_bytes=4 * GIB,
    download_remaining_bytes=320 * GIB,
    download_headroom_bytes=581 * GIB,
    roots=(
        RootStatus(
            "huggingface", Kind.HUGGINGFACE, "configured", RootState.UP, ("r1",), NOW_SECONDS - 120, 2310
        ),
    ),
    checkpoints=(
        Checkpoint("deepseek-ai/DeepSeek-R1", CheckpointState.COMPLETE, 642 * GIB, True),
        Checkpoint("deepseek-ai/DeepSeek-R1", CheckpointState.ORPHANED, 640 * GIB, True),
        Checkpoint(
            "deepseek-ai/DeepSeek-V3.2",
            CheckpointState.DOWNLOADING,
            322 * GIB,
            True,
            "fp8",
            642 * GIB,
            320 * GIB,
        ),
        Checkpoint("other", CheckpointState.COMPLETE, 66 * GIB),
        Checkpoint("other", CheckpointState.INCOMPLETE, 4 * GIB),
    ),
    next_model=NextModel("deepseek-ai/DeepSeek-V3.1", "bf16", 1277 * GIB, -697 * GIB),
)

FULL = Snapshot(
    taken_at_seconds=NOW_SECONDS,
    duration_seconds=0.0421,
    gpus=GPUS,
    visible_gpus={"nvidia": 1},
    expected_gpus=2,
    driver_version="570.133.20",
    host=HOST,
    network=NETWORK,
    assessment=Assessment(
        devices={
            UUIDS[0]: Commitment(
                READING.memory_total_bytes or 0,
                Bounds(int(137.5 * GIB), int(142.5 * GIB)),
                pending=Bounds(1 * GIB, 6 * GIB),
                optional=Bounds(40 * GIB, 44 * GIB),
                outgoing=60 * GIB,
            )
        },
        held={
            UUIDS[0]: (
                Holding("r1", "deployment", 110 * GIB),
                Holding("other", "other", 4 * GIB),
                Holding("unattributed", "unattributed", 6 * GIB),
            )
        },
        host=Commitment(1535 * GIB, Bounds(150 * GIB, 158 * GIB)),
        host_held={
            "r1": ProcessMemory(
                9 * GIB, 85 * GIB, 1 * GIB, 0, locked=64 * MIB, swapped=3 * MIB, major_faults=17
            )
        },
        host_other=126 * GIB,
        deployments=(
            DeploymentStatus(
                declared(),
                "warm",
                frozenset({4242}),
                running_as=RUNNING,
                matches={"model": True, "tp": True, "max_model_len": False},
                deviation={UUIDS[0]: Deviation(-2 * GIB, -0.018)},
                tolerance={UUIDS[0]: 6 * GIB},
                resident_ratio=0.875,
                kv=KvUse(360_000, 90_000, 0.25),
                plan_error={"kv_cache": 0.0187},
                plan_shortfall_tokens=31_072,
                active=True,
                link=LinkStatus(
                    ("mlx5_0:1",),
                    "rdma",
                    50_000_000_000,
                    {"sent": 0.82, "received": 0.81},
                    ceiling_low_tokens=16_168.25,
                    ceiling_high_tokens=28_355.5,
                    needed_tokens=800.0,
                    read=True,
                ),
            ),
            DeploymentStatus(
                declared("v9", "deepseek-ai/DeepSeek-V9", "unknown model 'deepseek-ai/DeepSeek-V9'"),
                "declared_only",
                frozenset(),
            ),
        ),
        reclaimable={UUIDS[0]: int(16.5 * GIB)},
        confined={
            "r1": (
                Confined("cgroup", Commitment(200 * GIB, Bounds(96 * GIB, 104 * GIB)), 10 * GIB),
                Confined("numa", Commitment(767 * GIB, Bounds(96 * GIB, 104 * GIB)), 60 * GIB, nodes=(0,)),
            )
        },
        limits={"r1": Limit("limited", 4.25, 1.5, 1)},
        decode={"r1": DecodeBound(40.5, 11_377_777_777, 460_800_000_000, "processor")},
    ),
    sources=(
        Source("nvml", "up", True, NOW_SECONDS, 0.031, {"gpu_lost": 1}, worker_restarts=1),
        Source("host", "up", True, NOW_SECONDS, 0.002),
        Source("processes", "up", True, NOW_SECONDS, 0.004),
        Source("engines", "unreadable", True, None, 0.0, {"timeout": 4}),
    ),
    thresholds={"vram_overcommit_ratio": 1.0, "source_stale_seconds": 60.0},
    pool="production",
    reload=Reload(True, NOW_SECONDS - 3600),
    workers_stuck=0,
    clock_steps=0,
    alerts=(
        Alert(
            name="DeepSeekGpuLost",
            severity="critical",
            subject={"gpu": "1", "uuid": UUIDS[1]},
            firing=True,
            active_since_seconds=NOW_SECONDS - 300,
            firing_since_seconds=NOW_SECONDS - 180,
            held=False,
            summary="GPU 1 of gpu-01:9671 is lost: state lost. Deployments: r1.",
            description="A device that this host has does not answer.",
            runbook_url="docs/ALERTS.md#deepseekgpulost",
        ),
        Alert(
            name="DeepSeekVramOvercommitLikely",
            severity="warning",
            subject={"gpu": "0", "uuid": UUIDS[0]},
            firing=False,
            active_since_seconds=NOW_SECONDS - 60,
            firing_since_seconds=None,
            held=False,
            summary="GPU 0 of gpu-01:9671 may be overcommitted.",
            description="If what is only estimated turns out at its high end, this device does not suffice.",
            runbook_url="docs/ALERTS.md#deepseekvramovercommitlikely",
        ),
    ),
    receivers=(Receiver("alertmanager.example:9093", False, 17, 2),),
    stores=(STORE,),
)

EMPTY = Snapshot(
    taken_at_seconds=NOW_SECONDS,
    duration_seconds=0.0,
    gpus=(),
    visible_gpus={},
    expected_gpus=0,
    driver_version="",
    host=None,
    assessment=Assessment(devices={}, held={}, host=None, host_held={}, host_other=None, deployments=()),
    sources=(),
    thresholds={},
    pool="",
    reload=Reload(True, NOW_SECONDS),
    workers_stuck=0,
    clock_steps=0,
)
"""A host of which nothing could be read and for which nothing is declared."""
