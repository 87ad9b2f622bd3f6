"""The bytes of an exposition: what prometheus-client's parsers, promtool and a reader make of them."""

from __future__ import annotations

import gzip
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from fixed_snapshot import EMPTY, FULL
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.exposition.collect import Sample, samples
from exporter.exposition.collect import itself as about_itself
from exporter.exposition.families import FAMILIES, Kind, host, itself
from exporter.exposition.render import (
    MAX_LABEL_CHARACTERS,
    MAX_SERIES_PER_FAMILY,
    Exposition,
    Renderer,
    clean,
)

GOLDEN = Path(__file__).parent / "golden"

Series = tuple[str, frozenset[tuple[str, str]]]


def ours(text: str) -> list[str]:
    """The lines about our own families, without those about this process and interpreter."""
    return [line for line in text.splitlines() if "deepseek_" in line]


def text_families(exposition: Exposition) -> Iterable[Metric]:
    return parse_text(exposition.text.decode())


def openmetrics_families(exposition: Exposition) -> Iterable[Metric]:
    parsed: Iterable[Metric] = parse_openmetrics(exposition.openmetrics.decode())  # type: ignore[no-untyped-call]
    return parsed


def text_series(exposition: Exposition) -> dict[Series, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): float(sample.value)
        for family in text_families(exposition)
        for sample in family.samples
        if sample.name.startswith("deepseek_")
    }


def openmetrics_series(exposition: Exposition) -> dict[Series, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): float(sample.value)
        for family in openmetrics_families(exposition)
        for sample in family.samples
        if sample.name.startswith("deepseek_")
    }


def expected_series(given_samples: list[Sample]) -> dict[Series, float]:
    return {
        (
            family.name,
            frozenset(
                (name, clean(value)) for name, value in zip(family.labels, labels, strict=True) if value
            ),
        ): float(value)
        for family, labels, value in given_samples
    }


def without_own_count(series: dict[Series, float]) -> dict[Series, float]:
    return {key: value for key, value in series.items() if key[0] != itself.SERIES.name}


texts = st.text(max_size=40) | st.text(alphabet='\\"\n\r\t\0 {}=,#é\u2028\ud800', max_size=12)
integers = st.integers(0, 2**64)
numbers = {
    Kind.INFO: st.just(1),
    Kind.COUNTER: integers | st.floats(0, allow_infinity=False),
    Kind.GAUGE: integers | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
}


@st.composite
def any_samples(draw: st.DrawFn) -> list[Sample]:
    found: list[Sample] = []
    for family in draw(st.lists(st.sampled_from(FAMILIES), max_size=6, unique=True)):
        if family not in (itself.SERIES, itself.SERIES_DROPPED):
            rows = draw(st.lists(st.tuples(*[texts] * len(family.labels)), max_size=4, unique=True))
            found += [(family, labels, draw(numbers[family.kind])) for labels in rows]
    return found


RENDERER = Renderer()


class TestRoundTrip:
    @given(any_samples())
    @settings(max_examples=200, deadline=None)
    def test_any_labels_and_values_read_back_from_both_formats(self, some: list[Sample]) -> None:
        exposition = RENDERER.render(some)
        assert without_own_count(text_series(exposition)) == expected_series(some)
        assert without_own_count(openmetrics_series(exposition)) == expected_series(some)

    def test_a_whole_snapshot_reads_back_from_both_formats(self) -> None:
        exposition = Renderer().render(samples(FULL))
        expected = expected_series(list(samples(FULL)))
        assert without_own_count(text_series(exposition)) == expected
        assert without_own_count(openmetrics_series(exposition)) == expected

    def test_families_keep_their_type_and_help(self) -> None:
        exposition = Renderer().render(samples(FULL))
        text = {one.name: one for one in text_families(exposition)}
        openmetrics = {one.name: one for one in openmetrics_families(exposition)}
        for family in {family for family, _, _ in samples(FULL)}:
            in_openmetrics = openmetrics[family.name.removesuffix("_total").removesuffix("_info")]
            assert (in_openmetrics.type, in_openmetrics.documentation) == (family.kind, family.help)
            in_text = text[family.name.removesuffix("_total")]
            assert in_text.type == (Kind.GAUGE if family.kind is Kind.INFO else family.kind)
            assert in_text.documentation == family.help

    def test_this_process_and_interpreter_are_described_too(self) -> None:
        exposition = Renderer().render(samples(EMPTY))
        names = {one.name for one in openmetrics_families(exposition)}
        assert {"process_resident_memory_bytes", "process_cpu_seconds", "python_info"} <= names

    def test_gzip_gives_the_same_bytes(self) -> None:
        exposition = Renderer().render(samples(FULL))
        assert gzip.decompress(exposition.text_gzip) == exposition.text
        assert gzip.decompress(exposition.openmetrics_gzip) == exposition.openmetrics
        assert len(exposition.text_gzip) < len(exposition.text) / 4

    def test_a_second_snapshot_is_rendered_as_if_it_were_the_first(self) -> None:
        renderer = Renderer()
        renderer.render(samples(EMPTY))
        renderer.render(samples(FULL))
        assert text_series(renderer.render(samples(FULL))) == text_series(Renderer().render(samples(FULL)))
        assert text_series(renderer.render(samples(EMPTY))) == text_series(Renderer().render(samples(EMPTY)))


class TestValues:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
    def test_what_is_not_a_finite_number_is_not_known(self, value: float) -> None:
        exposition = Renderer().render([(host.HOST_TOTAL, (), value), (host.HOST_AVAILABLE, (), 1)])
        assert without_own_count(text_series(exposition)) == {(host.HOST_AVAILABLE.name, frozenset()): 1}

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (150_754_820_097, "150754820097"),
            (2**63 + 1, "9223372036854775809"),
            (3.0, "3"),
            (True, "1"),
            (False, "0"),
            (0.1, "0.1"),
            (1e300, "1e+300"),
            (-5, "-5"),
        ],
    )
    def test_numbers_are_written_exactly_and_short(self, value: float, text: str) -> None:
        exposition = Renderer().render([(host.HOST_TOTAL, (), value)])
        assert f"\n{host.HOST_TOTAL.name} {text}\n" in exposition.text.decode()

    def test_control_characters_become_spaces_and_long_labels_are_cut(self) -> None:
        assert clean("a\nb\0c\ud800d") == "a b c d"
        assert clean("x" * 10_000) == "x" * MAX_LABEL_CHARACTERS

    def test_two_labels_that_become_alike_are_one_series(self) -> None:
        rows: list[Sample] = [(host.HOST_NUMA_FREE, (node,), 5) for node in ("a\n", "a\r", "a ")]
        lines = [line for line in Renderer().render(rows).text.decode().splitlines() if 'node="a ' in line]
        assert lines == [f'{host.HOST_NUMA_FREE.name}{{node="a "}} 5']


class TestCounts:
    def test_the_number_of_series_is_what_a_scraper_counts(self) -> None:
        for snapshot in (FULL, EMPTY):
            exposition = Renderer().render(samples(snapshot))
            found = text_series(exposition)
            assert exposition.series == len(found)
            assert found[itself.SERIES.name, frozenset()] == len(found)

    def test_a_family_beyond_its_cap_loses_the_rest_and_says_how_many(self) -> None:
        name = host.HOST_NUMA_FREE.name
        rows: list[Sample] = [
            (host.HOST_NUMA_FREE, (str(node),), 1) for node in range(MAX_SERIES_PER_FAMILY + 7)
        ]
        renderer = Renderer()
        found = text_series(renderer.render([*rows, (host.HOST_TOTAL, (), 1)]))
        assert sum(key[0] == name for key in found) == MAX_SERIES_PER_FAMILY
        assert found[host.HOST_TOTAL.name, frozenset()] == 1
        dropped = (itself.SERIES_DROPPED.name, frozenset({("family", name)}))
        assert found[dropped] == 7
        assert text_series(renderer.render(rows))[dropped] == 14


class TestGolden:
    """The whole exposition of one snapshot, to be read by people; UPDATE_GOLDEN=1 writes it anew."""

    @pytest.mark.parametrize(("name", "shape"), [("full.prom", "text"), ("full.openmetrics", "openmetrics")])
    def test_the_full_snapshot_looks_as_recorded(
        self, name: str, shape: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(about_itself, "__version__", "0.0.0")
        monkeypatch.setattr(about_itself, "__revision__", "golden")
        monkeypatch.setattr(platform, "python_version", lambda: "3.x")
        written = getattr(Renderer().render(samples(FULL)), shape).decode()
        lines = ours(written)
        path = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        assert lines == path.read_text(encoding="utf-8").splitlines()

    def test_promtool_finds_nothing_to_object(self) -> None:
        promtool = shutil.which("promtool")
        assert promtool, "promtool is missing (package prometheus)"
        done = subprocess.run(
            [promtool, "check", "metrics"],
            input=Renderer().render(samples(FULL)).text,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
