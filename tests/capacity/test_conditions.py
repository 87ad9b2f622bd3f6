"""The table of conditions: complete, consistent, and about families that exist with the labels it names."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import fields
from typing import TypeAlias

import pytest

from exporter.capacity.conditions import CONDITIONS, HARDWARE_XIDS, RUNNING, SLOWDOWNS, THRESHOLDS
from exporter.capacity.terms import (
    Above,
    AgedAtMost,
    AllOf,
    AnyOf,
    Condition,
    EqualTo,
    Expression,
    Form,
    FromOutside,
    Grown,
    RateAbove,
    Series,
    Severity,
    Some,
    Subject,
    Unless,
)
from exporter.exposition.families import FAMILIES
from exporter.hardware.nvidia import _REASONS
from exporter.settings.options import Thresholds

BY_NAME = {family.name: family for family in FAMILIES}

each_condition = pytest.mark.parametrize("condition", CONDITIONS, ids=lambda one: one.name)


Leaf: TypeAlias = Above | EqualTo | Some | RateAbove | Grown | AgedAtMost | FromOutside


def leaves(node: Expression) -> Iterator[Leaf]:
    match node:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from leaves(part)
        case Unless(base, exempt):
            yield from leaves(base)
            yield from leaves(exempt)
        case _:
            yield node


def named(condition: Condition) -> list[Series]:
    return [leaf.series for leaf in leaves(condition.expression) if not isinstance(leaf, FromOutside)]


def compared(condition: Condition) -> list[Series]:
    """Those whose samples become alerts; `Some` only tells whether there are any."""
    one_sample = (leaf for leaf in leaves(condition.expression) if not isinstance(leaf, FromOutside | Some))
    return [leaf.series for leaf in one_sample]


def thresholds_of(condition: Condition) -> set[str]:
    with_one = Above | RateAbove | AgedAtMost
    return {leaf.threshold for leaf in leaves(condition.expression) if isinstance(leaf, with_one)}


def test_names_are_unique_and_carry_the_prefix() -> None:
    names = [condition.name for condition in CONDITIONS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("DeepSeek") for name in names)


def test_every_threshold_is_used_and_every_used_threshold_exists() -> None:
    used = set().union(*(thresholds_of(condition) for condition in CONDITIONS))
    assert used == {threshold.name for threshold in THRESHOLDS}


def test_thresholds_are_the_options_that_an_operator_can_set() -> None:
    options = {one.name: getattr(Thresholds(), one.name) for one in fields(Thresholds)}
    assert options == {threshold.name: threshold.default for threshold in THRESHOLDS}


@each_condition
def test_series_exist_with_the_labels_that_they_are_chosen_by(condition: Condition) -> None:
    witness = [condition.witness.series] if condition.witness else []
    for series in (*named(condition), *witness, *(fact.series for fact in condition.facts)):
        assert series.family in BY_NAME
        assert set(series.aside) <= set(BY_NAME[series.family].labels)


@each_condition
def test_what_is_left_of_a_series_is_its_subject(condition: Condition) -> None:
    # A label beside those of the subject would split one alert into several.
    for series in compared(condition):
        left = set(BY_NAME[series.family].labels) - set(series.aside)
        assert left == set(condition.subject.labels)


@each_condition
def test_facts_are_about_the_subject(condition: Condition) -> None:
    for fact in condition.facts:
        labels = set(BY_NAME[fact.series.family].labels)
        assert set(condition.subject.labels) <= labels
        assert (fact.form is Form.LABEL) == bool(fact.label)
        assert not fact.label or fact.label in labels


@each_condition
def test_templates_name_only_what_is_known_and_every_fact_is_told(condition: Condition) -> None:
    facts = {fact.name for fact in condition.facts}
    told = {name for _, name, _, _ in string.Formatter().parse(condition.summary) if name}
    host = set() if condition.subject is Subject.FLEET else {"host"}
    assert told <= facts | host | {"value", *condition.subject.labels}
    assert told >= facts | host
    assert not [name for _, name, _, _ in string.Formatter().parse(condition.description) if name]


@each_condition
def test_a_person_is_told_what_to_do_first(condition: Condition) -> None:
    if condition.severity in (Severity.CRITICAL, Severity.WARNING):
        assert "First action: " in condition.description


@each_condition
def test_only_bounds_that_are_certain_page(condition: Condition) -> None:
    if condition.severity is Severity.CRITICAL:
        assert all(("bound", "high") not in series.labels for series in compared(condition))


def test_levels_against_a_threshold_keep_their_state() -> None:
    levels = [condition for condition in CONDITIONS if isinstance(condition.expression, Above)]
    assert levels
    assert all(condition.keeps_state for condition in levels)


def test_a_gap_resolves_no_alert_about_capacity_or_devices() -> None:
    # GpuErrors is about a moment, and keeps an hour by itself.
    resolved = {one.name for one in CONDITIONS if not one.about_monitoring and not one.held}
    assert resolved == {"DeepSeekGpuErrors"}


@each_condition
def test_a_witness_is_of_the_alerts_own_host_and_device(condition: Condition) -> None:
    if condition.witness is not None:
        assert set(condition.witness.subject.identity) <= set(condition.subject.identity)
        assert set(BY_NAME[condition.witness.series.family].labels) == set(condition.witness.subject.labels)


def test_xids_of_programs_are_no_hardware_errors() -> None:
    # NVIDIA, "XID Errors": graphics exception, page fault, stopped processing, preemptive removal.
    assert not {13, 31, 43, 45} & set(HARDWARE_XIDS)
    assert {48, 63, 64, 74, 79, 92, 94, 95, 119, 120} == set(HARDWARE_XIDS)


def test_the_ordinary_power_cap_is_no_slowdown() -> None:
    # The driver's names are those that the exposition has: a misspelt one would never fire.
    assert set(SLOWDOWNS) == set(_REASONS) - {"sw_power_cap", "sync_boost"}


def test_running_is_every_state_but_declared_only() -> None:
    told = re.findall(
        r"(\w+)(?: \([^)]*\))?(?:,|\.)", BY_NAME["deepseek_deployment_state"].help.split(":")[1]
    )
    assert set(RUNNING) == set(told) - {"declared_only"}


def test_a_devices_identity_is_its_uuid() -> None:
    assert Subject.DEVICE.identity == ("uuid",)
    assert Subject.DEVICE.labels == ("gpu", "uuid")
