"""vLLM's command lines (0.33.0 engine/arg_utils.py, entrypoints/common/cli_args.py, entrypoints/cli/*.py;
older spellings: 0.6.6).
"""

from __future__ import annotations

import re
from dataclasses import replace

from exporter.engines.launch import values
from exporter.engines.launch.common import first_word, gpus_of, image_version, launch_of, link_of, product
from exporter.engines.launch.facts import Launch, Role, Speculative
from exporter.engines.launch.flags import (
    FLEXIBLE,
    Grammar,
    first_of,
    json_object,
    read_flags,
    switch,
    toggles,
    value,
    vocabulary,
)
from exporter.engines.launch.program import Program

_SUBCOMMANDS = {
    "serve": Role.SERVER,
    "chat": Role.CLIENT,
    "complete": Role.CLIENT,
    "bench": Role.TOOL,
    "run-batch": Role.TOOL,
    "collect-env": Role.TOOL,
    "launch": Role.INFRASTRUCTURE,
    "snapshot": Role.TOOL,
}
_MODULES = {
    "vllm.entrypoints.openai.api_server": Role.SERVER,
    "vllm.entrypoints.api_server": Role.SERVER,
    "vllm.entrypoints.grpc_server": Role.SERVER,
    "vllm.entrypoints.openai.run_batch": Role.TOOL,
    "dynamo.vllm": Role.SERVER,
    "vllm-rs": Role.WORKER,
    "benchmark_serving": Role.CLIENT,
    "benchmark_serving.py": Role.CLIENT,
    "benchmark_throughput.py": Role.TOOL,
    "benchmark_latency.py": Role.TOOL,
}
_BY_SUBCOMMAND = frozenset({"vllm", "vllm.entrypoints.cli.main", "vllm.scripts", "vllm.__main__"})
_TITLE = re.compile(
    r".{0,64}::(?:EngineCore|Worker|DPCoordinator|APIServer|DPSupervisor)(?:_[A-Z]+[0-9]+|_[0-9]+)*|"
    r"ray::RayWorkerProc.{0,80}|Xinf vLLM worker: [0-9]+",
    re.ASCII,
)
"""Titles that vLLM gives its children; the prefix is VLLM_PROCESS_NAME_PREFIX (utils/system_utils.py)."""

_SPECULATIVE = {
    "method": ("spec_method", values.text_of),
    "model": ("spec_model", values.model),
    "num_speculative_tokens": ("spec_tokens", values.integer(0, 4096)),
}

_KV_ROLE = {"kv_role": ("kv_role", values.word)}
_HALVES = {"kv_producer": "prefill", "kv_consumer": "decode"}
"""config/kv_transfer.py; of a server that may be both it is not known which half it does."""


def _half(text: str) -> str:
    try:
        return _HALVES.get(str(values.json_parts(text, _KV_ROLE).get("kv_role")), "")
    except ValueError:
        return ""


_EXPERTS = {"num_redundant_experts": ("redundant_experts", values.integer(0))}
_ATTENTION = {"use_fp4_indexer_cache": ("fp4_indexer", values.boolean)}

GRAMMAR = Grammar(
    FLEXIBLE,
    (
        value("model", values.model, "--model"),
        first_of("served_model", values.text_of, "--served-model-name"),
        value("tp", values.size, "--tensor-parallel-size", "-tp"),
        value("pp", values.size, "--pipeline-parallel-size", "-pp"),
        value("dp", values.size, "--data-parallel-size", "-dp"),
        value("prefill_context", values.size, "--prefill-context-parallel-size", "-pcp"),
        value("dcp", values.size, "--decode-context-parallel-size", "-dcp"),
        *toggles("expert_parallel", "--enable-expert-parallel", "-ep"),
        value("dp_local", values.size, "--data-parallel-size-local", "-dpl"),
        value("dp_rank", values.integer(0, 65535), "--data-parallel-start-rank", "-dpr"),
        value(
            "all_to_all", values.or_nothing(values.word), "--all2all-backend", env=("VLLM_ALL2ALL_BACKEND",)
        ),
        value("disaggregation", _half, "--kv-transfer-config"),
        value("rendezvous", values.or_nothing(values.host), "--master-addr"),
        value("dp_rendezvous", values.or_nothing(values.host), "--data-parallel-address", "-dpa"),
        value("nodes", values.size, "--nnodes", "-n"),
        value("node_rank", values.integer(0, 65535), "--node-rank", "-r"),
        switch("headless", "--headless"),
        value("dtype", values.word, "--dtype"),
        value("quantization", values.word, "--quantization", "-q"),
        value("kv_cache_dtype", values.word, "--kv-cache-dtype"),
        value("max_model_len", values.length, "--max-model-len"),
        value("max_num_seqs", values.human_integer(1), "--max-num-seqs"),
        value("max_num_batched_tokens", values.human_integer(1), "--max-num-batched-tokens"),
        value("kv_block_size", values.integer(1), "--block-size"),
        value("memory_fraction", values.fraction, "--gpu-memory-utilization", "--device-memory-utilization"),
        value(
            "kv_cache_bytes", values.human_integer(1, 2**53), "--kv-cache-memory-bytes", "--kv-cache-memory"
        ),
        value("cpu_offload_gb", values.gigabytes, "--cpu-offload-gb"),
        value("swap_space_gb", values.gigabytes, "--swap-space"),
        value("kv_offload_gb", values.gigabytes, "--kv-offloading-size"),
        *toggles("enforce_eager", "--enforce-eager"),
        json_object("speculative", _SPECULATIVE, "--speculative-config", "-sc"),
        json_object("experts", _EXPERTS, "--eplb-config"),
        value("redundant_experts", values.integer(0), "--num-redundant-experts"),
        json_object("attention", _ATTENTION, "--attention-config", "-ac"),
        value("spec_method", values.text_of, "--spec-method"),
        value("spec_model", values.model, "--spec-model", "--speculative-model"),
        value("spec_tokens", values.integer(0, 4096), "--spec-tokens", "--num-speculative-tokens"),
        value("host", values.host, "--host"),
        value("port", values.port, "--port"),
        value("socket", values.text_of, "--uds"),
        value("config", values.text_of, "--config"),
    ),
    positionals=(value("model", values.model, "model"),),
    others=vocabulary("vllm"),
)


def role_of(program: Program) -> Role | None:
    """What this program of vLLM's is for; None when it is none of them."""
    for name in program.names:
        if _TITLE.fullmatch(name):
            return Role.WORKER
        if name in _BY_SUBCOMMAND:
            if program.arguments[:2] == ("bench", "serve"):
                return Role.CLIENT
            return _SUBCOMMANDS.get(first_word(program), Role.NONE if name == "vllm" else None)
        if name in _MODULES:
            return _MODULES[name]
        if name.startswith("vllm.benchmarks."):
            return Role.CLIENT if name.endswith("serve") else Role.TOOL
    return None


def read(program: Program, role: Role) -> Launch:
    """The settings of a server; of the others only what they are."""
    if role is not Role.SERVER:
        return Launch(role, "vllm")
    arguments = program.arguments
    if not _BY_SUBCOMMAND.isdisjoint(program.names):
        arguments = arguments[1:]
    readings = read_flags(arguments, program.environment, GRAMMAR)
    launch = launch_of(readings, role, "vllm")
    notes = []
    if readings.text("config") is not None:
        notes.append(
            "a configuration file is named on the line and not read; the line's own flags win over it"
        )
    ep = None
    if readings.flag("expert_parallel"):
        ep = product(launch.tp, launch.dp, readings.integer("prefill_context"))
        notes.append("ep follows from --enable-expert-parallel: tp x dp")
    listens = readings.text("socket") is None and not readings.flag("headless")
    return replace(
        launch,
        engine_version=image_version(program),
        ep=ep,
        link=link_of(program, readings.text("rendezvous") or readings.text("dp_rendezvous")),
        gpus=gpus_of(readings, "tp", "pp", "dp", "prefill_context"),
        quantization=None if launch.quantization in ("None", "none") else launch.quantization,
        speculative=_speculative(launch.speculative),
        host=launch.host if listens else None,
        port=launch.port if listens else None,
        notes=(*launch.notes, *notes),
    )


def _speculative(said: Speculative | None) -> Speculative | None:
    """`--speculative-model [ngram]` names a method of 0.6 and no model."""
    if said is not None and said.draft_model in ("[ngram]", "ngram"):
        return replace(said, method=said.method or "ngram", draft_model=None)
    return said
