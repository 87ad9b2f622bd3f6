"""TensorRT-LLM's command lines (tensorrt_llm/commands/serve.py; click takes no abbreviations)."""

from __future__ import annotations

from dataclasses import replace

from exporter.engines.launch import values
from exporter.engines.launch.common import first_word, gpus_of, image_version, launch_of
from exporter.engines.launch.facts import Launch, Role
from exporter.engines.launch.flags import CLICK, Arity, Grammar, Vocabulary, read_flags, value
from exporter.engines.launch.program import Program

_PROGRAMS = frozenset({"trtllm-serve", "tensorrt_llm.commands.serve"})
_SUBCOMMANDS = {
    "serve": Role.SERVER,
    "mm_embedding_serve": Role.SERVER,
    "disaggregated": Role.ROUTER,
    "disaggregated_mpi_worker": Role.WORKER,
}
_TOOLS = {
    "trtllm-bench": Role.TOOL,
    "trtllm-build": Role.TOOL,
    "trtllm-eval": Role.TOOL,
    "trtllm-prune": Role.TOOL,
    "trtllm-refit": Role.TOOL,
    "tensorrt_llm.serve.scripts.benchmark_serving": Role.CLIENT,
    "dynamo.trtllm": Role.SERVER,
}
_SWITCHES = (
    "--trust-remote-code",
    "--enable-chunked-prefill",
    "--fail-fast-on-attention-window-too-large",
    "--grpc",
)

GRAMMAR = Grammar(
    CLICK,
    (
        value("tp", values.size, "--tp-size", "--tensor-parallel-size"),
        value("pp", values.size, "--pp-size", "--pipeline-parallel-size"),
        value("context", values.size, "--cp-size", "--context-parallel-size"),
        value("ep", values.size, "--ep-size", "--moe-expert-parallel-size"),
        value("max_model_len", values.integer(1), "--max-seq-len"),
        value("max_num_seqs", values.integer(1), "--max-batch-size"),
        value("max_num_batched_tokens", values.integer(1), "--max-num-tokens"),
        value("kv_cache_dtype", values.word, "--kv-cache-dtype"),
        value(
            "memory_fraction",
            values.fraction,
            "--kv-cache-free-gpu-memory-fraction",
            "--free-gpu-memory-fraction",
        ),
        value("options", values.text_of, "--extra-llm-api-options", "--config"),
        value("served_model", values.text_of, "--served-model-name"),
        value("model", values.model, "--model"),
        value("host", values.host, "--host"),
        value("port", values.port, "--port"),
    ),
    positionals=(value("model", values.model, "model"),),
    others=Vocabulary(dict.fromkeys(_SWITCHES, Arity.SWITCH), frozenset(), frozenset()),
)


def role_of(program: Program) -> Role | None:
    """What this program of TensorRT-LLM's is for; None when it is none of them."""
    for name in program.names:
        if name in _PROGRAMS:
            # Its first word is a sub-command only when it is a known one: else it is the model.
            return _SUBCOMMANDS.get(first_word(program), Role.SERVER if program.arguments else Role.NONE)
        if name in _TOOLS:
            return _TOOLS[name]
    return None


def read(program: Program, role: Role) -> Launch:
    """The settings of a server; of the others only what they are."""
    if role is not Role.SERVER:
        return Launch(role, "tensorrt-llm")
    arguments = program.arguments
    if first_word(program) in _SUBCOMMANDS:
        arguments = arguments[1:]
    readings = read_flags(arguments, program.environment, GRAMMAR)
    launch = launch_of(readings, role, "tensorrt-llm")
    notes = []
    if readings.text("options") is not None:
        notes.append("an options file is named on the line and not read; it wins over the line's own flags")
    if launch.memory_fraction is not None:
        notes.append("memory_fraction is a part of what is free after the weights")
    return replace(
        launch,
        engine_version=image_version(program),
        gpus=gpus_of(readings, "tp", "pp", "context"),
        notes=(*launch.notes, *notes),
    )
