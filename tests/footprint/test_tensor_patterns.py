"""Patterns of --override-tensor: as std::regex would search, and never for long."""

from __future__ import annotations

import contextlib
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.footprint.tensor_patterns import MAX_PATTERN, PatternError, matcher

NAMES = [
    f"blk.{layer}.{part}.weight"
    for layer in range(61)
    for part in ("ffn_down_exps", "ffn_up_exps", "ffn_gate_shexp", "attn_q_a", "attn_kv_a_mqa")
] + ["token_embd.weight", "output.weight", "blk.3.exp_probs_b.bias"]


@pytest.mark.parametrize(
    "pattern",
    [
        "exps",
        r"\.ffn_.*_exps\.",
        r"blk\.(?:[3-9]|[1-5][0-9]|60)\.ffn_.*_exps\.weight$",
        r"^output",
        r"blk\.[0-9]{1}\..*",
        r"blk\.\d{2,}\.",
        r"([0-9]|1[0-9]).*exps",
        r"blk\.(2[0-9]|3\d)\.ffn_(up|down)_exps",
        r"token_embd\.weight",
        r"[^.]+\.weight$",
        r"\D\.\d",
        "x?",
        "blk.*?exps",
        r"ffn_(gate|up|down)_exps\.(weight|bias)",
    ],
)
def test_a_pattern_finds_what_a_regular_expression_finds(pattern: str) -> None:
    matches = matcher(pattern)
    assert [name for name in NAMES if matches(name)] == [name for name in NAMES if re.search(pattern, name)]


ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\d", "^", "$"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        inner.map(lambda one: f"(?:{one})*"),
        inner.map(lambda one: f"(?:{one}){{1,2}}"),
    ),
    max_leaves=8,
)


@given(PATTERNS, st.text("ab1.", max_size=8))
@settings(max_examples=400, deadline=None)
def test_it_agrees_with_pythons_expressions(pattern: str, name: str) -> None:
    expected = re.search(pattern.replace("$", r"\Z"), name) is not None
    assert matcher(pattern)(name) is expected


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*b", "(.*)*(.*)*(.*)*x", "(a{1,40}){1,40}$", "(x+x+)+y", "a?" * 60 + "a" * 60]
)
def test_no_pattern_takes_long(pattern: str) -> None:
    start = time.monotonic()
    with contextlib.suppress(PatternError):
        matcher(pattern)("a" * 200 + "b")
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    "pattern",
    ["", "(", ")", "[a", "a{", "a{3,1}", "a{999}", "*a", "(?!x)a", r"\1", "a" * (MAX_PATTERN + 1), "(" * 99],
)
def test_what_is_malformed_or_not_supported_is_refused_without_repeating_it(pattern: str) -> None:
    with pytest.raises(PatternError) as caught:
        matcher(pattern)("name")
    assert len(pattern) < 3 or pattern not in str(caught.value)
