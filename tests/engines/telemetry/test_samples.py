"""The reader of metrics pages: equal to prometheus_client's on valid pages, unmoved by any other."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from exporter.engines.telemetry.client import Unanswered
from exporter.engines.telemetry.samples import LINE_LIMIT_BYTES, SAMPLES_LIMIT, Samples, read_samples
from exporter.engines.telemetry.types import Reason

NAMES = st.sampled_from(["a", "a:b", "vllm:x_total", "_y", "B9"])
LABELS = st.dictionaries(st.sampled_from(["a", "le", "_b", "C9"]), st.text(max_size=20), max_size=4)
VALUES = st.one_of(st.floats(), st.integers(-(2**70), 2**70).map(float))
SPACES = st.sampled_from(["", " ", "\t", "  "])


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def printed(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return repr(value).replace("inf", "Inf")


@st.composite
def lines(draw: st.DrawFn) -> str:
    space = draw(SPACES)
    labels = [f'{key}{space}={space}"{escaped(value)}"' for key, value in draw(LABELS).items()]
    shown = "{" + f"{space},{space}".join(labels) + draw(st.sampled_from(["", ","] if labels else [""])) + "}"
    stamp = draw(st.sampled_from(["", " 1790000000000", " 0", " -1"]))
    return f"{draw(NAMES)}{shown if labels or draw(st.booleans()) else ''} {printed(draw(VALUES))}{stamp}"


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def agree(page: str) -> None:
    expected = [
        (sample.name, dict(sample.labels), sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]
    names = {name for name, _, _ in expected}
    found = read_samples(page.encode(), names)
    ours = [(sample.name, dict(sample.labels), sample.value) for name in names for sample in found.all(name)]
    order = sorted(expected, key=repr), sorted(ours, key=repr)
    assert len(order[0]) == len(order[1])
    for (name, labels, value), (our_name, our_labels, our_value) in zip(*order, strict=True):
        assert (name, labels) == (our_name, our_labels) and same(value, our_value)


@given(st.lists(lines(), min_size=1, max_size=8))
def test_valid_lines_are_read_as_the_client_library_reads_them(page: list[str]) -> None:
    agree("\n".join(page) + "\n")


@given(st.lists(st.tuples(st.text(max_size=10), st.floats(allow_nan=False)), max_size=5))
def test_pages_of_the_client_library_are_read_as_it_reads_them(samples: list[tuple[str, float]]) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("vllm:g", "help \\ with\nlines", ["l"], registry=registry)
    counter = Counter("vllm:c", "help", ["l"], registry=registry)
    histogram = Histogram("vllm:h", "help", registry=registry)
    for label, value in samples:
        gauge.labels(label).set(value)
        counter.labels(label).inc(abs(value))
        histogram.observe(value)
    agree(generate_latest(registry).decode())


@given(st.binary(max_size=400), st.lists(lines(), max_size=4))
def test_no_page_raises_anything_else_than_nonsense(junk: bytes, good: list[str]) -> None:
    for page in (junk, junk + "\n".join(good).encode(), "\n".join(good).encode() + b"\n" + junk):
        try:
            read_samples(page, {"a", "a:b", "vllm:x_total"})
        except Unanswered as error:
            assert error.reason is Reason.NONSENSE


@given(lines(), st.data())
def test_a_damaged_line_costs_itself(line: str, data: st.DataObject) -> None:
    raw = line.encode()
    cut = data.draw(st.integers(0, len(raw)))
    byte = data.draw(st.binary(max_size=3))
    page = b"kept 7\n" + raw[:cut] + byte + raw[cut + 1 :] + b"\nkept 8\n"
    assert read_samples(page, {"kept", "a", "a:b"}).all("kept")[0].value == 7


@pytest.mark.parametrize(
    "line",
    [
        'm{a="1} 2', "m{a=1} 2", 'm{a="1"', 'm{a="1"}', 'm{a="1"} ', "m", "m ", "m x", "m 1 2 3", "m 0x10",
        "m 1_0", "m １", 'm{a="1" b="2"} 3', 'm{9="1"} 3', 'm{="1"} 3', "m{,} 3", 'm{a="1",,} 3', "m} 3",
        "m{{} 3", 'm{a="\\"} 3',
        'm{a="' + "x" * 2000 + '"} 3', "m{" + ",".join(f'a{n}="1"' for n in range(300)) + "} 3",
        'm{a="' + "\\" * LINE_LIMIT_BYTES + '"} 3',
    ],
    ids=lambda line: line[:24],
)  # fmt: skip
def test_malformed_lines_are_no_samples(line: str) -> None:
    with pytest.raises(Unanswered):
        read_samples(line.encode() + b"\n", {"m"})


def test_exemplars_and_carriage_returns_are_read_past() -> None:
    page = b'm_bucket{le="1"} 4 1.5 # {trace_id="abc"} 0.5 1.2\r\n# EOF\n'
    assert read_samples(page, {"m_bucket"}).count("m_bucket") == 4


def test_only_wanted_names_are_kept() -> None:
    samples = read_samples(b"wanted 1\nwanted_more 2\nother 3\n", {"wanted"})
    assert [len(samples.all(name)) for name in ("wanted", "wanted_more", "other")] == [1, 0, 0]


def test_the_number_of_samples_is_bounded() -> None:
    page = b"".join(b'm{a="%d"} 1\n' % number for number in range(SAMPLES_LIMIT + 10))
    assert read_samples(page, {"m"}).count("m") == SAMPLES_LIMIT


def test_a_page_that_is_read_whole_is_refused_with_more_than_so_many() -> None:
    page = b"a 1\n" * SAMPLES_LIMIT
    assert len(read_samples(page, ["a"], whole=True).all("a")) == SAMPLES_LIMIT
    with pytest.raises(Unanswered) as caught:
        read_samples(page + b"a 1\n", ["a"], whole=True)
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("stamp", "at"),
    [
        ("", None),
        (" 1723621883587", 1723621883.587),  # the text format has milliseconds
        (" 1723621883.587", 1723621883.587),  # OpenMetrics seconds
        (" 0", 0.0),
        (" 1.2.3", None),
        (" " + "9" * 40, None),
    ],
)
def test_the_time_of_a_sample_is_in_seconds(stamp: str, at: float | None) -> None:
    (found,) = read_samples(f"a 1{stamp}\n".encode(), ["a"]).all("a")
    assert found.at == (pytest.approx(at) if at is not None else None)


def test_a_metrics_page_without_wanted_samples_is_no_nonsense() -> None:
    assert read_samples(b"# HELP a b\nother 1\n", {"m"}).count("m") is None
    assert read_samples(b"", {"m"}).count("m") is None


def test_the_first_name_that_is_there_counts() -> None:
    samples = read_samples(b'new{e="0"} 1\nnew{e="1"} 2\nold 9\n', {"new", "old"})
    assert (samples.count("new", "old"), samples.count("none", "old")) == (3, 9)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "1e300"])
def test_values_that_cannot_be_counts_are_none(value: str) -> None:
    samples = read_samples(f"m {value}\n".encode(), {"m"})
    assert isinstance(samples, Samples)
    assert (samples.count("m"), samples.largest_ratio("m")) == (None, None)
