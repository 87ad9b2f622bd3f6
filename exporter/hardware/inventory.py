"""The devices that were ever seen here, kept across restarts, so that a lost one is `up 0` and not absent."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter import log, statefile
from exporter.hardware.gpu import GpuIdentity

_log = log.get(__name__)
_VERSION = 1
_KEYS = tuple(one.name for one in dataclasses.fields(GpuIdentity) if one.name != "mig")
_RETRY_SECONDS = 60.0


class Inventory:
    """Remembered identities by uuid; `path` None keeps them in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._unsaved_since: float | None = None
        self._identities: dict[str, GpuIdentity] = _load(path) if path else {}

    def all(self) -> list[GpuIdentity]:
        """Every remembered device, by index. Slices are not remembered: they come and go by intention."""
        return sorted(self._identities.values(), key=lambda one: one.order)

    def remember(self, identity: GpuIdentity) -> None:
        """Add or update a device; saved when that changes anything, and tried again later when that fails."""
        if self._identities.get(identity.uuid) != identity:
            self._identities[identity.uuid] = identity
            self._save()
        elif self._unsaved_since is not None and time.monotonic() - self._unsaved_since > _RETRY_SECONDS:
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
        rows = [{key: getattr(identity, key) for key in _KEYS} for identity in self.all()]
        try:
            statefile.write(self._path, {"version": _VERSION, "gpus": rows})
        except OSError as error:
            if self._unsaved_since is None:
                _log.warning(
                    "inventory not saved; a device lost across a restart would be absent", error=str(error)
                )
            self._unsaved_since = time.monotonic()
        else:
            self._unsaved_since = None


def _load(path: Path) -> dict[str, GpuIdentity]:
    try:
        content = statefile.read(path)
        if content["version"] != _VERSION:
            raise ValueError(f"version {content['version']}")
        identities = [_identity(row) for row in content["gpus"]]
        return {identity.uuid: identity for identity in identities}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _log.warning("inventory not readable; starting without one", path=str(path), error=str(error))
        return {}


def _identity(row: Mapping[str, Any]) -> GpuIdentity:
    """Raises KeyError, TypeError or ValueError on a row that is no identity."""
    node = row["numa_node"]
    texts = {
        key: row[key] for key in ("uuid", "name", "vendor", "pci_bus_id", "memory_kind", "driver_version")
    }
    texts["source"] = row.get("source", "")  # older files know only devices that we read ourselves
    if not all(isinstance(one, str) for one in texts.values()) or not texts["uuid"]:
        raise ValueError("a device without its names")
    return GpuIdentity(index=int(row["index"]), numa_node=None if node is None else int(node), **texts)
