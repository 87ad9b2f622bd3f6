"""SGLang's command lines (0.5.23 arg_groups/fields/*.py, server_args.py; older spellings: 0.4.6), and
KTransformers' current ones, which are SGLang with expert weights in RAM (kt-kernel).
"""

from __future__ import annotations

import re
from dataclasses import replace

from exporter.engines.launch import values
from exporter.engines.launch.common import first_word, gpus_of, image_version, launch_of, link_of
from exporter.engines.launch.facts import Launch, Role
from exporter.engines.launch.flags import ARGPARSE, Grammar, read_flags, switch, value, vocabulary
from exporter.engines.launch.program import Program

_MODULES = {
    "sglang.launch_server": Role.SERVER,
    "sglang.srt.entrypoints.http_server": Role.SERVER,
    "sglang_router.launch_server": Role.SERVER,
    "dynamo.sglang": Role.SERVER,
    "sglang.bench_serving": Role.CLIENT,
    "sglang.profiler": Role.CLIENT,
    "bench_serving": Role.CLIENT,
    "bench_one_batch": Role.TOOL,
    "bench_offline_throughput": Role.TOOL,
    "sglang.global_config": Role.TOOL,
    "sglang.bench_one_batch": Role.TOOL,
    "sglang.bench_one_batch_server": Role.TOOL,
    "sglang.bench_offline_throughput": Role.TOOL,
    "sglang.compile_deep_gemm": Role.TOOL,
    "sglang.check_env": Role.TOOL,
    "sglang_router.launch_router": Role.ROUTER,
    "sglang.srt.disaggregation.mini_lb": Role.ROUTER,
    "sglang.srt.disaggregation.launch_lb": Role.ROUTER,
    "sglang-router": Role.ROUTER,
    "sgl-router": Role.ROUTER,
    "sgl-model-gateway": Role.ROUTER,
    "smg": Role.ROUTER,
}
_SUBCOMMANDS = {"serve": Role.SERVER, "generate": Role.TOOL, "version": Role.TOOL, "bench": Role.CLIENT}
_BY_SUBCOMMAND = frozenset({"sglang", "sglang.cli.main", "sglang.__main__"})
_TITLE = re.compile(r"(?:sglang|sgl_diffusion)::[A-Za-z_ ]+[A-Za-z0-9_ :.-]{0,96}", re.ASCII)
_HALF = values.or_nothing(values.one_of("prefill", "decode"))

GRAMMAR = Grammar(
    ARGPARSE,
    (
        value("model", values.model, "--model-path", "--model"),
        value("served_model", values.text_of, "--served-model-name"),
        value("tp", values.size, "--tp-size", "--tensor-parallel-size"),
        value("pp", values.size, "--pp-size", "--pipeline-parallel-size"),
        value("dp", values.size, "--dp-size", "--data-parallel-size"),
        value("attention_dp", values.size, "--attn-dp-size"),
        value("ep", values.size, "--ep-size", "--expert-parallel-size", "--ep"),
        value("dcp", values.size, "--dcp-size", "--decode-context-parallel-size"),
        value("moe_dense_tp", values.size, "--moe-dense-tp-size"),
        value("redundant_experts", values.integer(0), "--ep-num-redundant-experts"),
        switch("dp_lm_head", "--enable-dp-lm-head"),
        value("chunked_prefill", values.human_integer(-1), "--chunked-prefill-size"),
        switch("expert_parallel", "--enable-ep-moe"),
        switch("dp_attention", "--enable-dp-attention"),
        value("nodes", values.size, "--nnodes"),
        value("node_rank", values.integer(0, 65535), "--node-rank"),
        value("rendezvous", values.or_nothing(values.host), "--dist-init-addr", "--nccl-init-addr"),
        value("all_to_all", values.or_nothing(values.word), "--moe-a2a-backend"),
        switch("all_to_all", "--enable-deepep-moe", constant="deepep"),
        value("disaggregation", _HALF, "--disaggregation-mode"),
        value("dtype", values.word, "--dtype"),
        value("quantization", values.word, "--quantization"),
        value("kv_cache_dtype", values.word, "--kv-cache-dtype"),
        value("max_model_len", values.human_integer(1), "--context-length"),
        value("max_num_seqs", values.human_integer(1), "--max-running-requests"),
        value("kv_pool_tokens", values.human_integer(1), "--max-total-tokens"),
        value("kv_block_size", values.integer(1), "--page-size"),
        value("memory_fraction", values.fraction, "--mem-fraction-static"),
        value("cpu_offload_gb", values.gigabytes, "--cpu-offload-gb"),
        switch("hicache", "--enable-hierarchical-cache", "--enable-hicache"),
        value("hicache_ratio", values.number(0, 1024), "--hicache-ratio"),
        value("hicache_size_gb", values.gigabytes, "--hicache-size"),
        switch("enforce_eager", "--disable-cuda-graph"),
        value("spec_method", values.word, "--speculative-algorithm"),
        value("spec_model", values.model, "--speculative-draft-model-path", "--speculative-draft-model"),
        value("spec_steps", values.integer(0, 4096), "--speculative-num-steps"),
        value("spec_topk", values.integer(0, 4096), "--speculative-eagle-topk"),
        value("spec_draft_tokens", values.integer(0, 4096), "--speculative-num-draft-tokens"),
        value("kt_weight_path", values.model, "--kt-weight-path", "--kt-amx-weight-path"),
        value("kt_method", values.word, "--kt-method", "--kt-amx-method"),
        value("cpu_infer", values.integer(1), "--kt-cpuinfer"),
        value("kt_num_gpu_experts", values.integer(0), "--kt-num-gpu-experts"),
        value("host", values.host, "--host"),
        value("port", values.port, "--port"),
        value("config", values.text_of, "--config"),
    ),
    others=vocabulary("sglang"),
)


def role_of(program: Program) -> Role | None:
    """What this program of SGLang's is for; None when it is none of them."""
    for name in program.names:
        if _TITLE.fullmatch(name):
            return Role.WORKER
        if name in _MODULES:
            return _MODULES[name]
        if name in _BY_SUBCOMMAND:
            return _SUBCOMMANDS.get(first_word(program), Role.NONE if name == "sglang" else None)
        if name.startswith(("sglang.bench_", "sglang.benchmark.", "sglang.test.", "sglang.eval.")):
            return Role.CLIENT
    return None


def read(program: Program, role: Role) -> Launch:
    """The settings of a server; of the others only what they are."""
    if role is not Role.SERVER:
        return Launch(role, "sglang")
    readings = read_flags(program.arguments, program.environment, GRAMMAR)
    launch = launch_of(readings, role, "sglang")
    notes = []
    if readings.text("config") is not None:
        notes.append(
            "a configuration file is named on the line and not read; the line's own flags win over it"
        )
    dp, dp_attention = launch.dp, launch.dp_attention
    attention_dp = readings.integer("attention_dp")
    replicas = () if dp_attention else ("dp",)
    gpus = gpus_of(readings, "tp", "pp", *replicas)
    if attention_dp is not None and attention_dp > 1:
        # --attn-dp-size splits attention inside tp; --dp-size beside it counts whole replicas
        # (arg_groups/parallel_hook.py).
        dp, dp_attention = attention_dp, True
    ep = launch.ep
    if ep is None and readings.flag("expert_parallel"):
        ep = launch.tp or 1
        notes.append("ep follows from --enable-ep-moe: tp")
    offload = launch.offload
    if offload is not None and not readings.flag("hicache"):
        offload = replace(offload, hicache_ratio=None, hicache_size_gb=None)
    kt = offload is not None and offload.kt_weight_path is not None
    return replace(
        launch,
        engine="ktransformers" if kt else "sglang",
        engine_version=None if kt else image_version(program),
        dp=dp,
        dp_attention=dp_attention,
        ep=ep,
        gpus=gpus,
        offload=offload,
        link=link_of(program, readings.text("rendezvous")),
        notes=(*launch.notes, *notes),
    )
