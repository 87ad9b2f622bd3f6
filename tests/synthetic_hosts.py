"""The made-up fleet as tables: hosts, what they serve, and how work and power swing with the day.

production: gpu-01 (8 H200) serves r1; in the last 90 minutes a second deployment overcommits two devices,
in the last hour one is lost. gpu-02 and gpu-03 (4 H100 each) carry v31-awq together. research: gpu-04, gpu-05
(2 L40S each) serve distills and have room. cpu-01 has no GPU and serves from RAM.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Labels: TypeAlias = Mapping[str, str]
Sample: TypeAlias = tuple[str, Labels, float]

GIB = 2**30
MIB = 2**20
DAY = 86400

LOST = 6
CROWDED = (2, 3)
CROWDED_SECONDS = 5400
LOST_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Host:
    """`device`: name, total MiB, MiB reserved by the driver, watts when idle and at the limit."""

    name: str
    pool: str
    ram_gib: int
    ram_committed_gib: int
    gpus: int = 0
    device: tuple[str, int, int, int, int] = ("", 0, 0, 0, 0)

    @property
    def where(self) -> Labels:
        return {"instance": self.name, "job": "deepseek"}

    @property
    def capacity(self) -> int:
        """Bytes that one device can give."""
        return (self.device[1] - self.device[2]) * MIB


H200 = ("NVIDIA H200", 143771, 626, 118, 700)
H100 = ("NVIDIA H100 80GB HBM3", 81559, 551, 112, 700)
L40S = ("NVIDIA L40S", 46068, 598, 82, 350)
HOSTS = (
    Host("gpu-01:9671", "production", 2048, 96, 8, H200),
    Host("gpu-02:9671", "production", 1024, 60, 4, H100),
    Host("gpu-03:9671", "production", 1024, 52, 4, H100),
    Host("gpu-04:9671", "research", 512, 44, 2, L40S),
    Host("gpu-05:9671", "research", 512, 39, 2, L40S),
    Host("cpu-01:9671", "", 512, 431),
)


@dataclass(frozen=True, slots=True)
class Served:
    """One deployment on one host; GiB per device and component, and what its engine says of itself."""

    name: str
    host: str
    devices: tuple[int, ...]
    gib: Mapping[str, float]
    engine: str
    model: str
    quantization: str
    degrees: tuple[int, int, int] = (1, 1, 1)
    node_rank: str = ""
    ram_gib: Mapping[str, float] = field(default_factory=dict)
    context: int = 32768
    sequences: int = 64
    kv_tokens: int = 0
    kv_bytes: int = 0
    busy: float = 0.5
    tokens_per_second: float = 0.0

    @property
    def per_device(self) -> float:
        return sum(self.gib.values())


R1 = "deepseek-ai/DeepSeek-R1"
R1_DISTILL = "deepseek-ai/DeepSeek-R1-Distill"
_AWQ = {"weights": 43, "kv_cache": 22, "activations": 3, "graphs": 2, "runtime": 1, "communication": 1}
_V31 = ("sglang", "deepseek-ai/DeepSeek-V3.1", "awq", (8, 1, 1))
SERVED = (
    Served(
        "r1",
        "gpu-01:9671",
        tuple(range(8)),
        {"weights": 80, "kv_cache": 38, "activations": 4, "graphs": 3, "runtime": 1},
        "vllm",
        R1,
        "fp8",
        (8, 1, 1),
        ram_gib={"runtime": 24},
        kv_tokens=1_160_000,
        kv_bytes=35136,
        busy=0.62,
        tokens_per_second=1900,
    ),
    *(
        Served(
            "v31-awq",
            host,
            tuple(range(4)),
            _AWQ,
            *_V31,
            node_rank=rank,
            ram_gib={"runtime": 16},
            kv_tokens=672_000 if rank == "0" else 0,
            kv_bytes=35136,
            busy=0.45,
            tokens_per_second=640 if rank == "0" else 0,
        )
        for host, rank in (("gpu-02:9671", "0"), ("gpu-03:9671", "1"))
    ),
    Served(
        "distill-14b",
        "gpu-04:9671",
        (0,),
        {"weights": 27.5, "kv_cache": 10, "activations": 1.5, "graphs": 0.5, "runtime": 0.5},
        "vllm",
        f"{R1_DISTILL}-Qwen-14B",
        "bf16",
        ram_gib={"runtime": 6},
        context=16384,
        kv_tokens=54_600,
        kv_bytes=196_608,
        busy=0.15,
        tokens_per_second=210,
    ),
    Served(
        "distill-8b",
        "gpu-05:9671",
        (0,),
        {"weights": 8, "kv_cache": 4, "runtime": 0.5},
        "llama.cpp",
        f"{R1_DISTILL}-Llama-8B",
        "Q8_0",
        ram_gib={"runtime": 1},
        context=8192,
        sequences=4,
        kv_tokens=32_768,
        kv_bytes=131_072,
        busy=0.02,
        tokens_per_second=9,
    ),
    Served(
        "r1-q4",
        "cpu-01:9671",
        (),
        {},
        "llama.cpp",
        R1,
        "Q4_K_M",
        ram_gib={"weights": 377, "kv_cache": 19, "runtime": 1},
        context=4096,
        sequences=4,
        kv_tokens=16_384,
        kv_bytes=4_997_120 // 4,
        busy=0.3,
        tokens_per_second=7,
    ),
)
DECLARED = Served(
    "distill-32b",
    "gpu-01:9671",
    CROWDED,
    {"weights": 31},
    "vllm",
    f"{R1_DISTILL}-Qwen-32B",
    "bf16",
    (2, 1, 1),
    ram_gib={"runtime": 8},
    context=16384,
)
# GiB that processes of nobody's deployment hold, by host and device.
OTHERS = {("gpu-01:9671", 7): 3.0, ("gpu-03:9671", 3): 2.0, ("gpu-04:9671", 1): 11.0}

THRESHOLDS = {
    "vram_overcommit_ratio": 1,
    "vram_overcommit_near_ratio": 0.97,
    "host_memory_overcommit_ratio": 1,
    "host_memory_pressure_ratio": 0.1,
    "foreign_vram_bytes": GIB,
    "source_stale_seconds": 60,
    "active_utilization_ratio": 0.05,
    "kv_cache_saturated_ratio": 0.95,
    "vram_below_expected_ratio": 0.5,
    "weights_resident_ratio": 0.9,
    "plan_error_ratio": 0.1,
    "link_saturated_ratio": 0.9,
    "link_tokens_per_second": 200,
    "idle_seconds": 21600,
    "model_store_free_bytes": 100 * GIB,
    "model_store_free_ratio": 0.05,
    "model_store_growth_bytes": 10 * GIB,
    "model_store_download_margin_bytes": GIB,
    "exhaustion_info_days": 30,
    "exhaustion_warning_days": 7,
    "exhaustion_fit_r2": 0.8,
}


# Store, GiB of its disk, and GiB of what lies there by model and state; host gpu-01 fetches the next model.
STORES: Mapping[str, tuple[str, int, tuple[tuple[str, str, int], ...]]] = {
    "gpu-01:9671": ("huggingface", 3576, ((R1, "complete", 642), (R1, "orphaned", 640))),
    "gpu-02:9671": ("huggingface", 3576, (("deepseek-ai/DeepSeek-V3.1", "complete", 352),)),
    "cpu-01:9671": ("models", 1788, ((R1, "complete", 377), ("other", "incomplete", 21))),
}
FETCHED, FETCHED_GIB, FETCHED_PER_HOUR = "deepseek-ai/DeepSeek-V3.2", 642, 180


def wave(at: float, phase: float = 0.0, period: float = DAY) -> float:
    """A daily swing between −1 and 1."""
    return math.sin(2 * math.pi * at / period + phase)


def counted(at: float, mean: float, swing: float, phase: float = 0.0) -> float:
    """The counter whose rate is mean × (1 + swing × wave of the day + swing / 2 × wave of the week)."""
    day = DAY / (2 * math.pi) * math.cos(2 * math.pi * at / DAY + phase)
    week = 7 * DAY / (2 * math.pi) * math.cos(2 * math.pi * at / (7 * DAY))
    return round(mean * (at - swing * day - swing / 2 * week), 1)


def running(host: Host) -> tuple[Served, ...]:
    return tuple(one for one in SERVED if one.host == host.name)


def serving(host: Host, index: int) -> Served | None:
    return next((one for one in running(host) if index in one.devices), None)


def draw(host: Host, index: int) -> tuple[float, float]:
    """Mean watts of a device, and the swing of the day as a share of it."""
    _, _, _, idle, limit = host.device
    one = serving(host, index)
    if one is None:
        return idle, 0.0
    return idle + one.busy * (limit - idle), 0.35 * min(1.0, one.busy * 2)


def energy_and_work(host: Host, index: int, at: float) -> Iterator[Sample]:
    """What both the fine and the coarse history hold of a device."""
    mean, swing = draw(host, index)
    phase = index / 9
    one = serving(host, index)
    share = max(0.0, one.busy * (1 + 0.5 * wave(at, phase))) if one else 0.0
    yield "deepseek_gpu_energy_joules_total", {"origin": "counter"}, counted(at, mean, swing, phase)
    yield "deepseek_gpu_power_watts", {}, round(mean * (1 + swing * wave(at, phase)), 1)
    yield "deepseek_gpu_power_limit_watts", {}, host.device[4]
    yield "deepseek_gpu_utilization_ratio", {}, round(share, 3)


def load(one: Served, at: float, back: float) -> Iterator[Sample]:
    """What both histories hold of the work of a deployment."""
    if not one.tokens_per_second:
        return
    rate, crowded = one.tokens_per_second, one.name == "r1" and back < CROWDED_SECONDS
    usage = 0.97 if crowded else one.busy * (0.8 + 0.35 * wave(at))
    yield "deepseek_kv_cache_usage_ratio", {}, round(usage, 4)
    for kind, share in (("prompt", 2.1), ("prompt_cached", 2.7), ("generated", 1.0)):
        yield "deepseek_tokens_total", {"kind": kind}, counted(at, rate * share, 0.4)


def device_labels(index: int, host: Host) -> Labels:
    return {"gpu": str(index), "uuid": f"GPU-{host.name[4:6]}{index:04x}"}
