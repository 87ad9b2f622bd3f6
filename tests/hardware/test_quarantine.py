"""How long a device is left alone."""

from __future__ import annotations

import time

import pytest
from nvml_host import FakeClock

from exporter.hardware.quarantine import Quarantine


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_a_device_rests_for_its_time(clock: FakeClock) -> None:
    resting = Quarantine()
    resting.add(3, 30, None)
    assert list(resting) == [3]
    clock.now += 29
    assert list(resting) == [3]
    clock.now += 1
    assert list(resting) == []


def test_each_further_rest_is_twice_as_long_up_to_ten_minutes(clock: FakeClock) -> None:
    resting = Quarantine()
    lengths = []
    for _ in range(7):
        resting.add(3, 30, None)
        rest = resting.get(3)
        assert rest is not None
        lengths.append(rest.until - clock.now)
        clock.now = rest.until
    assert lengths == [30, 60, 120, 240, 480, 600, 600]


def test_a_device_that_answered_starts_over(clock: FakeClock) -> None:
    resting = Quarantine()
    resting.add(3, 30, None)
    resting.add(3, 30, None)
    resting.end(3)
    assert not resting
    resting.add(3, 30, None)
    clock.now += 30
    assert list(resting) == []


def test_each_device_has_its_own_rest(clock: FakeClock) -> None:
    resting = Quarantine()
    resting.add(0, 30, None)
    clock.now += 20
    resting.add(5, 30, None)
    assert sorted(resting) == [0, 5]
    clock.now += 10
    assert sorted(resting) == [5]
