"""Writes the Grafana boards as JSON beside this file: `python dashboards/generate.py`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from capacity_overview import capacity_overview

HERE = Path(__file__).parent
BOARDS = {"capacity-overview.json": capacity_overview}


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
