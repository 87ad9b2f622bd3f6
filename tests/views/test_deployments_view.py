"""Deployments in words: how what they hold compares with what they should, and their room for requests."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from fixed_snapshot import FULL, RUNNING, UUIDS

from exporter.capacity.assessment import Commitment, DeploymentStatus
from exporter.capacity.attribution import Holding
from exporter.capacity.bounds import Bounds
from exporter.capacity.comparison import Deviation, KvUse
from exporter.capacity.confined import Confined
from exporter.capacity.links import LinkStatus
from exporter.snapshot import to_plain
from exporter.units import GIB
from exporter.views.deployments import deployments
from exporter.views.facts import DeploymentFacts, Level

R1 = FULL.assessment.deployments[0]


def told(status: DeploymentStatus, **assessment: Any) -> DeploymentFacts:
    """The facts of one deployment on the full host."""
    here = dataclasses.replace(FULL.assessment, deployments=(status,), **assessment)
    (facts,) = deployments(to_plain(dataclasses.replace(FULL, assessment=here)))
    return facts


@pytest.mark.parametrize(
    ("capacity", "used", "text"),
    [
        (360_000, 90_000, "Room for 4 more full-length requests (65,536 tokens each)"),
        (360_000, 200_000, "Room for 2 more full-length requests (65,536 tokens each)"),
        (360_000, 250_000, "Room for 1 more full-length request (65,536 tokens each)"),
        (
            360_000,
            340_000,
            "No room for another full-length request: 20,000 tokens are free, it needs 65,536",
        ),
        (360_000, 400_000, "No room for another full-length request: 0 tokens are free, it needs 65,536"),
        (
            360_000,
            None,
            "Room for 5 full-length requests in all (65,536 tokens each); how much is in use is not known",
        ),
    ],
)
def test_headroom_is_whole_requests_of_full_length(capacity: int, used: int | None, text: str) -> None:
    assert told(dataclasses.replace(R1, kv=KvUse(capacity, used, None))).headroom == text


def test_the_engine_s_word_on_the_length_comes_before_that_of_its_launch() -> None:
    assert RUNNING.telemetry is not None
    word = dataclasses.replace(RUNNING.telemetry, max_model_len=16_384)
    slots = dataclasses.replace(RUNNING, telemetry=word)
    facts = told(dataclasses.replace(R1, running_as=slots, kv=KvUse(65_536, 20_000, None)))
    assert facts.headroom == "Room for 2 more full-length requests (16,384 tokens each)"


def test_a_deployment_that_does_not_run_tells_what_it_would_need_and_hold() -> None:
    idle = DeploymentStatus(R1.declared, "declared_only", frozenset())
    facts = told(idle)
    assert facts.state_words == "must be able to run, and does not"
    assert facts.comparison == "Would need 111.0–116.0 GiB on each of 2 GPUs and 8.0–16.0 GiB of RAM"
    assert facts.headroom == "Would have room for 11 requests of full length (32,768 tokens)"
    optional = dataclasses.replace(idle, declared=dataclasses.replace(R1.declared, required=False))
    assert (told(optional).level, told(optional).state_words) == (Level.INFO, "does not run")


@pytest.mark.parametrize(
    ("gib", "level", "text"),
    [
        (0, Level.GOOD, "Holds what it should on 1 of 2 GPUs"),
        (9, Level.GOOD, "Holds what it should on 1 of 2 GPUs; at most 9.0 GiB more (+7.9 %), on GPU 0"),
        (12, Level.WARNING, "Holds 125.5 GiB on GPU 0: 12.0 GiB more than it should"),
        (-60, Level.WARNING, "Holds 53.5 GiB on GPU 0: 60.0 GiB less than it should"),
    ],
)
def test_a_difference_counts_beyond_its_tolerance(gib: int, level: Level, text: str) -> None:
    held = int(113.5 * GIB) + gib * GIB
    status = dataclasses.replace(
        R1,
        matches={},
        deviation={UUIDS[0]: Deviation(gib * GIB, gib * GIB / int(113.5 * GIB))},
        tolerance={UUIDS[0]: 11 * GIB},
    )
    facts = told(status, held={UUIDS[0]: (Holding("r1", "deployment", held),)})
    assert (facts.level, facts.comparison) == (level, text)


def test_several_devices_beyond_tolerance_are_counted() -> None:
    twice = dict.fromkeys(UUIDS, Deviation(20 * GIB, 0.18))
    held = {uuid: (Holding("r1", "deployment", 133 * GIB),) for uuid in UUIDS}
    facts = told(
        dataclasses.replace(R1, matches={}, deviation=twice, tolerance=dict.fromkeys(UUIDS, 11 * GIB)),
        held=held,
    )
    text = "Holds 133.0 GiB on GPU 0: 20.0 GiB more than it should; 1 other GPU beyond tolerance too"
    assert facts.comparison == text


def test_memory_that_cannot_be_read_is_not_compared() -> None:
    facts = told(dataclasses.replace(R1, matches={}, deviation={}), held={})
    assert facts.comparison.startswith("What it holds on its GPUs cannot be read; 111.0–116.0 GiB on each")
    assert facts.level is Level.GOOD


def test_one_that_sleeps_holds_little_and_that_is_right() -> None:
    asleep = dataclasses.replace(
        R1, matches={}, state="sleeping", deviation={UUIDS[0]: Deviation(-100 * GIB, -0.9)}
    )
    assert told(asleep).comparison.startswith("Asleep; 111.0–116.0 GiB on each of 2 GPUs")
    assert told(asleep).level is Level.INFO


def test_what_it_is_comes_from_what_runs_before_what_was_declared() -> None:
    facts = told(R1)
    assert facts.what == "fp8, fp8 KV cache, vLLM 0.33.0, TP 2, speculative (mtp)"
    assert facts.where == "on GPU 0, 1"
    assert facts.differs == ("max_model_len",)
    assert facts.requests == "5 running, 2 waiting"
    found = dataclasses.replace(
        R1,
        declared=dataclasses.replace(R1.declared, origin="discovered"),
        running_as=dataclasses.replace(RUNNING, quantization="awq", speculative=None),
    )
    assert told(found).what == "awq, fp8 KV cache, vLLM 0.33.0, TP 2, not declared"


def test_without_an_expectation_it_says_why() -> None:
    unknown = dataclasses.replace(
        R1, declared=dataclasses.replace(R1.declared, footprint=None, problem="the launch names no model")
    )
    facts = told(dataclasses.replace(unknown, state="unknown", deviation={}))
    assert facts.comparison == "No expectation: the launch names no model"
    assert (facts.per_device, facts.ram, facts.full_length) == ("–", "–", "–")
    assert facts.level is Level.WARNING


def test_the_link_to_other_nodes_is_told_with_what_it_allows() -> None:
    assert told(R1).link == (
        "Link to its other nodes: mlx5_0:1, 400 Gb/s; 82 % sent, 81 % received in the last minute; "
        "allows 16,168 to 28,356 tokens a second, prompt and generated"
    )
    assert R1.link is not None
    slow = dataclasses.replace(R1.link, ceiling_low_tokens=352.2, ceiling_high_tokens=708.9)
    assert told(dataclasses.replace(R1, link=slow)).link.endswith(
        "allows 352 to 709 tokens a second, prompt and generated, too few for its GPUs: 800 are the least"
    )
    blind = LinkStatus(("eth0",), "route")
    assert told(dataclasses.replace(R1, link=blind)).link == "Link to its other nodes: eth0"
    assert told(dataclasses.replace(R1, link=None)).link == ""


PAGES = FULL.assessment.host_held["r1"]


@pytest.mark.parametrize(
    ("kind", "capacity", "committed", "text", "level"),
    [
        (
            "cgroup",
            200,
            (96, 104),
            "May use 200.0 GiB of RAM (its cgroup), 96.0–104.0 GiB to spare",
            Level.GOOD,
        ),
        (
            "cgroup",
            100,
            (96, 104),
            "May use 100.0 GiB of RAM (its cgroup), 0–4.0 GiB to spare",
            Level.GOOD,
        ),
        (
            "numa",
            90,
            (96, 104),
            "May use 90.0 GiB of RAM (NUMA nodes 0, 1), 6.0–14.0 GiB too little",
            Level.WARNING,
        ),
    ],
)
def test_where_it_must_stay_is_told_with_the_room_there(
    kind: Any, capacity: int, committed: tuple[int, int], text: str, level: Level
) -> None:
    bounds = Bounds(committed[0] * GIB, committed[1] * GIB)
    place = Confined(kind, Commitment(capacity * GIB, bounds), 0, nodes=(0, 1))
    status = dataclasses.replace(R1, resident_ratio=None, matches={})
    facts = told(status, confined={"r1": (place,)}, decode={}, host_held={})
    assert (facts.about_ram, facts.level) == (text, level)


def test_weights_that_are_not_where_they_should_be_are_told() -> None:
    host = dataclasses.replace(R1.declared.footprint.host, locked_bytes=90 * GIB)  # type: ignore[union-attr]
    need = dataclasses.replace(R1.declared.footprint, host=host)  # type: ignore[type-var]
    status = dataclasses.replace(R1, declared=dataclasses.replace(R1.declared, footprint=need), matches={})
    pages = dataclasses.replace(PAGES, locked=64 * 2**10, swapped=3 * GIB)
    facts = told(status, confined={}, decode={}, host_held={"r1": pages})
    assert facts.about_ram.split("; ") == [
        "88 % of its mapped weights are in RAM",
        "told to lock 90.0 GiB, has locked 64.0 KiB: raise LimitMEMLOCK of its unit",
        "3.0 GiB of it are in swap",
    ]
    assert facts.level is Level.WARNING


def test_the_pace_of_ram_is_told_with_what_it_rests_on() -> None:
    status = dataclasses.replace(R1, resident_ratio=1.0)
    facts = told(status, confined={}, host_held={"r1": dataclasses.replace(PAGES, swapped=None)})
    assert facts.about_ram == (
        "At most 40.5 tokens/s for one sequence (11.4 GB of weights each; RAM gives 461 GB/s by what the "
        "processor has)"
    )


def test_of_what_lies_on_devices_nothing_is_said_about_ram() -> None:
    status = dataclasses.replace(R1, resident_ratio=None)
    assert told(status, confined={}, decode={}, host_held={}).about_ram == ""
