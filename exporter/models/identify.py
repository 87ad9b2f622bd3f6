"""The door for names: which model of the packaged catalogue a name, file or folder stands for."""

from __future__ import annotations

from exporter.models.catalog import Identity, catalog

__all__ = ["Identity", "identify"]


def identify(name: str, *, ollama: bool = False) -> Identity:
    """Model, quantization and rule of a name in the packaged catalogue (see ``Catalog.identify``).

    Raises UnknownModel when the name stands for two models.
    """
    return catalog().identify(name, ollama=ollama)
