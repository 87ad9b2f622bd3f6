"""Six hours of two made-up hosts, as OpenMetrics text: what boards are drawn from and queries are run on.

gpu-01 has eight H200: two are overcommitted by a second deployment in the last 90 minutes, one is lost in the
last hour. cpu-01 has no GPU and serves from RAM. A panel that stays empty on this history has a wrong query.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

Labels: TypeAlias = Mapping[str, str]
Sample: TypeAlias = tuple[str, Labels, float]

HISTORY_SECONDS = 6 * 3600
STEP_SECONDS = 60
GIB = 2**30

H200_BYTES = 143771 * 2**20
RESERVED_BYTES = 626 * 2**20
LOST = 6
CROWDED = (2, 3)


def openmetrics(end_seconds: int) -> str:
    """The history that ends at a Unix time."""
    series: dict[str, list[str]] = {}
    for back in range(HISTORY_SECONDS, -1, -STEP_SECONDS):
        at = end_seconds - back
        for name, labels, value in moment(at, back):
            written = ",".join(f'{key}="{text}"' for key, text in labels.items())
            series.setdefault(name, []).append(f"{name}{{{written}}} {value} {at}")
    # Untyped on purpose: the type line of a counter would have to name it without `_total`.
    blocks = [f"# TYPE {name} unknown\n" + "\n".join(lines) for name, lines in sorted(series.items())]
    return "\n".join(blocks) + "\n# EOF\n"


def moment(at: int, back: int) -> Iterator[Sample]:
    """All samples of one moment, `back` seconds before the end."""
    for host, gpus in (("gpu-01:9671", 8), ("cpu-01:9671", 0)):
        where = {"instance": host, "job": "deepseek"}
        yield "up", where, 1
        for name, labels, value in (*_exporter(at, gpus), *_ram(at, back, gpus)):
            yield name, {**where, **labels}, value
        for index in range(gpus):
            for name, labels, value in _device(index, at, back):
                yield name, {**where, "gpu": str(index), "uuid": f"GPU-{index:04x}", **labels}, value
        for name, labels, value in _deployments(gpus, back):
            yield name, {**where, **labels}, value
    yield "ALERTS", {"alertname": "DeepSeekWatchdog", "alertstate": "firing", "severity": "none"}, 1
    yield from _alerts(back)


def _exporter(at: int, gpus: int) -> Iterator[Sample]:
    for source, expected in (("nvml", gpus > 0), ("host", True), ("processes", True)):
        answers = 0 if source == "nvml" and not gpus else 1
        label = {"source": source}
        yield "deepseek_exporter_source_expected", label, int(expected)
        yield "deepseek_exporter_source_up", label, answers
        yield "deepseek_exporter_source_state", {**label, "state": "up" if answers else "no_library"}, 1
        if answers:
            yield "deepseek_exporter_source_last_success_timestamp_seconds", label, at - 3
    yield "deepseek_exporter_snapshot_timestamp_seconds", {}, at - 2
    for name, limit in (
        ("vram_overcommit_ratio", 1),
        ("host_memory_overcommit_ratio", 1),
        ("source_stale_seconds", 60),
    ):
        yield "deepseek_threshold", {"name": name}, limit


def _ram(at: int, back: int, gpus: int) -> Iterator[Sample]:
    total = (2048 if gpus else 512) * GIB
    committed = (96 if gpus else 431) * GIB
    capacity = total - GIB
    yield "deepseek_host_memory_total_bytes", {}, total
    yield "deepseek_host_memory_capacity_bytes", {}, capacity
    yield "deepseek_host_memory_available_bytes", {}, total - committed + 40 * GIB * math.sin(back / 4000)
    for bound, size in (("low", committed), ("high", committed + 6 * GIB)):
        yield "deepseek_host_memory_committed_bytes", {"bound": bound}, size
        yield "deepseek_host_memory_headroom_bytes", {"bound": bound}, capacity - size
        yield "deepseek_host_memory_overcommit_ratio", {"bound": bound}, round(size / capacity, 4)
    for scope, share in (("some", 0.012), ("full", 0.003)):
        yield "deepseek_host_memory_pressure_seconds_total", {"scope": scope}, round(share * (at % 10**6), 3)


def _device(index: int, at: int, back: int) -> Iterator[Sample]:
    lost = index == LOST and back < 3600
    yield "deepseek_gpu_up", {}, 0 if lost else 1
    yield "deepseek_gpu_state", {"state": "lost" if lost else "up"}, 1
    yield "deepseek_gpu_info", {"name": "NVIDIA H200", "vendor": "nvidia"}, 1
    for part, size in (("weights", 80), ("kv_cache", 38), ("activations", 4), ("graphs", 3), ("runtime", 1)):
        label = {"deployment": "r1", "component": part}
        yield "deepseek_expected_gpu_memory_bytes", label, size * GIB
    second = index in CROWDED and back < 5400
    if second:
        label = {"deployment": "distill-32b", "component": "weights"}
        yield "deepseek_expected_gpu_memory_bytes", label, 31 * GIB
    if lost:
        return
    capacity = H200_BYTES - RESERVED_BYTES
    held = int(124.8 * GIB)
    other = (3 if index == 7 else 0) * GIB
    yield "deepseek_gpu_memory_total_bytes", {}, H200_BYTES
    yield "deepseek_gpu_memory_reserved_bytes", {}, RESERVED_BYTES
    yield "deepseek_gpu_memory_used_bytes", {}, held + other
    yield "deepseek_gpu_memory_held_bytes", {"holder": "r1", "holder_kind": "deployment"}, held
    yield "deepseek_gpu_memory_held_bytes", {"holder": "other", "holder_kind": "other"}, other
    yield "deepseek_gpu_memory_capacity_bytes", {}, capacity
    committed = 126 * GIB + other + (31 * GIB if second else 0)
    for bound, size in (("low", committed), ("high", committed + 2 * GIB)):
        yield "deepseek_gpu_memory_committed_bytes", {"bound": bound}, size
        yield "deepseek_gpu_memory_headroom_bytes", {"bound": bound}, capacity - size
        yield "deepseek_gpu_memory_overcommit_ratio", {"bound": bound}, round(size / capacity, 4)
    yield "deepseek_gpu_power_watts", {}, round(480 + 150 * math.sin(at / 1500 + index / 3), 1)
    yield "deepseek_gpu_power_limit_watts", {}, 700


def _deployments(gpus: int, back: int) -> Iterator[Sample]:
    r1 = "deepseek-ai/DeepSeek-R1"
    if not gpus:
        yield from _deployment("r1-q4", "llama.cpp", r1, "Q4_K_M", "1", "warm", 4096, 4.0)
        for part, size in (("weights", 377), ("kv_cache", 19), ("runtime", 1)):
            label = {"deployment": "r1-q4", "component": part}
            yield "deepseek_expected_host_memory_bytes", label, size * GIB
        return
    yield from _deployment("r1", "vllm", r1, "fp8", "8", "warm", 32768, 35.4)
    runtime = {"deployment": "r1", "component": "runtime"}
    yield "deepseek_expected_host_memory_bytes", runtime, 24 * GIB
    if back < 5400:
        distill = "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"
        yield from _deployment("distill-32b", "vllm", distill, "bf16", "2", "declared_only", 16384, 0.0)


def _deployment(
    name: str, engine: str, model: str, quantization: str, tp: str, state: str, context: int, sequences: float
) -> Iterator[Sample]:
    deployment = {"deployment": name}
    described = {"engine": engine, "model": model, "quantization": quantization, "tp": tp}
    yield "deepseek_deployment_info", {**deployment, **described}, 1
    yield "deepseek_deployment_state", {**deployment, "state": state}, 1
    yield "deepseek_deployment_max_context_tokens", deployment, context
    yield "deepseek_deployment_full_length_sequences", deployment, sequences


def _alerts(back: int) -> Iterator[Sample]:
    host = {"instance": "gpu-01:9671", "job": "deepseek", "alertstate": "firing", "severity": "critical"}
    crowded = [(index, "DeepSeekVramOvercommitted") for index in CROWDED if back < 5280]
    lost = [(LOST, "DeepSeekGpuLost")] if back < 3480 else []
    for index, name in (*crowded, *lost):
        yield "ALERTS", {"alertname": name, **host, "gpu": str(index), "uuid": f"GPU-{index:04x}"}, 1
    blind = {"instance": "cpu-01:9671", "job": "deepseek", "alertstate": "pending", "severity": "warning"}
    if back < 120:
        yield "ALERTS", {"alertname": "DeepSeekMonitoringBlind", **blind, "source": "processes"}, 1
