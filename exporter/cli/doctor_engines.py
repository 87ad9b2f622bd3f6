"""`doctor`: of every engine that runs here, whether it is seen, its launch read and its endpoint answered.

Repeats nothing that a launch or an endpoint says except names that may be shown. docs/ENGINES.md tells what
is read of each engine, and what is missing without it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from exporter.capacity.identity import identify, is_path, served_name
from exporter.cli.checks import Check
from exporter.engines.discovery import Discovery, Instance
from exporter.engines.process import ProcessTable
from exporter.engines.telemetry import Reason, Target, Telemetry, TelemetryResult
from exporter.engines.telemetry.reader import ENGINES, TelemetryReader

UNANSWERED: dict[Reason, str] = {
    Reason.REFUSED: "nothing listens there: the engine is starting or its server has ended; see its log",
    Reason.TIMEOUT: "it takes connections and does not answer in time: it is stuck, or the host overloaded",
    Reason.TOO_LARGE: "the answer is larger than any engine's; another program may have its port",
    Reason.NOT_HTTP: "it does not speak plain HTTP: where the engine itself does TLS its numbers cannot be "
    "read; let a proxy do TLS and the engine listen on a loopback address",
    Reason.KEY_REQUIRED: "it answers only with a key, and a discovered engine is never given one: its load "
    "and the fullness of its KV cache stay unknown",
    Reason.REDIRECT: "it sends elsewhere, which is not followed; another program may have its port",
    Reason.BAD_STATUS: "it has none of the paths that are asked for: its metrics are switched off, or "
    "another program has its port",
    Reason.NONSENSE: "what it answers is not what this engine says; another program may have its port",
}
"""Why an endpoint gives nothing, and what to do or what it costs."""

SWITCHED_OFF: dict[tuple[str, str], str] = {
    ("llama.cpp", "/metrics"): "start it with --metrics to have counts of tokens and waiting requests",
    ("llama.cpp", "/slots"): "start it without --no-slots to have the fullness of the KV cache",
    ("sglang", "/metrics"): "start it with --enable-metrics to have counts of tokens",
    ("tensorrt-llm", "/prometheus/metrics"): "set return_perf_metrics in its YAML to have any numbers at all",
    ("lmdeploy", "/metrics"): "start it without --disable-metrics to have any numbers at all",
}
"""(engine, path) → what is missing while an engine that answers does not answer there."""

_FAMILY = {"ik_llama.cpp": "llama.cpp", "ktransformers": "sglang"}

PRIVATE = (
    "its environment, working folder and files are shown to its own user and to CAP_SYS_PTRACE only: "
    "settings given by variables and checkpoints on disk are not read, and names decide; the drop-in "
    "ptrace.conf.example opens them"
)
UNKNOWN = "what it should need cannot be told; if it serves a DeepSeek model, declare it ([[deployments]])"
IMPOSSIBLE = (
    "what it should need cannot be told; deepseek-exporter footprint --command, given its command line, "
    "names them"
)
UNREADABLE = (
    "its name decides on model and quantization; let the service read the folder (models.conf.example, or a "
    "group)"
)
CLOSED = "its load and the fullness of its KV cache are not known; let it listen on a TCP port of this host"


def engines(proc: Path) -> Iterator[Check]:
    """What stands in the way of knowing each engine. Asks every endpoint once, all at the same time."""
    try:
        instances = Discovery(ProcessTable(proc), proc).look().instances
    except OSError:
        return  # the check of the processes says so
    if not instances:
        yield Check("engines", "note", "none serves a model here")
    results = asyncio.run(TelemetryReader().read(list(_targets(instances))))
    for instance in instances:
        yield from _engine(instance, results.get(_id(instance)))


def _targets(instances: Sequence[Instance]) -> Iterator[Target]:
    for one in instances:
        if one.door is not None:
            yield Target(_id(one), one.engine, one.door.host, one.door.port, own_address=one.door.own)


def _id(instance: Instance) -> str:
    return f"engine.{instance.root.pid}"


def _engine(instance: Instance, result: TelemetryResult | None) -> Iterator[Check]:
    telemetry = _own_words(result)
    served = served_name(instance.launch, telemetry) or "model not told"
    found = f"{instance.launch.variant or instance.engine}, {served}, processes: {len(instance.pids)}"
    if instance.orphaned:
        yield Check(
            _id(instance),
            "problem",
            f"{instance.engine}, processes without their server: {len(instance.pids)}",
            "its server is gone and they still hold their memory: end them (kill "
            f"{' '.join(str(pid) for pid in sorted(instance.pids))})",
        )
        return
    yield Check(_id(instance), "ok", found)
    yield _launch(instance)
    yield _endpoint(instance, result)
    identity = identify(instance.launch, None, telemetry)
    if identity.asked is None:
        yield Check(f"{_id(instance)}.model", "note", identity.problem, UNKNOWN)
    else:
        yield Check(f"{_id(instance)}.model", "ok", identity.model_id or "known")
    yield files_of(instance)


def _own_words(result: TelemetryResult | None) -> Telemetry | None:
    """What an engine says; the only model that an Ollama server has loaded is the one of its runner."""
    telemetry = result.telemetry if result is not None else None
    if telemetry is not None and len(telemetry.loaded_models) == 1:
        name = telemetry.loaded_models[0].name
        return replace(telemetry, model=name, served_model=name)
    return telemetry


def _launch(instance: Instance) -> Check:
    name, problems = f"{_id(instance)}.launch", len(instance.launch.problems)
    if problems:
        return Check(name, "problem", f"settings that cannot be right: {problems}", IMPOSSIBLE)
    return Check(name, "ok", "read")


def _endpoint(instance: Instance, result: TelemetryResult | None) -> Check:
    name = f"{_id(instance)}.endpoint"
    if instance.engine not in ENGINES:
        return Check(name, "note", "none is known for this engine")
    if instance.door is None or result is None:
        if instance.launch.node_rank:
            return Check(name, "note", "none: this host is not the first of its nodes")
        return Check(name, "problem", instance.door_problem or "none", CLOSED)
    where = f"{instance.door.host}:{instance.door.port}"
    if result.reason is Reason.LOADING:
        return Check(name, "note", f"{where} is loading", "ask again when it has started")
    if result.reason is not None:
        return Check(name, "problem", f"{where}: {result.reason}", UNANSWERED[result.reason])
    family = _FAMILY.get(instance.engine, instance.engine)
    for question, _ in result.missing:
        path = question.partition("?")[0]
        if (family, path) in SWITCHED_OFF:
            return Check(name, "note", f"{where} answers, but not {path}", SWITCHED_OFF[family, path])
    return Check(name, "ok", f"{where} answers")


def files_of(instance: Instance) -> Check:
    """What only the engine's own user may see, and the checkpoint behind the path that the launch names."""
    name = f"{_id(instance)}.files"
    if instance.namespace is None or instance.folder is None:
        return Check(name, "note", "private to its user", PRIVATE)
    model = instance.launch.model
    if model is None or not is_path(model):
        return Check(name, "ok", "environment and folders can be read")
    path = Path(f"{instance.namespace}{PurePosixPath(instance.folder) / model}")
    if os.access(path, os.R_OK):
        return Check(name, "ok", "environment, folders and checkpoint can be read")
    return Check(name, "problem", "the checkpoint cannot be read", UNREADABLE)
