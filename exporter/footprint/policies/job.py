"""What every allocation policy is given, and what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from exporter.footprint.deployment import DeploymentSpec, DeviceShape, HostShape
from exporter.footprint.result import Basis, Footprint
from exporter.models.architecture import Architecture
from exporter.models.catalog import Model
from exporter.models.checkpoint.weights import CheckpointWeights
from exporter.models.quantization import Container


@dataclass(frozen=True, slots=True)
class Job:
    """A deployment whose model and quantization are resolved, and the hardware it is placed on.

    ``weights_known`` False: the quantization is a name whose bytes are not known, weights are left out.
    ``notes``: what was assumed on the way here. ``draft``: the draft model, where one was named and is known;
    ``draft_quantization`` what its name tells.
    ``stored``: what the headers of the checkpoint say; it wins over the quantization's recipe.
    """

    spec: DeploymentSpec
    model: Model
    quantization: str
    devices: tuple[DeviceShape, ...]
    host: HostShape | None
    container: Container = Container.SAFETENSORS
    weights_known: bool = True
    notes: tuple[str, ...] = ()
    checkpoint_bytes: int | None = None
    draft: Model | None = None
    draft_quantization: str | None = None
    stored: CheckpointWeights | None = None

    @property
    def weights_basis(self) -> Basis:
        """Where the bytes of weights come from."""
        return "checkpoint" if self.stored is not None else "architecture"

    @property
    def architecture(self) -> Architecture:
        return self.model.architecture

    @property
    def context_tokens(self) -> int:
        """Declared length, else the length that the model was trained for."""
        return self.spec.max_model_len or self.architecture.context_tokens


def _no_devices(spec: DeploymentSpec, gpus: int | None) -> tuple[DeviceShape, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Policy:
    """How an engine allocates. ``foreign`` are the settings that it does not have; ``registry_names``: its
    model names are Ollama's. ``other_container``: what it loads besides ``container``. ``unsized`` are the
    devices of a deployment of which nothing but perhaps their number is known.
    """

    container: Container
    foreign: frozenset[str]
    allocate: Callable[[Job], Footprint]
    registry_names: bool = False
    other_container: Container | None = None
    unsized: Callable[[DeploymentSpec, int | None], tuple[DeviceShape, ...]] = _no_devices
