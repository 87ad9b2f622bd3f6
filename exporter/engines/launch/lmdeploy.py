"""LMDeploy's command lines (0.18.0 cli/serve.py, cli/utils.py, pytorch/config.py)."""

from __future__ import annotations

from dataclasses import replace

from exporter.engines.launch import values
from exporter.engines.launch.common import first_word, gpus_of, image_version, launch_of
from exporter.engines.launch.facts import Launch, Role
from exporter.engines.launch.flags import ARGPARSE, Grammar, read_flags, switch, value, vocabulary
from exporter.engines.launch.program import Program

_PROGRAMS = frozenset({"lmdeploy", "lmdeploy.__main__", "lmdeploy.cli"})
_SERVES = {"api_server": Role.SERVER, "gradio": Role.SERVER, "proxy": Role.ROUTER}
_MODULES = {"lmdeploy.serve.openai.api_server": Role.SERVER, "lmdeploy.serve.proxy.proxy": Role.ROUTER}
_KV_TYPES = {
    "0": None,
    "none": None,
    "4": "int4",
    "int4": "int4",
    "8": "int8",
    "int8": "int8",
    "16": "fp8",
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "17": "fp8_e5m2",
    "fp8_e5m2": "fp8_e5m2",
    "42": "turbo",
    "turbo_quant": "turbo",
    "turbo": "turbo",
}
"""--quant-policy (messages.py, QuantPolicy): what the cache is kept in."""

GRAMMAR = Grammar(
    ARGPARSE,
    (
        value("model_name", values.text_of, "--model-name"),
        value("backend", values.word, "--backend"),
        value("tp", values.size, "--tp"),
        value("dp", values.size, "--dp"),
        value("ep", values.size, "--ep"),
        value("nodes", values.size, "--nnodes"),
        value("node_rank", values.integer(0, 65535), "--node-rank"),
        value("dtype", values.word, "--dtype"),
        value("quantization", values.word, "--model-format"),
        value("policy", values.word, "--quant-policy"),
        value("max_model_len", values.integer(1), "--session-len"),
        value("max_num_seqs", values.integer(1), "--max-batch-size"),
        value("memory_fraction", values.number(0, 1), "--cache-max-entry-count"),
        value("kv_block_size", values.integer(1), "--cache-block-seq-len"),
        switch("enforce_eager", "--eager-mode"),
        value("spec_method", values.word, "--speculative-algorithm"),
        value("spec_model", values.model, "--speculative-draft-model"),
        value("spec_tokens", values.integer(0, 4096), "--speculative-num-draft-tokens"),
        value("host", values.host, "--server-name"),
        value("port", values.port, "--server-port"),
    ),
    positionals=(value("model", values.model, "model"),),
    others=vocabulary("lmdeploy"),
)


def role_of(program: Program) -> Role | None:
    """What this program of LMDeploy's is for; None when it is none of them."""
    for name in program.names:
        if name in _MODULES:
            return _MODULES[name]
        if name in _PROGRAMS:
            if first_word(program) == "serve":
                return _SERVES.get(program.arguments[1] if len(program.arguments) > 1 else "", Role.NONE)
            return Role.TOOL if first_word(program) else Role.NONE
    return None


def read(program: Program, role: Role) -> Launch:
    """The settings of a server; of the others only what they are."""
    if role is not Role.SERVER:
        return Launch(role, "lmdeploy")
    arguments = program.arguments
    if not _PROGRAMS.isdisjoint(program.names):
        arguments = arguments[2:]
    readings = read_flags(arguments, program.environment, GRAMMAR)
    launch = launch_of(readings, role, "lmdeploy")
    # PyTorch: dp and ep live inside the world (DistConfig); TurboMind: every dp replica has tp devices.
    inside = readings.text("backend") == "pytorch" or (launch.ep or 1) > 1
    gpus = max(launch.tp or 1, launch.ep or 1, launch.dp or 1) if inside else gpus_of(readings, "tp", "dp")
    quantization = None if launch.quantization == "hf" else launch.quantization
    return replace(
        launch,
        engine_version=image_version(program),
        served_model=readings.text("model_name"),
        quantization=quantization,
        kv_cache_dtype=_KV_TYPES.get((readings.text("policy") or "0").lower()),
        gpus=gpus,
        notes=(*launch.notes, "memory_fraction is a part of what is free after the weights")
        if launch.memory_fraction is not None
        else launch.notes,
    )
