"""Figures that real engines printed, against the estimate: observed.jsonl has them, with sources and
tolerances.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TypedDict

import pytest

from exporter.footprint.deployment import DeploymentSpec, DeviceShape
from exporter.footprint.estimate import estimate
from exporter.footprint.policies import policy_of
from exporter.footprint.result import Footprint, Term, exact
from exporter.models.catalog import catalog
from exporter.models.quantization import checkpoint_bytes
from exporter.units import GIB


class Case(TypedDict, total=False):
    id: str
    source: str
    spec: dict[str, str | int | float]
    devices: int
    device_bytes: int
    field: str
    value: float
    tolerance: float


LINES = (Path(__file__).parent / "observed.jsonl").read_text("utf-8").splitlines()
CASES: list[tuple[str, Case]] = [(json.loads(line)["class"], json.loads(line)) for line in LINES]


def answer(case: Case) -> Footprint:
    spec = DeploymentSpec("observed", **case["spec"])  # type: ignore[arg-type]  # a row of JSON
    size = case.get("device_bytes", 140 * GIB)
    devices = [DeviceShape(index, size) for index in range(case["devices"])]
    return estimate(spec, devices, catalog())


def predicted(case: Case) -> tuple[float, float]:
    """Low and high end of what the case asks for."""
    if case["field"] == "checkpoint":
        model = catalog().resolve(str(case["spec"]["model"]))
        quantization = catalog().quantization(model, str(case["spec"]["quantization"]))
        container = policy_of(str(case["spec"]["engine"])).container
        size = checkpoint_bytes(model.architecture, quantization, container)
        return size, size
    footprint = answer(case)
    cache = footprint.kv_cache
    numbers = {
        "bytes_per_token": cache.bytes_per_token,
        "capacity_tokens": cache.capacity_tokens,
        "full_length_sequences": cache.full_length_sequences,
    }
    if case["field"] in numbers:
        number = numbers[case["field"]]
        assert number is not None
        return number, number
    term = _term(footprint, case["field"])
    return term.low_bytes, term.high_bytes


def _term(footprint: Footprint, field: str) -> Term:
    if field == "host_weights":
        parts = (footprint.host.components.get(name, exact(0, "engine")) for name in ("weights", "experts"))
        low = sum(part.low_bytes for part in parts)
        return exact(low, "architecture")
    first = footprint.devices[0]
    return first.components[field.removesuffix("_per_device")]


def error_of(case: Case) -> float:
    """Relative distance of the observed value from the predicted range; 0 inside it."""
    low, high = predicted(case)
    nearest = min(max(case["value"], low), high)
    return nearest / case["value"] - 1


@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[case["id"] for _, case in CASES])
def test_estimate_meets_the_observed_figure(case: Case) -> None:
    low, high = predicted(case)
    seen = case["value"]
    assert abs(error_of(case)) <= case["tolerance"], f"predicted {low:,.0f} … {high:,.0f}, seen {seen:,.0f}"


def test_the_middle_of_the_predicted_pool_is_within_the_tolerance_too() -> None:
    pools = [case for kind, case in CASES if kind == "pool"]
    assert pools
    for case in pools:
        assert sum(predicted(case)) / 2 == pytest.approx(case["value"], rel=0.05)


def test_mean_error_of_every_class_is_below_one_percent() -> None:
    errors = defaultdict(list)
    for kind, case in CASES:
        errors[kind].append(abs(error_of(case)))
    for kind, found in sorted(errors.items()):
        mean = sum(found) / len(found)
        print(f"{kind:10} {len(found):2} figures, mean error {mean:.3%}, worst {max(found):.3%}")
    assert all(sum(found) / len(found) < 0.01 for found in errors.values())


def test_every_observed_figure_names_its_source() -> None:
    assert all(case["source"] for _, case in CASES)
    assert len({case["id"] for _, case in CASES}) == len(CASES) >= 20
