"""Joins what the operator declared with what it should need on the devices that are really here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from exporter.hardware.gpu import Gpu
from exporter.hardware.host import HostReading
from exporter.models.catalog import Catalog, UnknownModel, UnknownQuantization
from exporter.settings.options import Deployment

Shapes = Mapping[int, tuple[str, DeviceShape]]
"""Device index → (uuid, shape), of every device whose size was ever read in this run"""


def shapes_of(gpus: Iterable[Gpu], before: Shapes) -> dict[int, tuple[str, DeviceShape]]:
    """The shapes known after a reading: a device that does not answer keeps the one it had."""
    known = dict(before)
    for gpu in gpus:
        reading = gpu.reading
        if reading is None or reading.memory_total_bytes is None:
            continue
        index = gpu.identity.index
        known[index] = (
            gpu.identity.uuid,
            DeviceShape(index, reading.memory_total_bytes, reading.memory_reserved_bytes or 0),
        )
    return known


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
        devices = [_shape(index, shapes) for index in entry.devices]
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
        device_indices=tuple(entry.devices),
        ranks=tuple(shapes[index][0] if index in shapes else "" for index in entry.devices),
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


def shape_at(index: int, shapes: Shapes) -> DeviceShape | None:
    """The shape of a device; None when it was never read."""
    known = shapes.get(index)
    return known[1] if known is not None else None


def _shape(index: int, shapes: Shapes) -> DeviceShape:
    known = shapes.get(index)
    if known is None:
        here = ", ".join(str(one) for one in sorted(shapes)) or "none"
        raise FootprintError(f"devices names GPU {index}, whose size was never read here; known: {here}")
    return known[1]


def _spec(entry: Deployment) -> DeploymentSpec:
    """The entry as the estimator wants it: both name the settings as the command contract does."""
    shared = {one.name for one in fields(DeploymentSpec)} & {one.name for one in fields(Deployment)}
    values = {name: getattr(entry, name) for name in shared}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return DeploymentSpec(**values | lists)
