"""Bars: what is expected of a device and what is in use, adding up to what the snapshot says."""

from __future__ import annotations

import dataclasses

import pytest
from fixed_snapshot import EMPTY, FULL, NOW_SECONDS, UUIDS
from made_up_hosts import in_trouble, quiet

from exporter.capacity.assessment import Commitment
from exporter.capacity.attribution import Holding
from exporter.capacity.bounds import Bounds
from exporter.hardware.gpu import Gpu, GpuIdentity, GpuReading, GpuState, MigSlice
from exporter.snapshot import Snapshot, to_plain
from exporter.units import GIB
from exporter.views.facts import Level
from exporter.views.look import look
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


SLICED = GpuIdentity("GPU-0", 0, "NVIDIA H100 80GB HBM3", "nvidia", "", "divided")


def sliced(gpu: GpuReading | None, state: GpuState = GpuState.UP, slices: tuple[int, ...] = ()) -> Snapshot:
    """A GPU in MIG mode and its slices, which are in the same state."""
    parts = (
        Gpu(
            dataclasses.replace(
                SLICED,
                uuid=f"MIG-{at}",
                memory_kind="mig",
                mig=MigSlice("GPU-0", at, "1g.10gb", (f"MIG-{at}",), (at,)),
            ),
            state,
            reading=GpuReading(memory_total_bytes=10 * GIB, memory_used_bytes=GIB) if gpu else None,
        )
        for at in slices
    )
    return dataclasses.replace(EMPTY, gpus=(*parts, Gpu(SLICED, state, reading=gpu)), expected_gpus=1)


def test_slices_stand_below_their_gpu_in_the_order_of_their_instances() -> None:
    reading = GpuReading(power_watts=432.0, mig_enabled={"current": True, "pending": True}, mig_slices=2)
    view = look(to_plain(sliced(reading, slices=(10, 9))), now_seconds=NOW_SECONDS, host_name="h")
    assert [(one.name, one.product) for one in view.devices] == [
        ("GPU 0", "H100 80GB HBM3"),
        ("GPU 0:9", "MIG 1g.10gb"),
        ("GPU 0:10", "MIG 1g.10gb"),
    ]
    gpu = view.devices[0]
    assert (gpu.level, gpu.verdict) == (Level.GOOD, "divided")
    assert gpu.headroom == "divided into 2 MIG slices, which have its memory"
    assert view.energy == "432 W now"
    assert view.findings == ()


@pytest.mark.parametrize(
    ("slices", "verdict"), [(0, "without slices"), (None, "divided")], ids=["none", "not to be listed"]
)
def test_a_divided_gpu_that_can_serve_nothing_or_tell_nothing_wants_attention(
    slices: int | None, verdict: str
) -> None:
    reading = GpuReading(mig_enabled={"current": True, "pending": False}, mig_slices=slices)
    plain = to_plain(sliced(reading))
    (gpu,) = devices(plain)
    assert (gpu.level, gpu.verdict) == (Level.WARNING, verdict)
    assert ("MIG mode", "on, off after a reset") in gpu.facts
    view = look(plain, now_seconds=NOW_SECONDS, host_name="h")
    assert any(one.text.startswith(f"GPU 0 is {verdict}: ") and not one.alert for one in view.findings)


def test_a_lost_gpu_is_one_finding_and_none_of_its_slices_another() -> None:
    view = look(to_plain(sliced(None, GpuState.LOST, slices=(1, 2))), now_seconds=NOW_SECONDS, host_name="h")
    assert [one.text for one in view.findings if "lost" in one.text] == [
        "GPU 0 is lost: the driver no longer has it"
    ]


def test_unified_memory_says_what_its_processes_hold_and_what_ram_has_left() -> None:
    chip = Gpu(
        dataclasses.replace(SLICED, name="NVIDIA GB10", memory_kind="unified"),
        GpuState.UP,
        reading=GpuReading(memory_total_bytes=120 * GIB),
    )
    judged = dataclasses.replace(
        EMPTY.assessment,
        devices={"GPU-0": Commitment(120 * GIB, Bounds(60 * GIB, 60 * GIB))},
        held={"GPU-0": (Holding("r1", "deployment", 60 * GIB),)},
        host=Commitment(119 * GIB, Bounds(90 * GIB, 90 * GIB)),
    )
    (gpu,) = devices(to_plain(dataclasses.replace(EMPTY, gpus=(chip,), assessment=judged)))
    assert gpu.used_bytes == 60 * GIB
    assert gpu.headroom == "60.0 GiB to spare; of RAM, which it shares: 29.0 GiB to spare"
