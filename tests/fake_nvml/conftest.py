"""The bench that the fake driver's own tests work on; they fail without a C compiler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_nvml.build import compiler
from fake_nvml.probe import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A folder with a driver and child processes, which end with the test."""
    if compiler() is None:
        pytest.fail("no C compiler, so there is no driver to test against: apt install gcc libc6-dev")
    bench = Bench(tmp_path)
    yield bench
    bench.end()
