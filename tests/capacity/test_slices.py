"""MIG slices as what deployments are placed on: named, sized, judged on their own, and never their GPU."""

from __future__ import annotations

import dataclasses

import pytest

from capacity.builders import GIB, declared, footprint, gpu, observation
from exporter.capacity.assessment import assess
from exporter.capacity.bounds import Bounds
from exporter.capacity.declaration import declare, shapes_of
from exporter.capacity.observation import Declared
from exporter.capacity.placement import devices_of
from exporter.engines.discovery import Instance
from exporter.engines.launch import Launch, Role
from exporter.engines.process import Process
from exporter.hardware.gpu import Gpu, GpuReading, GpuState, MigSlice
from exporter.models.catalog import catalog
from exporter.settings.options import Deployment

LITE = Deployment(
    name="lite",
    model="deepseek-ai/DeepSeek-V2-Lite",
    devices=["0:3"],
    memory_fraction=0.9,
    max_model_len=8192,
)


def divided(index: int = 0) -> Gpu:
    whole = gpu(index)
    identity = dataclasses.replace(whole.identity, memory_kind="divided")
    return Gpu(identity, GpuState.UP, reading=GpuReading(power_watts=300.0, processes=()))


def cut(
    instance: int,
    *,
    of: int = 0,
    total: int = 40 * GIB,
    used: int = 0,
    processes: dict[int, int | None] | None = None,
    also: tuple[str, ...] = (),
    state: GpuState = GpuState.UP,
) -> Gpu:
    """A slice of one of the builders' GPUs; its uuid is MIG-000<gpu>-<instance>."""
    whole = gpu(of, total=total, used=used, processes=processes or {}, reserved=0, state=state)
    uuid = f"MIG-000{of}-{instance}"
    mig = MigSlice(f"GPU-{of}", instance, "3g.40gb", (uuid, *also), tuple(range(1 + len(also))))
    identity = dataclasses.replace(whole.identity, uuid=uuid, memory_kind="mig", mig=mig)
    return dataclasses.replace(whole, identity=identity)


HOST = (divided(0), cut(2), cut(3), gpu(1))


def only(entry: Deployment, gpus: tuple[Gpu, ...] = HOST) -> Declared:
    (one,) = declare([entry], shapes_of(gpus, {}), None, catalog())
    return one


@pytest.mark.parametrize("name", ["0:3", "MIG-0000-3"])
def test_a_deployment_is_placed_on_a_slice_by_its_number_or_its_uuid(name: str) -> None:
    one = only(dataclasses.replace(LITE, devices=[name]))
    assert (one.problem, one.ranks, one.device_indices) == ("", ("MIG-0000-3",), ("0:3",))
    assert one.footprint is not None
    pool = one.footprint.devices[0].total
    assert pool.expected_bytes == pytest.approx(
        0.9 * 40 * GIB, rel=0.05
    )  # a share of the slice, not of the GPU


def test_a_whole_gpu_can_be_named_by_its_uuid_too() -> None:
    one = only(dataclasses.replace(LITE, devices=["GPU-1"]))
    assert (one.ranks, one.device_indices) == (("GPU-1",), (1,))


def test_every_compute_instance_s_uuid_means_their_slice() -> None:
    one = only(dataclasses.replace(LITE, devices=["MIG-other"]), (divided(), cut(3, also=("MIG-other",))))
    assert (one.ranks, one.device_indices) == (("MIG-0000-3",), ("0:3",))


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        ([0], "devices names GPU 0, which is divided (MIG): name one of its slices, 0:2, 0:3"),
        (["0:5"], "devices names MIG slice 0:5, which is not here; known: 0:2, 0:3, 1"),
        (["MIG-gone"], "devices names MIG slice MIG-gone, which is not here; known: 0:2, 0:3, 1"),
        (["0:3", "MIG-0000-3"], "devices names GPU 0:3 twice"),
    ],
)
def test_what_is_no_place_says_so(devices: list[int | str], says: str) -> None:
    one = only(dataclasses.replace(LITE, devices=devices, tp=len(devices)))
    assert (one.footprint, one.problem) == (None, says)


def test_a_slice_that_was_removed_is_no_place_any_more_and_one_that_is_silent_still_is() -> None:
    known = shapes_of(HOST, {})
    assert set(known) == {"0:2", "0:3", 1}
    silent = (divided(), cut(2), cut(3, state=GpuState.LOST), gpu(1))
    assert set(shapes_of(silent, known)) == {"0:2", "0:3", 1}
    assert set(shapes_of((divided(), cut(2), gpu(1)), known)) == {"0:2", 1}


def test_a_gpu_that_was_divided_is_no_place_until_it_is_whole_again() -> None:
    whole = shapes_of((gpu(0), gpu(1)), {})
    assert set(shapes_of(HOST, whole)) == {"0:2", "0:3", 1}
    assert set(shapes_of((gpu(0), gpu(1)), shapes_of(HOST, whole))) == {0, 1}


def test_each_slice_is_judged_by_itself_and_their_gpu_is_not() -> None:
    one = dataclasses.replace(declared("a", footprint(1, weights=30 * GIB)), ranks=("MIG-0000-2",))
    other = dataclasses.replace(declared("b", footprint(1, weights=45 * GIB)), ranks=("MIG-0000-3",))
    gpus = (divided(), cut(2, used=31 * GIB, processes={7: 31 * GIB}), cut(3))
    judged = assess(observation(gpus, (one, other), owned={"a": frozenset({7})}), gpu_margin=0, host_margin=0)
    assert set(judged.devices) == {"MIG-0000-2", "MIG-0000-3"}
    assert judged.devices["MIG-0000-2"].committed == Bounds(31 * GIB, 31 * GIB)
    assert judged.devices["MIG-0000-2"].headroom.low == 9 * GIB
    assert judged.devices["MIG-0000-3"].overcommit_ratio["low"] > 1  # 45 GiB are promised of 40
    deployment = judged.deployments[0]
    assert deployment.deviation["MIG-0000-2"].size_bytes == 1 * GIB


def engine(*visible: str, pid: int = 7, gpus: int | None = None) -> Instance:
    process = Process(pid, 1, 1, frozenset({"vllm"}), frozenset())
    launch = Launch(Role.SERVER, "vllm", gpus=gpus)
    return Instance(
        "vllm", launch, process, process, frozenset({pid}), None, None, visible_devices=visible or None
    )


@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        (("MIG-0000-3",), ("0:3",)),
        (("MIG-other",), ("0:2",)),
        (("1",), (1,)),
        (("0:1",), ("0:2",)),  # NVIDIA_VISIBLE_DEVICES counts MIG indices, of which 0:2 has 0 and 1
        (("0:7",), None),
        (("0",), None),  # of several slices CUDA takes the first, and which that is nobody says
        (("GPU-0-whole",), None),
        (("9" * 60,), None),
        (("x:y",), None),
    ],
)
def test_an_engine_that_holds_nothing_yet_is_placed_by_what_it_may_see(
    visible: tuple[str, ...], devices: tuple[int | str, ...] | None
) -> None:
    gpus = (divided(), cut(2, also=("MIG-other",)), cut(3), gpu(1))
    assert devices_of(engine(*visible), gpus) == devices


def test_the_index_of_a_gpu_with_one_slice_means_that_slice() -> None:
    assert devices_of(engine("0"), (divided(), cut(2), gpu(1))) == ("0:2",)


def test_an_engine_is_where_its_processes_are_listed() -> None:
    gpus = (divided(), cut(10, processes={7: GIB}), cut(9, processes={7: GIB}))
    assert devices_of(engine(), gpus) == ("0:9", "0:10")
