"""Processes: what /proc says, which trees belong to an engine, and that arguments stay secret."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from exporter.engines import process as subject
from exporter.engines.process import Process, ProcessTable, matching

SECRET = "sk-canary-1234"


def tree(folder: Path, pid: int, *, parent: int = 1, comm: str, argv: list[str], start: int = 100) -> None:
    """A /proc/PID as the kernel writes it (proc(5))."""
    entry = folder / str(pid)
    entry.mkdir()
    fields = ["S", str(parent), *["0"] * 17, str(start), *["0"] * 30]
    (entry / "stat").write_text(f"{pid} ({comm}) {' '.join(fields)}\n")
    (entry / "cmdline").write_bytes(b"\0".join(part.encode() for part in argv) + b"\0")
    (entry / "cgroup").write_text("0::/system.slice/vllm-r1.service\n")
    (entry / "status").write_text("Name:\tx\nRssAnon:\t   100 kB\nRssFile:\t    20 kB\nRssShmem:\t 3 kB\n")


def scanned(folder: Path) -> dict[int, Process]:
    return ProcessTable(folder).scan()


def test_program_is_known_by_file_script_module_and_title(tmp_path: Path) -> None:
    tree(tmp_path, 10, comm="llama-server", argv=["/opt/bin/llama-server", "-m", "x.gguf"])
    tree(tmp_path, 11, comm="vllm", argv=["/usr/bin/python3.11", "/usr/local/bin/vllm", "serve", "x"])
    tree(tmp_path, 12, comm="python3", argv=["python3", "-u", "-m", "sglang.launch_server", "--tp", "8"])
    tree(tmp_path, 13, comm="VLLM::Worker_TP", argv=["VLLM::Worker_TP3"])
    found = scanned(tmp_path)
    assert "llama-server" in found[10].programs
    assert "vllm" in found[11].programs
    assert "sglang.launch_server" in found[12].programs
    assert "VLLM::Worker_TP3" in found[13].programs


def test_a_program_that_only_mentions_an_engine_is_not_the_engine(tmp_path: Path) -> None:
    tree(tmp_path, 10, comm="grep", argv=["grep", "llama-server", "vllm"])
    tree(tmp_path, 11, comm="sh", argv=["sh", "-c", "sleep 9; vllm serve x"])
    tree(tmp_path, 12, comm="vim", argv=["vim", "/usr/local/bin/vllm"])
    for engine in subject.PROGRAMS.values():
        assert matching(scanned(tmp_path), engine, None) == []


def test_arguments_never_leave(tmp_path: Path) -> None:
    arguments = [SECRET, f"--api-key={SECRET}", "-c", f"key={SECRET}"]
    command_lines = (
        ["python3", *arguments],
        ["vllm", "serve", *arguments],
        ["python3", "-c", SECRET],
        ["python3", "-m", SECRET],
        [SECRET],
    )
    for pid, argv in enumerate(command_lines, 10):
        tree(tmp_path, pid, comm="x", argv=argv)
    found = scanned(tmp_path)
    assert len(found) == len(command_lines)
    assert SECRET not in repr(found)


def test_a_configured_program_is_recognised_and_the_table_read_again(tmp_path: Path) -> None:
    tree(tmp_path, 10, comm="python3", argv=["python3", "/srv/my-server.py"])
    table = ProcessTable(tmp_path)
    assert matching(table.scan(), ["my-server*"], None) == []
    table.look_for(["my-server*"])
    assert [root.pid for root, _ in matching(table.scan(), ["my-server*"], None)] == [10]


def test_tree_holds_launcher_and_workers_and_counts_once(tmp_path: Path) -> None:
    tree(tmp_path, 10, comm="vllm", argv=["vllm"], start=5)
    tree(tmp_path, 11, parent=10, comm="VLLM::EngineCor", argv=["VLLM::EngineCore"])
    tree(tmp_path, 12, parent=11, comm="VLLM::Worker_TP", argv=["VLLM::Worker_TP0"])
    tree(tmp_path, 13, parent=10, comm="resource_tracke", argv=["python3"])
    tree(tmp_path, 14, comm="nginx", argv=["nginx"])
    [(root, pids)] = matching(scanned(tmp_path), subject.PROGRAMS["vllm"], None)
    assert root.pid == 10
    assert pids == {10, 11, 12, 13}


def test_an_orphaned_worker_is_a_tree_of_its_own(tmp_path: Path) -> None:
    tree(tmp_path, 12, parent=1, comm="VLLM::Worker_TP", argv=["VLLM::Worker_TP0"])
    assert [pids for _, pids in matching(scanned(tmp_path), subject.PROGRAMS["vllm"], None)] == [{12}]


def test_trees_come_oldest_first_and_only_of_the_unit(tmp_path: Path) -> None:
    tree(tmp_path, 30, comm="llama-server", argv=["llama-server"], start=50)
    tree(tmp_path, 20, comm="llama-server", argv=["llama-server"], start=90)
    trees = matching(scanned(tmp_path), ["llama-server"], "vllm-r1.service")
    assert [root.pid for root, _ in trees] == [30, 20]
    assert matching(scanned(tmp_path), ["llama-server"], "other.service") == []


def test_parents_in_a_circle_do_not_hang(tmp_path: Path) -> None:
    tree(tmp_path, 10, parent=11, comm="llama-server", argv=["llama-server"])
    tree(tmp_path, 11, parent=10, comm="sh", argv=["sh"])
    assert [pids for _, pids in matching(scanned(tmp_path), ["llama-server"], None)] == [{10, 11}]


def test_a_reused_pid_is_another_process(tmp_path: Path) -> None:
    tree(tmp_path, 10, comm="llama-server", argv=["llama-server"], start=1)
    table = ProcessTable(tmp_path)
    before = table.scan()[10]
    assert table.memory(before) is not None
    shutil.rmtree(tmp_path / "10")
    tree(tmp_path, 10, comm="llama-server", argv=["llama-server"], start=777)
    assert table.memory(before) is None


def test_a_process_that_changes_its_title_is_read_again(tmp_path: Path) -> None:
    tree(tmp_path, 10, comm="python3", argv=["python3"])
    table = ProcessTable(tmp_path)
    table.scan()
    stat = (tmp_path / "10" / "stat").read_text()
    (tmp_path / "10" / "stat").write_text(stat.replace("(python3)", "(llama-server)"))
    (tmp_path / "10" / "cmdline").write_bytes(b"llama-server\0")
    assert "llama-server" in table.scan()[10].programs


def test_a_young_process_that_becomes_an_engine_under_the_same_short_name_is_seen(tmp_path: Path) -> None:
    tree(tmp_path, 10, comm="bash", argv=["bash", "-c", "exec -a vllm bash"])
    table = ProcessTable(tmp_path)
    assert "vllm" not in table.scan()[10].programs
    (tmp_path / "10" / "cmdline").write_bytes(b"vllm\0")
    assert "vllm" in table.scan()[10].programs


def test_entries_that_vanish_or_make_no_sense_are_left_out(tmp_path: Path) -> None:
    for pid, stat in ((10, ""), (11, "11 (x"), (12, "12 (x) S nonsense"), (13, "\0" * 99)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(stat)
    (tmp_path / "14").mkdir()
    (tmp_path / "self").mkdir()
    assert scanned(tmp_path) == {}


def test_program_names_with_brackets_and_spaces_are_read_whole() -> None:
    fields = " ".join(["S", "7", *["0"] * 17, "42", *["0"] * 9])
    assert subject.parse_stat(f"9 (a) b (c)) {fields}".encode()) == ("a) b (c)", 7, 42)


def test_units_and_scopes_of_both_cgroup_versions() -> None:
    v2 = b"0::/system.slice/docker-0123.scope\n"
    v1 = b"9:memory:/system.slice/ollama.service\n8:cpu:/\n"
    assert subject.parse_cgroup(v2) == ["docker-0123.scope"]
    assert subject.parse_cgroup(v1) == ["ollama.service"]


@given(st.binary(max_size=300))
def test_parsers_never_raise(data: bytes) -> None:
    stat = subject.parse_stat(data)
    assert stat is None or isinstance(stat[1], int)
    assert all(size >= 0 for size in subject.parse_status(data).values())
    assert all(name.endswith((".service", ".scope")) for name in subject.parse_cgroup(data))


def test_this_very_process_is_seen_with_its_memory() -> None:
    table = ProcessTable(Path("/proc"))
    code = "import sys; block = bytearray(64 * 2**20); print(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        one = table.scan()[child.pid]
        memory = table.memory(one)
        child.communicate()
    assert one.parent == os.getpid()
    assert memory is not None
    assert 64 * 2**20 < memory.anonymous < 96 * 2**20
    assert table.memory(one) is None


def test_locked_memory_and_the_peak_are_those_of_the_kernel() -> None:
    table = ProcessTable(Path("/proc"))
    code = (
        "import ctypes, mmap, sys; libc = ctypes.CDLL(None); b = bytearray(16 * 2**20);"
        "at = ctypes.addressof(ctypes.c_char.from_buffer(b));"
        "print(libc.mlock(ctypes.c_void_p(at), ctypes.c_size_t(4 * 2**20)), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        locked = child.stdout.readline().strip() == b"0"  # RLIMIT_MEMLOCK may forbid it
        memory = table.memory(table.scan()[child.pid])
        child.communicate()
    assert memory is not None
    assert not locked or 4 * 2**20 <= memory.locked <= 5 * 2**20
    assert memory.peak >= memory.anonymous
    assert memory.major_faults is not None
    assert memory.pinned == memory.anonymous + memory.shared + memory.hugepages + memory.locked_file


def test_a_kernel_without_swap_says_nothing_of_it(tmp_path: Path) -> None:
    tree(tmp_path, 10, comm="vllm", argv=["vllm"])
    table = ProcessTable(tmp_path)
    memory = table.memory(table.scan()[10])
    assert memory is not None
    assert (memory.swapped, memory.locked, memory.major_faults) == (None, 0, 0)
    rows = {"RssAnon": 1, "VmLck": 8, "VmSwap": 4, "VmHWM": 9}
    (tmp_path / "10/status").write_text("".join(f"{name}:\t{size:>8} kB\n" for name, size in rows.items()))
    memory = table.memory(table.scan()[10])
    assert memory is not None
    assert (memory.swapped, memory.locked, memory.peak) == (4096, 8192, 9216)
