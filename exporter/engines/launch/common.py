"""What the engines' readers share: a launch from the values of the listed flags."""

from __future__ import annotations

import re

from exporter.engines.launch.facts import Launch, Link, Offload, Role, Speculative
from exporter.engines.launch.flags import Readings
from exporter.engines.launch.program import Program

_VERSION = re.compile(
    r":v?([0-9]{1,3}(?:\.[0-9]{1,4}){1,3}(?:\.?(?:post|rc)[0-9]{1,3})?)(?![0-9.])", re.ASCII
)


def launch_of(readings: Readings, role: Role, engine: str) -> Launch:
    """The fields that bear the name of a reading; each engine adds what follows from them."""
    r = readings
    return Launch(
        role=role,
        engine=engine,
        model=r.text("model"),
        served_model=r.text("served_model"),
        quantization=r.text("quantization"),
        dtype=r.text("dtype"),
        kv_cache_dtype=r.text("kv_cache_dtype"),
        cache_type_k=r.text("cache_type_k"),
        cache_type_v=r.text("cache_type_v"),
        tp=r.integer("tp"),
        pp=r.integer("pp"),
        dp=r.integer("dp"),
        ep=r.integer("ep"),
        dp_attention=r.flag("dp_attention"),
        nodes=r.integer("nodes"),
        node_rank=r.integer("node_rank"),
        gpus=r.integer("gpus"),
        max_model_len=r.integer("max_model_len"),
        max_num_seqs=r.integer("max_num_seqs"),
        max_num_batched_tokens=r.integer("max_num_batched_tokens"),
        memory_fraction=r.number("memory_fraction"),
        kv_cache_bytes=r.integer("kv_cache_bytes"),
        kv_pool_tokens=r.integer("kv_pool_tokens"),
        kv_block_size=r.integer("kv_block_size"),
        enforce_eager=r.flag("enforce_eager"),
        speculative=_speculative(r),
        offload=_offload(r),
        micro_batch=r.integer("micro_batch"),
        flash_attention=r.flag("flash_attention"),
        mla=r.integer("mla"),
        kv_unified=r.flag("kv_unified"),
        numa=r.text("numa"),
        mmap=r.flag("mmap"),
        mlock=r.flag("mlock"),
        repack=r.flag("repack"),
        swa_full=r.flag("swa_full"),
        dcp=r.integer("dcp"),
        moe_dense_tp=r.integer("moe_dense_tp"),
        dp_lm_head=r.flag("dp_lm_head"),
        redundant_experts=r.integer("redundant_experts"),
        chunked_prefill=r.integer("chunked_prefill"),
        fp4_indexer=r.flag("fp4_indexer"),
        dp_local=r.integer("dp_local"),
        dp_rank=r.integer("dp_rank"),
        all_to_all=r.text("all_to_all") or None,
        disaggregation=r.text("disaggregation") or None,
        host=r.text("host"),
        port=r.integer("port"),
        problems=r.problems,
    )


def _speculative(r: Readings) -> Speculative | None:
    found = Speculative(
        method=r.text("spec_method"),
        draft_model=r.text("spec_model"),
        num_tokens=r.integer("spec_tokens"),
        num_steps=r.integer("spec_steps"),
        topk=r.integer("spec_topk"),
        num_draft_tokens=r.integer("spec_draft_tokens"),
    )
    return None if found == Speculative() else found


def _offload(r: Readings) -> Offload | None:
    found = Offload(
        gpu_layers=r.layers("gpu_layers"),
        override_tensor=r.texts("override_tensor"),
        cpu_moe=r.flag("cpu_moe"),
        n_cpu_moe=r.integer("n_cpu_moe"),
        kv_offload=r.flag("kv_offload"),
        tensor_split=r.text("tensor_split"),
        split_mode=r.text("split_mode"),
        rpc=r.text("rpc"),
        cpu_offload_gb=r.number("cpu_offload_gb"),
        swap_space_gb=r.number("swap_space_gb"),
        kv_offload_gb=r.number("kv_offload_gb"),
        hicache_ratio=r.number("hicache_ratio"),
        hicache_size_gb=r.number("hicache_size_gb"),
        gguf_path=r.text("gguf_path"),
        cpu_infer=r.integer("cpu_infer"),
        kt_weight_path=r.text("kt_weight_path"),
        kt_method=r.text("kt_method"),
        kt_num_gpu_experts=r.integer("kt_num_gpu_experts"),
    )
    return None if found == Offload() else found


_NAMES = re.compile(r"\^?=?[A-Za-z0-9_.:=@-]{1,64}(?:,[A-Za-z0-9_.:=@-]{1,64}){0,63}", re.ASCII)
"""NCCL's lists of interfaces or devices: prefixes, `=` for whole names, `^` for all but these."""


def link_of(program: Program, rendezvous: str | None) -> Link | None:
    """By which link the ranks of several nodes should talk (NCCL user guide, "Environment Variables"; gloo's
    own variable names the same interface as a rule).
    """
    said = program.environment
    interfaces = _names(said.get("NCCL_SOCKET_IFNAME")) or _names(said.get("GLOO_SOCKET_IFNAME"))
    found = Link(
        interfaces,
        _names(said.get("NCCL_IB_HCA")),
        False if said.get("NCCL_IB_DISABLE", "").strip() == "1" else None,
        rendezvous or None,
    )
    return None if found == Link() else found


def _names(said: str | None) -> str | None:
    return said if said is not None and _NAMES.fullmatch(said) else None


def image_version(program: Program) -> str | None:
    """The engine's version in the tag of a container image (`vllm/vllm-openai:v0.33.0`)."""
    match = _VERSION.search(program.image)
    return match[1] if match is not None else None


def visible_gpus(program: Program) -> int | None:
    """GPUs that the process is allowed to see; None when nothing limits them."""
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        said = program.environment.get(variable, "").strip()
        if said and said not in ("all", "void", "none"):
            devices = [device for device in said.split(",") if device.strip()]
            if len(devices) <= 1024 and all(
                re.fullmatch(r"\s*[A-Za-z0-9:-]+\s*", one, re.ASCII) for one in devices
            ):
                return len(devices)
    return None


def first_word(program: Program) -> str:
    """The sub-command: the first argument, when it is a plain word."""
    word = program.arguments[0] if program.arguments else ""
    return word if re.fullmatch(r"[a-z][a-z_-]{0,31}", word, re.ASCII) else ""


def gpus_of(readings: Readings, *degrees: str) -> int | None:
    """The degrees of parallelism multiplied; None when one was said and could not be read."""
    if not readings.unread.isdisjoint(degrees):
        return None
    return product(*(readings.integer(name) for name in degrees))


def product(*sizes: int | None) -> int:
    """Degrees of parallelism multiplied; what was not said is the engines' default, 1."""
    total = 1
    for size in sizes:
        total *= size or 1
    return total
