"""RAM, swap, pressure, NUMA and processors, from small /proc and /sys trees and from this machine's own."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proc_tree import GIB, cpuinfo, dual_epyc, meminfo, write

from exporter.hardware.bandwidth import Bandwidth
from exporter.hardware.host import (
    Cpu,
    HostReading,
    HostSource,
    HostUnreadable,
    NumaNode,
    parse_meminfo,
    parse_pressure,
    parse_vmstat,
)


def read(root: Path, *, cgroup_limit: bool = True) -> HostReading:
    return HostSource(root / "proc", root / "sys", cgroup_limit=cgroup_limit).read()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A host of 64 GiB, 40 of them available, and nothing else."""
    write(tmp_path / "proc", {"meminfo": meminfo(64, 40)})
    (tmp_path / "sys").mkdir()
    return tmp_path


def test_a_server_with_two_sockets_gives_every_value(tmp_path: Path) -> None:
    dual_epyc(tmp_path / "proc", tmp_path / "sys")
    assert read(tmp_path) == HostReading(
        memory_total_bytes=1536 * GIB,
        memory_available_bytes=1400 * GIB,
        limit_bytes=None,
        swap_total_bytes=8 * GIB,
        swap_used_bytes=3 * GIB,
        hugepages_total_bytes=64 * GIB,
        hugepages_free_bytes=48 * GIB,
        shared_bytes=16 * GIB,
        pressure_some_seconds=12.5,
        pressure_full_seconds=2.5,
        oom_kills=3,
        numa={0: NumaNode(768 * GIB, 10 * GIB), 1: NumaNode(768 * GIB, 700 * GIB)},
        cpu=Cpu("AMD EPYC 9654 96-Core Processor", sockets=2, cores=192, threads=384),
        bandwidth=Bandwidth(921_600_000_000, "processor"),
    )


def test_what_a_node_can_give_is_free_and_what_can_be_dropped(tmp_path: Path) -> None:
    lines = {"MemTotal": 64, "MemFree": 4, "Active(file)": 20, "Inactive(file)": 10, "SReclaimable": 1}
    text = "".join(f"Node 0 {name}: {size * 2**20} kB\n" for name, size in lines.items())
    write(tmp_path / "proc", {"meminfo": meminfo(64, 40)})
    write(tmp_path / "sys", {"devices/system/node/node0/meminfo": text})
    assert read(tmp_path).numa == {0: NumaNode(64 * GIB, 4 * GIB, 31 * GIB)}
    assert read(tmp_path).numa[0].available_bytes == 35 * GIB


def test_what_the_kernel_does_not_give_is_absent_and_not_nought(small: Path) -> None:
    assert read(small) == HostReading(memory_total_bytes=64 * GIB, memory_available_bytes=40 * GIB)


def test_without_psi_everything_else_is_read(tmp_path: Path) -> None:
    dual_epyc(tmp_path / "proc", tmp_path / "sys")
    (tmp_path / "proc" / "pressure" / "memory").unlink()
    one = read(tmp_path)
    assert one.pressure_some_seconds is None
    assert one.pressure_full_seconds is None
    assert one.oom_kills == 3


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("MemTotal:", id="cut off"),
        pytest.param("MemTotal: 67108864 kB\n", id="an old kernel without MemAvailable"),
        pytest.param("MemTotal: 0 kB\nMemAvailable: 0 kB\n", id="no memory"),
        pytest.param("MemTotal: 10 kB\nMemAvailable: 20 kB\n", id="more available than there is"),
        pytest.param("MemTotal: -1 kB\nMemAvailable: x kB\n", id="no numbers"),
        pytest.param("\0\0\0\0", id="zeroes"),
    ],
)
def test_a_meminfo_without_sense_is_unreadable(tmp_path: Path, text: str) -> None:
    write(tmp_path / "proc", {"meminfo": text})
    with pytest.raises(HostUnreadable, match="meminfo"):
        read(tmp_path)


def test_without_proc_the_host_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(HostUnreadable, match="meminfo has no MemTotal"):
        read(tmp_path)


def test_it_is_read_again_at_every_reading(small: Path) -> None:
    source = HostSource(small / "proc", small / "sys", cgroup_limit=True)
    assert source.read().memory_available_bytes == 40 * GIB
    write(small / "proc", {"meminfo": meminfo(64, 30)})
    assert source.read().memory_available_bytes == 30 * GIB
    (small / "proc" / "meminfo").unlink()
    with pytest.raises(HostUnreadable):
        source.read()
    write(small / "proc", {"meminfo": meminfo(64, 20)})
    assert source.read().memory_available_bytes == 20 * GIB


def test_swap_that_is_freer_than_it_is_large_is_not_known(small: Path) -> None:
    write(small / "proc", {"meminfo": meminfo(64, 40, SwapTotal=10, SwapFree=20)})
    one = read(small)
    assert (one.swap_total_bytes, one.swap_used_bytes) == (None, None)


def test_a_host_without_swap_has_none_of_it(small: Path) -> None:
    write(small / "proc", {"meminfo": meminfo(64, 40, SwapTotal=0, SwapFree=0)})
    one = read(small)
    assert (one.swap_total_bytes, one.swap_used_bytes) == (0, 0)


# NUMA


def test_a_node_that_makes_no_sense_is_left_out(small: Path) -> None:
    write(
        small / "sys" / "devices" / "system" / "node",
        {
            "node0/meminfo": "Node 0 MemTotal: 1024 kB\nNode 0 MemFree: 512 kB\n",
            "node1/meminfo": "",
            "node2x/meminfo": "Node 2 MemTotal: 1024 kB\nNode 2 MemFree: 512 kB\n",
            "node3/distance": "10",
        },
    )
    assert read(small).numa == {0: NumaNode(2**20, 2**19)}


# A container's limit


def test_a_container_of_cgroup_v2_is_the_host_s_size_without_droppable_cache(small: Path) -> None:
    write(
        small / "sys" / "fs" / "cgroup",
        {
            "memory.max": f"{32 * GIB}\n",
            "memory.current": f"{20 * GIB}\n",
            "memory.stat": f"anon {5 * GIB}\nfile {15 * GIB}\ninactive_file {12 * GIB}\n",
        },
    )
    one = read(small)
    assert (one.memory_total_bytes, one.limit_bytes) == (32 * GIB, 32 * GIB)
    assert one.memory_available_bytes == (32 - (20 - 12)) * GIB


def test_a_container_of_cgroup_v1_too(small: Path) -> None:
    write(
        small / "sys" / "fs" / "cgroup" / "memory",
        {
            "memory.limit_in_bytes": f"{16 * GIB}\n",
            "memory.usage_in_bytes": f"{10 * GIB}\n",
            "memory.stat": f"inactive_file 1\ntotal_inactive_file {4 * GIB}\n",
        },
    )
    one = read(small)
    assert (one.memory_total_bytes, one.limit_bytes) == (16 * GIB, 16 * GIB)
    assert one.memory_available_bytes == 10 * GIB


def test_a_container_on_a_crowded_host_has_no_more_than_the_host_has_left(small: Path) -> None:
    write(small / "sys" / "fs" / "cgroup", {"memory.max": f"{60 * GIB}\n", "memory.current": "0\n"})
    assert read(small).memory_available_bytes == 40 * GIB


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"memory.max": "max\n"}, id="v2 without a limit"),
        pytest.param({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, id="v1 without a limit"),
        pytest.param({"memory.max": f"{128 * GIB}\n"}, id="a limit above the host's memory"),
        pytest.param({"memory.max": "0\n"}, id="no limit anybody can live with"),
        pytest.param({"memory.max": ""}, id="empty"),
        pytest.param({"memory.max": "-1\n"}, id="negative"),
        pytest.param({"memory.max": "much\n"}, id="no number"),
    ],
)
def test_without_a_limit_that_confines_it_is_the_host_s_memory(small: Path, files: dict[str, str]) -> None:
    write(small / "sys" / "fs" / "cgroup", files)
    one = read(small)
    assert (one.memory_total_bytes, one.memory_available_bytes) == (64 * GIB, 40 * GIB)
    assert one.limit_bytes is None


def test_the_service_s_own_limit_is_not_the_host_s_size(small: Path) -> None:
    ours = "system.slice/deepseek-exporter.service"
    write(small / "proc", {"self/cgroup": f"0::/{ours}\n"})
    write(
        small / "sys" / "fs" / "cgroup",
        {f"{ours}/memory.max": f"{256 * 2**20}\n", f"{ours}/memory.current": f"{30 * 2**20}\n"},
    )
    assert read(small).memory_total_bytes == 64 * GIB


def test_the_limit_can_be_ignored(small: Path) -> None:
    write(small / "sys" / "fs" / "cgroup", {"memory.max": f"{32 * GIB}\n", "memory.current": "0\n"})
    assert read(small, cgroup_limit=False).memory_total_bytes == 64 * GIB


# Processors


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(cpuinfo(1, 4, 1, "One"), Cpu("One", 1, 4, 4), id="one socket"),
        pytest.param(cpuinfo(2, 4, 2, "Two"), Cpu("Two", 2, 8, 16), id="two sockets, two threads a core"),
        pytest.param(
            "processor\t: 0\nBogoMIPS\t: 50.00\nCPU part\t: 0xd4f\n\nprocessor\t: 1\n",
            Cpu("", None, None, 2),
            id="arm64 names nothing",
        ),
        pytest.param("", None, id="empty"),
        pytest.param("model name\t: nobody\n", None, id="no processor"),
    ],
)
def test_processors(small: Path, text: str, expected: Cpu | None) -> None:
    write(small / "proc", {"cpuinfo": text})
    assert read(small).cpu == expected


def test_a_thousand_threads_are_all_counted(small: Path) -> None:
    write(small / "proc", {"cpuinfo": cpuinfo(2, 256, 2, "Many")})
    assert (small / "proc" / "cpuinfo").stat().st_size > 2**20
    assert read(small).cpu == Cpu("Many", 2, 512, 1024)


# This machine


def test_this_machine_s_memory_is_what_proc_says() -> None:
    source = HostSource(Path("/proc"), Path("/sys"), cgroup_limit=False)
    one = source.read()
    said = parse_meminfo(Path("/proc/meminfo").read_text())
    assert one.memory_total_bytes == said["MemTotal"]
    assert one.memory_available_bytes == pytest.approx(said["MemAvailable"], rel=0.05)
    assert one.swap_total_bytes == said["SwapTotal"]
    assert one.cpu is not None
    assert one.cpu.threads >= 1


def test_this_machine_s_memory_is_the_same_through_psutil_and_through_the_file(tmp_path: Path) -> None:
    (tmp_path / "proc").symlink_to("/proc")  # another name of the same files, which psutil does not read
    through_file = HostSource(tmp_path / "proc", Path("/sys"), cgroup_limit=False).read()
    through_psutil = HostSource(Path("/proc"), Path("/sys"), cgroup_limit=False).read()
    assert through_file.memory_total_bytes == through_psutil.memory_total_bytes
    assert through_file.memory_available_bytes == pytest.approx(
        through_psutil.memory_available_bytes, rel=0.05
    )


# Whatever the kernel writes

NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64]))
WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
LINES = st.one_of(
    st.builds("{}: {} kB".format, st.sampled_from(["MemTotal", "MemAvailable", "Node 0 MemFree"]), NUMBERS),
    st.builds("{}:{}".format, WORDS, NUMBERS),
    st.builds("{} {}".format, WORDS, NUMBERS),
    st.builds("{} avg10=0.00 total={}".format, st.sampled_from(["some", "full", "all"]), NUMBERS),
    st.builds("processor : {}".format, NUMBERS),
    st.builds("{} : {}".format, st.sampled_from(["physical id", "core id", "model name"]), WORDS),
    WORDS,
)
FILES = st.lists(LINES, max_size=12).map("\n".join)


@given(FILES)
def test_meminfo_gives_sizes_or_nothing(text: str) -> None:
    for size in parse_meminfo(text).values():
        assert 0 <= size < 10**18 * 1024


@given(FILES)
def test_pressure_gives_seconds_or_nothing(text: str) -> None:
    found = parse_pressure(text)
    assert set(found) <= {"some", "full"}
    assert all(0 <= seconds < 1e12 for seconds in found.values())


@given(FILES)
def test_vmstat_gives_counts_or_nothing(text: str) -> None:
    assert all(0 <= count < 10**18 for count in parse_vmstat(text).values())


@given(st.dictionaries(st.text("abcXYZ_()", min_size=1, max_size=14), st.integers(0, 10**15)))
def test_meminfo_reads_what_the_kernel_writes(values: dict[str, int]) -> None:
    text = "".join(f"{name + ':':16}{number:>8} kB\n" for name, number in values.items())
    assert parse_meminfo(text) == {name: number * 1024 for name, number in values.items()}


@given(st.dictionaries(st.text("abc_0", min_size=1, max_size=20), st.integers(0, 10**17)))
def test_vmstat_reads_what_the_kernel_writes(values: dict[str, int]) -> None:
    assert parse_vmstat("".join(f"{name} {number}\n" for name, number in values.items())) == values


@given(cpu=FILES, memory=FILES, vmstat=FILES, pressure=FILES, limit=FILES)
def test_no_content_of_the_files_does_more_than_make_the_host_unreadable(
    tmp_path_factory: pytest.TempPathFactory, cpu: str, memory: str, vmstat: str, pressure: str, limit: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "any-host"
    files = {"meminfo": memory, "cpuinfo": cpu, "vmstat": vmstat, "pressure/memory": pressure}
    write(root / "proc", files)
    write(root / "sys" / "fs" / "cgroup", {"memory.max": limit, "memory.stat": vmstat})
    try:
        one = read(root)
    except HostUnreadable:
        return
    assert 0 <= one.memory_available_bytes <= one.memory_total_bytes
    assert one.cpu is None or one.cpu.threads > 0


@pytest.mark.parametrize("line", ["some " + "total=1 " * 100_000, "processor" + " " * 2**20, "x" * 2**20])
def test_a_megabyte_of_nonsense_takes_no_time(small: Path, line: str) -> None:
    names = ("cpuinfo", "vmstat", "pressure/memory")
    write(small / "proc", dict.fromkeys(names, line) | {"meminfo": meminfo(64, 40) + line})
    started = time.monotonic()
    read(small)
    assert time.monotonic() - started < 1
