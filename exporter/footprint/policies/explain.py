"""Formulas behind the numbers of an answer, what was put into them, and their sources (``--explain``)."""

from __future__ import annotations

from exporter.footprint.cells import CellCache, CellMode
from exporter.footprint.policies.job import Job
from exporter.footprint.policies.pool import Pool, Rank
from exporter.footprint.result import Explanation
from exporter.footprint.weights import Layout
from exporter.models.blocks import CompressedAttention, GroupedQueryAttention, LatentAttention


def explain_pool(
    job: Job, layout: Layout, rank: Rank, pool: Pool | None, budget: str
) -> tuple[Explanation, ...]:
    """For an engine with a KV pool, of its first rank."""
    spec = job.spec
    weights = Explanation(
        "weights",
        "repeated + attention / tp + dense / tp + experts / (tp x dp) + vocabulary / tp + absorbed / tp",
        {
            "quantization": job.quantization,
            "attention parts": layout.attention,
            "dense parts": layout.dense,
            "expert parts": layout.experts,
            "experts": "dealt whole" if layout.whole_experts else "cut in width",
            "absorbed copies": "yes" if layout.absorbed else "no",
        },
        "vLLM 0.33 models/deepseek_v2.py, layers/linear.py, layers/attention/mla_attention.py",
        "R1 at TP8 on vLLM -0.3 %, V2.5 at TP8 x PP2 -0.2 %, distillations -0.1 to -1.4 %",
    )
    cache = Explanation(
        "kv_cache",
        _cache_formula(job),
        {
            "bytes per token": float(rank.layout.token_bytes),
            "tokens per block": rank.layout.block_tokens,
            "bytes per block": float(rank.layout.block_bytes),
            "blocks of one sequence": rank.layout.sequence_blocks(job.context_tokens),
            "cache type": spec.kv_cache_dtype or "auto",
            **({"blocks": f"{pool.low_blocks} to {pool.high_blocks}"} if pool is not None else {}),
        },
        "vLLM 0.33 v1/kv_cache_interface.py; SGLang 0.5.23 mem_cache/kv_cache_configurator.py",
        "R1 70,271 bytes a token in a log (70,272); V3.2 48,072 (48,068)",
    )
    whole = Explanation(
        "total",
        budget,
        {"device bytes": rank.device.usable_bytes} if rank.device.is_sized else {"device bytes": "not known"},
        "the engine's own accounting, see docs/METHOD.md section 5",
        "nvidia-smi of warm servers within about 1 GiB",
    )
    return weights, cache, whole


def _cache_formula(job: Job) -> str:
    attention = job.architecture.attention
    if isinstance(attention, LatentAttention):
        return "layers x (kv_lora_rank + rope_head_dim) x bytes, the same on every tensor rank"
    if isinstance(attention, GroupedQueryAttention):
        return "2 x layers x max(1, kv_heads / tp) x head_dim x bytes"
    assert isinstance(attention, CompressedAttention)
    return "sum over layers of (row + indexer key) / ratio; windows and states for each sequence"


def explain_cells(job: Job, cache: CellCache, mode: CellMode) -> tuple[Explanation, ...]:
    """For llama.cpp and its family."""
    spec = job.spec
    weights = Explanation(
        "weights",
        "sum of tensor bytes by placement: the last gpu_layers on devices, overrides first, the rest in RAM",
        {
            "quantization": job.quantization,
            "gpu_layers": "solved or all" if spec.gpu_layers is None else spec.gpu_layers,
            "override_tensor rules": len(spec.override_tensor),
        },
        "llama.cpp b11434 src/llama-model.cpp, src/llama-quant.cpp, ggml-common.h",
        "device and host buffers of a 32B within 0.001 %; R1 files within 0.15 %",
    )
    rows = Explanation(
        "kv_cache",
        "layers x cells x streams x row bytes"
        + (" of latent rows" if mode.latent else " of the keys and values of all heads"),
        {
            "cells": cache.layout.cells,
            "streams": cache.layout.streams,
            "bytes per token": float(cache.token_bytes),
            "types": f"{spec.cache_type_k or 'f16'}, {spec.cache_type_v or 'f16'}",
        },
        "llama.cpp b11434 src/llama-kv-cache.cpp; ik_llama.cpp src/llama.cpp",
        "measured: equal to the rounding of the log",
    )
    compute = Explanation(
        "activations",
        "4 x micro_batch x max(attention, feed-forward elements) + masks and scores of the cells",
        {"micro_batch": spec.micro_batch or 512},
        "measured on llama-server b11434, CPU",
        "55 of 66 shapes within 0.05 MiB; on a device a range",
    )
    return weights, rows, compute
