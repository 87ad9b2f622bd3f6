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
    stay in RAM; ``kv_cache_bytes`` the size of one rank's pool when it is known. ``ep`` above 1 deals whole
    experts to the ranks.
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


@dataclass(frozen=True, slots=True)
class DeviceShape:
    """A GPU (or MIG slice) as its driver reports it; ``reserved_bytes`` is what the driver keeps."""

    index: int
    total_bytes: int
    reserved_bytes: int = 0

    @property
    def usable_bytes(self) -> int:
        """What CUDA calls the device's total (cudaMemGetInfo): the driver's reserve is not in it."""
        return self.total_bytes - self.reserved_bytes


@dataclass(frozen=True, slots=True)
class HostShape:
    """RAM of the host, and which family of llama.cpp's repacking its processor has (see
    policies/llamacpp.py).
    """

    total_bytes: int
    instruction_set: str = "x86-avx2"


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
    for field in ("n_cpu_moe", "cache_ram_bytes"):
        size: int | None = getattr(spec, field)
        if size is not None and size < 0:
            raise FootprintError(f"{field} must not be negative, not {size}")


def check_unset(spec: DeploymentSpec, fields: Iterable[str], why: str) -> None:
    """Refuse settings that the engine does not have: FootprintError names the first one that is set."""
    for field in fields:
        default = DeploymentSpec.__dataclass_fields__[field].default
        if getattr(spec, field) != default:
            raise FootprintError(f"{field} is set, but {why}")
