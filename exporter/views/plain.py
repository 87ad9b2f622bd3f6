"""Small readings of the JSON form that several views need: a term's size, what a deployment expects where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Plain = Mapping[str, Any]
"""The JSON form of a snapshot, or a part of it (docs/API.md)"""

COMPONENT_LABELS = {
    "weights": "weights",
    "kv_cache": "KV cache",
    "activations": "activations",
    "graphs": "CUDA graphs",
    "runtime": "runtime",
    "speculative": "speculative",
    "communication": "communication",
    "experts": "experts",
    "pinned": "pinned",
    "prompt_cache": "prompt cache",
}

DOES_NOT_RUN = "declared_only"


def expected_bytes(term: Plain) -> int:
    """What a warm engine is expected to hold, as `footprint.result.Term` has it."""
    likely = term["likely_bytes"]
    return int(likely) if likely is not None else (term["low_bytes"] + term["high_bytes"]) // 2


def runs(status: Plain) -> bool:
    """Whether a deployment has processes."""
    return bool(status["state"] != DOES_NOT_RUN)


def counts(status: Plain) -> bool:
    """Whether its room is promised: it runs, or it must be able to start at any time."""
    return runs(status) or bool(status["declared"]["required"])


def ranks(status: Plain) -> Iterator[tuple[str, Plain]]:
    """Device uuid ("" where it was never seen) and expectation of every rank."""
    footprint = status["declared"]["footprint"]
    if footprint is not None:
        yield from zip(status["declared"]["ranks"], footprint["devices"], strict=False)


def device_names(plain: Plain) -> dict[str, str]:
    """uuid → `GPU 5`"""
    return {gpu["identity"]["uuid"]: f"GPU {number(gpu['identity'])}" for gpu in plain.get("gpus", ())}


def gpu_count(plain: Plain) -> int:
    """Devices that are here or remembered; MIG slices are parts of them."""
    return sum(1 for gpu in plain["gpus"] if gpu["identity"].get("mig") is None)


def number(identity: Plain) -> str:
    """`5`; of a MIG slice `0:3`, its GPU and GPU instance"""
    mig = identity.get("mig")
    return str(int(identity["index"])) + ("" if mig is None else f":{int(mig['instance'])}")


def held_here(plain: Plain, uuid: str, name: str) -> int:
    """Bytes that a deployment holds on a device."""
    return sum(
        one["size_bytes"]
        for one in plain["assessment"]["held"].get(uuid, ())
        if one["kind"] == "deployment" and one["holder"] == name
    )


def strangers_bytes(plain: Plain, uuid: str) -> int:
    """Bytes of a device that no deployment holds."""
    holdings = plain["assessment"]["held"].get(uuid, ())
    return sum(one["size_bytes"] for one in holdings if one["kind"] != "deployment")


def in_use_bytes(memory: Plain) -> int:
    """RAM of a deployment that the kernel cannot take back."""
    return int(memory["anonymous"] + memory["shared"] + memory["hugepages"])
