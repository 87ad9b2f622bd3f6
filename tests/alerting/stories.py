"""Hosts of which "more than 90 % used" and this exporter's alerts say different things.

Footprints are the estimator's own for real models and cards; what is held is constructed around them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fixed_snapshot import EMPTY

from exporter.capacity.assessment import assess
from exporter.capacity.declaration import declare
from exporter.capacity.observation import Declared, Observation, Running
from exporter.capacity.tolerance import Tolerance
from exporter.engines.process import ProcessMemory
from exporter.engines.telemetry.types import Telemetry
from exporter.footprint.estimate import DeviceShape, HostShape
from exporter.hardware.gpu import Gpu, GpuIdentity, GpuProcess, GpuReading, GpuState
from exporter.hardware.host import HostReading
from exporter.models.catalog import catalog
from exporter.settings.options import Deployment, Thresholds
from exporter.snapshot import Snapshot, Source
from exporter.units import GIB, MIB

START = 1_767_225_600.0
R1 = "deepseek-ai/DeepSeek-R1"
EIGHT = list(range(8))
NAIVE_SHARE = 0.9


@dataclass(frozen=True)
class Card:
    """A device model: bytes, of which the driver keeps some."""

    name: str
    total: int
    reserved: int


H200 = Card("NVIDIA H200", 143_771 * MIB, 626 * MIB)
# A carve-out of 512 MiB and 110 GiB that may be mapped, of 127.5 GiB that the kernel sees (constructed).
APU = Card("AMD Radeon 8060S", 110 * GIB + 512 * MIB, 0)
RTX_4090 = Card("NVIDIA GeForce RTX 4090", 24_564 * MIB, 450 * MIB)


@dataclass(frozen=True)
class Story:
    """One host for half an hour. `held`: deployment → bytes on each of its devices; None: it does not run."""

    title: str
    why: str
    """in a few words, for the table"""
    card: Card
    count: int
    entries: Sequence[Deployment]
    expected: Mapping[str, str]
    """alert that fires → its severity"""
    held: Mapping[str, Callable[[Declared, int], int] | None] = field(default_factory=dict)
    strangers: Mapping[int, int] = field(default_factory=dict)
    """device → bytes of a process that belongs to no deployment"""
    states: Mapping[int, GpuState] = field(default_factory=dict)
    running: Mapping[str, Running] = field(default_factory=dict)
    ram: tuple[int, int] = (2048 * GIB, 1900 * GIB)
    """total and available"""
    memory: Mapping[str, ProcessMemory] = field(default_factory=dict)
    driver: str = "up"
    pages: bool = False
    gtt: int | None = None
    """bytes of RAM that a unified device may map, part of the card's total"""

    def at(self, seconds: float) -> Snapshot:
        """The snapshot after so long."""
        declared = self._declared()
        pids = {one.name: frozenset({100 + number}) for number, one in enumerate(declared)}
        owned = {name: pids[name] for name, held in self._held(declared).items() if held is not None}
        gpus = tuple(self._gpu(index, declared, pids) for index in range(self.count))
        host = HostReading(
            memory_total_bytes=self.ram[0], memory_available_bytes=self.ram[1], swap_used_bytes=0
        )
        said = {name: _grown(one, seconds) for name, one in self._running(declared).items() if name in owned}
        memory = {next(iter(pids[name])): one for name, one in self.memory.items()}
        observation = Observation(gpus, host, declared, owned, memory, said, START + seconds)
        assessment = assess(
            observation, gpu_margin=0, host_margin=GIB, tolerance=Tolerance(), rollout_seconds=3600
        )
        names = Thresholds.__dataclass_fields__
        return replace(
            EMPTY,
            taken_at_seconds=START + seconds,
            gpus=gpus,
            expected_gpus=self.count,
            host=host,
            assessment=assessment,
            sources=(
                Source("nvml", self.driver, True, START + (seconds if self.driver == "up" else 0), 0.0),
                Source("host", "up", True, START + seconds, 0.0),
                Source("processes", "up", True, START + seconds, 0.0),
            ),
            thresholds={name: float(getattr(Thresholds(), name)) for name in names},
        )

    def naive(self) -> list[int]:
        """Devices of which a rule `used / total > 0.9` would speak."""
        readings = ((gpu.identity.index, gpu.reading) for gpu in self.at(0).gpus if gpu.reading is not None)
        return [
            index
            for index, one in readings
            if (one.memory_used_bytes or 0) > NAIVE_SHARE * (one.memory_total_bytes or 0)
        ]

    def _declared(self) -> tuple[Declared, ...]:
        shape = (self.card.total, self.card.reserved, self.card.name)
        shapes = {index: (f"GPU-{index}", DeviceShape(index, *shape)) for index in range(self.count)}
        return declare(self.entries, shapes, HostShape(self.ram[0], "x86-avx512"), catalog())

    def _held(self, declared: Sequence[Declared]) -> dict[str, Callable[[Declared, int], int] | None]:
        return {one.name: self.held.get(one.name, as_expected) for one in declared}

    def _running(self, declared: Sequence[Declared]) -> dict[str, Running]:
        return {
            one.name: self.running.get(one.name, Running(one.engine, tp=one.tp, answered=True, state="warm"))
            for one in declared
        }

    def _gpu(self, index: int, declared: Sequence[Declared], pids: Mapping[str, frozenset[int]]) -> Gpu:
        kind = "dedicated" if self.gtt is None else "unified"
        identity = GpuIdentity(
            f"GPU-{index}", index, self.card.name, "nvidia", f"0000:{index:02x}:00.0", kind
        )
        state = self.states.get(index, GpuState.UP)
        if state is not GpuState.UP:
            return Gpu(identity, state, reason="test")
        held = self._held(declared)
        rows = [
            GpuProcess(next(iter(pids[one.name])), take(one, index))
            for one in declared
            if (take := held[one.name]) is not None and index in one.device_indices
        ]
        if index in self.strangers:
            rows.append(GpuProcess(999, self.strangers[index]))
        used = min(sum(one.used_bytes or 0 for one in rows), self.card.total - self.card.reserved)
        reading = GpuReading(
            memory_total_bytes=self.card.total,
            memory_used_bytes=used,
            memory_free_bytes=self.card.total - self.card.reserved - used,
            memory_reserved_bytes=self.card.reserved,
            processes=tuple(rows),
            gtt_total_bytes=self.gtt,
        )
        return Gpu(identity, state, reading=reading, last_success_seconds=START)


def as_expected(deployment: Declared, index: int) -> int:
    """A warm engine: what the estimator takes for likely."""
    assert deployment.footprint is not None
    ranks = zip(deployment.device_indices, deployment.footprint.devices, strict=False)
    return sum(rank.total.expected_bytes for at, rank in ranks if at == index)


def _grown(running: Running, seconds: float) -> Running:
    """Preemptions are a counter: told per minute in a story, they grow."""
    said = running.telemetry
    if said is None or said.preemptions_total is None:
        return running
    total = int(said.preemptions_total * seconds / 60)
    return replace(running, telemetry=replace(said, preemptions_total=total))


def vllm(name: str, model: str, devices: list[int], fraction: float, **options: object) -> Deployment:
    return Deployment(
        name=name,
        model=model,
        engine="vllm",
        devices=devices,
        tp=len(devices),
        max_model_len=32_768,
        memory_fraction=fraction,
        **options,  # type: ignore[arg-type]
    )


def llama(name: str, model: str, quantization: str, context: int, **options: object) -> Deployment:
    return Deployment(
        name=name,
        model=model,
        engine="llama.cpp",
        quantization=quantization,
        devices=[0],
        max_model_len=context,
        gpu_layers=99,
        **options,  # type: ignore[arg-type]
    )


def serving(usage: float, *, waiting: int = 0, preemptions_a_minute: int = 0) -> Running:
    """A tensor-parallel engine of eight ranks that answers."""
    said = Telemetry(
        kv_capacity_tokens=600_000,
        kv_usage_ratio=usage,
        requests_running=40,
        requests_waiting=waiting,
        preemptions_total=preemptions_a_minute,
    )
    return Running("vllm", tp=8, answered=True, has_answered=True, state="warm", telemetry=said)


def _one_rank_more(deployment: Declared, index: int) -> int:
    return as_expected(deployment, index) + (11 * GIB if index == 5 else 0)


def _four_bit(deployment: Declared, index: int) -> int:
    # What the same model holds as Q4_K_M: 8.0 GiB of weights instead of 13.8.
    return as_expected(deployment, index) - int(5.9 * GIB)


def _only_begun(deployment: Declared, index: int) -> int:
    return 3 * GIB


QWEN_32B = "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"
QWEN_14B = "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B"
QWEN_7B = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
LLAMA_70B = "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"
LLAMA_8B = "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"

STORIES: tuple[Story, ...] = (
    Story(
        "vLLM, warm and idle, at 0.92",
        "it reserves its pool at the start; that is all it will take",
        H200,
        8,
        [vllm("r1", R1, EIGHT, 0.92)],
        {},
    ),
    Story(
        "vLLM, warm and idle, at 0.97",
        "3 GiB are left for what can only be estimated, and it holds it already",
        H200,
        8,
        [vllm("r1", R1, EIGHT, 0.97)],
        {},
    ),
    Story(
        "SGLang under load",
        "a KV cache at 90 % that nobody waits for is a busy engine",
        H200,
        8,
        [
            Deployment(
                name="v3",
                model="deepseek-ai/DeepSeek-V3",
                engine="sglang",
                devices=EIGHT,
                tp=8,
                max_model_len=32_768,
            )
        ],
        {},
        running={"v3": replace(serving(0.9), engine="sglang")},
    ),
    Story(
        "llama.cpp fits exactly",
        "it took all it needs when it loaded, and grows no more",
        RTX_4090,
        1,
        [llama("distill", QWEN_32B, "Q4_K_M", 16_384)],
        {},
    ),
    Story(
        "Q4 runs where Q8 was declared",
        "half of the expected weights are missing: somebody serves a worse model than promised",
        RTX_4090,
        1,
        [llama("distill", QWEN_14B, "Q8_0", 8192)],
        {"DeepSeekVramBelowExpected": "warning", "DeepSeekDeclarationMismatch": "warning"},
        held={"distill": _four_bit},
        running={
            "distill": Running(
                "llama.cpp",
                model=QWEN_14B,
                model_known=True,
                quantization="Q4_K_M",
                answered=True,
                state="warm",
            )
        },
    ),
    Story(
        "a stranger holds 10 GiB",
        "the ratio was above 90 % before it came, and is after it left; the ticket names the 10 GiB",
        H200,
        8,
        [vllm("r1", R1, EIGHT, 0.92)],
        {"DeepSeekForeignVram": "warning"},
        strangers={5: 10 * GIB},
    ),
    Story(
        "KV cache full, requests wait",
        "memory looks as ever; requests are put back and computed again",
        H200,
        8,
        [vllm("r1", R1, EIGHT, 0.92)],
        {"DeepSeekKvCacheSaturated": "warning"},
        running={"r1": serving(0.99, waiting=30, preemptions_a_minute=12)},
    ),
    Story(
        "one tensor-parallel rank holds 11 GiB more",
        "the group is as tight as its tightest rank, and that one leaks",
        H200,
        8,
        [vllm("r1", R1, EIGHT, 0.9)],
        {"DeepSeekVramAboveExpected": "warning"},
        held={"r1": _one_rank_more},
    ),
    Story(
        "experts in RAM, 367 GiB in a host of 256",
        "the GPU has room; the experts are read from disk at every token",
        RTX_4090,
        1,
        [llama("r1", R1, "Q4_K_M", 8192, cpu_moe=True)],
        {"DeepSeekHostMemoryOvercommitted": "critical", "DeepSeekWeightsEvicted": "warning"},
        ram=(256 * GIB, 240 * GIB),
        memory={"r1": ProcessMemory(anonymous=2 * GIB, file=230 * GIB, shared=0, hugepages=0)},
        pages=True,
    ),
    Story(
        "a GPU falls off the bus",
        "its series end, so the ratio says nothing: the group of eight has stopped",
        H200,
        8,
        [vllm("r1", R1, EIGHT, 0.85)],
        {"DeepSeekGpuLost": "critical"},
        states={3: GpuState.LOST},
        pages=True,
    ),
    Story(
        "the driver is gone",
        "no series, no rule, no page",
        H200,
        8,
        [vllm("r1", R1, EIGHT, 0.85)],
        {"DeepSeekGpuLost": "critical", "DeepSeekMonitoringBlind": "warning"},
        states=dict.fromkeys(EIGHT, GpuState.DRIVER_DOWN),
        driver="driver_not_loaded",
        pages=True,
    ),
    Story(
        "unified memory: a 70B distill in Q8 on an APU",
        "its 70 GiB are RAM; counted for the device and for RAM again they would exceed it",
        APU,
        1,
        [llama("distill", LLAMA_70B, "Q8_0", 8192)],
        {},
        ram=(int(127.5 * GIB), 50 * GIB),
        memory={"distill": ProcessMemory(anonymous=GIB, file=GIB, shared=0, hugepages=0)},
        gtt=110 * GIB,
    ),
    Story(
        "two engines at 0.5 and 0.6 of one GPU, the second one loads",
        "52 % are used now; the second will fail when it has loaded its weights",
        H200,
        1,
        [vllm("first", LLAMA_8B, [0], 0.5), vllm("second", QWEN_7B, [0], 0.6)],
        {"DeepSeekVramOvercommitted": "critical", "DeepSeekVramOvercommitLikely": "warning"},
        held={"second": _only_begun},
        running={"second": Running("vllm", tp=1, answered=False, state="loading", reason="loading")},
        pages=True,
    ),
)
