"""Each deployment: what it is, how what it holds compares with what it should, and its room for requests."""

from __future__ import annotations

from exporter.units import GIB, format_bytes
from exporter.views.facts import Component, DeploymentFacts, Level, OnDevice
from exporter.views.in_ram import in_ram
from exporter.views.plain import (
    COMPONENT_LABELS,
    DOES_NOT_RUN,
    Plain,
    device_names,
    held_here,
    in_use_bytes,
    ranks,
    runs,
)
from exporter.views.words import (
    PROSE_MOST,
    UNKNOWN,
    between,
    count,
    gigabits,
    ranges,
    sentence,
    share,
    shown,
    size,
)

_STATES = {
    DOES_NOT_RUN: ("does not run", Level.INFO),
    "loading": ("loading", Level.INFO),
    "warm": ("running", Level.GOOD),
    "sleeping": ("sleeping", Level.INFO),
    "unreachable": ("runs, and its endpoint does not answer", Level.WARNING),
    "orphaned": ("workers whose server is gone", Level.WARNING),
    "unknown": ("runs, and what it needs is not known", Level.WARNING),
}
ENGINES = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "ollama": "Ollama",
    "ktransformers": "KTransformers",
    "lmdeploy": "LMDeploy",
    "tensorrt-llm": "TensorRT-LLM",
    "tgi": "TGI",
}


def deployments(plain: Plain) -> tuple[DeploymentFacts, ...]:
    """Every deployment, declared ones first as the snapshot has them."""
    names = device_names(plain)
    return tuple(_facts(status, plain, names) for status in plain["assessment"]["deployments"])


def _facts(status: Plain, plain: Plain, names: dict[str, str]) -> DeploymentFacts:
    declared, footprint = status["declared"], status["declared"]["footprint"]
    words, level = _STATES.get(status["state"], (shown(status["state"]).replace("_", " "), Level.INFO))
    if not runs(status) and declared["required"]:
        words, level = "must be able to run, and does not", Level.WARNING
    comparison, as_expected = _comparison(status, plain, names)
    differs = tuple(shown(key) for key, same in status["matches"].items() if not same)
    about_ram, misplaced = in_ram(status, plain)
    if runs(status) and (differs or misplaced or not as_expected) and level is not Level.CRITICAL:
        level = Level.WARNING
    on_gpu = [rank["total"]["low_bytes"] for rank in footprint["devices"]] if footprint else []
    ram = footprint["host"]["components"] if footprint else {}
    fit = footprint["kv_cache"]["full_length_sequences"] if footprint else None
    widest = max(footprint["devices"], key=lambda one: one["total"]["high_bytes"]) if on_gpu else None
    usage = status["kv"]["usage_ratio"] if status["kv"] else None
    return DeploymentFacts(
        name=shown(declared["name"]),
        level=level,
        state=shown(status["state"]),
        state_words=words,
        model=shown(footprint["model_id"] if footprint else declared["model"], 128),
        what=_what(status),
        where=_where(status),
        comparison=sentence(comparison),
        headroom=sentence(_headroom(status)),
        about_ram=sentence(about_ram),
        requests=_requests(status),
        kv_usage_ratio=usage,
        link=sentence(_link(status)),
        differs=differs,
        per_device=f"{len(on_gpu)} × {format_bytes(max(on_gpu))}" if on_gpu else UNKNOWN,
        ram=format_bytes(sum(term["low_bytes"] for term in ram.values())) if footprint else UNKNOWN,
        full_length=UNKNOWN if fit is None else f"{fit:.1f}",
        on_devices=_on_devices(status, plain, names),
        components=_components(widest["components"]) if widest else (),
        in_ram=_components(ram),
    )


def _what(status: Plain) -> str:
    """Quantization, cache, engine and parallelism as they run, else as declared."""
    declared, running = status["declared"], status["running_as"] or {}
    footprint = declared["footprint"]
    engine = running.get("engine") or declared["engine"]
    version = running.get("engine_version")
    cache = running.get("kv_cache_dtype") or declared["kv_cache_dtype"]
    parts = [
        running.get("quantization") or (footprint["quantization"] if footprint else None),
        f"{cache} KV cache" if cache and cache != "auto" else None,
        ENGINES.get(engine, engine) + (f" {version}" if version else ""),
    ]
    for key in ("tp", "pp", "dp"):
        ways = running.get(key) or declared[key]
        if ways and ways > 1:
            parts.append(f"{key.upper()} {ways}")
    if running.get("speculative"):
        parts.append(f"speculative ({running['speculative']})")
    parts.append("not declared" if declared["origin"] == "discovered" else None)
    return ", ".join(shown(part) for part in parts if part)


def _where(status: Plain) -> str:
    indices = status["declared"]["device_indices"]
    return f"on GPU {ranges(indices)}" if indices else "in RAM"


def _comparison(status: Plain, plain: Plain, names: dict[str, str]) -> tuple[str, bool]:
    """The sentence, and whether what runs is as expected as far as that is known."""
    declared, footprint = status["declared"], status["declared"]["footprint"]
    if footprint is None:
        return f"no expectation: {shown(declared['problem'] or 'its model is not known', PROSE_MOST)}", True
    if not runs(status):
        return f"would need {_need(footprint)}", True
    if status["state"] == "loading":
        return f"still loading; {_need(footprint)} once warm", True
    if status["state"] == "sleeping":
        return f"asleep; {_need(footprint)} when awake", True
    deviations = status["deviation"]
    if not deviations and footprint["devices"]:
        return f"what it holds on its GPUs cannot be read; {_need(footprint)} expected", True
    if not deviations:
        return _comparison_in_ram(status, plain), True
    off = _out_of_tolerance(status)
    uuid = max(off or deviations, key=lambda one: abs(deviations[one]["size_bytes"]))
    difference = deviations[uuid]["size_bytes"]
    where = names.get(uuid, "a device")
    # Of ranks on other nodes nothing is known here, and nothing is missed.
    devices = declared["device_indices"] or {at for at, _ in ranks(status)}
    known = f" on {len(deviations)} of {len(devices)} GPUs" if len(deviations) < len(devices) else ""
    if not off:
        if abs(difference) < GIB // 20:
            return f"holds what it should{known}", True
        return f"holds what it should{known}; at most {_difference(deviations[uuid])}, on {where}", True
    others = f"; {count(len(off) - 1, 'other GPU')} beyond tolerance too" if len(off) > 1 else ""
    more = "more" if difference > 0 else "less"
    held = format_bytes(held_here(plain, uuid, declared["name"]))
    return f"holds {held} on {where}: {format_bytes(abs(difference))} {more} than it should{others}", False


def _comparison_in_ram(status: Plain, plain: Plain) -> str:
    footprint = status["declared"]["footprint"]
    memory = plain["assessment"]["host_held"].get(status["declared"]["name"])
    if memory is None:
        return f"what it holds cannot be read; {_need(footprint)} expected"
    held = in_use_bytes(memory) + min(memory["file"], footprint["host"]["mapped_bytes"])
    return f"holds {format_bytes(held)} of RAM; {_need(footprint)} expected"


def _out_of_tolerance(status: Plain) -> list[str]:
    told = status["tolerance"]
    return [
        uuid
        for uuid, one in status["deviation"].items()
        if uuid in told and abs(one["size_bytes"]) > told[uuid]
    ]


def _difference(deviation: Plain) -> str:
    sign = "more" if deviation["size_bytes"] > 0 else "less"
    ratio = f" ({share(deviation['ratio'])})" if deviation["ratio"] is not None else ""
    return f"{format_bytes(abs(deviation['size_bytes']))} {sign}{ratio}"


def _need(footprint: Plain) -> str:
    """`111.0–113.0 GiB on each of 2 GPUs and 8.0 GiB of RAM`"""
    parts = []
    totals = [one["total"] for one in footprint["devices"]]
    if totals:
        whole = between(max(one["low_bytes"] for one in totals), max(one["high_bytes"] for one in totals))
        parts.append(f"{whole} on each of {len(totals)} GPUs" if len(totals) > 1 else f"{whole} of a GPU")
    terms = footprint["host"]["components"].values()
    if terms:
        low, high = (sum(term[key] for term in terms) for key in ("low_bytes", "high_bytes"))
        parts.append(f"{between(low, high)} of RAM")
    return " and ".join(parts) or "nothing"


def _headroom(status: Plain) -> str:
    """Room for requests of full length, in words; empty where nobody tells."""
    footprint, kv = status["declared"]["footprint"], status["kv"]
    planned = footprint["kv_cache"] if footprint else None
    capacity = (kv and kv["capacity_tokens"]) or (planned and planned["capacity_tokens"])
    length = _length(status)
    if not capacity or not length:
        return ""
    each = f"{length:,} tokens"
    if not runs(status):
        return f"would have room for {count(int(capacity // length), 'request')} of full length ({each})"
    used = kv["used_tokens"] if kv else None
    if used is None:
        whole = count(int(capacity // length), "full-length request")
        return f"room for {whole} in all ({each} each); how much is in use is not known"
    left = max(0, capacity - used)
    if left < length:
        return f"no room for another full-length request: {left:,} tokens are free, it needs {length:,}"
    return f"room for {count(int(left // length), 'more full-length request')} ({each} each)"


def _length(status: Plain) -> int | None:
    """Tokens of a request of full length: by the engine's word (llama.cpp's launch states the cache of all
    slots), as it was launched, as declared, or as the footprint was worked out.
    """
    declared, running = status["declared"], status["running_as"] or {}
    told = running.get("telemetry") or {}
    said = told.get("max_model_len") or running.get("max_model_len") or declared["max_model_len"]
    if said:
        return int(said)
    planned = declared["footprint"]["kv_cache"] if declared["footprint"] else {}
    capacity, fit = planned.get("capacity_tokens"), planned.get("full_length_sequences")
    return round(capacity / fit) if capacity and fit else None


def _requests(status: Plain) -> str:
    said = (status["running_as"] or {}).get("telemetry") or {}
    parts = [
        f"{said[key]:,} {word}"
        for key, word in (("requests_running", "running"), ("requests_waiting", "waiting"))
        if said.get(key) is not None
    ]
    return ", ".join(parts)


def _link(status: Plain) -> str:
    link = status["link"]
    if link is None:
        return ""
    parts = [f"link to its other nodes: {', '.join(shown(name) for name in link['interfaces'])}"]
    if link["speed_bytes"] is not None:
        parts[0] += f", {gigabits(link['speed_bytes'])}"
    used = [f"{ratio * 100:.0f} % {direction}" for direction, ratio in link["usage_ratio"].items()]
    if used:
        parts.append(f"{', '.join(used)} in the last minute")
    low, high, needed = link["ceiling_low_tokens"], link["ceiling_high_tokens"], link["needed_tokens"]
    if low is not None and high is not None:
        allows = f"allows {low:,.0f} to {high:,.0f} tokens a second, prompt and generated"
        if needed is not None and high < needed:
            allows += f", too few for its GPUs: {needed:,.0f} are the least"
        parts.append(allows)
    return "; ".join(parts)


def _on_devices(status: Plain, plain: Plain, names: dict[str, str]) -> tuple[OnDevice, ...]:
    expected: dict[str, tuple[int, int]] = {}
    for uuid, rank in ranks(status):
        low, high = expected.get(uuid, (0, 0))
        expected[uuid] = (low + rank["total"]["low_bytes"], high + rank["total"]["high_bytes"])
    known = plain["assessment"]["held"]
    return tuple(
        OnDevice(
            names.get(uuid, "not seen yet"),
            size(held_here(plain, uuid, status["declared"]["name"]) if uuid in known else None),
            between(*ends),
            _difference(status["deviation"][uuid]) if uuid in status["deviation"] else UNKNOWN,
        )
        for uuid, ends in expected.items()
    )


def _components(terms: Plain) -> tuple[Component, ...]:
    return tuple(
        Component(
            COMPONENT_LABELS.get(name, shown(name)),
            between(term["low_bytes"], term["high_bytes"]),
            shown(term["basis"]),
        )
        for name, term in terms.items()
        if term["high_bytes"] > 0
    )
