"""How pages of other exporters become devices: each known kind, one that the operator maps, and hostile ones.

Pages and their sources: tests/foreign_pages.py.
"""

from __future__ import annotations

import math
import time
from typing import get_args

import foreign_pages
import pytest
from foreign_pages import line
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.engines.telemetry.client import Unanswered
from exporter.engines.telemetry.samples import SAMPLES_LIMIT, read_samples
from exporter.engines.telemetry.types import Reason
from exporter.hardware.foreign_map import MOST_DEVICES, ForeignDevice, Page, known, map_of, read_page
from exporter.hardware.gpu import GpuProcess
from exporter.settings.foreign import OWN_VENDORS
from exporter.settings.options import (
    ForeignExporter,
    ForeignKind,
    ForeignLabels,
    ForeignMetric,
    ForeignMetrics,
)
from exporter.units import GIB, MIB

CUSTOM = ForeignExporter(
    kind="custom",
    url="http://127.0.0.1:1/metrics",
    vendor="metax",
    product="MXC500",
    labels=ForeignLabels(index="deviceId", uuid="uuid", name="model", process="pid"),
    metrics=ForeignMetrics(
        memory_total_bytes=ForeignMetric(name="mx_memory_total", scale=1024.0, where={"type": "vram"}),
        memory_used_bytes=ForeignMetric(name="mx_memory_used", scale=1024.0, where={"type": "vram"}),
        process_bytes=ForeignMetric(name="mx_process_memory", scale=1024.0),
        utilization_ratio=ForeignMetric(name="mx_gpu_usage", scale=0.01),
        healthy=ForeignMetric(name="mx_health", equals=2.0),
    ),
)


def read(entry: ForeignExporter | str, page: str, *, now: float | None = None, max_age: float = 60.0) -> Page:
    if isinstance(entry, str):
        entry = ForeignExporter(kind=entry, url="http://127.0.0.1:1/metrics")  # type: ignore[arg-type]
    by = map_of(entry)
    samples = read_samples(page.encode(), by.wanted, whole=True)
    return read_page(by, entry.source, samples, now=time.time() if now is None else now, max_age=max_age)


def only(page: Page) -> ForeignDevice:
    (device,) = page.devices
    return device


def mx(value: object = 64 * 2**20, used: object = 2**20, **labels: object) -> str:
    """A device of the operator's own mapping, in KiB."""
    told = {"deviceId": 0, "uuid": "MX-0", "type": "vram"} | labels
    return line("mx_memory_total", told, value) + line("mx_memory_used", told, used)


class TestKinds:
    def test_every_kind_that_may_be_configured_is_known_and_no_other(self) -> None:
        assert set(known()) | {"custom"} == set(get_args(ForeignKind))

    @pytest.mark.parametrize("kind", sorted(known()))
    def test_a_kind_has_a_size_a_use_an_identity_and_a_vendor_that_is_not_ours(self, kind: str) -> None:
        one = known()[kind]
        assert one.metrics.memory_total_bytes and (
            one.metrics.memory_used_bytes or one.metrics.memory_free_bytes
        )
        assert one.labels.index or one.labels.uuid or one.labels.pci_bus_id
        assert one.vendor not in OWN_VENDORS
        assert one.product and one.exporter

    def test_ascend(self) -> None:
        page = read("ascend", foreign_pages.ascend((3448, 59356), {0: {}, 1: {4242: 55900}}))
        idle, busy = page.devices
        assert (idle.uuid, idle.index, idle.name) == (foreign_pages.vdie(0), 0, "910B2-Ascend-V1")
        assert idle.pci_bus_id == "0000:C1:00.0"
        assert (page.count, page.errors) == (2, {})
        assert idle.reading is not None and busy.reading is not None
        assert idle.reading.memory_total_bytes == 64 * GIB  # 65536 "MB" are MiB
        assert (idle.reading.memory_used_bytes, busy.reading.memory_used_bytes) == (3448 * MIB, 59356 * MIB)
        assert busy.reading.memory_free_bytes == (65536 - 59356) * MIB
        assert idle.reading.processes == ()  # it lists them, and there is none
        assert busy.reading.processes == (GpuProcess(4242, 55900 * MIB),)
        assert busy.reading.power_watts == pytest.approx(99.1)
        assert busy.reading.utilization_ratio == pytest.approx(0.37)
        assert busy.reading.memory_bandwidth_utilization_ratio == pytest.approx(0.02)
        assert busy.reading.temperature_celsius == {"gpu": 36.0, "memory": 38.0}
        assert busy.reading.ecc_errors == {"corrected": 0, "uncorrected": 0}
        assert busy.reading.healthy is True

    def test_ascend_without_the_group_of_processes_does_not_say_that_there_is_none(self) -> None:
        assert only(read("ascend", foreign_pages.ascend((3448,)))).reading.processes is None  # type: ignore[union-attr]

    def test_ascend_of_the_first_releases_numbers_its_chips_only(self) -> None:
        """NPU-Exporter 3.0: labels are the id alone (hiascend.com, MindX DL 3.0, dlug_guide_03_000112)."""
        now = time.time()
        page = "".join(
            line("npu_chip_info_hbm_total_memory", {"id": chip}, 32255, now)
            + line("npu_chip_info_hbm_used_memory", {"id": chip}, 2000, now)
            for chip in (0, 1)
        )
        assert [(one.uuid, one.index, one.name) for one in read("ascend", page).devices] == [
            ("ascend-0", 0, "Ascend NPU"),
            ("ascend-1", 1, "Ascend NPU"),
        ]

    def test_gaudi(self) -> None:
        page = read("gaudi", foreign_pages.gaudi((768, 94963)))
        busy = page.devices[1]
        assert (busy.uuid, busy.index) == ("01P0-HL2080A0-15-TF8A81-03-07-01", 1)
        assert (busy.name, busy.driver_version) == ("Intel Gaudi", "1.23.0-a4f4aec")
        assert busy.reading is not None
        assert busy.reading.memory_total_bytes == 96 * GIB
        assert busy.reading.memory_used_bytes == 94963 * MIB
        assert (busy.reading.power_watts, busy.reading.power_limit_watts) == (84.0, 600.0)
        assert busy.reading.temperature_celsius == {"gpu": 30.0, "board": 27.0}
        assert busy.reading.processes is None

    def test_xpumd_adds_up_memory_modules_and_takes_the_name_from_its_info(self) -> None:
        one = only(read("xpumd", foreign_pages.xpumd()))
        assert (one.name, one.index) == ("Intel Data Center GPU Max 1550", None)
        assert one.uuid == "12345678-0000-0000-0000-000000000000"
        assert one.reading is not None
        assert one.reading.memory_total_bytes == 128 * GIB  # the memory of the host is not the device's
        assert one.reading.memory_used_bytes == 12 * GIB
        assert one.reading.temperature_celsius == {"gpu": 48.0, "memory": 52.0}
        assert one.reading.energy_joules == 5.0

    def test_cambricon_leaves_virtual_functions_aside(self) -> None:
        one = only(read("cambricon", foreign_pages.cambricon()))
        assert (one.name, one.index, one.driver_version) == ("MLU590-M9", 0, "6.2.10")
        assert one.reading is not None
        assert (one.reading.memory_total_bytes, one.reading.memory_used_bytes) == (80 * GIB, 20 * GIB)
        assert one.reading.utilization_ratio == pytest.approx(0.55)
        assert one.reading.temperature_celsius == {"gpu": 41.0, "board": 35.0}

    def test_one_that_the_operator_maps(self) -> None:
        told = {"deviceId": 3, "uuid": "MX-3"}
        page = (
            mx(deviceId=3, uuid="MX-3", model="MXC550")
            + mx(2**50, deviceId=3, uuid="MX-3", type="xtt")
            + line("mx_process_memory", told | {"pid": 77}, 2**19)
            + line("mx_gpu_usage", told, 100.4)
            + line("mx_health", told, 2)
        )
        one = only(read(CUSTOM, page))
        assert (one.uuid, one.index, one.name) == ("MX-3", 3, "MXC550")
        assert one.reading is not None
        assert (one.reading.memory_total_bytes, one.reading.memory_used_bytes) == (64 * GIB, GIB)
        assert one.reading.processes == (GpuProcess(77, 512 * MIB),)
        assert one.reading.utilization_ratio == 1.0  # rounded up by its exporter
        assert one.reading.healthy is True
        assert read(CUSTOM, page).errors == {}


class TestTimes:
    def test_a_value_that_is_too_old_is_not_told(self) -> None:
        now = time.time()
        stale = foreign_pages.ascend((3448,), {0: {}}, at_seconds=now - 300)
        page = read("ascend", stale, now=now)
        assert only(page).reading is None
        assert page.errors["too_old"] > 5

    def test_a_clock_that_runs_ahead_says_as_little(self) -> None:
        now = time.time()
        page = foreign_pages.ascend((3448,), at_seconds=now + 300)
        assert only(read("ascend", page, now=now)).reading is None

    def test_old_values_of_one_device_cost_that_one(self) -> None:
        now = time.time()
        old = foreign_pages.ascend((1, 1), at_seconds=now - 300, chips=[0])
        page = read("ascend", old + foreign_pages.ascend((1, 1), at_seconds=now, chips=[1]), now=now)
        assert [one.reading is None for one in page.devices] == [True, False]

    def test_of_several_values_of_one_series_the_latest_counts(self) -> None:
        """A chip that several pods share has a line for each of them."""
        now, labels = time.time(), {"id": 0, "vdie_id": "A"}
        page = line("npu_chip_info_hbm_total_memory", labels, 65536, now)
        page += line("npu_chip_info_hbm_used_memory", labels | {"pod_name": "a"}, 100, now - 5)
        page += line("npu_chip_info_hbm_used_memory", labels | {"pod_name": "b"}, 200, now)
        reading = only(read("ascend", page)).reading
        assert reading is not None and reading.memory_used_bytes == 200 * MIB


class TestContradictions:
    def test_two_values_of_one_device_are_none(self) -> None:
        page = read(CUSTOM, mx() + mx(used=5, extra="b"))
        reading = only(page).reading
        assert reading is not None
        assert (reading.memory_total_bytes, reading.memory_used_bytes) == (64 * GIB, None)
        assert page.errors["contradiction"] == 1

    def test_the_same_value_twice_is_that_value(self) -> None:
        reading = only(read(CUSTOM, mx() + mx(extra="b"))).reading
        assert reading is not None and reading.memory_used_bytes == GIB

    def test_two_devices_with_one_number_are_one_device(self) -> None:
        page = read(CUSTOM, mx(uuid="MX-0") + mx(uuid="MX-1"))
        assert [one.uuid for one in page.devices] == ["MX-0"]
        assert page.errors["duplicate"] == 1

    def test_a_part_that_is_told_twice_counts_once(self) -> None:
        page = foreign_pages.xpumd()
        twice = only(read("xpumd", page + page)).reading
        assert twice is not None and twice.memory_total_bytes == 128 * GIB


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", -1, 0, 1e30, 2**40])
def test_a_size_that_cannot_be_true_is_none(value: object) -> None:
    page = read(CUSTOM, mx(value))
    reading = only(page).reading
    assert reading is not None and reading.memory_total_bytes is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", -1, 64 * 2**20 + 1])
def test_a_use_that_cannot_be_true_is_none_and_never_zero(value: object) -> None:
    page = read(CUSTOM, mx(used=value))
    reading = only(page).reading
    assert reading is not None and reading.memory_used_bytes is None
    assert page.errors["implausible"] == 1


@pytest.mark.parametrize("uuid", ['a\\"} 1', "a b", "a\\nb", "é", "x" * 65, "../../etc/passwd", "$(id)", ""])
def test_a_uuid_in_another_shape_is_not_taken_over(uuid: str) -> None:
    one = only(read(CUSTOM, mx(uuid=uuid)))
    assert one.uuid == "custom-0"


@pytest.mark.parametrize("index", ["-1", "99999", "4096", "1.0", "٣", "x", ""])
def test_a_number_in_another_shape_is_none(index: str) -> None:
    assert only(read(CUSTOM, mx(deviceId=index))).index is None


def test_a_name_in_another_shape_gives_way_to_the_product_s() -> None:
    assert only(read(CUSTOM, mx(model="<script>"))).name == "MXC500"


@pytest.mark.parametrize("pid", ["-1", "0", "99999999999999", "1e3", "self", "4194305"])
def test_a_process_id_that_no_linux_gives_is_none(pid: str) -> None:
    page = read(CUSTOM, mx() + line("mx_process_memory", {"deviceId": 0, "pid": pid}, 1))
    reading = only(page).reading
    assert reading is not None and reading.processes == ()
    assert page.errors["no_process"] == 1


def test_what_names_no_device_belongs_to_none() -> None:
    page = read(CUSTOM, mx(deviceId="", uuid=""))
    assert (page.devices, page.errors["unnamed"]) == ((), 2)


def test_no_more_devices_than_a_host_can_have() -> None:
    page = read(CUSTOM, "".join(mx(deviceId=one, uuid=f"MX-{one}") for one in range(MOST_DEVICES + 9)))
    assert len(page.devices) == MOST_DEVICES
    assert page.errors["too_many"] == 18


def test_a_page_of_a_hundred_thousand_series_is_refused_whole() -> None:
    flood = "".join(
        f'mx_memory_used{{deviceId="0",type="vram",n="{number}"}} 1\n' for number in range(100_000)
    )
    with pytest.raises(Unanswered) as caught:
        read(CUSTOM, mx() + flood)
    assert caught.value.reason is Reason.TOO_LARGE


def test_as_many_lines_as_are_read_are_read() -> None:
    lines = mx() + "".join(mx() for _ in range(SAMPLES_LIMIT // 2 - 1))
    assert len(read(CUSTOM, lines).devices) == 1


LABELS = st.dictionaries(
    st.sampled_from(["deviceId", "uuid", "model", "pid", "type"]),
    st.sampled_from(["0", "1", "vram", "MX-0", "MX-1", "", "é", "\\n", "9" * 30]),
)
LINES = st.builds(
    lambda name, labels, value, at: line(name, labels, value, at),
    st.sampled_from(sorted(map_of(CUSTOM).wanted)),
    LABELS,
    st.one_of(st.floats(), st.integers(-(2**70), 2**70)),
    st.none() | st.floats(-1e15, 1e15),
)


@settings(deadline=None)  # what else the machine does is no fault of a page
@given(st.lists(LINES, max_size=20))
def test_whatever_stands_there_devices_come_out_or_a_reason(lines: list[str]) -> None:
    try:
        page = read(CUSTOM, "".join(lines), now=1e9)
    except Unanswered:
        return
    assert len({one.uuid for one in page.devices}) == len(page.devices)
    for one in page.devices:
        reading = one.reading
        if reading is None or reading.memory_total_bytes is None or reading.memory_used_bytes is None:
            continue
        assert 0 <= reading.memory_used_bytes <= reading.memory_total_bytes
        assert reading.memory_free_bytes == reading.memory_total_bytes - reading.memory_used_bytes
        assert reading.utilization_ratio is None or 0 <= reading.utilization_ratio <= 1
        assert all(math.isfinite(celsius) for celsius in reading.temperature_celsius.values())


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_are_worse_than_no_page(page: bytes) -> None:
    by = map_of(CUSTOM)
    prefix = b"mx_memory_total" + page + b"\nmx_memory_used{" + page
    try:
        read_page(by, "custom", read_samples(prefix, by.wanted, whole=True), now=0.0, max_age=1.0)
    except Unanswered as error:
        assert error.reason in (Reason.NONSENSE, Reason.TOO_LARGE)
