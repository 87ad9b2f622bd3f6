"""What every allocation policy is given, and what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from exporter.footprint.deployment import DeploymentSpec, DeviceShape, HostShape
from exporter.footprint.result import Footprint
from exporter.models.architecture import Architecture
from exporter.models.catalog import Model
from exporter.models.quantization import Container


@dataclass(frozen=True, slots=True)
class Job:
    """A deployment whose model and quantization are resolved, and the hardware it is placed on."""

    spec: DeploymentSpec
    model: Model
    quantization: str
    devices: tuple[DeviceShape, ...]
    host: HostShape | None

    @property
    def architecture(self) -> Architecture:
        return self.model.architecture

    @property
    def context_tokens(self) -> int:
        """Declared length, else the length that the model was trained for."""
        return self.spec.max_model_len or self.architecture.context_tokens


@dataclass(frozen=True, slots=True)
class Policy:
    """How an engine allocates. ``foreign`` are the settings that it does not have; ``registry_names``: its
    model names are Ollama's.
    """

    container: Container
    foreign: frozenset[str]
    allocate: Callable[[Job], Footprint]
    registry_names: bool = False
