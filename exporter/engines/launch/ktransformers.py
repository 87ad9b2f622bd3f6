"""KTransformers' own server (until 0.3: ktransformers/server/args.py); the current one is SGLang's with
`--kt-…` flags.
"""

from __future__ import annotations

from dataclasses import replace

from exporter.engines.launch import values
from exporter.engines.launch.common import first_word, gpus_of, launch_of
from exporter.engines.launch.facts import Launch, Role
from exporter.engines.launch.flags import ARGPARSE, Grammar, read_flags, value
from exporter.engines.launch.program import Program

_PROGRAMS = {
    "ktransformers": Role.SERVER,
    "ktransformers.server.main": Role.SERVER,
    "ktransformers.local_chat": Role.TOOL,
    "local_chat": Role.TOOL,
    "local_chat.py": Role.TOOL,
}

GRAMMAR = Grammar(
    ARGPARSE,
    (
        value("model", values.model, "--model_path"),
        value("directory", values.model, "--model_dir"),
        value("served_model", values.text_of, "--model_name"),
        value("gguf_path", values.model, "--gguf_path"),
        value("cpu_infer", values.integer(1), "--cpu_infer"),
        value("kv_pool_tokens", values.integer(1), "--cache_lens"),
        value("max_num_seqs", values.integer(1), "--max_batch_size"),
        value("tp", values.size, "--tp"),
        value("host", values.host, "--host"),
        value("port", values.port, "--port"),
    ),
)


def role_of(program: Program) -> Role | None:
    """What this program of KTransformers' is for; None when it is none of them."""
    for name in program.names:
        if name == "kt" and first_word(program) == "run":
            return Role.LAUNCHER
        if name == "kt" and first_word(program) in ("chat", "bench", "doctor", "config", "model", "version"):
            return Role.CLIENT if first_word(program) == "chat" else Role.TOOL
        if name in _PROGRAMS:
            return _PROGRAMS[name]
    return None


def read(program: Program, role: Role) -> Launch:
    """The settings of a server, and of a local chat, which holds the same model."""
    if "kt" in program.names:
        return Launch(role, "ktransformers")
    readings = read_flags(program.arguments, program.environment, GRAMMAR)
    launch = launch_of(readings, role, "ktransformers")
    return replace(launch, model=launch.model or readings.text("directory"), gpus=gpus_of(readings, "tp"))
