"""The devices that were ever seen here, kept across restarts, so that a lost one is `up 0` and not absent."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from exporter import log
from exporter.hardware.gpu import GpuIdentity

_log = log.get(__name__)
_VERSION = 1
_MAX_BYTES = 2**20


class Inventory:
    """Remembered identities by uuid; `path` None keeps them in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._identities: dict[str, GpuIdentity] = _load(path) if path else {}

    def all(self) -> list[GpuIdentity]:
        """Every remembered device, by index."""
        return sorted(self._identities.values(), key=lambda one: (one.index, one.uuid))

    def remember(self, identity: GpuIdentity) -> None:
        """Add or update a device; saved when that changes anything."""
        if self._identities.get(identity.uuid) != identity:
            self._identities[identity.uuid] = identity
            self._save()

    def forget(self, uuid: str) -> bool:
        """Drop a device that was taken out for good; False when it is not known."""
        if self._identities.pop(uuid, None) is None:
            return False
        self._save()
        return True

    def _save(self) -> None:
        if self._path is None:
            return
        rows = [dataclasses.asdict(identity) for identity in self.all()]
        try:
            _write_atomically(self._path, json.dumps({"version": _VERSION, "gpus": rows}, indent=1))
        except OSError as error:
            _log.warning(
                "inventory not saved; a device lost across a restart would be absent", error=str(error)
            )
            self._path = None


def _load(path: Path) -> dict[str, GpuIdentity]:
    try:
        with path.open("rb") as stream:
            content = json.loads(stream.read(_MAX_BYTES))
        if content["version"] != _VERSION:
            raise ValueError(f"version {content['version']}")
        identities = [GpuIdentity(**row) for row in content["gpus"]]
        return {identity.uuid: identity for identity in identities}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("inventory not readable; starting without one", path=str(path), error=str(error))
        return {}


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)
