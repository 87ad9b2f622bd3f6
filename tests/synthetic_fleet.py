"""The made-up fleet, moment by moment: what boards are drawn from and queries are run on.

A panel that stays empty on it has a wrong query.
"""

from __future__ import annotations

from collections.abc import Iterator

from synthetic_hosts import (
    CROWDED,
    CROWDED_SECONDS,
    DAY,
    DECLARED,
    FETCHED,
    FETCHED_GIB,
    FETCHED_PER_HOUR,
    GIB,
    HOSTS,
    LOST,
    LOST_SECONDS,
    MIB,
    OTHERS,
    STORES,
    THRESHOLDS,
    Host,
    Sample,
    Served,
    device_labels,
    energy_and_work,
    load,
    running,
    serving,
    wave,
)


def moment(at: int, back: int) -> Iterator[Sample]:
    """All raw samples of one moment, `back` seconds before the end."""
    for host in HOSTS:
        where = host.where
        yield "up", where, 1
        for name, labels, value in (*_exporter(host, at), *_ram(host, at, back), *_stores(host, back)):
            yield name, {**where, **labels}, value
        for index in range(host.gpus):
            for name, labels, value in _device(host, index, at, back):
                yield name, {**where, **device_labels(index, host), **labels}, value
        for one in (*running(host), *((DECLARED,) if _declared(host, back) else ())):
            for name, labels, value in _deployment(one, at, back):
                yield name, {**where, "deployment": one.name, **labels}, value
    yield from _alerts(back)


def _declared(host: Host, back: int) -> bool:
    return host.name == DECLARED.host and back < CROWDED_SECONDS


def _exporter(host: Host, at: int) -> Iterator[Sample]:
    number = sum(host.name.encode())
    for source, expected in (("nvml", host.gpus > 0), ("host", True), ("processes", True)):
        answers = 0 if source == "nvml" and not host.gpus else 1
        label = {"source": source}
        yield "deepseek_exporter_source_expected", label, int(expected)
        yield "deepseek_exporter_source_up", label, answers
        yield "deepseek_exporter_source_state", {**label, "state": "up" if answers else "no_library"}, 1
        if answers:
            yield "deepseek_exporter_source_last_success_timestamp_seconds", label, at - 3
            took = {"nvml": 0.05 * host.gpus, "host": 0.004, "processes": 0.03}[source]
            yield (
                "deepseek_exporter_source_duration_seconds",
                label,
                round(took * (1.1 + wave(at, number, 1800) / 9), 5),
            )
        if source == "nvml" and host.gpus:
            yield "deepseek_exporter_worker_restarts_total", label, 1 if host.gpus == 8 else 0
    if host.gpus == 8:
        timeouts = {"source": "nvml", "reason": "timeout"}
        yield "deepseek_exporter_source_errors_total", timeouts, (at - at // DAY * DAY) // 1800
    yield "deepseek_exporter_snapshot_timestamp_seconds", {}, at - 2 - at // 60 % 3
    yield "deepseek_exporter_snapshot_duration_seconds", {}, round(0.06 * host.gpus + 0.05, 3)
    version = {
        "version": "0.1.0" if host.pool == "research" else "0.2.0",
        "revision": "0a1b2c3",
        "python": "3.11.2",
    }
    yield "deepseek_exporter_build_info", version, 1
    yield "deepseek_exporter_series", {}, 420 + 78 * host.gpus
    if host.gpus == 8:
        yield (
            "deepseek_exporter_series_dropped_total",
            {"family": "deepseek_gpu_memory_held_bytes"},
            at // 7200,
        )
    yield "deepseek_exporter_workers_stuck", {}, 0
    yield "deepseek_exporter_config_last_reload_successful", {}, 1
    yield "deepseek_exporter_config_last_reload_timestamp_seconds", {}, at // DAY * DAY - 3 * DAY
    yield "deepseek_exporter_clock_steps_total", {}, 1 if host.gpus == 2 else 0
    yield (
        "scrape_duration_seconds",
        {},
        round(0.004 + 0.001 * host.gpus / 8 + 0.0005 * wave(at, number, 900), 5),
    )
    yield "process_resident_memory_bytes", {}, 54 * MIB + 2 * MIB * host.gpus
    yield "process_cpu_seconds_total", {}, round(at * (0.004 + 0.001 * host.gpus), 2)
    manager = {"alertmanager": "am-01:9093"}
    yield "deepseek_exporter_notifications_up", manager, 1
    for outcome, every in (("sent", 60), ("failed", 86400)):
        yield "deepseek_exporter_notifications_total", {**manager, "outcome": outcome}, at // every
    for name, limit in THRESHOLDS.items():
        yield "deepseek_threshold", {"name": name}, limit


def _ram(host: Host, at: int, back: int) -> Iterator[Sample]:
    total, committed = host.ram_gib * GIB, host.ram_committed_gib * GIB
    capacity = total - GIB
    held = 0.0
    for one in running(host):
        anonymous, mapped = one.ram_gib.get("runtime", 0), one.ram_gib.get("weights", 0)
        anonymous += one.ram_gib.get("kv_cache", 0)
        held += anonymous
        for kind, gib in (("anonymous", anonymous), ("file", mapped), ("shared", 0), ("hugepages", 0)):
            yield "deepseek_host_memory_held_bytes", {"holder": one.name, "kind": kind}, gib * GIB
    other = 9 + wave(at, host.ram_gib, 7200)
    yield "deepseek_host_memory_held_bytes", {"holder": "other", "kind": "anonymous"}, round(other * GIB)
    yield "deepseek_host_memory_total_bytes", {}, total
    yield "deepseek_host_memory_capacity_bytes", {}, capacity
    yield "deepseek_host_memory_available_bytes", {}, round(total - (held + other + 2) * GIB)
    yield "deepseek_host_swap_used_bytes", {}, 0 if host.gpus else 210 * MIB
    for node in range(2):
        share = (0.36, 0.47)[node] * (total - held * GIB) * (0.96 + 0.03 * wave(at, node, 9000))
        yield "deepseek_host_numa_memory_free_bytes", {"node": str(node)}, round(share)
    for bound, size in (("low", committed), ("high", committed + 6 * GIB)):
        yield "deepseek_host_memory_committed_bytes", {"bound": bound}, size
        yield "deepseek_host_memory_headroom_bytes", {"bound": bound}, capacity - size
        yield "deepseek_host_memory_overcommit_ratio", {"bound": bound}, round(size / capacity, 4)
    for scope, share in (("some", 0.012), ("full", 0.003)):
        busy = share * (1 if host.gpus else 3)
        yield "deepseek_host_memory_pressure_seconds_total", {"scope": scope}, round(busy * (at % 10**7), 3)


def _stores(host: Host, back: int) -> Iterator[Sample]:
    if host.name not in STORES:
        return
    store, size, lying = STORES[host.name]
    here = {"store": store}
    found = [*lying]
    occupied = 60 + sum(gib for _, _, gib in lying)
    headroom = None
    if host.gpus == 8:
        fetched = max(0.0, FETCHED_GIB - 80 - FETCHED_PER_HOUR * back / 3600)
        found.append((FETCHED, "downloading", round(fetched)))
        headroom = size - occupied - FETCHED_GIB
        occupied += round(fetched)
        yield (
            "deepseek_model_store_download_remaining_bytes",
            here,
            (FETCHED_GIB - round(fetched)) * GIB,
        )
        yield "deepseek_model_store_download_headroom_bytes", here, headroom * GIB
    free = size - occupied
    yield "deepseek_model_store_size_bytes", here, size * GIB
    yield "deepseek_model_store_free_bytes", here, free * GIB
    yield "deepseek_model_store_free_ratio", here, round(free / size, 4)
    yield "deepseek_model_store_occupied_bytes", here, occupied * GIB
    for model, state, gib in found:
        yield "deepseek_model_store_checkpoint_bytes", {**here, "model": model, "state": state}, gib * GIB
    ours = sum(gib for model, _, gib in found if model != "other")
    yield "deepseek_model_store_used_bytes", here, ours * GIB
    for state in ("orphaned", "incomplete"):
        gone = sum(gib for _, is_now, gib in found if is_now == state)
        yield f"deepseek_model_store_{state}_bytes", here, gone * GIB
    plan = {"model": "deepseek-ai/DeepSeek-V3.1", "quantization": "fp8"}
    left = (headroom if headroom is not None else free) - 642
    yield "deepseek_model_store_fit_headroom_bytes", {**here, **plan}, left * GIB


def _device(host: Host, index: int, at: int, back: int) -> Iterator[Sample]:
    name, total_mib, reserved_mib, _, _ = host.device
    lost = host.gpus == 8 and index == LOST and back < LOST_SECONDS
    yield "deepseek_gpu_up", {}, 0 if lost else 1
    yield "deepseek_gpu_state", {"state": "lost" if lost else "up"}, 1
    yield "deepseek_gpu_info", {"name": name, "vendor": "nvidia", "pool": host.pool}, 1
    one = serving(host, index)
    second = _declared(host, back) and index in CROWDED
    for placed in (*((one,) if one else ()), *((DECLARED,) if second else ())):
        for part, gib in placed.gib.items():
            label = {"deployment": placed.name, "component": part}
            yield "deepseek_expected_gpu_memory_bytes", label, round(gib * GIB)
    if host.gpus == 8 and index == LOST and back < LOST_SECONDS + 60:
        yield "deepseek_gpu_xid_errors_total", {"xid": "79"}, 1
        yield "deepseek_gpu_xid_last_timestamp_seconds", {"xid": "79"}, at + back - LOST_SECONDS
    if lost:
        return
    yield from energy_and_work(host, index, at)
    expected = one.per_device if one else 0.0
    other = OTHERS.get((host.name, index), 0.0)
    held = expected * 0.9905
    yield "deepseek_gpu_memory_total_bytes", {}, total_mib * MIB
    yield "deepseek_gpu_memory_reserved_bytes", {}, reserved_mib * MIB
    yield "deepseek_gpu_memory_used_bytes", {}, round((held + other) * GIB)
    if one:
        yield (
            "deepseek_gpu_memory_held_bytes",
            {"holder": one.name, "holder_kind": "deployment"},
            round(held * GIB),
        )
        deviation = round((held - expected) * GIB)
        label = {"deployment": one.name}
        yield "deepseek_gpu_memory_deviation_bytes", label, deviation
        yield "deepseek_gpu_memory_deviation_tolerance_bytes", label, round(expected * 0.03 * GIB + GIB / 2)
        unused = 1 - (
            0.97 if one.name == "r1" and back < CROWDED_SECONDS else one.busy * (0.8 + 0.35 * wave(at))
        )
        yield "deepseek_gpu_memory_reclaimable_bytes", {}, round(one.gib["kv_cache"] * unused * GIB)
    yield "deepseek_gpu_memory_held_bytes", {"holder": "other", "holder_kind": "other"}, round(other * GIB)
    yield "deepseek_gpu_memory_capacity_bytes", {}, host.capacity
    pending = DECLARED.per_device if second else 0.0
    for bound, more in (("low", 0), ("high", 2 if one else 0)):
        size = round((expected + other + pending + more) * GIB)
        yield "deepseek_gpu_memory_committed_bytes", {"bound": bound}, size
        yield "deepseek_gpu_memory_headroom_bytes", {"bound": bound}, host.capacity - size
        yield "deepseek_gpu_memory_overcommit_ratio", {"bound": bound}, round(size / host.capacity, 4)
        yield "deepseek_gpu_memory_pending_bytes", {"bound": bound}, round(pending * GIB)
    yield "deepseek_gpu_rollout_overlap_bytes", {}, 0
    warm = 62 if one else 34
    yield (
        "deepseek_gpu_temperature_celsius",
        {"sensor": "gpu"},
        round(warm + index / 2 + 7 * wave(at, index / 9, 9000)),
    )
    yield (
        "deepseek_gpu_temperature_celsius",
        {"sensor": "memory"},
        round(warm + 9 + 7 * wave(at, index / 9, 9000)),
    )
    capped = bool(one) and one is not None and one.busy > 0.6 and wave(at, index, 7200) > 0.4
    yield "deepseek_gpu_clocks_limited", {"reason": "sw_power_cap"}, int(capped)
    hot = host.gpus == 8 and index == 5 and 1800 < back < 2700
    yield "deepseek_gpu_clocks_limited", {"reason": "hw_thermal_slowdown"}, int(hot)


def _deployment(one: Served, at: int, back: int) -> Iterator[Sample]:
    declared = one is DECLARED
    tp, pp, dp = (str(degree) for degree in one.degrees)
    described = {
        "engine": one.engine,
        "model": one.model,
        "quantization": one.quantization,
        "origin": "declared",
    }
    described |= {"tp": tp, "pp": pp, "dp": dp, "node_rank": one.node_rank, "kv_cache_dtype": "auto"}
    if not declared:
        described["engine_version"] = {"vllm": "0.11.0", "sglang": "0.5.4"}.get(one.engine, "b6940")
    yield "deepseek_deployment_info", described, 1
    yield "deepseek_deployment_state", {"state": "declared_only" if declared else "warm"}, 1
    yield "deepseek_deployment_max_context_tokens", {}, one.context
    yield "deepseek_deployment_max_sequences", {}, one.sequences
    for part, gib in one.ram_gib.items():
        yield "deepseek_expected_host_memory_bytes", {"component": part}, gib * GIB
    if declared:
        yield "deepseek_deployment_full_length_sequences", {}, 0
        return
    yield "deepseek_deployment_start_time_seconds", {}, at + back - 9 * DAY
    for told in ("model", "quantization", "tp"):
        differs = one.name == "distill-14b" and told == "quantization"
        yield "deepseek_deployment_matches_declaration", {"field": told}, 0 if differs else 1
    error = {"r1": 0.021, "v31-awq": -0.038, "distill-14b": 0.064, "distill-8b": 0.012, "r1-q4": -0.004}[
        one.name
    ]
    for component, factor in (("weights", 0.3), ("kv_cache", 1.0)):
        if one.devices or component == "weights":
            yield "deepseek_exporter_plan_error_ratio", {"component": component}, round(error * factor, 4)
    if one.node_rank:
        yield from _link(one, at)
    if one.engine == "llama.cpp":
        resident = 0.86 if not one.devices and back < 2400 else 1.0
        yield "deepseek_deployment_weights_resident_ratio", {}, resident
    yield "deepseek_kv_cache_bytes_per_token", {}, one.kv_bytes
    if not one.kv_tokens:
        return
    yield from _serving(one, at, back)


def _link(one: Served, at: int) -> Iterator[Sample]:
    """To the other node, over one card of 100 Gb/s; the bytes are those of V3 by tensor parallelism."""
    speed = 12_500_000_000
    for direction, share in (("sent", 0.31), ("received", 0.29)):
        usage = round(share * (1 + 0.4 * wave(at, period=1700)), 4)
        yield "deepseek_deployment_link_usage_ratio", {"direction": direction}, usage
    yield "deepseek_deployment_link_speed_bytes_per_second", {}, speed
    for bound, size in (("low", 3_548_640), ("high", 1_763_328)):
        yield "deepseek_deployment_link_ceiling_tokens_per_second", {"bound": bound}, round(speed / size, 1)


def _serving(one: Served, at: int, back: int) -> Iterator[Sample]:
    crowded = one.name == "r1" and back < CROWDED_SECONDS
    for name, labels, value in load(one, at, back):
        yield name, labels, value
        if name == "deepseek_kv_cache_usage_ratio":
            yield "deepseek_kv_cache_used_tokens", {}, round(value * one.kv_tokens)
            in_batch = round(one.sequences * min(1.0, value * 1.1))
            yield "deepseek_requests_running", {}, in_batch
    waiting = round(6 + 5 * wave(at, period=1300)) if crowded else 0
    yield "deepseek_requests_waiting", {}, waiting
    missed = (CROWDED_SECONDS - back) / 9 if crowded else 0
    yield "deepseek_preemptions_total", {}, round(40 + missed)
    yield "deepseek_kv_cache_capacity_tokens", {}, one.kv_tokens
    yield (
        "deepseek_kv_cache_planned_tokens",
        {},
        round(one.kv_tokens * (1.2 if one.name == "distill-14b" else 0.8)),
    )
    demand = one.context * one.sequences
    yield "deepseek_kv_cache_demand_tokens", {}, demand
    yield "deepseek_kv_cache_overcommit_ratio", {}, round(demand / one.kv_tokens, 3)
    yield "deepseek_deployment_full_length_sequences", {}, round(one.kv_tokens / one.context, 1)


def _alerts(back: int) -> Iterator[Sample]:
    yield "ALERTS", {"alertname": "DeepSeekWatchdog", "alertstate": "firing", "severity": "none"}, 1
    where = HOSTS[0].where
    host = {**where, "alertstate": "firing", "severity": "critical"}
    crowded = [(index, "DeepSeekVramOvercommitted") for index in CROWDED if back < 5280]
    lost = [(LOST, "DeepSeekGpuLost")] if back < 3480 else []
    for index, name in (*crowded, *lost):
        yield "ALERTS", {"alertname": name, **host, **device_labels(index, HOSTS[0])}, 1
        subject = {"alert": name, "severity": "critical", "subject": f"GPU {index}"}
        yield "deepseek_alert_active", {**where, **subject}, 1
    blind = {"instance": "cpu-01:9671", "job": "deepseek", "alertstate": "pending", "severity": "warning"}
    if back < 120:
        yield "ALERTS", {"alertname": "DeepSeekMonitoringBlind", **blind, "source": "processes"}, 1
