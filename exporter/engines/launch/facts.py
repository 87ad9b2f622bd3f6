"""What a launch says: the settings of a server's own command line and environment that decide what it needs.

Only these fields leave the reader. What is None was not said; the engine's default applies then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class LaunchError(ValueError):
    """The command cannot be read. The message says why and never repeats what it holds."""


class Role(StrEnum):
    """What a process is for, by its own program.

    A *worker* belongs to a server found elsewhere, a *launcher* starts the real process and stays, a *tool*
    loads a model itself without serving it (benchmark, local chat), a *client* asks a server.
    """

    SERVER = "server"
    WORKER = "worker"
    LAUNCHER = "launcher"
    CLIENT = "client"
    TOOL = "tool"
    ROUTER = "router"
    INFRASTRUCTURE = "infrastructure"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Speculative:
    """Speculative decoding. ``num_tokens`` is vLLM's and llama.cpp's count of drafted tokens; SGLang says
    steps, branches and draft tokens.
    """

    method: str | None = None
    draft_model: str | None = None
    num_tokens: int | None = None
    num_steps: int | None = None
    topk: int | None = None
    num_draft_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Offload:
    """What stays out of the GPUs, in the words of each engine.

    ``gpu_layers`` is llama.cpp's number (-1, or "all" / "auto" as said), ``override_tensor`` its patterns in
    order, ``kv_offload`` False keeps the KV cache in RAM. ``cpu_offload_gb``, ``swap_space_gb`` and
    ``kv_offload_gb`` are GiB as the engines count them; the ``kt_`` fields and ``cpu_infer`` are
    KTransformers'.
    """

    gpu_layers: int | str | None = None
    override_tensor: tuple[str, ...] = ()
    cpu_moe: bool | None = None
    n_cpu_moe: int | None = None
    kv_offload: bool | None = None
    tensor_split: str | None = None
    split_mode: str | None = None
    rpc: str | None = None
    cpu_offload_gb: float | None = None
    swap_space_gb: float | None = None
    kv_offload_gb: float | None = None
    hicache_ratio: float | None = None
    hicache_size_gb: float | None = None
    gguf_path: str | None = None
    cpu_infer: int | None = None
    kt_weight_path: str | None = None
    kt_method: str | None = None
    kt_num_gpu_experts: int | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """How the ranks of several nodes reach each other. All of it is compared with what this host has, and
    none of it is ever shown.

    ``interfaces`` and ``devices`` are lists as NCCL reads them (NCCL_SOCKET_IFNAME, NCCL_IB_HCA); ``rdma``
    False: NCCL_IB_DISABLE. ``rendezvous`` is the address at which the ranks meet.
    """

    interfaces: str | None = None
    devices: str | None = None
    rdma: bool | None = None
    rendezvous: str | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """One process, read by allow-list. Names and meanings are those of the command contract.

    ``engine`` is None when the line does not tell; ``variant`` is ``ik_llama.cpp`` when only that fork takes
    the flags. ``max_model_len`` is the length of one sequence (llama.cpp and Ollama: the whole cache, as
    stated); ``kv_pool_tokens`` the stated size of a KV pool. ``sleep_idle_seconds``: llama.cpp
    unloads the model after that long without a request. ``ep_enabled`` is vLLM's switch, where ``ep`` follows
    from the other sizes. ``gpus`` counts all nodes. ``problems`` name settings that are on the line
    but cannot be right; ``notes`` say what was derived or left aside. ``dp_local`` are the replicas of this
    node, ``dp_rank`` is its first one; ``all_to_all`` is what carries tokens to experts, ``disaggregation``
    "prefill" or "decode". ``numa`` is llama.cpp's ``--numa``.
    """

    role: Role
    engine: str | None = None
    variant: str | None = None
    engine_version: str | None = None
    model: str | None = None
    served_model: str | None = None
    quantization: str | None = None
    dtype: str | None = None
    kv_cache_dtype: str | None = None
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    ep: int | None = None
    dp_attention: bool | None = None
    nodes: int | None = None
    node_rank: int | None = None
    gpus: int | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    memory_fraction: float | None = None
    kv_cache_bytes: int | None = None
    kv_pool_tokens: int | None = None
    kv_block_size: int | None = None
    enforce_eager: bool | None = None
    speculative: Speculative | None = None
    offload: Offload | None = None
    micro_batch: int | None = None
    flash_attention: bool | None = None
    mla: int | None = None
    kv_unified: bool | None = None
    sleep_idle_seconds: int | None = None
    numa: str | None = None
    mmap: bool | None = None
    mlock: bool | None = None
    repack: bool | None = None
    cache_ram_bytes: int | None = None
    swa_full: bool | None = None
    dcp: int | None = None
    moe_dense_tp: int | None = None
    dp_lm_head: bool | None = None
    redundant_experts: int | None = None
    chunked_prefill: int | None = None
    fp4_indexer: bool | None = None
    dp_local: int | None = None
    dp_rank: int | None = None
    all_to_all: str | None = None
    disaggregation: str | None = None
    link: Link | None = None
    host: str | None = None
    port: int | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def node(self) -> tuple[int, int]:
        """(number of this node, of how many): as said, else by the replicas that are here of all (vLLM)."""
        if self.nodes is not None:
            return self.node_rank or 0, self.nodes
        if self.dp and self.dp_local and self.dp % self.dp_local == 0:
            return (self.dp_rank or 0) // self.dp_local, self.dp // self.dp_local
        return 0, 1


Plain = str | int | float | bool | list[str] | Mapping[str, "Plain"]
"""A JSON value of the answer."""

_DEPLOYMENT_FIELDS = (
    "engine",
    "role",
    "model",
    "served_model",
    "quantization",
    "kv_cache_dtype",
    "dtype",
    "tp",
    "pp",
    "dp",
    "ep",
    "dp_attention",
    "nodes",
    "node_rank",
    "gpus",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "memory_fraction",
    "speculative",
    "offload",
    "host",
    "port",
)


def deployment_of(launch: Launch) -> dict[str, Plain]:
    """The `deployment` object of the command contract: what was said, nothing else."""
    answer: dict[str, Plain] = {}
    for name in _DEPLOYMENT_FIELDS:
        value = getattr(launch, name)
        if name == "kv_cache_dtype" and value is None and (launch.cache_type_k or launch.cache_type_v):
            value = {"k": launch.cache_type_k or "f16", "v": launch.cache_type_v or "f16"}
        elif isinstance(value, Speculative | Offload):
            value = _said(value)
        elif name == "engine" and value is None:
            value = "unknown"
        if value is not None and value != {}:
            answer[name] = str(value) if isinstance(value, StrEnum) else value
    return answer


def _said(part: Speculative | Offload) -> dict[str, Plain]:
    found: dict[str, Plain] = {}
    for name in type(part).__dataclass_fields__:
        value = getattr(part, name)
        if isinstance(value, tuple):
            value = list(value) or None
        if value is not None:
            found[name] = value
    return found
