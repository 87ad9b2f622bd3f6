"""Ollama: the server, whose settings stand in variables (envconfig/config.go), and four generations of its
runner: `ollama_llama_server` (2024), `ollama runner` (2025, with flags or without) and llama-server (since
May 2026, llm/llama_server.go).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath

from exporter.engines.launch import values
from exporter.engines.launch.common import first_word, image_version, launch_of
from exporter.engines.launch.facts import Launch, Role
from exporter.engines.launch.flags import GO, Grammar, optional, read_flags, switch, value
from exporter.engines.launch.llamacpp import read_server
from exporter.engines.launch.program import Program

_SUBCOMMANDS = {
    "serve": Role.SERVER,
    "start": Role.SERVER,
    "runner": Role.WORKER,
    "run": Role.CLIENT,
    "launch": Role.CLIENT,
    **dict.fromkeys(
        ("pull", "push", "list", "ls", "ps", "show", "create", "cp", "rm", "stop", "signin", "signout"),
        Role.CLIENT,
    ),
}
_BLOB = re.compile(r".*/blobs/sha256-[0-9a-f]{64}", re.ASCII)

SERVER_GRAMMAR = Grammar(
    GO,
    (
        value("address", values.text_of, env=("OLLAMA_HOST",)),
        value("max_model_len", values.integer(0), env=("OLLAMA_CONTEXT_LENGTH",)),
        value("max_num_seqs", values.integer(0), env=("OLLAMA_NUM_PARALLEL",)),
        value("cache_type_k", values.word, env=("OLLAMA_KV_CACHE_TYPE",)),
        value("flash_attention", values.boolean, env=("OLLAMA_FLASH_ATTENTION",)),
    ),
)
RUNNER_GRAMMAR = Grammar(
    GO,
    (
        value("model", values.model, "--model"),
        value("max_model_len", values.integer(0), "--ctx-size"),
        value("max_num_seqs", values.integer(0), "--parallel"),
        value("gpu_layers", values.layers, "--n-gpu-layers"),
        value("tensor_split", values.numbers, "--tensor-split"),
        value("cache_type_k", values.word, "--kv-cache-type", "--cache-type-k"),
        value("cache_type_v", values.word, "--cache-type-v"),
        optional("flash_attention", values.boolean, True, "--flash-attn"),
        switch("mmap", "--no-mmap", constant=False),
        switch("mlock", "--mlock"),
        value("port", values.port, "--port"),
        value("host", values.host, "--host"),
    ),
)


def role_of(program: Program) -> Role | None:
    """What this program of Ollama's is for; None when it is none of them."""
    for name in program.names:
        if name == "ollama":
            if program.image and not program.arguments:
                return Role.SERVER
            return _SUBCOMMANDS.get(first_word(program), Role.NONE)
        if name == "ollama_llama_server" or (name == "llama-server" and _is_ours(program)):
            return Role.WORKER
    return None


def _is_ours(program: Program) -> bool:
    """llama-server from Ollama's own folder, or on a blob as only Ollama starts it."""
    if "ollama" in PurePosixPath(program.path).parts[:-1]:
        return True
    return "--offline" in program.arguments and any(_BLOB.fullmatch(one) for one in program.arguments)


def read(program: Program, role: Role) -> Launch:
    """A server's variables, or what its runner was started with."""
    if role is Role.SERVER:
        return _server(program)
    if role is not Role.WORKER:
        return Launch(role, "ollama")
    if "llama-server" in program.names:
        return replace(
            read_server(program, program.arguments, role), engine="ollama", variant=None, gpus=None
        )
    arguments = program.arguments[1:] if "ollama" in program.names else program.arguments
    readings = read_flags(arguments, {}, RUNNER_GRAMMAR)
    launch = launch_of(readings, role, "ollama")
    return replace(
        launch,
        cache_type_v=launch.cache_type_v or launch.cache_type_k,
        max_model_len=launch.max_model_len or None,
        max_num_seqs=launch.max_num_seqs or None,
    )


def _server(program: Program) -> Launch:
    readings = read_flags((), program.environment, SERVER_GRAMMAR)
    launch = launch_of(readings, Role.SERVER, "ollama")
    host, port = _address(readings.text("address"))
    notes = ("the server's settings are defaults for every model; a model's own options may differ",)
    return replace(
        launch,
        engine_version=image_version(program),
        cache_type_v=launch.cache_type_k,
        max_model_len=launch.max_model_len or None,
        max_num_seqs=launch.max_num_seqs or None,
        host=host,
        port=port,
        notes=notes,
    )


def _address(said: str | None) -> tuple[str | None, int | None]:
    """OLLAMA_HOST as envconfig.Host reads it: scheme and path are dropped, http and https have their own
    ports.
    """
    if said is None:
        return None, None
    scheme, marker, rest = said.partition("://")
    if not marker:
        scheme, rest = "", said
    rest = rest.partition("/")[0].strip("\"' ")
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^:]*)(?::([0-9]{1,5}))?", rest, re.ASCII)
    if match is None:
        host, port = rest, None
    else:
        host, port = match[1].strip("[]"), int(match[2]) if match[2] else None
    if port is None or port > 65535:
        port = {"http": 80, "https": 443}.get(scheme)
    try:
        named = values.host(host) if host else None
    except ValueError:
        named = None
    return (named if isinstance(named, str) else None), port
