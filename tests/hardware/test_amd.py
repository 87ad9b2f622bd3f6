"""What the AMD driver reads of each kind of device, and of files that lie, vanish or are refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from amd_tree import (
    GIB,
    KIB,
    MI250_VRAM,
    MI300X_ADDRESSES,
    MI300X_IDLE,
    MI300X_VRAM,
    MIB,
    R1_RANK,
    STRIX,
    STRIX_GTT,
    STRIX_VRAM,
    AmdDevice,
    AmdHost,
    eight_mi300x,
    fdinfo,
    host,
    mi250,
    mi300x,
    strix_halo,
)
from hypothesis import given
from hypothesis import strategies as st

from exporter.hardware import gpu
from exporter.hardware.amd import Driver
from exporter.hardware.driver import Unreadable
from exporter.hardware.gpu import GpuIdentity, GpuProcess, GpuReading

FIRST = MI300X_ADDRESSES[0]


def driver(made: AmdHost) -> Driver:
    return Driver(str(made.sys), str(made.proc))


def raw(made: AmdHost, index: int = 0) -> dict[str, Any]:
    one = driver(made)
    assert index < one.count()
    return one.read(index)


def reading(made: AmdHost, index: int = 0) -> GpuReading:
    """A device as the supervisor takes it from the worker."""
    return gpu.reading_from(raw(made, index))


def identity(made: AmdHost, index: int = 0) -> GpuIdentity:
    return gpu.identity_from(raw(made, index)["identity"], vendor="amd", driver_version="")


def lone(root: Path) -> AmdHost:
    """One MI300X that is half full."""
    made = host(root, [mi300x(0, 96 * GIB)])
    made.holds(5000, gpu_60000=95 * GIB)
    return made


# Devices


def test_an_mi300x_gives_every_value_that_sysfs_has(tmp_path: Path) -> None:
    made = eight_mi300x(tmp_path)
    assert driver(made).version == "6.12.12"
    assert driver(made).count() == 8
    assert reading(made, 2) == GpuReading(
        memory_total_bytes=MI300X_VRAM,
        memory_used_bytes=MI300X_IDLE + R1_RANK,
        memory_free_bytes=MI300X_VRAM - MI300X_IDLE - R1_RANK,
        gtt_total_bytes=811_339_575_296,
        gtt_used_bytes=61_865_984,
        visible_memory_total_bytes=MI300X_VRAM,
        visible_memory_used_bytes=MI300X_IDLE + R1_RANK,
        power_watts=134.0,
        power_limit_watts=750.0,
        utilization_ratio=0.97,
        memory_bandwidth_utilization_ratio=0.41,
        temperature_celsius={"junction": 43.0, "mem": 38.0},
        ecc_errors={"corrected": 3, "uncorrected": 0},
        firmware={
            "vbios": "113-M3000100-102",
            "smc": "0x00557300",
            "sos": "0x00360f62",
            "mec": "0x000000a6",
        },
        partitioning={"compute": "SPX", "memory": "NPS1"},
        processes=(GpuProcess(5002, R1_RANK),),
    )
    assert identity(made, 5) == GpuIdentity(
        uuid="GPU-a1b2c3d4e5f60005",
        index=5,
        name="AMD Instinct MI300X",
        vendor="amd",
        pci_bus_id=MI300X_ADDRESSES[5],
        memory_kind="dedicated",
        numa_node=1,
    )


def test_the_driver_s_version_is_the_kernel_s_where_it_came_with_it(tmp_path: Path) -> None:
    assert driver(lone(tmp_path)).version == "6.8.0-45-generic"


def test_the_dies_of_an_mi250_are_two_devices_and_the_first_tells_the_power_of_both(tmp_path: Path) -> None:
    made = mi250(tmp_path)
    first, second = reading(made, 0), reading(made, 1)
    assert (first.memory_total_bytes, second.memory_total_bytes) == (MI250_VRAM, MI250_VRAM)
    assert (first.power_watts, first.power_limit_watts) == (94.0, 560.0)
    assert (second.power_watts, second.power_limit_watts) == (None, None)
    assert identity(made, 0).uuid == "GPU-1f9de0957d137942"
    assert identity(made, 1).uuid != identity(made, 0).uuid
    assert first.processes == ()  # KFD lists the process there too, holding nothing
    assert second.processes == (GpuProcess(7001, 8 * GIB),)


def test_the_memory_of_an_apu_is_its_carve_out_and_what_it_may_map(tmp_path: Path) -> None:
    made = strix_halo(tmp_path)
    one, found = identity(made), reading(made)
    assert (one.memory_kind, one.uuid, one.name) == ("unified", STRIX, "AMD Radeon 8060S Graphics")
    assert found.memory_total_bytes == STRIX_VRAM + STRIX_GTT
    assert found.memory_used_bytes == 600 * MIB + 62 * GIB
    assert (found.gtt_total_bytes, found.gtt_used_bytes) == (STRIX_GTT, 62 * GIB)
    assert found.visible_memory_total_bytes == STRIX_VRAM
    assert (found.power_watts, found.power_limit_watts) == (71.0, None)


def test_a_process_on_an_apu_counts_by_the_larger_of_its_two_accounts(tmp_path: Path) -> None:
    found = reading(strix_halo(tmp_path))
    assert found.processes == (GpuProcess(3098, 40 * GIB), GpuProcess(4100, 20 * GIB + 512 * MIB))


def test_an_apu_without_a_carve_out_has_what_it_may_map(tmp_path: Path) -> None:
    made = host(tmp_path, [AmdDevice("0000:01:00.0", 0x74A0, gtt=(500 * GIB, GIB), unique_id="12ab")])
    found = reading(made)
    assert (identity(made).name, identity(made).memory_kind) == ("AMD Instinct MI300A", "unified")
    assert (found.memory_total_bytes, found.memory_used_bytes) == (500 * GIB, GIB)


def test_an_apu_whose_gtt_is_not_readable_has_no_memory_rather_than_too_little(tmp_path: Path) -> None:
    made = strix_halo(tmp_path)
    made.put(STRIX, "mem_info_gtt_total", "\n")
    found = raw(made)
    assert not {"memory_total_bytes", "memory_used_bytes", "memory_free_bytes"} & found["values"].keys()
    assert found["errors"] == {"mem_info_gtt_total": "empty"}


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("board_info", "dedicated"),
        ("mem_busy_percent", "dedicated"),
        ("pcie_bw", "dedicated"),
        (None, "unified"),
    ],
)
def test_a_device_that_is_in_no_table_is_a_card_by_what_the_kernel_offers_for_cards(
    tmp_path: Path, file: str | None, kind: str
) -> None:
    made = host(tmp_path, [AmdDevice("0000:01:00.0", 0x9999, vram=(GIB, 0), gtt=(GIB, 0), board=None)])
    if file is not None:
        made.put("0000:01:00.0", file, "0\n")
    assert identity(made).memory_kind == kind


@pytest.mark.parametrize(
    ("device", "revision", "product", "name"),
    [
        (0x744C, 0xC8, "", "AMD Radeon RX 7900 XTX"),
        (0x744C, 0xCC, "", "AMD Radeon RX 7900 XT"),
        (0x744C, 0x01, "Navi 31", "Navi 31"),
        (0x9999, 0, "AMD Instinct MI999X", "AMD Instinct MI999X"),
        (0x9999, 0, "", "AMD GPU 0x9999"),
    ],
)
def test_a_device_is_named_by_its_number_then_by_its_board(
    tmp_path: Path, device: int, revision: int, product: str, name: str
) -> None:
    files = {"product_name": f"{product}\n"} if product else {}
    made = host(tmp_path, [AmdDevice("0000:01:00.0", device, revision, vram=(GIB, 0), files=files)])
    assert identity(made).name == name


def test_devices_are_numbered_by_pci_address_whatever_their_card_numbers(tmp_path: Path) -> None:
    made = host(
        tmp_path,
        [
            AmdDevice("0001:01:00.0", 0x74A1, vram=(GIB, 0), minor=128),
            AmdDevice("0000:c1:00.0", 0x74A1, vram=(GIB, 0), minor=130),
            AmdDevice("0000:05:00.0", 0x74A1, vram=(GIB, 0), minor=129),
        ],
    )
    addresses = [identity(made, index).pci_bus_id for index in range(3)]
    assert addresses == ["0000:05:00.0", "0000:c1:00.0", "0001:01:00.0"]


def test_a_unique_id_that_two_devices_share_names_the_second_by_its_address_too(tmp_path: Path) -> None:
    devices = [AmdDevice(f"0000:0{at}:00.0", 0x74A1, vram=(GIB, 0), unique_id="ab12") for at in (1, 2)]
    one = driver(host(tmp_path, devices))
    for _ in range(2):
        uuids = [one.read(index)["identity"]["uuid"] for index in range(one.count())]
        assert uuids == ["GPU-ab12", "GPU-ab12@0000:02:00.0"]


# Partitions


def parts(root: Path) -> AmdHost:
    made = host(root, [mi300x(0, 40 * GIB, parts=8)])
    made.holds(5000, gpu_60000=20 * GIB)
    made.holds(5001, gpu_60003=12 * GIB)
    return made


def test_partitions_are_devices_whose_memory_sums_to_that_of_the_whole(tmp_path: Path) -> None:
    made = parts(tmp_path)
    one = driver(made)
    found = [gpu.reading_from(one.read(index)) for index in range(one.count())]
    assert [part.memory_total_bytes for part in found] == [MI300X_VRAM // 8] * 8
    assert [part.memory_used_bytes for part in found] == [20 * GIB, 0, 0, 12 * GIB, 0, 0, 0, 0]
    assert {part.memory_reserved_bytes for part in found} == {GIB}
    in_use = sum((part.memory_used_bytes or 0) + (part.memory_reserved_bytes or 0) for part in found)
    assert in_use == 40 * GIB
    for part in found:
        known = (part.memory_used_bytes, part.memory_reserved_bytes, part.memory_free_bytes)
        assert sum(size or 0 for size in known) == part.memory_total_bytes
    assert found[3].processes == (GpuProcess(5001, 12 * GIB),)
    assert found[3].partitioning == {"compute": "CPX", "memory": "NPS1"}


def test_what_the_device_says_of_itself_as_a_whole_stands_with_its_first_partition(tmp_path: Path) -> None:
    made = parts(tmp_path)
    assert reading(made, 0).power_watts == 134.0
    assert (reading(made, 1).power_watts, reading(made, 1).temperature_celsius) == (None, {})


def test_each_partition_has_a_name_of_its_own(tmp_path: Path) -> None:
    made = parts(tmp_path)
    assert [identity(made, index).uuid for index in (0, 7)] == [
        "GPU-a1b2c3d4e5f60000:0",
        "GPU-a1b2c3d4e5f60000:7",
    ]
    assert {identity(made, index).memory_kind for index in range(8)} == {"partition"}


def test_a_partition_s_use_is_unknown_where_its_processes_are(tmp_path: Path) -> None:
    made = parts(tmp_path)
    (made.kfd / "proc").rename(tmp_path / "gone")
    found = reading(made, 0)
    assert found.memory_total_bytes == MI300X_VRAM // 8
    assert (found.memory_used_bytes, found.memory_free_bytes) == (None, None)


def test_another_division_is_seen_when_kfd_says_that_its_nodes_changed(tmp_path: Path) -> None:
    made = host(tmp_path / "before", [mi300x(0)])
    one = driver(made)
    assert one.count() == 1
    after = host(tmp_path / "after", [mi300x(0, parts=8)])
    (made.kfd / "topology").rename(tmp_path / "old")
    (after.kfd / "topology").rename(made.kfd / "topology")
    assert one.count() == 1  # the same generation: nothing has changed
    (made.kfd / "topology/generation_id").write_text("3\n")
    assert one.count() == 8


# Processes


def test_graphics_that_kfd_does_not_know_is_seen_by_its_open_files(tmp_path: Path) -> None:
    made = lone(tmp_path)
    made.opens(6000, 4, "renderD128", fdinfo(FIRST, 9, 300 * KIB, 50 * KIB))
    assert reading(made).processes == (GpuProcess(5000, 95 * GIB), GpuProcess(6000, 300 * MIB))


def test_without_kfd_the_open_files_tell(tmp_path: Path) -> None:
    made = lone(tmp_path)
    (made.kfd).rename(tmp_path / "gone")
    made.opens(6000, 4, "renderD128", fdinfo(FIRST, 9, 300 * KIB, 0))
    assert reading(made).processes == (GpuProcess(6000, 300 * MIB),)


def test_where_neither_may_be_read_the_processes_are_unknown_with_a_reason(tmp_path: Path) -> None:
    made = lone(tmp_path)
    for folder in (made.kfd / "proc", made.proc):
        folder.rename(folder.with_name("gone"))
    found = raw(made)
    assert found["processes"] is None
    assert found["errors"] == {"kfd": "unreadable", "processes": "no_permission"}
    assert found["values"]["memory_used_bytes"] == 96 * GIB


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_only_others_may_read_is_absent_with_the_reason(tmp_path: Path) -> None:
    made = lone(tmp_path)
    made.opens(6000, 4, "renderD128", fdinfo(FIRST, 9, 300 * KIB, 0))
    (made.proc / "6000/fd").chmod(0)
    assert reading(made).processes == (GpuProcess(5000, 95 * GIB),)  # the other stays unattributed
    (made.kfd / "proc/5000/vram_60000").chmod(0)
    (made.folder(FIRST) / "gpu_busy_percent").chmod(0)
    found = raw(made)
    assert found["processes"] is None
    assert found["errors"] == {
        "kfd": "unreadable",
        "processes": "no_permission",
        "gpu_busy_percent": "no_permission",
    }


def test_a_topology_that_is_refused_is_a_reason_and_costs_the_processes_only(tmp_path: Path) -> None:
    made = lone(tmp_path)
    refused = made.kfd / "topology/nodes/1/gpu_id"
    refused.unlink()
    refused.mkdir()
    found = raw(made)
    assert found["errors"]["kfd"] == "eisdir"
    assert found["values"]["memory_used_bytes"] == 96 * GIB


# What goes wrong


def test_a_sleeping_device_is_not_read(tmp_path: Path) -> None:
    made = lone(tmp_path)
    made.put(FIRST, "power/runtime_status", "suspended\n")
    for name in ("gpu_busy_percent", "mem_info_vram_used", "hwmon/hwmon7/power1_input"):
        (made.folder(FIRST) / name).unlink()
        os.mkfifo(made.folder(FIRST) / name)  # whoever reads it waits for ever
    with pytest.raises(Unreadable) as asleep:
        raw(made)
    assert (asleep.value.state, asleep.value.fatal) == ("suspended", False)
    assert asleep.value.identity is not None
    assert asleep.value.identity["uuid"] == "GPU-a1b2c3d4e5f60000"


def test_a_device_that_vanishes_between_list_and_read_is_lost(tmp_path: Path) -> None:
    made = lone(tmp_path)
    one = driver(made)
    one.count()
    made.remove(FIRST)
    with pytest.raises(Unreadable) as lost:
        one.read(0)
    assert (lost.value.state, lost.value.fatal) == ("lost", False)
    assert one.count() == 0


def test_a_driver_that_is_unloaded_ends_the_worker(tmp_path: Path) -> None:
    made = lone(tmp_path)
    one = driver(made)
    (made.sys / "bus/pci/drivers/amdgpu").rename(tmp_path / "gone")
    with pytest.raises(Unreadable) as gone:
        one.count()
    assert (gone.value.reason, gone.value.fatal) == ("driver_not_loaded", True)
    with pytest.raises(Unreadable):
        driver(made)


def test_a_device_keeps_its_name_while_it_does_not_tell_it(tmp_path: Path) -> None:
    made = lone(tmp_path)
    one = driver(made)
    one.count()
    before = one.read(0)["identity"]["uuid"]
    unique = made.folder(FIRST) / "unique_id"
    for _ in range(2):
        unique.write_text("\n")  # after a reset
        assert one.read(0)["identity"]["uuid"] == before
    unique.unlink()
    unique.mkdir()  # an error, as during a reset
    assert one.read(0)["identity"]["uuid"] == before
    with pytest.raises(Unreadable, match="unique_id: eisdir"):  # nobody knows it yet
        raw(made)


def test_use_above_the_total_is_absent(tmp_path: Path) -> None:
    made = lone(tmp_path)
    made.put(FIRST, "mem_info_vram_used", f"{MI300X_VRAM + 1}\n")
    found = raw(made)
    assert "memory_used_bytes" not in found["values"]
    assert "memory_free_bytes" not in found["values"]
    assert found["values"]["memory_total_bytes"] == MI300X_VRAM
    assert found["errors"] == {"mem_info_vram_used": "malformed"}


def test_errors_are_absent_while_one_of_their_counts_is(tmp_path: Path) -> None:
    made = lone(tmp_path)
    made.put(FIRST, "ras/gfx_err_count", "Query currently inaccessible\n")
    assert reading(made).ecc_errors == {}


def test_newer_devices_count_errors_in_files_of_another_name(tmp_path: Path) -> None:
    made = lone(tmp_path)
    made.remove(FIRST)
    device = mi300x(1)
    device.files = {"ras/aca_umc": "ue: 1\nce: 5\nde: 2\n"}
    made = host(tmp_path / "newer", [device])
    assert reading(made).ecc_errors == {"corrected": 5, "uncorrected": 1}


def test_average_power_goes_before_the_instant(tmp_path: Path) -> None:
    made = lone(tmp_path)
    made.put(FIRST, "hwmon/hwmon7/power1_average", "120000000\n")
    made.put(FIRST, "hwmon/hwmon7/energy1_input", "5000000\n")
    found = reading(made)
    assert (found.power_watts, found.energy_joules) == (120.0, 5.0)


def test_a_device_without_sensors_has_its_memory(tmp_path: Path) -> None:
    made = host(tmp_path, [AmdDevice("0000:01:00.0", 0x744C, 0xC8, vram=(24 * GIB, GIB))])
    assert reading(made) == GpuReading(
        memory_total_bytes=24 * GIB,
        memory_used_bytes=GIB,
        memory_free_bytes=23 * GIB,
        visible_memory_total_bytes=24 * GIB,
        visible_memory_used_bytes=GIB,
        processes=(),
    )


# Any content of any file


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AmdHost]:
    yield strix_halo(tmp_path_factory.mktemp("fuzzed"))


FILES = sorted({*mi300x(0).all_files(), *AmdDevice(STRIX, 0).all_files()} - {"vendor"})


@given(
    files=st.dictionaries(
        st.sampled_from(FILES),
        st.binary(max_size=40)
        | st.integers(-(2**65), 2**65).map(lambda number: f"{number}\n".encode())
        | st.sampled_from([b"", b"\n", b"suspended\n", b"ue: 9\nce: -1\n", b"0x\n", b"\xff" * 20]),
        max_size=6,
    )
)
def test_no_content_of_any_file_raises_past_the_device_or_gives_an_impossible_value(
    fuzzed: AmdHost, files: dict[str, bytes]
) -> None:
    original: dict[Path, bytes | None] = {}
    for name, content in files.items():
        path = fuzzed.folder(STRIX) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        original[path] = path.read_bytes() if path.exists() else None
        path.write_bytes(content)
    try:
        found = reading(fuzzed)
    except Unreadable as error:
        assert not error.fatal
    else:
        check(found)
    finally:
        for path, before in original.items():
            path.unlink() if before is None else path.write_bytes(before)


def check(found: GpuReading) -> None:
    """Nothing in it is impossible."""
    total, used, free = found.memory_total_bytes, found.memory_used_bytes, found.memory_free_bytes
    assert total is None or total > 0
    if total is not None and used is not None:
        assert 0 <= used <= total
        assert free == total - used
    for ratio in (found.utilization_ratio, found.memory_bandwidth_utilization_ratio):
        assert ratio is None or 0 <= ratio <= 1
    for watts in (found.power_watts, found.power_limit_watts):
        assert watts is None or 0 < watts < 100_000
    assert all(-60 < celsius < 250 for celsius in found.temperature_celsius.values())
    assert all(count >= 0 for count in found.ecc_errors.values())
