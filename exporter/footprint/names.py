"""Which model and which quantization a deployment means: what was said, what the name tells, what was
published.

A quantization that only a name tells of (a fork's, a dynamic one) leaves the weights unknown; the cache does
not depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from exporter.footprint.deployment import FootprintError
from exporter.footprint.policies.job import Policy
from exporter.models.catalog import (
    Catalog,
    Identity,
    Model,
    UnknownQuantization,
    containers,
    gguf_recipe,
    is_sized,
)
from exporter.models.quantization import Container, file_bytes

UNKNOWN_QUANTIZATION = "unknown"
"""Stands where files of a kind exist in many quantizations and none was said."""

_ONLINE = frozenset({"fp8_tensor", "fp8_channel", "bnb_int8", "nf4", "nf4_double"})
# Forms that an engine makes of a 16-bit checkpoint while loading it.


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model and the form of its files. ``checkpoint_bytes`` None where the form's bytes are not known."""

    model: Model
    quantization: str
    container: Container
    weights_known: bool
    checkpoint_bytes: int | None
    notes: tuple[str, ...]


def resolve(
    name: str, quantization: str | None, dtype: str | None, policy: Policy, catalog: Catalog, *, lenient: bool
) -> Resolved:
    """Raises UnknownModel, UnknownQuantization for a quantization that is not known (with ``lenient``: not
    even by name), FootprintError for one that this engine does not load.
    """
    identity = _identify(catalog, name, policy.registry_names)
    model = identity.model or catalog.resolve(name, ollama=policy.registry_names)
    notes: list[str] = []
    if quantization is not None:
        canonical = catalog.quantization(model, quantization)
        if identity.quantization is None:
            notes.extend(_online_note(canonical, model, policy))
    elif identity.quantization is not None:
        canonical = identity.quantization
    else:
        canonical = _published(model, dtype, policy, lenient=lenient)
    if canonical == UNKNOWN_QUANTIZATION:
        notes.append("quantization is not said: weights are left out")
        return Resolved(model, canonical, policy.container, False, None, tuple(notes))
    container = _container(canonical, model, policy)
    if container is Container.GGUF:
        canonical = gguf_recipe(canonical) or canonical
    known = is_sized(canonical)
    if not known:
        if not lenient:
            raise UnknownQuantization(f"the bytes of quantization {canonical} are not known, only its name")
        notes.append(f"quantization {canonical}: its bytes are not known, weights are left out")
    size: int | None = None
    if known:
        online = canonical in _ONLINE and identity.quantization is None and container is Container.SAFETENSORS
        stored = model.native_quantization if online else canonical
        size = file_bytes(model.architecture, stored, container)
    return Resolved(model, canonical, container, known, size, tuple(notes))


@lru_cache(maxsize=4096)
def _identify(catalog: Catalog, name: str, ollama: bool) -> Identity:
    return catalog.identify(name, ollama=ollama)


def _published(model: Model, dtype: str | None, policy: Policy, *, lenient: bool) -> str:
    if policy.container is Container.GGUF:
        if not lenient:
            raise FootprintError(
                "quantization must be said for this engine: "
                f"GGUF files of {model.id} exist in many, e.g. Q4_K_M"
            )
        return UNKNOWN_QUANTIZATION
    widened = dtype is not None and dtype.lower() in ("float", "float32", "fp32", "f32")
    if widened and model.native_quantization in ("bf16", "f16"):
        return "f32"
    return model.native_quantization


def _online_note(canonical: str, model: Model, policy: Policy) -> list[str]:
    if canonical in _ONLINE and policy.container is Container.SAFETENSORS:
        return [f"quantization {canonical}: made of {model.native_quantization} while loading"]
    return []


def _container(canonical: str, model: Model, policy: Policy) -> Container:
    stored = containers(canonical)
    for container in (policy.container, policy.other_container):
        if container is not None and container in stored:
            return container
    usable = ", ".join(name for name in model.quantizations if policy.container in containers(name))
    raise FootprintError(
        f"quantization {canonical} is not stored in {policy.container} files, "
        f"which this engine loads; known: {usable}"
    )
