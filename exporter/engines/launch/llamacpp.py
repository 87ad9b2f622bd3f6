"""Command lines of llama.cpp (b11434 common/arg.cpp and older spellings), of its fork ik_llama.cpp
(common/common.cpp) and of llama-cpp-python's server (llama_cpp/server/settings.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from exporter.engines.launch import values
from exporter.engines.launch.common import first_word, launch_of, visible_gpus
from exporter.engines.launch.facts import Launch, Role, Speculative
from exporter.engines.launch.flags import (
    ARGPARSE,
    LLAMA_CPP,
    Arity,
    Flag,
    Grammar,
    Readings,
    appended,
    optional,
    read_flags,
    switch,
    value,
)
from exporter.engines.launch.program import Program, programs
from exporter.units import MIB

_CHATS = frozenset({"llama-cli", "main", "llama-simple-chat", "llama-completion"})
"""Tools that take the server's flags and hold a model while they run."""

_SUBCOMMANDS = {
    "serve": Role.SERVER,
    "server": Role.SERVER,
    "cli": Role.TOOL,
    "chat": Role.TOOL,
    "bench": Role.TOOL,
}
_DOCKER = {"--server": Role.SERVER, "-s": Role.SERVER, "--run": Role.TOOL, "-r": Role.TOOL}
_FORK = (
    *("-fmoe", "--fused-moe", "-no-fmoe", "--no-fused-moe", "-amb", "--attention-max-batch", "-rtr"),
    *("--run-time-repack", "-ser", "--smart-expert-reduction", "-mqkv", "--merge-qkv", "-muge", "-gr"),
    *("--merge-up-gate-experts", "--graph-reuse", "-ger", "--grouped-expert-routing", "-khad", "-smgs"),
    *("--k-cache-hadamard", "--split-mode-graph-scheduling", "-cuda", "--cuda-params", "-ooae", "-vq"),
)
"""Flags that only ik_llama.cpp has."""


def _flash(text: str) -> bool | str:
    word = text.strip().lower()
    return word if word == "auto" else values.boolean(word)


def _alias(text: str) -> str:
    return values.text_of(text.partition(",")[0])


def _load_mode(text: str) -> str:
    found = text.strip().lower()
    if found not in ("auto", "none", "mmap", "mlock", "mmap+mlock", "dio"):
        raise ValueError("not a load mode")
    return found


def _numa(text: str) -> str:
    found = text.strip().lower() or "distribute"
    if found not in ("distribute", "isolate", "numactl"):
        raise ValueError("not a NUMA strategy")
    return found


def _env(name: str) -> tuple[str, ...]:
    return (f"LLAMA_ARG_{name}",)


_FLAGS = (
    value("model", values.model, "-m", "--model", env=_env("MODEL")),
    value("hub", values.model, "-hf", "-hfr", "--hf-repo", env=_env("HF_REPO")),
    value("file", values.model, "-hff", "--hf-file", env=_env("HF_FILE")),
    value("url", values.model, "-mu", "--model-url", env=_env("MODEL_URL")),
    value("registry", values.model, "-dr", "--docker-repo", env=_env("DOCKER_REPO")),
    value("served_model", _alias, "-a", "--alias", env=_env("ALIAS")),
    value(
        "models",
        values.text_of,
        "--models-dir",
        "--models-preset",
        env=("LLAMA_ARG_MODELS_DIR", "LLAMA_ARG_MODELS_PRESET"),
    ),
    value("max_model_len", values.integer(-1), "-c", "--ctx-size", env=_env("CTX_SIZE")),
    value("max_num_seqs", values.integer(-1), "-np", "--parallel", env=_env("N_PARALLEL")),
    value("micro_batch", values.integer(1), "-ub", "--ubatch-size", env=_env("UBATCH")),
    value("gpu_layers", values.layers, "-ngl", "--gpu-layers", "--n-gpu-layers", env=_env("N_GPU_LAYERS")),
    appended("override_tensor", values.text_of, ",", "-ot", "--override-tensor", env=_env("OVERRIDE_TENSOR")),
    switch("cpu_moe", "-cmoe", "--cpu-moe", env=_env("CPU_MOE")),
    value("n_cpu_moe", values.integer(0), "-ncmoe", "--n-cpu-moe", env=_env("N_CPU_MOE")),
    switch("kv_offload", "-nkvo", "--no-kv-offload", constant=False, env=_env("NO_KV_OFFLOAD")),
    switch("kv_offload", "-kvo", "--kv-offload", env=_env("KV_OFFLOAD")),
    value("tensor_split", values.numbers, "-ts", "--tensor-split", env=_env("TENSOR_SPLIT")),
    value("split_mode", values.word, "-sm", "--split-mode", env=_env("SPLIT_MODE")),
    value("rpc", values.addresses, "--rpc", env=_env("RPC")),
    value("device", values.text_of, "-dev", "--device", env=_env("DEVICE")),
    value("cache_type_k", values.word, "-ctk", "--cache-type-k", env=_env("CACHE_TYPE_K")),
    value("cache_type_v", values.word, "-ctv", "--cache-type-v", env=_env("CACHE_TYPE_V")),
    optional("flash_attention", _flash, True, "-fa", "--flash-attn", env=_env("FLASH_ATTN")),
    switch("flash_attention", "-no-fa", "--no-flash-attn", constant=False),
    switch("kv_unified", "-kvu", "--kv-unified", env=_env("KV_UNIFIED")),
    switch("kv_unified", "-no-kvu", "--no-kv-unified", constant=False, env=_env("NO_KV_UNIFIED")),
    value("sleep_idle_seconds", values.integer(-1), "--sleep-idle-seconds"),
    value("numa", _numa, "--numa", env=_env("NUMA")),
    switch("mmap", "--mmap", env=_env("MMAP")),
    switch("mmap", "--no-mmap", constant=False, env=_env("NO_MMAP")),
    switch("mlock", "--mlock", env=_env("MLOCK")),
    value("load_mode", _load_mode, "-lm", "--load-mode", env=_env("LOAD_MODE")),
    switch("repack", "-nr", "--no-repack", constant=False, env=_env("NO_REPACK")),
    switch("repack", "--repack", env=_env("REPACK")),
    switch("swa_full", "--swa-full", env=_env("SWA_FULL")),
    value("cache_ram_mib", values.integer(-1), "-cram", "--cache-ram", env=_env("CACHE_RAM")),
    value(
        "spec_model",
        values.model,
        "-md",
        "--model-draft",
        "--spec-draft-model",
        env=("LLAMA_ARG_SPEC_DRAFT_MODEL", "LLAMA_ARG_MODEL_DRAFT"),
    ),
    value(
        "spec_hub",
        values.model,
        "-hfd",
        "-hfrd",
        "--hf-repo-draft",
        "--spec-draft-hf",
        env=("LLAMA_ARG_SPEC_DRAFT_HF_REPO", "LLAMA_ARG_HFD_REPO"),
    ),
    value(
        "spec_tokens",
        values.integer(0, 4096),
        "--draft",
        "--draft-n",
        "--draft-max",
        "--spec-draft-n-max",
        env=("LLAMA_ARG_SPEC_DRAFT_N_MAX", "LLAMA_ARG_DRAFT_MAX"),
    ),
    value("spec_method", values.word, "--spec-type", env=_env("SPEC_TYPE")),
    value("mla", values.integer(0, 3), "-mla", "--mla-use"),
    switch("fork", *_FORK),
    value("host", values.host, "--host", env=_env("HOST")),
    value("port", values.port, "--port", env=_env("PORT")),
)
GRAMMAR = Grammar(LLAMA_CPP, _FLAGS)


def _python(name: str, reader: values.Reader, field: str) -> Flag:
    return value(field, reader, f"--{name}", env=(name.upper(),))


PYTHON_GRAMMAR = Grammar(
    ARGPARSE,
    (
        _python("model", values.model, "model"),
        _python("model_alias", values.text_of, "served_model"),
        _python("hf_model_repo_id", values.model, "hub"),
        _python("n_ctx", values.integer(0), "max_model_len"),
        _python("n_ubatch", values.integer(1), "micro_batch"),
        _python("n_gpu_layers", values.layers, "gpu_layers"),
        Flag(
            "tensor_split",
            ("--tensor_split",),
            values.numbers,
            Arity.LIST,
            separator=",",
            env=("TENSOR_SPLIT",),
        ),
        _python("rpc_servers", values.addresses, "rpc"),
        _python("type_k", values.integer(0, 255), "type_k"),
        _python("type_v", values.integer(0, 255), "type_v"),
        _python("flash_attn", values.boolean, "flash_attention"),
        _python("offload_kqv", values.boolean, "kv_offload"),
        _python("use_mmap", values.boolean, "mmap"),
        _python("use_mlock", values.boolean, "mlock"),
        _python("draft_model", values.word, "spec_method"),
        _python("draft_model_num_pred_tokens", values.integer(0, 4096), "spec_tokens"),
        _python("config_file", values.text_of, "config"),
        _python("host", values.host, "host"),
        _python("port", values.port, "port"),
    ),
)
_GGML_TYPES = {
    0: "f32",
    1: "f16",
    2: "q4_0",
    3: "q4_1",
    6: "q5_0",
    7: "q5_1",
    8: "q8_0",
    20: "iq4_nl",
    30: "bf16",
}
"""Numbers of ggml.h's ggml_type, which llama-cpp-python takes for cache types."""


def role_of(program: Program) -> Role | None:
    """What this program of llama.cpp's is for; None when it is none of them."""
    for name in program.names:
        if name == "llama_cpp.server" or re.fullmatch(r"llama-server(?:-[a-z0-9_.-]{1,32})?", name, re.ASCII):
            return Role.SERVER
        if name in ("rpc-server", "llama-rpc-server", "ggml-rpc-server"):
            return Role.WORKER
        if name.startswith("llama-") and name in programs("tool"):
            return Role.TOOL
        if name in ("llama", "llama-app"):
            return _SUBCOMMANDS.get(first_word(program))
        if name == "llama-tools":
            return _DOCKER.get(program.arguments[0] if program.arguments else "", Role.TOOL)
        if program.names in (("server",), ("main",)) and any(
            one.endswith(".gguf") for one in program.arguments
        ):
            return Role.SERVER if name == "server" else Role.TOOL
    return None


def read(program: Program, role: Role) -> Launch:
    """The settings of a server, and of a tool that holds a model as a server does."""
    if "llama_cpp.server" in program.names:
        return _read_python(program, role)
    if role is not Role.SERVER and _CHATS.isdisjoint(program.names):
        return Launch(role, "llama.cpp")
    return read_server(program, program.arguments, role)


def read_server(program: Program, arguments: Sequence[str], role: Role) -> Launch:
    """llama-server's own flags and LLAMA_ARG_ variables."""
    readings = read_flags(arguments, program.environment, GRAMMAR)
    launch = _common(readings, role, "llama.cpp")
    if readings.text("models") is not None and launch.model is None and role is Role.SERVER:
        role = Role.ROUTER
    mode = readings.text("load_mode")
    cache_ram = readings.integer("cache_ram_mib")
    fork = readings.flag("fork") or launch.mla is not None
    return replace(
        launch,
        role=role,
        variant="ik_llama.cpp" if fork else None,
        mmap=launch.mmap if mode is None or mode == "auto" else "mmap" in mode,
        mlock=True if mode is not None and "mlock" in mode else launch.mlock,
        cache_ram_bytes=None if cache_ram is None or cache_ram < 0 else cache_ram * MIB,
        sleep_idle_seconds=_positive(readings.integer("sleep_idle_seconds")),
        gpus=_devices(readings.text("device"), program),
    )


def _devices(said: str | None, program: Program) -> int | None:
    """GPUs of `--device CUDA0,CUDA1`, else those that the process may see."""
    if said is None:
        return visible_gpus(program)
    return 0 if said == "none" else len(said.split(","))


def _common(readings: Readings, role: Role, engine: str) -> Launch:
    launch = launch_of(readings, role, engine)
    named = [readings.text(one) for one in ("model", "hub", "url", "registry", "file")]
    speculative = launch.speculative
    draft = readings.text("spec_hub")
    if draft is not None and (speculative is None or speculative.draft_model is None):
        speculative = replace(speculative or Speculative(), draft_model=draft)
    if speculative is not None and speculative.draft_model is None and speculative.method in (None, "none"):
        # --draft-max alone says how many tokens a draft model would give, if there were one.
        speculative = None
    return replace(
        launch,
        model=next((name for name in named if name is not None), None),
        speculative=speculative,
        max_model_len=_positive(launch.max_model_len),
        max_num_seqs=_positive(launch.max_num_seqs),
    )


def _positive(count: int | None) -> int | None:
    """0 and -1 stand for the engine's choice."""
    return count if count is not None and count > 0 else None


def _read_python(program: Program, role: Role) -> Launch:
    readings = read_flags(program.arguments, program.environment, PYTHON_GRAMMAR)
    launch = _common(readings, role, "llama-cpp-python")
    types = [_GGML_TYPES.get(readings.integer(name) or 0) for name in ("type_k", "type_v")]
    said = [readings.integer(name) is not None for name in ("type_k", "type_v")]
    notes = launch.notes
    if readings.text("config") is not None:
        notes = (*notes, "a configuration file is named on the line and not read")
    return replace(
        launch,
        cache_type_k=types[0] if said[0] else None,
        cache_type_v=types[1] if said[1] else None,
        notes=notes,
        gpus=visible_gpus(program),
    )
