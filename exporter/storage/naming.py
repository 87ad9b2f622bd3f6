"""What a checkpoint on disk is called: a model of the catalogue, a hub id, or the cleaned name of its folder.

A name decides, and only where it says nothing the files are asked what they are. Names are other people's:
what is unusual in them is not shown, and what is no DeepSeek model has no name at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from exporter.models.catalog import Identity, UnknownModel, UnknownQuantization, catalog
from exporter.models.quantization import Container, file_bytes
from exporter.models.rows import Model
from exporter.storage.facts import OTHER

_WORD = "deepseek"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)
_BARE = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
_CACHED = re.compile(r"models--(?P<organisation>[^/]+?)--(?P<name>[^/]+)")


@dataclass(frozen=True, slots=True)
class Named:
    """``known`` is the catalogue's entry; ``published``: its own files, not somebody's re-upload."""

    model: str
    deepseek: bool
    quantization: str | None = None
    known: Model | None = None
    published: bool = False

    def expected_bytes(self, container: Container) -> int | None:
        """Bytes of the files by the catalogue; None where the name does not tell how it is quantized."""
        quantization = self.quantization
        if quantization is None and self.published and container is Container.SAFETENSORS and self.known:
            quantization = self.known.native_quantization
        if self.known is None or quantization is None:
            return None
        try:
            return file_bytes(self.known.architecture, quantization, container)
        except (KeyError, ValueError):
            return None


NOT_DEEPSEEK = Named(OTHER, deepseek=False)


def hub_id(folder: str) -> str | None:
    """`ORG/NAME` of a folder of the Hugging Face cache; None for any other, or an unusual one."""
    match = _CACHED.fullmatch(folder)
    found = f"{match['organisation']}/{match['name']}" if match is not None else ""
    return found if _HUB_ID.fullmatch(found) else None


def named(
    names: Iterable[str],
    hub: str | None = None,
    *,
    ollama: bool = False,
    family: Callable[[], str | None] = lambda: None,
) -> Named:
    """The first of the names that the catalogue knows decides. ``family`` asks the files for their
    architecture, when no name says anything of DeepSeek.
    """
    names = [*names]
    quantization: str | None = None
    for name in (*names, *([hub] if hub else ())):
        found = _identified(name, ollama=ollama)
        if found is None:
            continue
        quantization = quantization or found.quantization
        if found.model is not None:
            published = hub is None or hub.lower() == found.model.id.lower()
            return Named(found.model.id, True, quantization, found.model, published)
    said = [hub or "", *names]
    if any(_WORD in one.lower() for one in said) or _WORD in (family() or "").lower():
        return Named(_shown(hub, names), True, quantization)
    return NOT_DEEPSEEK


def _identified(name: str, *, ollama: bool) -> Identity | None:
    try:
        return catalog().identify(name, ollama=ollama)
    except (UnknownModel, UnknownQuantization):
        return None


def _shown(hub: str | None, names: Iterable[str]) -> str:
    """A hub id, or the last folder of a path; never a path, and nothing unusual."""
    if hub is not None and _HUB_ID.fullmatch(hub):
        return hub
    for name in names:
        last = PurePosixPath(name).name
        for ending in (".gguf", ".safetensors"):
            last = last.removesuffix(ending)
        if _BARE.fullmatch(last):
            return last
    return f"{_WORD} (unnamed)"
