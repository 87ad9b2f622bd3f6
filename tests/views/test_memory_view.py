"""Bars: what is expected of a device and what is in use, adding up to what the snapshot says."""

from __future__ import annotations

import dataclasses

import pytest
from fixed_snapshot import FULL, UUIDS
from made_up_hosts import in_trouble, quiet

from exporter.capacity.assessment import Bounds, Commitment
from exporter.snapshot import Snapshot, to_plain
from exporter.units import GIB
from exporter.views.facts import Level
from exporter.views.memory import devices, ram


@pytest.mark.parametrize("snapshot", [FULL, quiet(), in_trouble()], ids=["full", "quiet", "in trouble"])
def test_what_is_held_adds_up_to_what_is_in_use_and_the_bar_has_room_for_all(snapshot: Snapshot) -> None:
    for one in devices(to_plain(snapshot)):
        if one.used_bytes is not None:
            assert sum(piece.size_bytes for piece in one.held) == one.used_bytes
        assert one.scale_bytes >= max(one.expected_bytes, one.used_bytes or 0, one.total_bytes or 0)


def test_two_deployments_on_a_device_both_have_their_part() -> None:
    crowded = devices(to_plain(in_trouble()))[6]
    assert crowded.owners == ("coder-lite", "distill-32b")
    assert crowded.capacity_bytes is not None
    assert crowded.expected_bytes > crowded.capacity_bytes
    assert (crowded.level, crowded.verdict) == (Level.CRITICAL, "overcommitted")


def test_strangers_are_part_of_what_is_promised() -> None:
    device = devices(to_plain(in_trouble()))[2]
    stranger = next(piece for piece in device.expected if piece.kind == "other")
    assert 10 * GIB <= stranger.size_bytes < 11 * GIB


@pytest.mark.parametrize(
    ("committed", "level", "text"),
    [
        (Bounds(90 * GIB, 90 * GIB), Level.GOOD, "10.0 GiB to spare"),
        (Bounds(90 * GIB, 95 * GIB), Level.GOOD, "5.0–10.0 GiB to spare"),
        (
            Bounds(90 * GIB, 101 * GIB),
            Level.WARNING,
            "10.0 GiB to spare at best, 1.0 GiB short if every estimate comes out high",
        ),
        (Bounds(103 * GIB, 105 * GIB), Level.CRITICAL, "3.0–5.0 GiB more promised than it can give"),
    ],
)
def test_headroom_is_said_at_both_ends(committed: Bounds, level: Level, text: str) -> None:
    here = dataclasses.replace(FULL.assessment, devices={UUIDS[0]: Commitment(100 * GIB, committed)})
    device = devices(to_plain(dataclasses.replace(FULL, assessment=here)))[0]
    assert (device.level, device.headroom) == (level, text)


def test_a_device_without_a_reading_shows_no_number_and_why() -> None:
    lost = devices(to_plain(FULL))[1]
    assert (lost.used_bytes, lost.capacity_bytes, lost.headroom_low_bytes) == (None, None, None)
    assert lost.headroom == "the driver no longer has it (fell off the bus)"


def test_mapped_weights_are_seen_in_ram_although_the_kernel_calls_them_free() -> None:
    memory = ram(to_plain(quiet()))
    assert memory is not None
    mapped = [piece for piece in memory.held if piece.kind == "mapped"]
    assert [(piece.label, piece.owner) for piece in mapped] == [("mapped weights", "v3-in-ram")]
