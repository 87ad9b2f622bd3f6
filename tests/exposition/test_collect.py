"""What a snapshot becomes: every family has a source, and what is not known has no series."""

from __future__ import annotations

import dataclasses

from fixed_snapshot import EMPTY, FULL, NOW_SECONDS, SLICE, UUIDS, identity

from exporter.capacity.assessment import Commitment
from exporter.capacity.bounds import Bounds
from exporter.exposition.collect import Sample, samples
from exporter.exposition.families import FAMILIES, Family, capacity, deployments, devices, host, itself
from exporter.hardware.gpu import Gpu, GpuReading, GpuState
from exporter.hardware.host import HostReading
from exporter.snapshot import Snapshot, Source


def families_of(snapshot: Snapshot) -> set[Family]:
    return {family for family, _, _ in samples(snapshot)}


def of(snapshot: Snapshot, family: Family) -> list[Sample]:
    return [sample for sample in samples(snapshot) if sample[0] is family]


def test_every_family_of_the_table_has_samples() -> None:
    made_by_the_renderer = {itself.SERIES, itself.SERIES_DROPPED}
    assert set(FAMILIES) - families_of(FULL) == made_by_the_renderer | {itself.DEMO_INFO}


def test_a_host_that_is_played_says_so() -> None:
    played = dataclasses.replace(FULL, demo="8xh200-r1")
    assert of(played, itself.DEMO_INFO) == [(itself.DEMO_INFO, ("8xh200-r1",), 1)]


def test_a_host_that_tells_nothing_has_only_series_about_the_exporter() -> None:
    assert families_of(EMPTY) == {
        devices.GPUS_EXPECTED,
        itself.BUILD_INFO,
        itself.WORKERS_STUCK,
        itself.SNAPSHOT_TIME,
        itself.SNAPSHOT_DURATION,
        itself.RELOAD_SUCCESSFUL,
        itself.RELOAD_TIME,
        itself.CLOCK_STEPS,
    }


def test_a_device_that_gives_no_value_is_up_and_has_no_values() -> None:
    silent = dataclasses.replace(EMPTY, gpus=(Gpu(identity(0), GpuState.UP, reading=GpuReading()),))
    assert families_of(silent) - families_of(EMPTY) == {devices.GPU_INFO, devices.GPU_UP, devices.GPU_STATE}


def test_a_host_of_which_only_the_size_is_known_has_only_that() -> None:
    small = dataclasses.replace(EMPTY, host=HostReading(2**30, 2**29))
    assert families_of(small) - families_of(EMPTY) == {host.HOST_TOTAL, host.HOST_AVAILABLE}


def test_a_lost_device_keeps_its_identity_and_loses_its_values() -> None:
    of_lost = {
        family: value
        for family, labels, value in samples(FULL)
        if UUIDS[1] in labels[:3] and labels[0] != "1:3"
    }
    expectations = {deployments.EXPECTED_GPU, deployments.EXPECTED_GPU_SUM}
    assert of_lost.keys() - expectations == {
        devices.GPU_INFO,
        devices.GPU_UP,
        devices.GPU_STATE,
        devices.GPU_XID,
        devices.GPU_XID_LAST,
    }
    assert of_lost[devices.GPU_UP] == 0


def test_the_state_stands_in_a_label_of_its_own_series() -> None:
    states = {labels[1]: labels[2] for _, labels, _ in of(FULL, devices.GPU_STATE)}
    assert states == {UUIDS[0]: "up", UUIDS[1]: "lost", SLICE.uuid: "lost"}


def test_a_lost_gpu_is_one_device_that_is_down_and_its_slices_are_none() -> None:
    down = [labels for _, labels, value in of(FULL, devices.GPU_UP) if not value]
    assert down == [("1", UUIDS[1])]
    ((_, labels, _),) = of(FULL, devices.GPU_MIG)
    assert labels == ("1:3", SLICE.uuid, UUIDS[1], "3g.71gb")


def test_a_slice_that_fails_alone_is_down_itself() -> None:
    alone = Gpu(
        dataclasses.replace(SLICE, mig=dataclasses.replace(SLICE.mig, parent_uuid=UUIDS[0])), GpuState.ERROR
    )
    snapshot = dataclasses.replace(FULL, gpus=(*FULL.gpus[:2], alone))
    assert [labels for _, labels, value in of(snapshot, devices.GPU_UP) if not value] == [
        ("1", UUIDS[1]),
        ("1:3", SLICE.uuid),
    ]


def test_holders_sum_to_the_used_memory_of_their_device() -> None:
    (used,) = of(FULL, devices.GPU_MEMORY_USED)
    assert sum(value for _, _, value in of(FULL, devices.GPU_MEMORY_HELD)) == used[2]


def test_headroom_and_overcommit_belong_to_their_bound() -> None:
    over = Commitment(capacity=100, committed=Bounds(90, 120))
    snapshot = dataclasses.replace(EMPTY, assessment=dataclasses.replace(EMPTY.assessment, host=over))
    assert {labels[0]: value for _, labels, value in of(snapshot, capacity.HOST_HEADROOM)} == {
        "low": 10,
        "high": -20,
    }
    assert {labels[0]: value for _, labels, value in of(snapshot, capacity.HOST_OVERCOMMIT)} == {
        "low": 0.9,
        "high": 1.2,
    }


def test_nothing_is_divided_by_a_capacity_of_zero() -> None:
    nothing = Commitment(capacity=0, committed=Bounds(1, 1))
    snapshot = dataclasses.replace(EMPTY, assessment=dataclasses.replace(EMPTY.assessment, host=nothing))
    assert of(snapshot, capacity.HOST_OVERCOMMIT) == []
    assert len(of(snapshot, capacity.HOST_HEADROOM)) == 2


def test_a_deployment_without_expectation_is_there_with_what_was_declared() -> None:
    here = {family for family, labels, _ in samples(FULL) if labels[:1] == ("v9",)}
    assert here == {
        deployments.DEPLOYMENT_INFO,
        deployments.DEPLOYMENT_STATE,
        deployments.MAX_CONTEXT,
        deployments.MAX_SEQUENCES,
    }


def test_a_source_that_never_answered_has_no_time_of_success() -> None:
    silent = Source("nvml", "library_not_found", False, None, 0.1)
    snapshot = dataclasses.replace(EMPTY, sources=(silent,))
    assert of(snapshot, itself.SOURCE_LAST) == []
    assert [value for _, _, value in of(snapshot, itself.SOURCE_UP)] == [0]


def test_times_are_unix_seconds() -> None:
    assert [value for _, _, value in of(FULL, itself.SNAPSHOT_TIME)] == [NOW_SECONDS]
