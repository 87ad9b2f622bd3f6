"""What is remembered of a value: growth over resets, peaks, steadiness, lines, and no more than needed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.alerting.history import History

WINDOW = 600.0
STEP = WINDOW / 60


def filled(values: list[float], *, every: float = STEP) -> tuple[History, float]:
    """A history of these values, and the time of the last."""
    history = History({"x": (WINDOW,)})
    for number, value in enumerate(values):
        history.add("x", (), number * every, value)
    return history, (len(values) - 1) * every


class TestGrowth:
    def test_it_is_the_sum_of_what_was_added(self) -> None:
        history, now = filled([1, 1, 4, 9])
        assert history.growth("x", (), now, WINDOW, 9) == 8

    def test_a_reset_counts_from_zero(self) -> None:
        history, now = filled([100, 105, 3, 10])
        assert history.growth("x", (), now, WINDOW, 12) == 5 + 3 + 7 + 2

    def test_of_what_was_never_seen_there_is_none(self) -> None:
        history, now = filled([])
        assert history.growth("x", (), now, WINDOW, 12) is None

    def test_what_is_older_than_the_window_does_not_count(self) -> None:
        history, now = filled([0] + [50] * 200)
        assert history.growth("x", (), now, WINDOW, 50) == 0

    @given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
    def test_a_counter_without_resets_grows_from_its_first_to_its_last(self, steps: list[int]) -> None:
        totals = [float(sum(steps[:end])) for end in range(1, len(steps) + 1)]
        history, now = filled(totals)
        assert history.growth("x", (), now, WINDOW, totals[-1]) == totals[-1] - totals[0]


class TestPeak:
    def test_it_is_the_greatest_of_the_window_and_the_present(self) -> None:
        history, now = filled([9, 2, 3])
        assert history.peak("x", (), now, WINDOW, 4) == 9
        assert history.peak("x", (), now, 1.5 * STEP, 4) == 4
        assert history.peak("y", (), now, WINDOW, 4) == 4


class TestSteadiness:
    def test_one_change_within_the_window_is_one_too_many(self) -> None:
        history, now = filled([7.0] * 80)
        assert history.is_steady("x", (), now, WINDOW, 7)
        assert not history.is_steady("x", (), now, WINDOW, 8)
        history, now = filled([7.0] * 40 + [8.0] + [7.0] * 40)
        assert not history.is_steady("x", (), now, WINDOW, 7)

    def test_what_was_not_there_at_the_beginning_is_not_known_to_be_steady(self) -> None:
        history, now = filled([7.0] * 50)
        assert not history.is_steady("x", (), now, WINDOW, 7)


class TestLine:
    @given(st.floats(-1e6, 1e6), st.floats(-1e3, 1e3), st.floats(0, 1e5))
    def test_through_a_straight_line_it_goes_on_straight(self, at: float, slope: float, ahead: float) -> None:
        history, now = filled([at + slope * number * STEP for number in range(60)])
        wanted = at + slope * (now + ahead)
        assert history.line("x", (), now, WINDOW, ahead) == pytest.approx(wanted, rel=1e-6, abs=1e-3)

    def test_one_point_is_no_line(self) -> None:
        history, now = filled([5])
        assert history.line("x", (), now, WINDOW, 60) is None


class TestWhatIsKept:
    def test_points_closer_than_a_step_are_not(self) -> None:
        history, now = filled([0, 1, 2, 3, 4, 5], every=STEP / 2)
        assert history.growth("x", (), now, WINDOW, 4) == 4  # 0, 2, 4 and now

    def test_a_value_that_is_gone_is_forgotten_when_its_window_is_over(self) -> None:
        history, now = filled([5, 5])
        history.forget(now + WINDOW / 2)
        assert history.growth("x", (), now, WINDOW, 6) == 1
        history.forget(now + WINDOW + 1)
        assert history.growth("x", (), now, WINDOW, 6) is None
