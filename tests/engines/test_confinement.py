"""What confines processes: groups of both versions, cpusets, policies; what cannot be known has its reason.

Trees as the kernel writes them (admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, proc(5)).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.engines.confinement import (
    Confinement,
    ConfinementReader,
    Group,
    LimitState,
    memory_group,
    of_all,
    parse_list,
    parse_policy,
)
from exporter.engines.process import Process, ProcessTable

GIB = 2**30
SCOPE = "system.slice/docker-0f.scope"
NUMACTL = "5581d0c00000 bind:1 file=/usr/bin/llama-server mapped=12 N1=12 kernelpagesize_kB=4\n"


def process(pid: int = 10) -> Process:
    return Process(pid, 100, 1, frozenset(), frozenset())


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def v2(root: Path, groups: dict[str, dict[str, str]], *, of: str = SCOPE) -> None:
    """A unified hierarchy, and process 10 in group `of`."""
    files = {"sys/fs/cgroup/cgroup.controllers": "cpu memory\n", "proc/10/cgroup": f"0::/{of}\n"}
    for path, contents in groups.items():
        files |= {f"sys/fs/cgroup/{path}/{name}": text for name, text in contents.items()}
    write(root, files)


def read(root: Path, pid: int = 10) -> Confinement:
    return ConfinementReader(root / "proc", root / "sys").read([process(pid)])[pid]


LIMITED = {
    "memory.max": f"{200 * GIB}\n",
    "memory.high": "max\n",
    "memory.current": f"{190 * GIB}\n",
    "memory.stat": (
        f"anon {10 * GIB}\nfile {170 * GIB}\nfile_mapped {160 * GIB}\n"
        f"inactive_file {100 * GIB}\nactive_file {70 * GIB}\n"
    ),
    "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n",
    "memory.events": "low 0\nhigh 0\nmax 17\noom 2\noom_kill 1\n",
}


def test_a_container_of_the_unified_hierarchy(tmp_path: Path) -> None:
    v2(tmp_path, {SCOPE: LIMITED, "system.slice": {"memory.max": "max\n", "memory.current": "1\n"}})
    found = read(tmp_path)
    assert found.state is LimitState.LIMITED
    assert found.groups == (Group(SCOPE, 200 * GIB, 190 * GIB, 170 * GIB, 160 * GIB, 2.5, 1.5, 1),)


def test_limits_of_all_groups_above_are_found(tmp_path: Path) -> None:
    slice_ = {"memory.max": f"{300 * GIB}\n", "memory.current": f"{250 * GIB}\n"}
    v2(tmp_path, {SCOPE: LIMITED, "system.slice": slice_})
    assert [(one.path, one.limit_bytes) for one in read(tmp_path).groups] == [
        (SCOPE, 200 * GIB),
        ("system.slice", 300 * GIB),
    ]


def test_what_is_throttled_above_does_not_stay_there_either(tmp_path: Path) -> None:
    v2(tmp_path, {SCOPE: {**LIMITED, "memory.high": f"{150 * GIB}\n"}})
    assert read(tmp_path).groups[0].limit_bytes == 150 * GIB


def test_version_1_has_no_pressure(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory/docker/0f"
    write(
        tmp_path,
        {
            "proc/10/cgroup": "9:cpu,cpuacct:/docker/0f\n4:memory:/docker/0f\n0::/\n",
            f"{folder}/memory.limit_in_bytes": f"{64 * GIB}\n",
            f"{folder}/memory.usage_in_bytes": f"{40 * GIB}\n",
            f"{folder}/memory.stat": (
                f"cache 1\ntotal_mapped_file {20 * GIB}\ntotal_inactive_file {5 * GIB}\n"
                f"total_active_file {25 * GIB}\n"
            ),
            f"{folder}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
        },
    )
    assert read(tmp_path).groups == (Group("docker/0f", 64 * GIB, 40 * GIB, 30 * GIB, 20 * GIB, oom_kills=3),)


def test_a_group_without_a_limit_is_none(tmp_path: Path) -> None:
    v2(tmp_path, {SCOPE: {**LIMITED, "memory.max": "max\n"}})
    assert read(tmp_path) == Confinement(LimitState.UNLIMITED)


def test_a_group_that_does_not_say_what_it_uses_is_not_judged(tmp_path: Path) -> None:
    v2(tmp_path, {SCOPE: {**LIMITED, "memory.current": ""}})
    assert read(tmp_path) == Confinement(LimitState.UNLIMITED)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("", LimitState.UNREADABLE),  # hidepid, no permission, or gone
        ("0::/../../other\n", LimitState.HIDDEN),  # seen from within a container
        ("0::/system.slice/gone.scope\n", LimitState.HIDDEN),
        ("1:cpu:/\n", LimitState.NO_CGROUP),
        ("nonsense\n0:\n::::\n", LimitState.NO_CGROUP),
    ],
)
def test_what_is_not_known_has_its_reason(tmp_path: Path, text: str, state: LimitState) -> None:
    v2(tmp_path, {SCOPE: LIMITED})
    (tmp_path / "proc/10/cgroup").write_text(text)
    assert read(tmp_path) == Confinement(state)


def test_a_kernel_without_control_groups_has_none(tmp_path: Path) -> None:
    write(tmp_path, {"proc/10/cgroup": "0::/\n"})
    assert read(tmp_path).state is LimitState.NO_CGROUP


def test_memory_is_limited_to_the_nodes_of_a_cpuset(tmp_path: Path) -> None:
    write(tmp_path, {"proc/10/status": "Name:\tx\nMems_allowed:\t00000002\nMems_allowed_list:\t1\n"})
    assert read(tmp_path).nodes == frozenset({1})


@pytest.mark.parametrize(
    ("policy", "nodes"),
    [
        (NUMACTL, {1}),
        ("400000 bind=static:0 anon=1\n", {0}),
        ("400000 bind:0-1,3 file=/x\n", {0, 1, 3}),
        ("400000 interleave:0-1 file=/x\n", None),
        ("400000 weighted interleave:0-1 file=/x\n", None),
        ("400000 prefer:1 file=/x\n", None),
        ("400000 prefer (many):0-1 file=/x\n", None),
        ("400000 local file=/x\n", None),
        ("400000 default file=/x\n", None),
        ("400000 bind:0-", None),  # cut off within the list
        ("400000 bind:0,3", None),
        ("", None),
        ("bind:0 \n", None),
    ],
)
def test_only_a_strict_policy_binds(policy: str, nodes: set[int] | None) -> None:
    assert parse_policy(policy) == (None if nodes is None else frozenset(nodes))


def test_a_policy_narrows_what_the_cpuset_allows(tmp_path: Path) -> None:
    write(tmp_path, {"proc/10/status": "Mems_allowed_list:\t0-3\n", "proc/10/numa_maps": NUMACTL})
    assert read(tmp_path).nodes == frozenset({1})


def test_where_the_policy_may_not_be_read_the_cpuset_counts(tmp_path: Path) -> None:
    write(tmp_path, {"proc/10/status": "Mems_allowed_list:\t0-3\n"})
    assert read(tmp_path).nodes == frozenset(range(4))


def test_the_policy_of_a_process_is_asked_for_once(tmp_path: Path) -> None:
    """Its answer holds the map of the process, into which weights are just being read."""
    write(tmp_path, {"proc/10/numa_maps": NUMACTL})
    reader = ConfinementReader(tmp_path / "proc", tmp_path / "sys")
    assert reader.read([process()])[10].nodes == frozenset({1})
    (tmp_path / "proc/10/numa_maps").write_text(NUMACTL.replace("bind:1", "bind:0"))
    assert reader.read([process()])[10].nodes == frozenset({1})
    reader.read([])
    assert reader.read([process()])[10].nodes == frozenset({0})


def test_a_deployment_may_go_where_any_of_its_processes_may() -> None:
    one, other = Confinement(LimitState.UNLIMITED, nodes=frozenset({0})), Confinement(LimitState.UNREADABLE)
    two = Confinement(LimitState.UNLIMITED, nodes=frozenset({1}))
    assert of_all([one, two]).nodes == frozenset({0, 1})
    assert of_all([one, other]).nodes is None


def test_this_process_is_read_from_the_real_kernel() -> None:
    me = ProcessTable(Path("/proc")).scan()[os.getpid()]
    found = ConfinementReader(Path("/proc"), Path("/sys")).read([me])[me.pid]
    assert found.nodes is None or min(found.nodes) >= 0
    assert (found.state is LimitState.LIMITED) == bool(found.groups)


@given(st.text(max_size=200))
def test_lists_are_read_whole_or_not_at_all(text: str) -> None:
    found = parse_list(text)
    assert found is None or all(0 <= node < 1024 for node in found)


@given(st.sets(st.integers(0, 1023), min_size=1, max_size=40))
def test_a_list_that_was_written_is_read(nodes: set[int]) -> None:
    assert parse_list(",".join(map(str, sorted(nodes))) + "\n") == frozenset(nodes)


@given(st.text(max_size=400))
def test_no_text_breaks_the_path_or_the_policy(text: str) -> None:
    path, _ = memory_group(text)
    assert path is None or path.startswith("/")
    parse_policy(text)


@given(st.dictionaries(st.sampled_from(sorted(LIMITED)), st.text(max_size=120)))
def test_whatever_its_files_hold_a_group_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str]
) -> None:
    root = tmp_path_factory.mktemp("group")
    v2(
        root,
        {SCOPE: {**LIMITED, **{name: text.encode(errors="ignore").decode() for name, text in files.items()}}},
    )
    for group in read(root).groups:
        assert group.limit_bytes >= 0
