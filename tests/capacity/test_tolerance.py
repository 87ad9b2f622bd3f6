"""How far a deployment may be from its expectation: tight for what was counted, wide for estimates."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from capacity.builders import GIB
from exporter.capacity.tolerance import Tolerance
from exporter.footprint.result import RankFootprint, Term, exact, sum_terms

ALLOWED = Tolerance(exact_ratio=0.03, exact_bytes=GIB // 2, estimate_ratio=0.08, estimate_bytes=2 * GIB)


def rank(**components: Term) -> RankFootprint:
    return RankFootprint(0, 0, 0, components, sum_terms(components))


def test_what_is_counted_whole_is_held_tight() -> None:
    counted = rank(weights=exact(80 * GIB, "checkpoint"), kv_cache=exact(20 * GIB, "engine"))
    assert ALLOWED.of([counted]) == 3 * GIB + GIB // 2


def test_what_is_estimated_is_held_wide_and_only_that() -> None:
    mixed = rank(weights=exact(80 * GIB, "checkpoint"), runtime=Term(9 * GIB, 11 * GIB, "estimate"))
    assert ALLOWED.of([mixed]) == round(0.03 * 80 * GIB + 0.08 * 10 * GIB) + 2 * GIB


def test_nothing_between_the_two_ends_is_a_deviation() -> None:
    vague = rank(runtime=Term(0, 60 * GIB, "estimate"))
    assert ALLOWED.of([vague]) == 30 * GIB + GIB // 2


def test_several_ranks_on_one_device_add_up() -> None:
    one = rank(weights=exact(40 * GIB, "checkpoint"))
    assert ALLOWED.of([one, one]) == round(0.03 * 80 * GIB) + GIB // 2


def test_an_engine_whose_budget_is_known_is_not_charged_for_its_parts() -> None:
    # vLLM's pool takes what the rest leaves: more of the one is less of the other.
    parts = {"weights": exact(80 * GIB, "checkpoint"), "kv_cache": Term(10 * GIB, 50 * GIB, "estimate")}
    whole = Term(126 * GIB, 127 * GIB, "estimate", likely_bytes=126 * GIB)
    tight = ALLOWED.of([RankFootprint(0, 0, 0, parts, whole)])
    assert tight < ALLOWED.of([rank(**parts)])


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**40))
def test_it_reaches_the_high_end_and_never_shrinks_with_size(weights: int, low: int, width: int) -> None:
    one = rank(weights=exact(weights, "checkpoint"), runtime=Term(low, low + width, "estimate"))
    more = rank(weights=exact(weights + GIB, "checkpoint"), runtime=Term(low, low + width, "estimate"))
    assert ALLOWED.of([one]) >= one.total.high_bytes - one.total.expected_bytes
    assert ALLOWED.of([more]) >= ALLOWED.of([one])
