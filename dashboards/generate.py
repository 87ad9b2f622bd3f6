"""Writes the Grafana boards as JSON beside this file: `python dashboards/generate.py`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from capacity_overview import capacity_overview
from capacity_review import capacity_review
from deployment import deployment
from energy_and_cost import energy_and_cost
from exporter_health import exporter_health
from host_and_gpu import host_and_gpu
from model_fit import model_fit

HERE = Path(__file__).parent
BOARDS: dict[str, Callable[[], dict[str, object]]] = {
    "capacity-overview.json": capacity_overview,
    "host-and-gpu.json": host_and_gpu,
    "deployment.json": deployment,
    "capacity-review.json": capacity_review,
    "model-fit.json": model_fit,
    "energy-and-cost.json": energy_and_cost,
    "exporter-health.json": exporter_health,
}


def rendered(board: dict[str, object]) -> str:
    """A board as text; the same board gives the same text."""
    return json.dumps(board, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=HERE, help="where to write (%(default)s)")
    directory: Path = parser.parse_args().directory
    for name, board in BOARDS.items():
        (directory / name).write_text(rendered(board()), encoding="utf-8")


if __name__ == "__main__":
    main()
