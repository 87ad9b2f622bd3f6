"""Which layer of a GGUF model lies where, and what of it a CPU repacks.

Sources: llama.cpp b11434 src/llama-model.cpp (layer split over devices), ggml-cpu/repack.cpp (types and
shapes that are repacked).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from exporter.models.architecture import ROUTED_EXPERTS, Architecture, Role
from exporter.models.quantization import Container, StoredTensor, stored_tensors

REPACKED_TYPES: Mapping[str, frozenset[str]] = {
    # x86 with AVX2: measured. The others: read in ggml-cpu/repack.cpp, not measured.
    "x86-avx2": frozenset({"Q4_0", "Q4_K", "IQ4_NL"}),
    "x86-avx512": frozenset({"Q4_0", "Q4_K", "IQ4_NL", "Q2_K"}),
    "arm64": frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL"}),
    "none": frozenset(),
}
"""Types whose weights are copied into another order at load, by family of instructions."""

_REPACK_ROWS = 8
_REPACK_ALIGNMENT = 32
# Row look-up, and plain multiplications of stacked heads, have no repacked form.
_NEVER_REPACKED = frozenset({Role.EMBEDDING, Role.K_B, Role.V_B})


@dataclass(frozen=True, slots=True)
class LayerBytes:
    """Bytes of one layer, routed experts apart; ``embedding`` and ``output`` are the model's, the same in
    every row.
    """

    dense: int
    experts: int
    embedding: int
    output: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Device of each layer and of the output layer; None is the host. Experts of layers below ``n_cpu_moe``
    are in RAM.
    """

    layers: tuple[int | None, ...]
    output: int | None
    gpu_layers: int
    n_cpu_moe: int
    solved: bool


@lru_cache(maxsize=64)
def layer_bytes(architecture: Architecture, recipe: str) -> tuple[LayerBytes, ...]:
    """One row per layer."""
    dense = [0] * architecture.layers
    experts = [0] * architecture.layers
    embedding = output = 0
    for stored in stored_tensors(architecture, recipe, Container.GGUF):
        layer, role = stored.tensor.layer, stored.tensor.role
        if layer is None:
            if role is Role.EMBEDDING:
                embedding += stored.bytes
            else:
                output += stored.bytes
        elif role in ROUTED_EXPERTS:
            experts[layer] += stored.bytes
        else:
            dense[layer] += stored.bytes
    if architecture.tied_embeddings:
        # The output layer uses the embedding: on a device it is a second copy.
        output += embedding
    return tuple(LayerBytes(d, e, embedding, output) for d, e in zip(dense, experts, strict=True))


@lru_cache(maxsize=64)
def host_repack(architecture: Architecture, recipe: str, instruction_set: str) -> tuple[int, int]:
    """Bytes that a CPU-only server repacks: of routed experts apart, second. Raises KeyError for unknown
    instructions.
    """
    types = REPACKED_TYPES[instruction_set]
    dense = experts = 0
    for stored in stored_tensors(architecture, recipe, Container.GGUF):
        if _is_repacked(stored, types):
            size = -(-stored.bytes // _REPACK_ALIGNMENT) * _REPACK_ALIGNMENT
            if stored.tensor.role in ROUTED_EXPERTS:
                experts += size
            else:
                dense += size
    return dense, experts


def place(
    layers: Sequence[LayerBytes],
    device_weights: Sequence[int],
    gpu_layers: int,
    n_cpu_moe: int,
    *,
    solved: bool,
) -> Placement:
    """The last ``gpu_layers`` go to the devices, the output layer counting as the last of them, split by
    ``device_weights``.
    """
    count = len(layers)
    start = max(0, count + 1 - gpu_layers)
    active = min(gpu_layers, count + 1)
    total = sum(device_weights)
    splits = [share / total for share in accumulate(device_weights)] if total else []

    def device_of(layer: int) -> int | None:
        if not splits or layer < start:
            return None
        return min(bisect_right(splits, (layer - start) / active), len(splits) - 1)

    return Placement(
        tuple(device_of(layer) for layer in range(count)),
        device_of(count),
        active if splits else 0,
        min(n_cpu_moe, count),
        solved,
    )


def _is_repacked(stored: StoredTensor, types: frozenset[str]) -> bool:
    tensor = stored.tensor
    return (
        stored.type in types
        and len(tensor.shape) == 2
        and tensor.shape[0] % _REPACK_ROWS == 0
        and tensor.role not in _NEVER_REPACKED
    )
