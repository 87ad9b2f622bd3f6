"""The one door of this floor: what a declared deployment needs on these devices and in RAM.

Resolves model and quantization in the catalogue, then asks the engine's allocation policy.
"""

from __future__ import annotations

from collections.abc import Sequence

from exporter.footprint.deployment import (
    DeploymentSpec,
    DeviceShape,
    FootprintError,
    HostShape,
    check_numbers,
    check_unset,
)
from exporter.footprint.policies import policy_of
from exporter.footprint.policies.job import Job
from exporter.footprint.result import (
    Footprint,
    HostFootprint,
    KvCacheFigures,
    RankFootprint,
    Term,
)
from exporter.models.catalog import Catalog, Model, containers
from exporter.models.quantization import Container

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
    spec: DeploymentSpec, devices: Sequence[DeviceShape], catalog: Catalog, host: HostShape | None = None
) -> Footprint:
    """Expected bytes per device and component, and in RAM, once the engine is warm. No devices: it runs on
    the CPU.

    ``devices`` are in the order of the ranks; more than are needed may be given. Raises UnknownModel and
    UnknownQuantization for names that the catalogue does not have, FootprintError for settings that are
    wrong, contradictory or not known yet.
    """
    policy = policy_of(spec.engine)
    check_numbers(spec)
    check_unset(spec, sorted(policy.foreign), f"engine {spec.engine.lower()} has no such setting")
    model = catalog.resolve(spec.model, ollama=policy.registry_names)
    quantization = _quantization(spec, model, catalog, policy.container)
    for device in devices:
        if not 0 <= device.reserved_bytes < device.total_bytes:
            raise FootprintError(
                f"devices: device {device.index} has no memory beyond what the driver reserves"
            )
    return policy.allocate(Job(spec, model, quantization, tuple(devices), host))


def _quantization(spec: DeploymentSpec, model: Model, catalog: Catalog, container: Container) -> str:
    name = spec.quantization
    if name is None and container is Container.GGUF:
        name = catalog.tag_quantization(spec.model)
        if name is None:
            raise FootprintError(
                f"quantization must be said for engine {spec.engine.lower()}: "
                f"GGUF files of {model.id} exist in many, e.g. Q4_K_M"
            )
    canonical = catalog.quantization(model, name)
    if container not in containers(canonical):
        usable = ", ".join(q for q in model.quantizations if container in containers(q))
        raise FootprintError(
            f"quantization {canonical} is not stored in {container} files, "
            f"which engine {spec.engine.lower()} loads; known: {usable}"
        )
    return canonical
