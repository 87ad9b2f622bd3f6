"""The answer of the ``footprint`` command: what is known of a deployment, also where its devices are not.

The shape is the command contract's: sizes in bytes, what is not known is absent and never 0. The estimate
itself is the policies'; this module resolves names, shapes hardware and makes the result plain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from exporter.footprint.deployment import (
    DeploymentSpec,
    DeviceShape,
    FootprintError,
    HostShape,
)
from exporter.footprint.estimate import resolve_job
from exporter.footprint.policies import policy_of
from exporter.footprint.policies.job import Job
from exporter.footprint.result import (
    Explanation,
    Footprint,
    HostFootprint,
    KvCacheFigures,
    NetworkFootprint,
    Term,
)
from exporter.footprint.traffic import network_of
from exporter.models.catalog import Catalog
from exporter.models.checkpoint.weights import CheckpointWeights

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"

_WHOLE_TENSORS = frozenset({"weights", "experts"})


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """The model as it was recognised; sizes in parameters and bytes, None where they are not known."""

    id: str
    architecture: str
    quantization: str | None
    parameters: int | None
    active_parameters: int | None
    checkpoint_bytes: int | None


@dataclass(frozen=True, slots=True)
class DeviceAnswer:
    """One rank. ``total`` is None where a component is not known."""

    rank: int
    stage: int
    device_index: int
    components: Mapping[str, Term]
    total: Term | None


@dataclass(frozen=True, slots=True)
class HostAnswer:
    """What lies in RAM. ``total`` is None where a component is not known; ``token_read_bytes`` are weights
    that one token reads there, None where that does not decide how fast it comes.
    """

    components: Mapping[str, Term]
    total: Term | None
    token_read_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class KvCacheAnswer:
    """Bytes that one rank stores for one token, and tokens of the whole deployment in the expected pool."""

    bytes_per_token: int
    capacity_tokens: int | None
    demand_tokens: int | None
    full_length_sequences: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """All of it. ``basis`` is the weakest basis of each component over ranks and host."""

    model: ModelAnswer
    devices: tuple[DeviceAnswer, ...]
    host: HostAnswer
    kv_cache: KvCacheAnswer
    basis: Mapping[str, str]
    fits: bool | None
    limiting: str | None
    notes: tuple[str, ...]
    explanations: tuple[Explanation, ...]
    network: NetworkFootprint | None = None


def footprint_answer(
    spec: DeploymentSpec,
    devices: Sequence[DeviceShape] | None,
    gpus: int | None,
    catalog: Catalog,
    host: HostShape | None = None,
    stored: CheckpointWeights | None = None,
) -> Answer:
    """What the deployment needs. ``devices`` None: their size is not known, and ``gpus`` says how many there
    are (None: as many as the settings need). ``stored`` is what the headers of the checkpoint say: it takes
    the place of the quantization's recipe, and its bytes are the weights' basis.

    Raises UnknownModel and FootprintError for what cannot be answered at all; a quantization that is not
    known leaves the weights out and answers the rest.
    """
    policy = policy_of(spec.engine)
    if gpus is not None and gpus < 0:
        raise FootprintError(f"gpus must not be negative, not {gpus}")
    shapes = tuple(devices) if devices is not None else policy.unsized(spec, gpus)
    job = resolve_job(spec, shapes, catalog, host, lenient=True, stored=stored)
    unnamed = devices is None and gpus is None and not shapes
    assumed = ("no device was named: answered as on a CPU alone",) if unnamed else ()
    return _answer(job, policy.allocate(job), assumed)


def _answer(job: Job, footprint: Footprint, assumed: tuple[str, ...]) -> Answer:
    kv = footprint.kv_cache
    devices = tuple(
        DeviceAnswer(
            rank.rank, rank.stage, rank.device_index, rank.components, rank.total if rank.complete else None
        )
        for rank in footprint.devices
    )
    host = footprint.host
    return Answer(
        model=_model(job),
        devices=devices,
        host=HostAnswer(
            host.components, _host_total(host) if host.complete else None, host.token_read_bytes or None
        ),
        kv_cache=KvCacheAnswer(
            kv.bytes_per_token,
            kv.likely_capacity_tokens or kv.capacity_tokens,
            kv.demand_tokens,
            kv.likely_full_length_sequences or kv.full_length_sequences,
        ),
        basis=_basis(footprint),
        fits=footprint.fits,
        limiting=footprint.limiting,
        notes=(*assumed, *job.notes, *footprint.notes, *_capacity_note(kv)),
        explanations=footprint.explanations,
        network=network_of(job),
    )


def _capacity_note(kv: KvCacheFigures) -> tuple[str, ...]:
    if kv.likely_capacity_tokens is None:
        return ()
    return (f"capacity_tokens is of the expected pool; {kv.capacity_tokens} are certain",)


def _host_total(host: HostFootprint) -> Term:
    shown = sum(shown_bytes(name, term) for name, term in host.components.items())
    return replace(host.total, likely_bytes=shown)


def _model(job: Job) -> ModelAnswer:
    architecture = job.architecture
    return ModelAnswer(
        job.model.id,
        architecture.name,
        job.quantization,
        architecture.parameters,
        architecture.active_parameters,
        job.checkpoint_bytes,
    )


def _basis(footprint: Footprint) -> dict[str, str]:
    order = ("checkpoint", "architecture", "engine", "estimate")
    found: dict[str, str] = {}
    parts = [rank.components for rank in footprint.devices]
    for components in (*parts, footprint.host.components):
        for name, term in components.items():
            found[name] = max(found.get(name, "checkpoint"), term.basis, key=order.index)
    return found


def to_plain(answer: Answer) -> dict[str, Plain]:
    """JSON data: what is None is left out, a component is one number (its expected bytes), and ``ranges`` has
    both ends of those that are not exact.
    """
    return {
        "model": _known(
            {
                "id": answer.model.id,
                "architecture": answer.model.architecture,
                "quantization": answer.model.quantization,
                "parameters": answer.model.parameters,
                "active_parameters": answer.model.active_parameters,
                "checkpoint_bytes": answer.model.checkpoint_bytes,
            }
        ),
        "devices": [
            {
                "rank": device.rank,
                "stage": device.stage,
                **_components(device.components, device.total),
            }
            for device in answer.devices
        ],
        "host": {
            **_components(answer.host.components, answer.host.total),
            **_known({"token_read_bytes": answer.host.token_read_bytes}),
        },
        "kv_cache": _known(
            {
                "bytes_per_token": answer.kv_cache.bytes_per_token,
                "capacity_tokens": answer.kv_cache.capacity_tokens,
                "demand_tokens": answer.kv_cache.demand_tokens,
                "full_length_sequences": answer.kv_cache.full_length_sequences,
            }
        ),
        **({"network": _network(answer.network)} if answer.network is not None else {}),
        "basis": dict(answer.basis),
        "fits": answer.fits,
        **({"limiting": answer.limiting} if answer.limiting is not None else {}),
        "notes": list(answer.notes),
    }


def _network(network: NetworkFootprint) -> dict[str, Plain]:
    """Both ends of the bytes that a node sends for a token, by kind and together."""
    ends: dict[str, Plain] = {kind: [one.low_bytes, one.high_bytes] for kind, one in network.kinds.items()}
    plain: dict[str, Plain] = {"nodes": network.nodes, "gpus": network.gpus, "bytes_per_token": ends}
    if network.total is not None:
        plain["total"] = [network.total.low_bytes, network.total.high_bytes]
    return plain


def shown_bytes(component: str, term: Term) -> int:
    """The one number of a term: what is expected, but for tensors in RAM, which count once however many clean
    copies the page cache has of them.
    """
    return term.low_bytes if component in _WHOLE_TENSORS else term.expected_bytes


def _components(components: Mapping[str, Term], total: Term | None) -> dict[str, Plain]:
    sizes: dict[str, Plain] = {name: shown_bytes(name, term) for name, term in components.items()}
    ranges: dict[str, Plain] = {
        name: [term.low_bytes, term.high_bytes]
        for name, term in components.items()
        if term.low_bytes != term.high_bytes
    }
    plain: dict[str, Plain] = {"components": sizes}
    if total is not None:
        plain["total"] = total.expected_bytes
        if total.low_bytes != total.high_bytes:
            ranges["total"] = [total.low_bytes, total.high_bytes]
    if ranges:
        plain["ranges"] = ranges
    return plain


def _known(values: dict[str, Plain]) -> dict[str, Plain]:
    return {name: value for name, value in values.items() if value is not None}
