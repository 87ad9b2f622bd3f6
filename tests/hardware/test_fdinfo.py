"""Processes by their open DRM files: one client counts once, and no content of a file raises."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from amd_tree import GIB, KIB, MIB, STRIX, AmdHost, fdinfo, strix_halo
from hypothesis import given
from hypothesis import strategies as st
from nvml_host import FakeClock

from exporter.hardware.fdinfo import Client, OpenFiles, Usage, parse_client


def test_a_client_s_memory_is_what_is_resident() -> None:
    text = fdinfo(STRIX, 27, 512 * KIB, 100)
    assert parse_client(text) == Client(STRIX, 27, 512 * MIB, 100 * KIB)


def test_older_kernels_say_it_by_the_older_name() -> None:
    text = (
        "pasid:\t32771\ndrm-driver:\tamdgpu\ndrm-pdev:\t0000:03:00.0\ndrm-client-id:\t4\n"
        "drm-memory-vram:\t2048 KiB\ndrm-memory-gtt: \t16 KiB\n"
    )
    assert parse_client(text) == Client("0000:03:00.0", 4, 2 * MIB, 16 * KIB)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pos:\t0\nflags:\t02\n",
        "drm-driver:\ti915\ndrm-client-id:\t4\n",
        "drm-driver:\tamdgpu\n",
        "drm-driver:\tamdgpu\ndrm-client-id:\t-4\n",
    ],
)
def test_what_is_no_client_of_amdgpu_is_none(text: str) -> None:
    assert parse_client(text) is None


@pytest.mark.parametrize("size", ["-5 KiB", "5 kB", f"{2**63} GiB", "", "many"])
def test_a_size_that_makes_no_sense_is_absent(size: str) -> None:
    client = parse_client(f"drm-driver:\tamdgpu\ndrm-client-id:\t4\ndrm-resident-vram:\t{size}\n")
    assert client is not None
    assert client.vram_bytes is None


@given(st.text() | st.lists(st.sampled_from(fdinfo(STRIX, 1, 2, 3).splitlines()) | st.text()).map("\n".join))
def test_no_text_raises(text: str) -> None:
    client = parse_client(text)
    assert client is None or client.client_id >= 0


def usage(made: AmdHost) -> dict[int, Usage]:
    return OpenFiles(str(made.proc)).usage(["card1", "renderD128"], STRIX)


def test_a_client_counts_once_whichever_files_lead_to_it(tmp_path: Path) -> None:
    made = strix_halo(tmp_path)
    made.opens(4200, 3, "renderD128", fdinfo(STRIX, 27, 512 * KIB, 20 * MIB))  # inherited by a child
    assert usage(made) == {
        3098: Usage(0, 39 * GIB),
        4100: Usage(512 * MIB, 20 * GIB),
    }


def test_clients_of_one_process_add_up(tmp_path: Path) -> None:
    made = strix_halo(tmp_path)
    made.opens(4100, 9, "card1", fdinfo(STRIX, 99, 1024, 2048))
    assert usage(made)[4100] == Usage(513 * MIB, 20 * GIB + 2 * MIB)


def test_files_of_another_device_are_none_of_ours(tmp_path: Path) -> None:
    made = strix_halo(tmp_path)
    made.opens(4300, 3, "renderD129", fdinfo("0000:03:00.0", 5, 100, 0))
    made.opens(
        4300, 4, "renderD128", fdinfo("0000:03:00.0", 6, 100, 0)
    )  # the name says ours, the file another
    assert 4300 not in usage(made)


def test_a_process_that_ends_between_look_and_read_is_left_out(tmp_path: Path) -> None:
    made = strix_halo(tmp_path)
    files = OpenFiles(str(made.proc))
    assert set(files.usage(["renderD128"], STRIX)) == {3098, 4100}
    (made.proc / "4100").rename(tmp_path / "ended")
    assert set(files.usage(["renderD128"], STRIX)) == {3098}
    assert not files.denied


def test_a_process_that_comes_later_is_found_within_half_a_minute(tmp_path: Path) -> None:
    made, clock = strix_halo(tmp_path), FakeClock()
    files = OpenFiles(str(made.proc), clock)
    made.opens(4300, 3, "renderD128", fdinfo(STRIX, 77, 1024, 0))
    assert 4300 not in files.usage(["renderD128"], STRIX)
    clock.now += 30
    assert files.usage(["renderD128"], STRIX)[4300] == Usage(MIB, 0)


@dataclass
class PassingClock(FakeClock):
    """A clock on which time passes with each look at it."""

    step: float = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_a_look_at_many_processes_is_done_in_slices_and_the_last_one_holds_meanwhile(tmp_path: Path) -> None:
    made, clock = strix_halo(tmp_path), PassingClock()
    files = OpenFiles(str(made.proc), clock)
    for pid in range(5000, 5010):
        made.opens(pid, 3, "renderD128", fdinfo(STRIX, pid, 1024, 0))
    clock.now += 30
    clock.step = 0.006  # so that a slice ends after one process
    seen = [frozenset(files.usage(["renderD128"], STRIX)) for _ in range(20)]
    assert seen[:3] == [{3098, 4100}] * 3
    assert seen[-1] == {3098, 4100, *range(5000, 5010)}
    assert len(set(seen)) == 2  # never a part of a look


def test_a_proc_that_cannot_be_listed_shows_nobody(tmp_path: Path) -> None:
    files = OpenFiles(str(tmp_path / "absent"))
    assert files.usage(["renderD128"], STRIX) == {}
    assert files.denied
