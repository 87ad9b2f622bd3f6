"""Text Generation Inference (3.x launcher/src/main.rs, server/text_generation_server/cli.py): every flag of
the launcher has a variable too.
"""

from __future__ import annotations

from dataclasses import replace

from exporter.engines.launch import values
from exporter.engines.launch.common import first_word, image_version, launch_of, visible_gpus
from exporter.engines.launch.facts import Launch, Role
from exporter.engines.launch.flags import CLAP, Flag, Grammar, optional, read_flags, value
from exporter.engines.launch.program import Program


def _flag(field: str, reader: values.Reader, *names: str) -> Flag:
    return value(
        field,
        reader,
        *(f"--{name}" for name in names),
        env=[name.upper().replace("-", "_") for name in names],
    )


GRAMMAR = Grammar(
    CLAP,
    (
        _flag("model", values.model, "model-id"),
        _flag("served_model", values.text_of, "served-model-name"),
        _flag("tp", values.size, "num-shard"),
        optional("sharded", values.boolean, True, "--sharded", env=("SHARDED",)),
        _flag("quantization", values.word, "quantize"),
        _flag("dtype", values.word, "dtype"),
        _flag("kv_cache_dtype", values.word, "kv-cache-dtype"),
        _flag("max_model_len", values.integer(1), "max-total-tokens"),
        _flag("max_num_seqs", values.integer(1), "max-batch-size"),
        _flag("kv_pool_tokens", values.integer(1), "max-batch-total-tokens"),
        _flag("memory_fraction", values.fraction, "cuda-memory-fraction"),
        _flag("spec_tokens", values.integer(0, 4096), "speculate"),
        _flag("host", values.host, "hostname"),
        _flag("port", values.port, "port"),
    ),
)
SHARD_GRAMMAR = Grammar(
    CLAP,
    (
        value("quantization", values.word, "--quantize"),
        value("dtype", values.word, "--dtype"),
        value("kv_cache_dtype", values.word, "--kv-cache-dtype"),
        value("tp", values.size, env=("WORLD_SIZE",)),
    ),
    positionals=(value("model", values.model, "model"),),
)
_PROGRAMS = {
    "text-generation-launcher": Role.SERVER,
    "text-generation-router": Role.ROUTER,
    "text-generation-benchmark": Role.CLIENT,
    "text_generation_server.cli": Role.WORKER,
}


def role_of(program: Program) -> Role | None:
    """What this program of TGI's is for; None when it is none of them."""
    for name in program.names:
        if name == "text-generation-server":
            return Role.WORKER if first_word(program) == "serve" else Role.TOOL
        if name in _PROGRAMS:
            return _PROGRAMS[name]
    return None


def read(program: Program, role: Role) -> Launch:
    """The launcher's settings; of a shard, what the launcher handed to it."""
    if role is Role.WORKER:
        readings = read_flags(program.arguments[1:], program.environment, SHARD_GRAMMAR)
        return launch_of(readings, role, "tgi")
    if role is not Role.SERVER:
        return Launch(role, "tgi")
    readings = read_flags(program.arguments, program.environment, GRAMMAR)
    launch = launch_of(readings, role, "tgi")
    tp, notes = launch.tp, launch.notes
    if tp is None and readings.flag("sharded") is not False:
        # Without --num-shard the launcher takes every GPU that it sees (find_num_shards).
        tp = visible_gpus(program)
        if tp is not None:
            notes = (*notes, "tp follows from the GPUs that the process may see")
    return replace(
        launch,
        engine_version=image_version(program),
        tp=tp,
        gpus=tp if tp is not None or readings.flag("sharded") is not False else 1,
        notes=notes,
    )
