"""Bandwidth of RAM: by the operator's word, modules, channels in use, or the processor, in this order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proc_tree import write
from smbios import empty_slot, memory_module, table

from exporter.hardware.bandwidth import (
    Bandwidth,
    channels_in_use,
    memory_bandwidth,
    processor_memory,
    processors,
)

GENOA = "AMD EPYC 9554 64-Core Processor"
UNKNOWN = "AMD EPYC-Genoa Processor"
"""what QEMU calls it"""


def modules(sys: Path, *made: bytes) -> Path:
    path = sys / "firmware/dmi/tables/DMI"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(table(*made))
    return sys


def dimms(sys: Path, *places: tuple[int, str, int]) -> Path:
    """EDAC's folders: (controller, location, size in MiB)."""
    files = {}
    for number, (controller, location, size) in enumerate(places):
        folder = f"devices/system/edac/mc/mc{controller}/dimm{number}"
        files |= {f"{folder}/dimm_location": location + " \n", f"{folder}/size": f"{size}\n"}
    return write(sys, files)


def test_the_operators_word_comes_first(tmp_path: Path) -> None:
    modules(tmp_path, memory_module(4800))
    assert memory_bandwidth(tmp_path, GENOA, 2, configured=460 * 10**9) == Bandwidth(
        460 * 10**9, "configured"
    )


def test_by_its_processors_a_host_has_all_their_channels(tmp_path: Path) -> None:
    assert memory_bandwidth(tmp_path, GENOA, 2) == Bandwidth(24 * 4800 * 8 * 10**6, "processor")
    assert memory_bandwidth(tmp_path, UNKNOWN, 2) is None


def test_by_its_modules_it_has_the_channels_that_they_fill(tmp_path: Path) -> None:
    """Half of the channels are empty: half the bandwidth, which no name of a processor tells."""
    modules(tmp_path, *[memory_module(4800)] * 6, *[empty_slot()] * 6)
    assert memory_bandwidth(tmp_path, GENOA, 1) == Bandwidth(6 * 4800 * 8 * 10**6, "dmi")
    assert memory_bandwidth(tmp_path, UNKNOWN, 1) == Bandwidth(6 * 4800 * 8 * 10**6, "dmi")


def test_two_modules_of_a_channel_give_no_more_than_one(tmp_path: Path) -> None:
    modules(tmp_path, *[memory_module(4400)] * 24)
    assert memory_bandwidth(tmp_path, GENOA, 1) == Bandwidth(12 * 4400 * 8 * 10**6, "dmi")


def test_channels_in_use_are_counted_once_however_many_ranks_they_have(tmp_path: Path) -> None:
    amd = [(0, f"csrow {rank} channel {channel}", 32768) for rank in (0, 1) for channel in range(8)]
    dimms(tmp_path, *amd, (0, "csrow 0 channel 9", 0), (1, "csrow 0 channel 0", 32768))
    assert channels_in_use(tmp_path) == 9
    assert memory_bandwidth(tmp_path, GENOA, 2) == Bandwidth(9 * 4800 * 8 * 10**6, "edac")
    modules(tmp_path, *[memory_module(4800)] * 18)
    assert memory_bandwidth(tmp_path, GENOA, 2) == Bandwidth(9 * 4800 * 8 * 10**6, "dmi")


def test_channels_of_intel_are_those_of_each_controller(tmp_path: Path) -> None:
    places = [(mc, f"channel {channel} slot 0", 65536) for mc in range(4) for channel in range(2)]
    assert channels_in_use(dimms(tmp_path, *places)) == 8


@pytest.mark.parametrize("location", ["", "memory 7", "csrow 0", "channel x"])
def test_a_place_that_is_none_is_not_counted(tmp_path: Path, location: str) -> None:
    assert channels_in_use(dimms(tmp_path, (0, location, 32768))) is None


@pytest.mark.parametrize(
    ("name", "channels", "megatransfers"),
    [
        ("AMD EPYC 7742 64-Core Processor", 8, 3200),
        ("AMD EPYC 7H12 64-Core Processor", 8, 3200),
        ("AMD EPYC 73F3 16-Core Processor", 8, 3200),
        ("AMD EPYC 7773X 64-Core Processor", 8, 3200),
        ("AMD EPYC 8534P 64-Core Processor", 6, 4800),
        ("AMD EPYC 9374F 32-Core Processor", 12, 4800),
        ("AMD EPYC 9575F 64-Core Processor", 12, 6400),
        ("AMD EPYC 9965 192-Core Processor                ", 12, 6400),
        ("AMD Ryzen Threadripper PRO 7995WX 96-Cores", 8, 5200),
        ("AMD Ryzen Threadripper 7970X 32-Cores", 4, 5200),
        ("Intel(R) Xeon(R) Gold 6248R CPU @ 3.00GHz", 6, 2933),
        ("Intel(R) Xeon(R) Platinum 8380 CPU @ 2.30GHz", 8, 3200),
        ("Intel(R) Xeon(R) Gold 6430", 8, 4800),
        ("Intel(R) Xeon(R) Platinum 8480+", 8, 4800),
        ("INTEL(R) XEON(R) PLATINUM 8592+", 8, 5600),
        ("Intel(R) Xeon(R) 6980P", 12, 8800),
    ],
)
def test_processors_are_known_by_their_whole_name(name: str, channels: int, megatransfers: int) -> None:
    row = processor_memory(name)
    assert row is not None
    assert (row.channels, row.megatransfers) == (channels, megatransfers)
    assert len([one for one in processors() if re.fullmatch(one.pattern, " ".join(name.split()))]) == 1


@pytest.mark.parametrize(
    "name",
    ["", "AMD EPYC", "not AMD EPYC 9554 64-Core Processor", "Intel(R) Xeon(R) Processor", "AMD EPYC 9554"],
)
def test_a_part_of_a_name_is_none(name: str) -> None:
    assert processor_memory(name) is None


def test_every_row_has_its_source() -> None:
    for row in processors():
        assert len(row.source) > 20
        assert str(row.megatransfers) in row.source


@given(st.text(max_size=80))
def test_no_name_breaks_it(name: str) -> None:
    row = processor_memory(name)
    assert row is None or row.channels > 0
