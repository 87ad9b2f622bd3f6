"""What a declaration or a launch says about a deployment, and the shapes of the hardware it is placed on.

Field names are those of the command contract; a field that is None was not said, and the engine's own default
applies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class FootprintError(ValueError):
    """The settings cannot be answered: the message names the field, what is wrong with it, and what would be
    right.
    """


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """One served model. ``max_model_len`` is the length of one sequence; for llama.cpp it is ``--ctx-size``,
    the whole cache.

    ``parallel`` are llama.cpp's slots, ``micro_batch`` its ``-ub``, ``n_cpu_moe`` the layers whose experts
    stay in RAM (``cpu_moe``: all of them), ``override_tensor`` its ``-ot`` rules in order, ``tensor_split``
    its ``-ts``; ``mla`` 0 is a cache of all heads, 1 to 3 are ik_llama.cpp's modes. ``kv_cache_bytes`` is the
    size of one rank's pool when it is known, ``max_total_tokens`` its length in tokens. ``ep`` above 1 deals
    whole experts to the ranks, ``redundant_experts`` is how many are stored twice. ``layer_partition`` are
    the layers of each pipeline stage, ``dcp`` the ranks that share one cache (decode context parallelism).
    ``cpu_offload_bytes`` and ``swap_space_bytes`` are per device, ``kv_offload_bytes`` is the host pool of
    all tensor ranks together, ``hicache_bytes`` that of one rank. ``experts_on_gpu`` are the
    experts of each layer that KTransformers keeps on the device. ``nodes`` are the hosts over which the ranks
    lie, ``all_to_all`` the engine's name of what carries tokens to experts, ``disaggregation`` "prefill" or
    "decode" where another server does the other half. ``expert_copies`` is how often the experts in RAM are
    there, ``numa`` llama.cpp's ``--numa``.
    """

    name: str
    model: str
    engine: str
    quantization: str | None = None
    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int | None = None
    dp_attention: bool = False
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    memory_fraction: float | None = None
    kv_cache_dtype: str | None = None
    kv_cache_bytes: int | None = None
    speculative: str | None = None
    enforce_eager: bool = False
    gpu_layers: int | None = None
    n_cpu_moe: int | None = None
    parallel: int | None = None
    kv_unified: bool | None = None
    micro_batch: int | None = None
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    flash_attention: bool | None = None
    mmap: bool | None = None
    mlock: bool = False
    repack: bool | None = None
    cache_ram_bytes: int | None = None
    engine_version: str | None = None
    dtype: str | None = None
    block_size: int | None = None
    max_total_tokens: int | None = None
    redundant_experts: int = 0
    layer_partition: tuple[int, ...] = ()
    dcp: int = 1
    moe_dense_tp: int | None = None
    dp_lm_head: bool = False
    chunked_prefill: int | None = None
    draft_model: str | None = None
    speculative_tokens: int | None = None
    cpu_offload_bytes: int | None = None
    swap_space_bytes: int | None = None
    kv_offload_bytes: int | None = None
    hicache: bool = False
    hicache_ratio: float | None = None
    hicache_bytes: int | None = None
    engram_on_device: bool = False
    override_tensor: tuple[str, ...] = ()
    tensor_split: tuple[float, ...] = ()
    cpu_moe: bool = False
    kv_on_host: bool = False
    swa_full: bool = False
    mla: int | None = None
    fp4_indexer: bool = False
    experts_on_gpu: int | None = None
    nodes: int = 1
    all_to_all: str | None = None
    disaggregation: str | None = None
    expert_copies: int | None = None
    numa: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceShape:
    """A GPU (or MIG slice) as its driver reports it; ``reserved_bytes`` is what the driver keeps.

    ``total_bytes`` 0: the size is not known, and nothing that follows from it is answered. ``name`` as the
    driver prints it, where an engine's defaults depend on the card.
    """

    index: int
    total_bytes: int
    reserved_bytes: int = 0
    name: str = ""

    @property
    def usable_bytes(self) -> int:
        """What CUDA calls the device's total (cudaMemGetInfo): the driver's reserve is not in it."""
        return self.total_bytes - self.reserved_bytes

    @property
    def is_sized(self) -> bool:
        return self.total_bytes > 0


@dataclass(frozen=True, slots=True)
class HostShape:
    """RAM of the host, which family of llama.cpp's repacking its processor has (see policies/llamacpp.py),
    and how many NUMA nodes have RAM; None: not known.
    """

    total_bytes: int
    instruction_set: str = "x86-avx2"
    numa_nodes: int | None = None


_AT_LEAST_ONE = (
    "tp",
    "pp",
    "dp",
    "ep",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "kv_cache_bytes",
    "parallel",
    "micro_batch",
    "block_size",
    "max_total_tokens",
    "dcp",
    "moe_dense_tp",
    "chunked_prefill",
    "nodes",
)

_NOT_NEGATIVE = (
    "n_cpu_moe",
    "cache_ram_bytes",
    "redundant_experts",
    "cpu_offload_bytes",
    "swap_space_bytes",
    "kv_offload_bytes",
    "hicache_bytes",
    "speculative_tokens",
    "experts_on_gpu",
    "mla",
)


def check_numbers(spec: DeploymentSpec) -> None:
    """Refuse counts below 1, fractions outside (0, 1] and negative sizes. Raises FootprintError naming the
    field.
    """
    for field in _AT_LEAST_ONE:
        value: int | None = getattr(spec, field)
        if value is not None and value < 1:
            raise FootprintError(f"{field} must be at least 1, not {value}")
    fraction = spec.memory_fraction
    if fraction is not None and not 0 < fraction <= 1:
        raise FootprintError(f"memory_fraction must be above 0 and at most 1, not {fraction}")
    for field in _NOT_NEGATIVE:
        size: int | None = getattr(spec, field)
        if size is not None and size < 0:
            raise FootprintError(f"{field} must not be negative, not {size}")
    if spec.mla is not None and spec.mla > 3:
        raise FootprintError(f"mla must be 0 to 3, not {spec.mla}")
    if any(share < 0 for share in spec.tensor_split):
        raise FootprintError("tensor_split must not hold negative shares")


def check_unset(spec: DeploymentSpec, fields: Iterable[str], why: str) -> None:
    """Refuse settings that the engine does not have: FootprintError names the first one that is set."""
    for field in fields:
        default = DeploymentSpec.__dataclass_fields__[field].default
        if getattr(spec, field) != default:
            raise FootprintError(f"{field} is set, but {why}")
