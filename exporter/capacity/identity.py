"""Which model an instance serves, by what its launch, its files and its engine say, and what it should need.

Names come from other people's command lines and servers: what is shown of them is the name of a model on a
hub or in the server's interface, never a path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from exporter.capacity.checkpoints import Found
from exporter.capacity.launched import LLAMA_CPP_FAMILY, spec_of
from exporter.engines.launch import Launch
from exporter.engines.telemetry.types import Telemetry
from exporter.footprint.estimate import DeviceShape, Footprint, FootprintError, HostShape, estimate
from exporter.models.catalog import Catalog, UnknownModel, UnknownQuantization, catalog

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[\w.-]{1,96}){1,2}(?::[\w.-]{1,64})?", re.ASCII)
_BARE_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?::[\w.-]{1,64})?", re.ASCII)
_BLOB = re.compile(r"sha256[-:][0-9a-f]{64}", re.ASCII)
_QUOTED = re.compile(r"""\s*(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")
_PART = re.compile(r"-[0-9]{5}-of-[0-9]{5}$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Identity:
    """``asked`` is the name that the catalogue knows it by; None: the model is not known, and ``problem``
    says why. ``shown`` is what may be told of its name.
    """

    asked: str | None
    model_id: str | None
    shown: str | None
    quantization: str | None = None
    found: Found | None = None
    problem: str = ""


def is_path(name: str) -> bool:
    """Whether a launch names files of its own host."""
    return name.startswith(("/", "./", "../", "~")) or name.endswith(".gguf")


def shown_name(name: str | None) -> str | None:
    """What may be shown of a model's name; None for a path and for anything unusual."""
    if name is None or is_path(name):
        return None
    plain = _HUB_NAME.fullmatch(name) or _BARE_NAME.fullmatch(name)
    return name if plain and not _BLOB.search(name) else None


def served_name(launch: Launch, telemetry: Telemetry | None) -> str | None:
    """The name under which clients ask for the model: said, else as the engines derive it from the model.

    None: the launch does not tell, and the engine has not told yet.
    """
    told = (telemetry.served_model, telemetry.model) if telemetry is not None else ()
    for name in (launch.served_model, launch.model, *told):
        if name and (plain := _plain_name(name)):
            return plain
    return None


def _plain_name(name: str) -> str | None:
    if (shown := shown_name(name)) is not None:
        return shown
    last = PurePosixPath(name).name
    if last.endswith(".gguf"):
        last = _PART.sub("", last.removesuffix(".gguf"))
    if _BLOB.fullmatch(last) or not last.strip() or not last.isprintable():
        return None
    return last[:128]


def identify(launch: Launch, found: Found | str | None, telemetry: Telemetry | None) -> Identity:
    """``found`` is what the checkpoint's headers said, or why they could not be read; None: not asked."""
    told = (telemetry.model, telemetry.served_model) if telemetry is not None else ()
    names = tuple(name for name in (launch.model, *told, launch.served_model) if name)
    shown = next((plain for name in names if (plain := shown_name(name))), None)
    if isinstance(found, Found):
        known_id = found.model.id if _is_packaged(found.model.id) else shown_name(found.model.id)
        return Identity(found.model.id, known_id, known_id or shown, found.quantization, found)
    known = catalog()
    problem = "the launch names no model" if not names else "the model is not in the catalogue"
    for name in names:
        try:
            one = known.identify(name, ollama=launch.engine == "ollama")
        except UnknownModel:
            problem = "the name of the model stands for more than one"
            continue
        except UnknownQuantization:
            problem = "the name of the model tells a quantization that is not known for it"
            continue
        if one.model is not None:
            said = telemetry.quantization if telemetry is not None else None
            return Identity(name, one.model.id, one.model.id, one.quantization or said)
    if found:
        problem = f"{problem}, and its files could not be read: {found}"
    return Identity(None, None, shown, problem=problem)


def _is_packaged(model_id: str) -> bool:
    return any(model.id == model_id for model in catalog().models)


def expected(
    launch: Launch,
    identity: Identity,
    telemetry: Telemetry | None,
    devices: Sequence[DeviceShape],
    host: HostShape | None,
) -> tuple[Footprint | None, str]:
    """What it should need on these devices, or why that cannot be told. The reason repeats no name."""
    if identity.asked is None:
        return None, identity.problem
    if launch.problems:
        return None, f"a setting of the launch cannot be right: {_unquoted(launch.problems[0])}"
    spec = spec_of(replace(launch, model=identity.asked), "discovered")
    if spec is None:
        return None, "the launch names no engine that is known"
    spec = replace(spec, quantization=spec.quantization or identity.quantization)
    if telemetry is not None:
        spec = replace(spec, engine_version=spec.engine_version or telemetry.engine_version)
        if launch.engine in LLAMA_CPP_FAMILY:
            # Its context is the whole cache; unsaid, it follows from the model and the memory that is free.
            spec = replace(
                spec,
                max_model_len=spec.max_model_len or telemetry.kv_capacity_tokens,
                parallel=spec.parallel or telemetry.max_num_seqs,
            )
        else:
            spec = replace(spec, max_model_len=spec.max_model_len or telemetry.max_model_len)
    known: Catalog = identity.found.known if identity.found is not None else catalog()
    stored = identity.found.stored if identity.found is not None else None
    try:
        return estimate(spec, devices, known, host, stored), ""
    except (UnknownModel, UnknownQuantization, FootprintError) as error:
        return None, _unquoted(str(error))


def _unquoted(message: str) -> str:
    """A message without the names that it quotes: they are somebody's command line."""
    return _QUOTED.sub("", message)
