"""Time on a recorded host: what repeats, what only grows, and that counters are the sums of what is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.demo import profile, timeline
from exporter.demo.timeline import Span

seconds = st.floats(0, 5000, allow_nan=False)
phases = st.floats(0, 1)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    cycle = draw(st.floats(20, 900))
    starts_at = draw(st.floats(0, cycle / 2))
    return Span(starts_at, draw(st.floats(1, cycle - starts_at)), cycle)


def summed(height: object, until: float, steps: int = 4000) -> float:
    """∫ by the midpoint rule."""
    width = until / steps
    return sum(height((step + 0.5) * width) for step in range(steps)) * width  # type: ignore[operator]


@given(seconds, phases)
def test_load_stays_where_no_alert_would_be(at: float, phase: float) -> None:
    assert 0.25 <= timeline.load(at, phase) <= 0.75


@given(st.floats(1, 600), phases)
def test_work_done_is_the_sum_of_the_load(until: float, phase: float) -> None:
    assert timeline.load_until(until, phase) == pytest.approx(
        summed(lambda at: timeline.load(at, phase), until), rel=1e-3
    )


@given(spans(), st.floats(1, 2000))
def test_the_sum_of_an_incident_is_that_of_its_intensity(span: Span, until: float) -> None:
    assert span.intensity_until(until) == pytest.approx(summed(span.intensity, until), rel=0.02, abs=0.5)


@given(spans(), seconds, seconds)
def test_counters_never_fall(span: Span, first: float, second: float) -> None:
    early, late = sorted((first, second))
    assert span.intensity_until(early) <= span.intensity_until(late) + 1e-6
    assert timeline.load_until(early) <= timeline.load_until(late)
    assert span.count(early) <= span.count(late)


@given(spans(), seconds)
def test_an_incident_is_felt_only_while_it_is_on(span: Span, at: float) -> None:
    intensity = span.intensity(at)
    assert 0 <= intensity <= 1
    assert span.is_on(at) or intensity == 0


@given(spans(), seconds)
def test_the_last_end_lies_before_and_nothing_was_on_since(span: Span, at: float) -> None:
    end = span.last_end(at)
    if end is None:
        assert span.count(at) <= 1
    else:
        assert end <= at + 1e-6
        assert at - end < span.cycle + 1e-6


@pytest.mark.parametrize("name", profile.names())
def test_incidents_of_a_profile_do_not_overlap_and_the_host_recovers_between(name: str) -> None:
    host = profile.load(name)
    quiet_until = 0.0
    for incident in sorted(host.incidents, key=lambda one: one.starts_at):
        assert incident.starts_at - quiet_until >= 30
        quiet_until = incident.starts_at + incident.lasts
    assert host.cycle_seconds - quiet_until >= 30
