"""Joins what the operator declared with what it should need on the devices that are really here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from exporter.capacity.observation import Declared
from exporter.engines.process import PROGRAMS
from exporter.footprint.estimate import (
    DeploymentSpec,
    DeviceShape,
    Footprint,
    FootprintError,
    HostShape,
    estimate,
)
from exporter.hardware.driver import DIVIDED
from exporter.hardware.gpu import Gpu, Number, by_number
from exporter.hardware.host import HostReading
from exporter.models.catalog import Catalog, UnknownModel, UnknownQuantization
from exporter.settings.options import Deployment

Shapes = Mapping[Number, tuple[str, DeviceShape]]
"""Number of a device → (uuid, shape), of every device whose size was ever read in this run. A slice that is
more than one MIG device to CUDA is here under their further uuids too."""


def shapes_of(gpus: Sequence[Gpu], before: Shapes) -> dict[Number, tuple[str, DeviceShape]]:
    """The shapes known after a reading: a device that does not answer keeps the one it had. A slice that was
    removed has none, and neither has a GPU that is divided: no deployment is placed on it."""
    slices = {name for gpu in gpus if gpu.identity.mig for name in _names(gpu)}
    divided = {gpu.identity.number for gpu in gpus if gpu.identity.memory_kind == DIVIDED}
    known = {
        number: shape
        for number, shape in before.items()
        if (isinstance(number, int) or number in slices) and number not in divided
    }
    for gpu in gpus:
        reading = gpu.reading
        if reading is None or reading.memory_total_bytes is None:
            continue
        shape = DeviceShape(
            gpu.identity.index, reading.memory_total_bytes, reading.memory_reserved_bytes or 0
        )
        known |= dict.fromkeys(_names(gpu), (gpu.identity.uuid, shape))
    return known


def _names(gpu: Gpu) -> tuple[Number, ...]:
    """The number of a device, and the uuids that mean it beside its own."""
    return gpu.identity.number, *gpu.identity.uuids[1:]


def host_shape(host: HostReading) -> HostShape:
    """The host as the estimator wants it: size, nodes, and the instructions that decide what is repacked."""
    features = host.cpu.features if host.cpu else frozenset()
    if "avx512f" in features:
        instructions = "x86-avx512"
    elif "avx2" in features:
        instructions = "x86-avx2"
    else:
        instructions = "arm64" if features & {"asimddp", "i8mm"} else "none"
    # A node without RAM (processors alone, a device's memory that is switched off) is none to lie on.
    nodes = sum(1 for node in host.numa.values() if node.total_bytes)
    return HostShape(host.memory_total_bytes, instructions, nodes or None)


def declare(
    entries: Sequence[Deployment], shapes: Shapes, host: HostShape | None, catalog: Catalog
) -> tuple[Declared, ...]:
    """Every entry with its footprint, or with the reason why there is none."""
    return tuple(_declare(entry, shapes, host, catalog) for entry in entries)


def _declare(entry: Deployment, shapes: Shapes, host: HostShape | None, catalog: Catalog) -> Declared:
    footprint: Footprint | None = None
    problem = ""
    try:
        devices = [_shape(device, shapes) for device in entry.devices]
        _check_once(entry, shapes)
        footprint = estimate(_spec(entry), devices, catalog, host)
    except (UnknownModel, UnknownQuantization, FootprintError) as error:
        problem = str(error)
    match = entry.match
    programs = (match.program,) if match and match.program else PROGRAMS.get(entry.engine, ())
    return Declared(
        name=entry.name,
        model=entry.model,
        engine=entry.engine,
        required=entry.required,
        device_indices=tuple(_number(device, shapes) for device in entry.devices),
        ranks=tuple(_uuid(device, shapes) for device in entry.devices),
        programs=programs,
        unit=match.unit if match else None,
        tp=entry.tp,
        pp=entry.pp,
        dp=entry.dp,
        max_model_len=entry.max_model_len,
        max_num_seqs=entry.max_num_seqs,
        kv_cache_dtype=entry.kv_cache_dtype,
        footprint=footprint,
        problem=problem,
        planned_tokens=_planned_tokens(entry),
    )


def _planned_tokens(entry: Deployment) -> int | None:
    """Tokens of the plan; without a context of its own, each request is planned at full length."""
    context = entry.planned_context or entry.max_model_len
    if entry.planned_sequences is None or context is None:
        return None
    return entry.planned_sequences * context


def shape_at(number: Number, shapes: Shapes) -> DeviceShape | None:
    """The shape of a device; None when it was never read."""
    known = shapes.get(number)
    return known[1] if known is not None else None


def _found(device: Number, shapes: Shapes) -> tuple[str, DeviceShape] | None:
    """A device by its number or its uuid, as a declaration names it."""
    known = shapes.get(device)
    return known or next((one for one in shapes.values() if one[0] == device), None)


def _check_once(entry: Deployment, shapes: Shapes) -> None:
    """Refuse a device that is named in two ways. Raises FootprintError."""
    uuids = [uuid for device in entry.devices if (uuid := _uuid(device, shapes))]
    twice = next((uuid for uuid in uuids if uuids.count(uuid) > 1), None)
    if twice is not None:
        raise FootprintError(f"devices names GPU {_number(twice, shapes)} twice")


def _uuid(device: Number, shapes: Shapes) -> str:
    known = _found(device, shapes)
    return known[0] if known is not None else ""


def _number(device: Number, shapes: Shapes) -> Number:
    """The number of a device that a declaration may name by its uuid; that itself, while it is not known."""
    uuid = _uuid(device, shapes)
    return next((number for number in _numbers(shapes) if shapes[number][0] == uuid), device)


def _numbers(shapes: Shapes) -> list[Number]:
    return sorted((one for one in shapes if isinstance(one, int) or ":" in one), key=by_number)


def _shape(device: Number, shapes: Shapes) -> DeviceShape:
    known = _found(device, shapes)
    if known is not None:
        return known[1]
    here = _numbers(shapes)
    slices = [str(one) for one in here if str(one).startswith(f"{device}:")]
    if slices:
        raise FootprintError(
            f"devices names GPU {device}, which is divided (MIG): name one of its slices, {', '.join(slices)}"
        )
    known_here = ", ".join(str(one) for one in here) or "none"
    if ":" in str(device) or str(device).startswith("MIG-"):
        raise FootprintError(f"devices names MIG slice {device}, which is not here; known: {known_here}")
    raise FootprintError(f"devices names GPU {device}, whose size was never read here; known: {known_here}")


def _spec(entry: Deployment) -> DeploymentSpec:
    """The entry as the estimator wants it: both name the settings as the command contract does."""
    shared = {one.name for one in fields(DeploymentSpec)} & {one.name for one in fields(Deployment)}
    values = {name: getattr(entry, name) for name in shared}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return DeploymentSpec(**values | lists)
