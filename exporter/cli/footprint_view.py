"""The answer of `footprint` as a person reads it: every term with both ends, its basis and what it is."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby

from exporter.cli.answers import Answered
from exporter.footprint.answer import Answer, DeviceAnswer
from exporter.footprint.result import Explanation, Term, sum_terms
from exporter.units import format_bytes

COLUMNS = 80
_NAME = 15
_SIZE = 11

ENGINES = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "ollama": "Ollama",
    "ktransformers": "KTransformers",
    "lmdeploy": "LMDeploy",
    "tensorrt-llm": "TensorRT-LLM",
    "tgi": "TGI",
}
"""Names that are written otherwise than in settings."""

_MEANINGS = {
    "weights": "the model's tensors",
    "kv_cache": "keys and values of the requests",
    "activations": "work space of the largest batch",
    "graphs": "captured CUDA graphs",
    "runtime": "CUDA context, libraries, allocator",
    "speculative": "tensors that draft tokens",
    "communication": "buffers between the ranks",
    "experts": "experts that are computed on the processor",
    "pinned": "locked pages for copies to the GPUs",
    "prompt_cache": "prompts kept for reuse",
}
_IN_RAM = {
    **_MEANINGS,
    "weights": "the model's tensors; a wider high end counts file pages behind rearranged copies",
    "runtime": "the engine's processes and work space",
}


def render(answered: Answered, *, explain: bool = False) -> str:
    """Plain text of `COLUMNS`, without colour."""
    parts = [_deployment(answered.deployment)]
    if answered.answer is not None:
        answer = answered.answer
        parts = [
            _head(answered, answer),
            _verdict(answered, answer),
            *_tables(answered, answer),
            _network(answer),
        ]
    notes = (*answered.notes, *(answered.answer.notes if answered.answer is not None else ()))
    if notes:
        parts.append("\n".join(["notes", *(_bullet(note) for note in dict.fromkeys(notes))]))
    if explain and answered.answer is not None:
        parts.append(
            "\n\n".join(["where the numbers come from", *map(_explained, answered.answer.explanations)])
        )
    return "\n\n".join(part for part in parts if part)


def _deployment(said: Mapping[str, object]) -> str:
    rows = [(name, _value(value)) for name, value in said.items()]
    return "\n".join(hanging(f"{name:<24}", value) for name, value in rows)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(one)}" for key, one in value.items())
    if isinstance(value, list):
        return " ".join(str(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 and value > 65_535 else str(value)


def _head(answered: Answered, answer: Answer) -> str:
    model, spec = answer.model, answered.spec
    assert spec is not None
    engine = ENGINES.get(spec.engine, spec.engine)
    settings = [
        f"{name} {size}"
        for name, size in (("tp", spec.tp), ("pp", spec.pp), ("dp", spec.dp), ("ep", spec.ep))
        if size and size > 1
    ]
    if spec.max_model_len is not None:
        settings.append(f"{spec.max_model_len:,} tokens")
    role = answered.deployment.get("role")
    if role not in (None, "server"):
        settings.append(f"({role})")
    form = f" in {model.quantization}" if model.quantization not in (None, "unknown") else ""
    lines = [hanging("", f"{model.id}{form} on {engine}{': ' if settings else ''}{', '.join(settings)}")]
    facts = [model.architecture]
    if model.parameters is not None:
        active = model.active_parameters
        sparse = f", {_count(active)} active" if active is not None and active != model.parameters else ""
        facts.append(f"{_count(model.parameters)} parameters{sparse}")
    if model.checkpoint_bytes is not None:
        facts.append(f"checkpoint {format_bytes(model.checkpoint_bytes)}")
    return "\n".join([*lines, hanging("", ", ".join(facts))])


def _count(parameters: int) -> str:
    for size, name in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if parameters >= size:
            return f"{parameters / size:.1f}{name}"
    return str(parameters)


def _tables(answered: Answered, answer: Answer) -> list[str]:
    tables = []
    for ranks in _alike(answer.devices):
        tables.append(_table(_ranks(ranks, answered), ranks[0].components, ranks[0].total))
    if answer.host.components:
        whole = sum_terms(answer.host.components) if answer.host.total is not None else None
        tables.append(_table("in RAM", answer.host.components, whole, _IN_RAM))
    return tables


def _alike(devices: Sequence[DeviceAnswer]) -> list[list[DeviceAnswer]]:
    """Neighbouring ranks that hold the same."""

    def held(device: DeviceAnswer) -> tuple[object, ...]:
        sizes = tuple(
            (name, term.low_bytes, term.expected_bytes, term.high_bytes)
            for name, term in device.components.items()
        )
        total = device.total
        return (device.stage, sizes, None if total is None else (total.low_bytes, total.high_bytes))

    return [list(group) for _, group in groupby(devices, key=held)]


def _ranks(ranks: Sequence[DeviceAnswer], answered: Answered) -> str:
    first, last = ranks[0], ranks[-1]
    name = f"rank {first.rank}" if first is last else f"rank {first.rank}–{last.rank}, each"
    assert answered.answer is not None
    if answered.answer.devices[-1].stage > 0:
        name += f", stage {first.stage}"
    if answered.devices is not None and first.device_index < len(answered.devices):
        shape = answered.devices[first.device_index]
        name += f": {shape.name or 'GPU'}, {format_bytes(shape.total_bytes)}"
    return name


def _table(
    title: str,
    components: Mapping[str, Term],
    total: Term | None,
    meanings: Mapping[str, str] = _MEANINGS,
) -> str:
    if not components:
        return f"{title}\n  nothing is known without the size of the device"
    head = f"  {'':<{_NAME}}{'expected':>{_SIZE}}   {'low – high':<25}basis"
    lines = [title, head]
    for name, term in components.items():
        lines.append(_row(name, term, term.basis))
        lines.append(hanging(" " * 6, term.note or meanings.get(name, "")))
    if total is not None:
        lines.append(_row("total", total, ""))
    else:
        lines.append("  total          not known: a part of it is not")
    return "\n".join(line for line in lines if line.strip())


_SENT = {
    "tp": "sums of tensor ranks",
    "pp": "what a stage hands to the next",
    "dp": "tokens gathered for the experts from data-parallel attention",
    "ep": "tokens to their experts and back",
    "kv_transfer": "the cache of a prompt token, from prefill to decode server",
}
_LINKS_GIGABITS = (10, 100, 400)


def _network(answer: Answer) -> str:
    """What crosses the link of a node for a token, and what links of usual speeds allow by that."""
    network = answer.network
    if network is None:
        return ""
    lines = [f"over the link of each of {network.nodes} nodes, for every token, prompt or generated"]
    for kind, one in network.kinds.items():
        ends = _range(format_bytes(one.low_bytes), format_bytes(one.high_bytes))
        lines.append(hanging(f"  {kind:<{_NAME}}{ends:<28}", _SENT[kind]))
    if network.total is not None:
        for gigabits in _LINKS_GIGABITS:
            speed = gigabits * 1e9 / 8
            low, high = speed / network.total.high_bytes, speed / max(1, network.total.low_bytes)
            name = f"{gigabits} Gb/s"
            lines.append(f"  {name:<{_NAME}}at most {low:,.0f} – {high:,.0f} tokens a second, all GPUs")
    return "\n".join(lines)


def _row(name: str, term: Term, basis: str) -> str:
    ends = "exact"
    if term.low_bytes != term.high_bytes:
        ends = _range(format_bytes(term.low_bytes), format_bytes(term.high_bytes))
    elif not basis:
        ends = ""
    return f"  {name:<{_NAME}}{format_bytes(term.expected_bytes):>{_SIZE}}   {ends:<25}{basis}".rstrip()


def _range(low: str, high: str) -> str:
    number, _, unit = low.partition(" ")
    return f"{number} – {high}" if high.endswith(f" {unit}") else f"{low} – {high}"


def _verdict(answered: Answered, answer: Answer) -> str:
    kv = answer.kv_cache
    cache = [f"{format_bytes(kv.bytes_per_token)} a token on one rank ({kv.bytes_per_token:,} B)"]
    if kv.capacity_tokens is not None:
        room = f"room for {kv.capacity_tokens:,} tokens"
        if kv.full_length_sequences is not None:
            room += f", {kv.full_length_sequences:,.1f} requests of full length"
        cache.append(room)
    if kv.demand_tokens is not None:
        cache.append(f"{kv.demand_tokens:,} tokens at the configured limits")
    fits = {True: "yes", False: "no", None: "not known"}[answer.fits]
    if answer.fits is None and answered.devices is None and answer.devices:
        fits += ": say which GPUs (--gpu, --gpu-memory)"
    lines = [hanging("KV cache  ", "; ".join(cache)), hanging("fits      ", fits)]
    if (read := answer.host.token_read_bytes) is not None:
        lines.append(hanging("RAM       ", _pace(read)))
    if answer.limiting:
        lines.append(hanging("limiting  ", answer.limiting))
    return "\n".join(lines)


def _pace(read_bytes: int) -> str:
    """Of no host in particular: what its RAM gives, `status` knows."""
    per_100 = 100 * 10**9 / read_bytes
    return (
        f"each token of one sequence reads {read_bytes / 10**9:.1f} GB of weights there: "
        f"at most {per_100:.1f} tokens a second for every 100 GB/s that RAM gives"
    )


def _explained(one: Explanation) -> str:
    inputs = ", ".join(f"{name} = {_number(value)}" for name, value in one.inputs.items())
    rows = [("formula", one.formula), ("inputs", inputs), ("source", one.source), ("checked", one.checked)]
    return "\n".join([one.component, *(hanging(f"  {name:<9}", text) for name, text in rows if text)])


def _number(value: str | int | float) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _bullet(text: str) -> str:
    return hanging("  - ", text)


def hanging(start: str, text: str) -> str:
    """Text behind a start, with following lines below its own beginning."""
    if not text:
        return start.rstrip()
    indent = " " * len(start)
    return textwrap.fill(
        text, COLUMNS, initial_indent=start, subsequent_indent=indent, break_on_hyphens=False
    )
