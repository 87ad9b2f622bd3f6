"""The floors: a module imports only from floors below its own, or from its own folder."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "exporter"

FLOORS = {
    "units": 0,
    "log": 0,
    "statefile": 0,
    "kernelfiles": 0,
    "limited_child": 0,
    "settings": 1,
    "models": 2,
    "engines": 2,
    "hardware": 3,
    "footprint": 3,
    "storage": 3,
    "capacity": 4,
    "planning": 5,
    "energy": 5,
    "snapshot": 6,
    "exposition": 7,
    "alerting": 7,
    "views": 7,
    "web": 8,
    "demo": 8,
    "daemon": 9,
    "cli": 10,
    "__main__": 11,
    "__init__": -1,
}
"""Floor of every folder and file of the package."""

PURE = {"models", "footprint", "capacity", "energy", "planning"}
"""Floors without input or output: arithmetic over values."""

DOOR = {
    "models/checkpoint/child.py",
    "models/checkpoint/files.py",
    "models/checkpoint/reader.py",
}
"""The one door of the pure floors: checkpoint headers, read in a limited child."""

IMPURE = {
    "asyncio",
    "ctypes",
    "httpx",
    "os",
    "psutil",
    "pynvml",
    "select",
    "signal",
    "socket",
    "subprocess",
    "threading",
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_from_floors_below(path: Path) -> None:
    own = room(path)
    above = [
        name
        for name in imported(path)
        if name.startswith("exporter.")
        and (other := name.split(".")[1]) in FLOORS
        and other != own
        and FLOORS[other] >= FLOORS[own]
    ]
    assert not above, f"{own} (floor {FLOORS[own]}) imports {above}"


def test_every_room_has_a_floor() -> None:
    assert {room(path) for path in modules()} <= FLOORS.keys()


@pytest.mark.parametrize(
    "path",
    [one for one in modules() if room(one) in PURE and one.relative_to(PACKAGE).as_posix() not in DOOR],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_pure_floors_touch_nothing_outside(path: Path) -> None:
    used = {name.split(".")[0] for name in imported(path)} & IMPURE
    opened = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"
    ]
    assert not used and not opened


def test_checkpoint_files_are_opened_in_the_child_alone() -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        if "exporter.models.checkpoint.child" in {name.rpartition(".")[0] for name in imported(path)}
    }
    assert users == {"models/checkpoint/reader.py"}


def test_only_the_worker_loads_the_vendor_library() -> None:
    users = {path.relative_to(PACKAGE).as_posix() for path in modules() if "pynvml" in imported(path)}
    inside = {
        "hardware/nvidia.py",
        *(f"hardware/nvidia_{part}.py" for part in ("calls", "events", "memory", "mig", "values")),
    }
    assert users == inside
    names = {f"exporter.{user.removesuffix('.py').replace('/', '.')}" for user in inside}
    reach = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        if any(name in names or name.rpartition(".")[0] in names for name in imported(path))
    }
    assert reach - inside == {"hardware/worker.py"}


def test_only_the_reader_loads_the_validator() -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        if any(name.split(".")[0] in ("pydantic", "pydantic_settings") for name in imported(path))
    }
    assert users == {"settings/reader.py"}
