"""llama.cpp's llama-server and ik_llama.cpp's: /props, /metrics (with --metrics), /v1/models, /slots.

llama.cpp b11434 tools/server. While it loads, every path answers 503. Seen on it: a question to /slots wakes
a sleeping server and puts off its sleep, one to the other three does not; so /slots is asked only when
something is being processed, or when nothing else can tell and the server never sleeps. What /slots and
/props hold of prompts and templates is not kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from exporter.engines.telemetry import openai, values
from exporter.engines.telemetry.ask import Engine, Question
from exporter.engines.telemetry.client import Unanswered
from exporter.engines.telemetry.samples import read_samples
from exporter.engines.telemetry.tokens import counts, drafts
from exporter.engines.telemetry.types import Reason, Target, Telemetry

RUNNING = ("llamacpp:requests_processing",)
WAITING = ("llamacpp:requests_deferred",)
USAGE = ("llamacpp:kv_cache_usage_ratio",)
USED = ("llamacpp:kv_cache_tokens",)
"""Both until llama.cpp PR 13660; cells that a finished request left behind count in them."""
TOKENS = {
    "prompt": ("llamacpp:prompt_tokens_total",),
    "prompt_cached": ("llamacpp:prompt_tokens_cached_total",),
    "generated": ("llamacpp:tokens_predicted_total",),
}
DRAFTED = ("llamacpp:spec_decode_num_draft_tokens_total",)
ACCEPTED = ("llamacpp:spec_decode_num_accepted_tokens_total",)
WANTED = frozenset(
    name for names in (RUNNING, WAITING, USAGE, USED, DRAFTED, ACCEPTED, *TOKENS.values()) for name in names
)
_BUILD = re.compile(r"b([1-9][0-9]{0,8})(?:-[0-9a-z]{1,40})?", re.ASCII)
_FILE_TYPE = re.compile(r"(?:all )?([A-Z][A-Z0-9_]{1,15})(?: - (Small|Medium|Large))?(?: .{0,40})?", re.ASCII)
_SIZES = {"Small": "_S", "Medium": "_M", "Large": "_L"}
_UNSUFFIXED = frozenset({"Q2_K"})
"""File types whose printed size is no part of the name (llama.cpp src/llama-model-loader.cpp)."""


def props(body: bytes, target: Target) -> Telemetry:
    """/props: limits and names. The length of a slot is that of one sequence."""
    answer = values.fields(values.parsed(body))
    length = values.size(values.fields(answer.get("default_generation_settings")).get("n_ctx"))
    slots = values.size(answer.get("total_slots"))
    if length is None and slots is None:
        raise Unanswered(Reason.NONSENSE)
    build = answer.get("build_info")
    known = _BUILD.fullmatch(build) if isinstance(build, str) else None
    model, alias = values.name(answer.get("model_path")), values.name(answer.get("model_alias"))
    return Telemetry(
        engine_version=f"b{known[1]}" if known else None,
        model=model,
        served_model=_base(alias or model),
        quantization=_quantization(answer.get("model_ftype")),
        max_model_len=length,
        max_num_seqs=slots,
        kv_capacity_tokens=_capacity([length] * slots, target)
        if length and slots and slots <= 4096
        else None,
        sleeping=answer.get("is_sleeping") is True,
    )


def metrics(page: bytes, _target: Target) -> Telemetry:
    samples = read_samples(page, WANTED)
    running = samples.count(*RUNNING)
    idle = running == 0
    return Telemetry(
        requests_running=running,
        requests_waiting=samples.count(*WAITING),
        kv_used_tokens=samples.count(*USED) if samples.all(*USED) else 0 if idle else None,
        kv_usage_ratio=samples.largest_ratio(*USAGE) if samples.all(*USAGE) else 0.0 if idle else None,
        tokens=counts(samples, TOKENS) | drafts(samples, DRAFTED, ACCEPTED),
    )


def models(body: bytes, target: Target) -> Telemetry:
    """/v1/models: the bytes of all tensors, beside the shape that all engines share."""
    card = next(iter(values.items(values.fields(values.parsed(body)).get("data"))), {})
    known = openai.models(body, target)
    return Telemetry(
        served_model=_base(known.served_model),
        model_bytes=values.size(values.fields(card.get("meta")).get("size")),
    )


def slots(body: bytes, target: Target) -> Telemetry:
    """/slots: the tokens of the requests in progress, an upper bound: slots may share cells."""
    entries = values.items(values.parsed(body))
    if not entries:
        raise Unanswered(Reason.NONSENSE)
    # `state` 1 was `is_processing` in 2024.
    busy = [entry for entry in entries if entry.get("is_processing") is True or entry.get("state") == 1]
    held = [values.count(entry.get("n_prompt_tokens")) for entry in busy]
    used = 0 if not busy else values.total(held) if None not in held else None
    lengths = [values.size(entry.get("n_ctx")) for entry in entries]
    capacity = _capacity([length for length in lengths if length], target) if None not in lengths else None
    if used is not None and capacity is not None:
        used = min(used, capacity)
    return Telemetry(
        kv_capacity_tokens=capacity,
        kv_used_tokens=used,
        kv_usage_ratio=used / capacity if used is not None and capacity else None,
        requests_running=len(busy),
        max_num_seqs=len(entries),
    )


def _capacity(lengths: Sequence[int], target: Target) -> int | None:
    """Slots of a unified cache all see the whole of it; the server does not say whether it is unified."""
    if len(lengths) == 1 or target.kv_unified:
        return max(lengths)
    return sum(lengths) if target.kv_unified is False else None


def _slots_are_free(known: Telemetry, target: Target) -> bool:
    """Whether asking for the slots neither wakes the server nor keeps it awake."""
    if known.sleeping or known.requests_running == 0:
        return False
    return known.requests_running is not None or not target.sleeps_when_idle


def _base(name: str | None) -> str | None:
    """The file alone, where a path stands for a name."""
    return name.rpartition("/")[2] or None if name is not None and name.startswith("/") else name


def _quantization(file_type: object) -> str | None:
    """The name in file names: "Q4_K - Medium" is Q4_K_M."""
    found = _FILE_TYPE.fullmatch(file_type) if isinstance(file_type, str) else None
    if found is None:
        return None
    return found[1] + ("" if found[1] in _UNSUFFIXED else _SIZES.get(found[2], ""))


ENGINE = Engine(
    (
        Question(("/props",), props, needed=True),
        Question(("/metrics",), metrics),
        Question(("/v1/models",), models, steady=True),
    ),
    (Question(("/slots",), slots),),
    _slots_are_free,
)
