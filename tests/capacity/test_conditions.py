"""The table of conditions: complete, consistent, and about families that exist with the labels it names."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import fields
from typing import TypeAlias

import pytest

from exporter.alerting.records import GROUPS
from exporter.capacity.conditions import CONDITIONS, THRESHOLDS
from exporter.capacity.conditions.devices import HARDWARE_XIDS, SLOWDOWNS
from exporter.capacity.conditions.words import RUNNING
from exporter.capacity.terms import (
    Above,
    AboveSeries,
    AgedAtLeast,
    AgedAtMost,
    AllOf,
    AnyOf,
    AtMost,
    Below,
    Condition,
    Expression,
    Form,
    FromOutside,
    Outgrows,
    RateAbove,
    Series,
    Severity,
    Some,
    Subject,
    Unless,
    WillExceed,
    Within,
)
from exporter.exposition.families import FAMILIES
from exporter.hardware.nvidia_values import CLOCK_REASONS
from exporter.settings.options import Thresholds

BY_NAME = {family.name: family for family in FAMILIES}
RECORDED = {record.name for group in GROUPS for record in group.records}

each_condition = pytest.mark.parametrize(
    "condition", CONDITIONS, ids=lambda one: f"{one.name}-{one.severity}"
)

Leaf: TypeAlias = tuple[Expression, Subject]
"""What is no combination of others, and of whom it is judged."""


def leaves(node: Expression, subject: Subject) -> Iterator[Leaf]:
    match node:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from leaves(part, subject)
        case Unless(base, exempt):
            yield from leaves(base, subject)
            yield from leaves(exempt, subject)
        case Within(part, wider):
            yield from leaves(part, wider)
        case _:
            yield node, subject


def named(condition: Condition) -> list[Series]:
    found = []
    for leaf, _ in leaves(condition.expression, condition.subject):
        if not isinstance(leaf, FromOutside):
            found.append(leaf.series)
        if isinstance(leaf, AboveSeries | WillExceed | Outgrows):
            found.append(leaf.limit)
    return found


def compared(condition: Condition) -> list[tuple[Series, Subject]]:
    """Those whose samples become alerts; `Some` only tells whether there are any."""
    return [
        (leaf.series, subject)
        for leaf, subject in leaves(condition.expression, condition.subject)
        if not isinstance(leaf, FromOutside | Some)
    ]


def thresholds_of(condition: Condition) -> set[str]:
    with_one = Above | AtMost | Below | RateAbove | AgedAtMost | AgedAtLeast
    found: set[str] = set()
    for leaf, _ in leaves(condition.expression, condition.subject):
        if isinstance(leaf, with_one):
            found.add(leaf.threshold)
        elif isinstance(leaf, WillExceed | Outgrows):
            found.add(leaf.least_growth)
        elif isinstance(leaf, FromOutside):
            found |= set(re.findall(r'deepseek_threshold\{name="(\w+)"\}', leaf.promql))
    return found


def test_names_are_unique_with_their_severity_and_carry_the_prefix() -> None:
    names = [(condition.name, condition.severity) for condition in CONDITIONS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("DeepSeek") for name, _ in names)


def test_every_threshold_is_used_and_every_used_threshold_exists() -> None:
    used = set().union(*(thresholds_of(condition) for condition in CONDITIONS))
    # These decide what the daemon exports, and the rules compare with that.
    in_the_daemon = {one.name for one in THRESHOLDS if one.name.startswith("deviation_")} | {
        "rollout_seconds",
        "link_tokens_per_second",
    }
    assert used.isdisjoint(in_the_daemon)
    assert used | in_the_daemon == {threshold.name for threshold in THRESHOLDS}


def test_thresholds_are_the_options_that_an_operator_can_set() -> None:
    options = {one.name: getattr(Thresholds(), one.name) for one in fields(Thresholds)}
    assert options == {threshold.name: threshold.default for threshold in THRESHOLDS}


@each_condition
def test_series_exist_with_the_labels_that_they_are_chosen_by(condition: Condition) -> None:
    witnesses = [one.series for one in condition.witnesses]
    for series in (*named(condition), *witnesses, *(fact.series for fact in condition.facts)):
        if series.family in RECORDED:
            assert condition.subject in (Subject.POOL, Subject.RESOURCE)
            continue
        assert series.family in BY_NAME
        assert set(series.aside) <= set(BY_NAME[series.family].labels)
        assert not series.recorded or series.recorded in RECORDED


@each_condition
def test_what_is_left_of_a_series_is_its_subject(condition: Condition) -> None:
    # A label beside those of the subject would split one alert into several.
    for series, subject in compared(condition):
        left = set(BY_NAME[series.family].labels) - set(series.aside)
        assert left == set(subject.labels)


@each_condition
def test_facts_are_about_the_subject(condition: Condition) -> None:
    for fact in condition.facts:
        subject = fact.about or condition.subject
        assert set(subject.labels) <= set(condition.subject.labels)
        assert (fact.form in (Form.LABEL, Form.PAIRS)) == bool(fact.label)
        if fact.series.family not in RECORDED:
            labels = set(BY_NAME[fact.series.family].labels)
            assert set(subject.labels) <= labels
            assert not fact.label or fact.label in labels


@each_condition
def test_templates_name_only_what_is_known_and_every_fact_is_told(condition: Condition) -> None:
    facts = {fact.name for fact in condition.facts}
    told = {name for _, name, _, _ in string.Formatter().parse(condition.summary) if name}
    host = {"host"} if condition.subject.of_one_host else set()
    own = {"value", "of_deployment", *condition.subject.labels}
    assert told <= facts | host | own
    assert told >= facts | host
    assert not [name for _, name, _, _ in string.Formatter().parse(condition.description) if name]


@each_condition
def test_a_person_is_told_what_to_do_first(condition: Condition) -> None:
    if condition.severity in (Severity.CRITICAL, Severity.WARNING):
        assert "First action: " in condition.description


@each_condition
def test_only_bounds_that_are_certain_page(condition: Condition) -> None:
    if condition.severity is Severity.CRITICAL:
        assert all(("bound", "high") not in series.labels for series, _ in compared(condition))


def test_levels_against_a_threshold_keep_their_state() -> None:
    levels = [condition for condition in CONDITIONS if isinstance(condition.expression, Above)]
    assert levels
    # What belongs to a deployment goes with it when it is stopped, and that is a remedy and no gap: there the
    # sources tell that data are missing.
    assert [one.name for one in levels if not one.keeps_state] == ["DeepSeekConfinedMemoryOvercommitted"]
    assert all(condition.keeps_state or condition.witnesses for condition in levels)


def test_a_gap_resolves_no_alert_about_capacity_or_devices() -> None:
    # GpuErrors is about a moment, and keeps an hour by itself.
    resolved = {one.name for one in CONDITIONS if not one.about_monitoring and not one.held}
    # Nor do those of the fleet end by a gap: their records count a silent host as it was.
    assert resolved == {"DeepSeekGpuErrors", "DeepSeekCapacityNMinusOne", "DeepSeekCapacityExhaustion"}


@each_condition
def test_a_witness_is_of_the_alerts_own_host_and_device(condition: Condition) -> None:
    for witness in condition.witnesses:
        assert set(witness.subject.identity) <= set(condition.subject.identity)
        left = set(BY_NAME[witness.series.family].labels) - set(witness.series.aside)
        assert left == set(witness.subject.labels)


def test_xids_of_programs_are_no_hardware_errors() -> None:
    # NVIDIA, "XID Errors": graphics exception, page fault, stopped processing, preemptive removal.
    assert not {13, 31, 43, 45} & set(HARDWARE_XIDS)
    assert {48, 63, 64, 74, 79, 92, 94, 95, 119, 120} == set(HARDWARE_XIDS)


def test_the_ordinary_power_cap_is_no_slowdown() -> None:
    # The driver's names are those that the exposition has: a misspelt one would never fire.
    assert set(SLOWDOWNS) == set(CLOCK_REASONS) - {"sw_power_cap", "sync_boost"}


def test_running_is_every_state_but_declared_only() -> None:
    told = re.findall(
        r"(\w+)(?: \([^)]*\))?(?:,|\.)", BY_NAME["deepseek_deployment_state"].help.split(":")[1]
    )
    assert set(RUNNING) == set(told) - {"declared_only"}


def test_a_devices_identity_is_its_uuid() -> None:
    assert Subject.DEVICE.identity == ("uuid",)
    assert Subject.DEVICE.labels == ("gpu", "uuid")
