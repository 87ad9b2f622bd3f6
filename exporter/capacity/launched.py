"""From what a launch says to what the estimator asks: the same settings in its words."""

from __future__ import annotations

from exporter.engines.launch import Launch, Offload, Role, Speculative
from exporter.footprint.deployment import DeploymentSpec
from exporter.units import GIB

ALL_LAYERS = 1 << 20
"""llama.cpp's `-ngl all`: more layers than any model has."""

LLAMA_CPP_FAMILY = frozenset({"llama.cpp", "ik_llama.cpp", "llama-cpp-python", "ollama"})


def spec_of(launch: Launch, name: str) -> DeploymentSpec | None:
    """The deployment that a launch describes; None when it names no engine or no model."""
    if launch.engine is None or launch.model is None:
        return None
    speculative = launch.speculative or Speculative()
    offload = launch.offload or Offload()
    is_llama_cpp = launch.engine in LLAMA_CPP_FAMILY
    return DeploymentSpec(
        name=name,
        model=launch.model,
        engine=launch.variant or launch.engine,
        engine_version=launch.engine_version,
        quantization=launch.quantization,
        dtype=launch.dtype,
        tp=launch.tp or 1,
        pp=launch.pp or 1,
        dp=launch.dp or 1,
        ep=launch.ep,
        dcp=launch.dcp or 1,
        dp_attention=launch.dp_attention or False,
        moe_dense_tp=launch.moe_dense_tp,
        dp_lm_head=launch.dp_lm_head or False,
        redundant_experts=launch.redundant_experts or 0,
        max_model_len=_length(launch),
        max_num_seqs=None if is_llama_cpp else launch.max_num_seqs,
        parallel=launch.max_num_seqs if is_llama_cpp else None,
        max_num_batched_tokens=launch.max_num_batched_tokens,
        max_total_tokens=launch.kv_pool_tokens,
        chunked_prefill=_positive(launch.chunked_prefill),
        memory_fraction=launch.memory_fraction,
        kv_cache_dtype=launch.kv_cache_dtype,
        kv_cache_bytes=launch.kv_cache_bytes,
        block_size=launch.kv_block_size,
        fp4_indexer=launch.fp4_indexer or False,
        speculative=_method(speculative),
        draft_model=speculative.draft_model,
        speculative_tokens=speculative.num_tokens or speculative.num_draft_tokens,
        enforce_eager=launch.enforce_eager or False,
        cache_type_k=launch.cache_type_k,
        cache_type_v=launch.cache_type_v,
        flash_attention=launch.flash_attention,
        micro_batch=launch.micro_batch,
        mla=launch.mla,
        kv_unified=launch.kv_unified,
        swa_full=launch.swa_full or False,
        mmap=launch.mmap,
        mlock=launch.mlock or False,
        repack=launch.repack,
        cache_ram_bytes=launch.cache_ram_bytes,
        gpu_layers=layers_of(offload.gpu_layers),
        override_tensor=offload.override_tensor,
        cpu_moe=offload.cpu_moe or False,
        n_cpu_moe=offload.n_cpu_moe,
        kv_on_host=offload.kv_offload is False,
        tensor_split=_shares(offload.tensor_split),
        cpu_offload_bytes=_gib(offload.cpu_offload_gb),
        swap_space_bytes=_gib(offload.swap_space_gb),
        kv_offload_bytes=_gib(offload.kv_offload_gb),
        hicache=offload.hicache_ratio is not None or offload.hicache_size_gb is not None,
        hicache_ratio=offload.hicache_ratio,
        # SGLang counts --hicache-size in 10^9 bytes (mem_cache/memory_pool_host.py).
        hicache_bytes=None if not offload.hicache_size_gb else int(offload.hicache_size_gb * 10**9),
        experts_on_gpu=offload.kt_num_gpu_experts,
        nodes=_nodes(launch),
        all_to_all=launch.all_to_all,
        disaggregation=launch.disaggregation,
        expert_copies=1 if offload.kt_weight_path is not None else None,
        numa=launch.numa,
    )


def _nodes(launch: Launch) -> int:
    """1 too where the launch has ranks of a kind that the estimator does not know: how the others lie on the
    nodes is then not known.
    """
    ranks = (launch.tp or 1) * (launch.pp or 1) * (1 if launch.dp_attention else launch.dp or 1)
    return launch.node[1] if launch.gpus in (None, ranks) else 1


def layers_of(said: int | str | None) -> int | None:
    """llama.cpp's number of layers: `all` is more than there are, `auto` leaves it to the engine."""
    if isinstance(said, int):
        return said
    return ALL_LAYERS if said == "all" else None


def _length(launch: Launch) -> int | None:
    """Ollama's runner is told the cache of all slots; the estimator wants one."""
    if launch.engine == "ollama" and launch.role is Role.WORKER and launch.max_model_len:
        return launch.max_model_len // (launch.max_num_seqs or 1) or None
    return launch.max_model_len


def _method(speculative: Speculative) -> str | None:
    """Drafted tokens without method and model are the checkpoint's own draft layers (vLLM until 0.8)."""
    if speculative.method is None and speculative.draft_model is None:
        return "mtp" if speculative.num_tokens else None
    return speculative.method


def _positive(count: int | None) -> int | None:
    return count if count is not None and count > 0 else None


def _shares(said: str | None) -> tuple[float, ...]:
    return () if said is None else tuple(float(part) for part in said.replace("/", ",").split(","))


def _gib(size: float | None) -> int | None:
    return None if size is None else int(size * GIB)
