"""The one door of this floor: what a declared deployment needs on these devices and in RAM.

Resolves model and quantization in the catalogue, then asks the engine's allocation policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from exporter.footprint.deployment import (
    DeploymentSpec,
    DeviceShape,
    FootprintError,
    HostShape,
    check_numbers,
    check_unset,
)
from exporter.footprint.names import resolve
from exporter.footprint.policies import policy_of
from exporter.footprint.policies.job import Job
from exporter.footprint.result import (
    Footprint,
    HostFootprint,
    KvCacheFigures,
    RankFootprint,
    Term,
)
from exporter.footprint.traffic import network_of
from exporter.models.catalog import Catalog, Identity, UnknownModel
from exporter.models.checkpoint.weights import CheckpointWeights

__all__ = [
    "DeploymentSpec",
    "DeviceShape",
    "Footprint",
    "FootprintError",
    "HostFootprint",
    "HostShape",
    "KvCacheFigures",
    "RankFootprint",
    "Term",
    "estimate",
]


def estimate(
    spec: DeploymentSpec,
    devices: Sequence[DeviceShape],
    catalog: Catalog,
    host: HostShape | None = None,
    stored: CheckpointWeights | None = None,
) -> Footprint:
    """Expected bytes per device and component, and in RAM, once the engine is warm. No devices: it runs on
    the CPU.

    ``devices`` are in the order of the ranks; more than are needed may be given. ``stored`` is
    what the headers of the checkpoint say, in the place of the quantization's recipe. Raises UnknownModel and
    UnknownQuantization for names that the catalogue does not have, FootprintError for settings that are
    wrong, contradictory or not known yet.
    """
    for device in devices:
        if not 0 <= device.reserved_bytes < device.total_bytes:
            raise FootprintError(
                f"devices: device {device.index} has no memory beyond what the driver reserves"
            )
    job = resolve_job(spec, tuple(devices), catalog, host, lenient=stored is not None, stored=stored)
    # Whoever asks for the numbers every few seconds has no use for their formulas.
    return replace(policy_of(spec.engine).allocate(job), explanations=(), network=network_of(job))


def resolve_job(
    spec: DeploymentSpec,
    devices: tuple[DeviceShape, ...],
    catalog: Catalog,
    host: HostShape | None,
    *,
    lenient: bool = False,
    stored: CheckpointWeights | None = None,
) -> Job:
    """Names resolved: the model, what its files hold, and the draft model.

    ``lenient``: a quantization of which only the name is known leaves the weights out instead of raising
    UnknownQuantization. ``stored``: the bytes that the checkpoint's headers say. Raises UnknownModel, and
    FootprintError for settings that no engine of this kind has.
    """
    policy = policy_of(spec.engine)
    check_numbers(spec)
    check_unset(spec, sorted(policy.foreign), f"engine {spec.engine.lower()} has no such setting")
    found = resolve(spec.model, spec.quantization, spec.dtype, policy, catalog, lenient=lenient)
    draft = _draft(spec, catalog)
    return Job(
        spec,
        found.model,
        found.quantization,
        devices,
        host,
        found.container,
        found.weights_known or stored is not None,
        found.notes if stored is None else stored.notes,
        found.checkpoint_bytes,
        draft.model,
        draft.quantization,
        stored,
    )


def _draft(spec: DeploymentSpec, catalog: Catalog) -> Identity:
    if spec.draft_model is None:
        return Identity(None, None, "not named")
    try:
        return catalog.identify(spec.draft_model)
    except UnknownModel:
        return Identity(None, None, "stands for two models")
