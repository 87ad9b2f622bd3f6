"""Which layer of a GGUF model lies where, and what of it a CPU repacks.

Sources: llama.cpp b11434 src/llama-model.cpp (layer split over devices), ggml-cpu/repack.cpp (types and
shapes that are repacked).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from exporter.footprint.deployment import FootprintError
from exporter.footprint.tensor_patterns import PatternError, matcher
from exporter.models.architecture import ROUTED_EXPERTS, Architecture, Role
from exporter.models.checkpoint.weights import CheckpointWeights
from exporter.models.quantization import Container, GgufLayout, StoredTensor, stored_tensors

REPACKED_TYPES: Mapping[str, frozenset[str]] = {
    # x86 with AVX2: measured. The others: read in ggml-cpu/repack.cpp, not measured.
    "x86-avx2": frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}),
    "x86-avx512": frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4", "Q2_K"}),
    "arm64": frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4"}),
    "none": frozenset(),
}
"""Types whose weights are copied into another order at load, by family of instructions."""

_REPACK_ROWS = 8
_REPACK_ALIGNMENT = 32
# Row look-up, and plain multiplications of stacked heads, have no repacked form.
_NEVER_REPACKED = frozenset({Role.EMBEDDING, Role.K_B, Role.V_B, Role.OUTPUT_A})


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes that ``--override-tensor`` sends to a device, or to the host (None). ``looked_up``: of them a
    token reads one row.
    """

    device: int | None
    size: int
    experts: bool
    looked_up: bool = False


@dataclass(frozen=True, slots=True)
class LayerBytes:
    """Bytes of one layer, routed experts apart; ``embedding`` and ``output`` are the model's, the same in
    every row. ``moved`` are tensors that a rule sends elsewhere, and not in the other figures: those of the
    model itself are in the first row.
    """

    dense: int
    experts: int
    embedding: int
    output: int
    moved: tuple[Moved, ...] = ()


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


@lru_cache(maxsize=128)
def layer_bytes(
    architecture: Architecture,
    recipe: str,
    overrides: tuple[str, ...] = (),
    layout: GgufLayout = GgufLayout.SPLIT,
) -> tuple[LayerBytes, ...]:
    """One row per layer. ``overrides`` are ``PATTERN=BUFFER`` rules, the first that matches wins. Raises
    FootprintError for a rule that is not understood.
    """
    tensors = stored_tensors(architecture, recipe, Container.GGUF, False, layout)
    return _rows(architecture, ((t.tensor.role, t.tensor.layer, t.bytes) for t in tensors), overrides)


def stored_layer_bytes(
    architecture: Architecture, stored: CheckpointWeights, overrides: tuple[str, ...] = ()
) -> tuple[LayerBytes, ...]:
    """The same of a file whose headers are known; what no role names lies with the output."""
    main = [(one.role, one.layer, one.bytes) for one in stored.roles if not stored.is_draft(one.layer)]
    if stored.unknown_bytes:
        main.append((Role.OUTPUT_NORM, None, stored.unknown_bytes))
    return _rows(architecture, main, overrides)


def _rows(
    architecture: Architecture, tensors: Iterable[tuple[Role, int | None, int]], overrides: tuple[str, ...]
) -> tuple[LayerBytes, ...]:
    rules = _rules(overrides)
    dense = [0] * architecture.layers
    experts = [0] * architecture.layers
    moved: list[list[Moved]] = [[] for _ in range(architecture.layers)]
    embedding = output = 0
    for role, layer, size in tensors:
        routed = role in ROUTED_EXPERTS
        if rules:
            name = tensor_name(role, layer)
            target = next((device for matches, device in rules if matches(name)), _STAYS)
            if target != _STAYS:
                device = None if target == _HOST else target
                moved[layer or 0].append(Moved(device, size, routed, role is Role.EMBEDDING))
                continue
        if layer is None:
            if role is Role.EMBEDDING:
                embedding += size
            else:
                output += size
        elif routed:
            experts[layer] += size
        else:
            dense[layer] += size
    if architecture.tied_embeddings:
        # The output layer uses the embedding: on a device it is a second copy.
        output += embedding
    return tuple(
        LayerBytes(d, e, embedding, output, tuple(m)) for d, e, m in zip(dense, experts, moved, strict=True)
    )


def tensor_name(role: Role, layer: int | None) -> str:
    """The name that a GGUF file gives a tensor (gguf-py constants.py)."""
    if role is Role.ROUTER_BIAS:
        name = f"{role.value}.bias"
    else:
        name = role.value if role.value.endswith(".bias") else f"{role.value}.weight"
    return name if layer is None else f"blk.{layer}.{name}"


_STAYS, _HOST = -2, -1
_DEVICE_BUFFER = re.compile(r"[A-Za-z]+[A-Za-z_]*?(\d{1,2})(?:_Split)?", re.ASCII)
_HOST_BUFFERS = ("cpu", "host")


def _rules(overrides: tuple[str, ...]) -> list[tuple[Callable[[str], bool], int]]:
    rules = []
    for number, override in enumerate(one for text in overrides for one in text.split(",")):
        pattern, _, buffer = override.partition("=")
        if any(word in buffer.lower() for word in _HOST_BUFFERS):
            device = _HOST
        else:
            found = _DEVICE_BUFFER.fullmatch(buffer.strip())
            if found is None:
                raise FootprintError(
                    f"override_tensor: rule {number + 1} names no buffer such as CPU or CUDA0"
                )
            device = int(found[1])
        try:
            rules.append((matcher(pattern), device))
        except PatternError as error:
            raise FootprintError(f"override_tensor: rule {number + 1}: {error}") from None
    return rules


@lru_cache(maxsize=64)
def host_repack(
    architecture: Architecture, recipe: str, instruction_set: str, layout: GgufLayout = GgufLayout.SPLIT
) -> tuple[int, int]:
    """Bytes that a CPU-only server repacks: of routed experts apart, second. Raises KeyError for unknown
    instructions.
    """
    types = REPACKED_TYPES[instruction_set]
    dense = experts = 0
    for stored in stored_tensors(architecture, recipe, Container.GGUF, False, layout):
        if _is_repacked(stored, types):
            size = -(-stored.bytes // _REPACK_ALIGNMENT) * _REPACK_ALIGNMENT
            if stored.tensor.role in ROUTED_EXPERTS:
                experts += size
            else:
                dense += size
    return dense, experts


def stored_repack(stored: CheckpointWeights, instruction_set: str) -> tuple[int, int]:
    """As ``host_repack``, of a file whose headers are known."""
    types = REPACKED_TYPES[instruction_set]
    dense = experts = 0
    for one in stored.roles:
        matrix = one.role not in _NEVER_REPACKED and not stored.is_draft(one.layer)
        if matrix and one.type.upper() in types:
            if one.role in ROUTED_EXPERTS:
                experts += one.bytes
            else:
                dense += one.bytes
    return dense, experts


def place(
    layers: Sequence[LayerBytes],
    device_weights: Sequence[int],
    gpu_layers: int,
    n_cpu_moe: int,
    *,
    solved: bool,
    counts_output: bool = True,
) -> Placement:
    """The last ``gpu_layers`` go to the devices, split by ``device_weights``. The output layer counts as the
    last of them; where ``counts_output`` is False only layers count, and it follows when all of them fit.
    """
    count = len(layers)
    start = max(0, count + counts_output - gpu_layers)
    active = min(gpu_layers, count + 1)
    total = sum(device_weights)
    splits = [share / total for share in accumulate(device_weights)] if total else []

    def device_of(layer: int) -> int | None:
        if not splits or layer < start or layer - start >= active:
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
