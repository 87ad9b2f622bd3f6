"""KFD's nodes and processes, and that no content of its files raises."""

from __future__ import annotations

from pathlib import Path

import pytest
from amd_tree import MI300X_ADDRESSES, MI300X_VRAM, AmdHost, eight_mi300x, host, mi300x
from hypothesis import given
from hypothesis import strategies as st

from exporter.hardware import kfd


def test_nodes_are_those_of_gpus_by_pci_slot(tmp_path: Path) -> None:
    topology = kfd.read_topology(str(eight_mi300x(tmp_path).kfd))
    assert topology.problem == ""
    assert [one.gpu_id for one in topology.nodes] == [60_000 + 100 * index for index in range(8)]
    slots = [kfd.parse_address(address) for address in MI300X_ADDRESSES]
    assert [one.slot for one in topology.nodes] == [slot[:3] for slot in slots if slot]
    assert {one.memory_bytes for one in topology.nodes} == {MI300X_VRAM}


def test_the_partitions_of_one_device_share_its_slot_and_have_nodes_of_their_own(tmp_path: Path) -> None:
    nodes = kfd.read_topology(str(host(tmp_path, [mi300x(0, parts=8)]).kfd)).nodes
    assert {one.slot for one in nodes} == {(0, 5, 0)}
    assert [one.render_minor for one in nodes] == list(range(128, 136))
    assert {one.memory_bytes for one in nodes} == {MI300X_VRAM // 8}


def test_a_host_without_kfd_has_no_nodes_and_no_problem(tmp_path: Path) -> None:
    assert kfd.read_topology(str(tmp_path / "absent")) == kfd.Topology((), "")
    assert kfd.read_processes(str(tmp_path / "absent"), 60_000) is None


def test_nodes_that_the_device_cgroup_refuses_are_a_problem_with_its_name(tmp_path: Path) -> None:
    # EPERM cannot be had as root: a folder in the file's place is the error that can.
    root = eight_mi300x(tmp_path).kfd
    refused = root / "topology/nodes/3/gpu_id"
    refused.unlink()
    refused.mkdir()
    topology = kfd.read_topology(str(root))
    assert topology.problem == "eisdir"
    assert len(topology.nodes) == 7


def test_a_process_is_on_the_devices_where_it_holds_memory(tmp_path: Path) -> None:
    made = eight_mi300x(tmp_path)
    (held,) = [kfd.read_processes(str(made.kfd), 60_300)]
    assert held == {5003: 170 * 2**30}


@pytest.mark.parametrize("content", [b"", b"-5\n", b"%d\n" % 2**63, b"\xff", b"4096 KiB\n"])
def test_a_process_whose_figure_makes_no_sense_is_left_out(tmp_path: Path, content: bytes) -> None:
    made = eight_mi300x(tmp_path)
    (made.kfd / "proc/5000/vram_60000").write_bytes(content)
    assert kfd.read_processes(str(made.kfd), 60_000) == {}


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> AmdHost:
    made = host(tmp_path_factory.mktemp("kfd"), [mi300x(0)])
    made.holds(5000, gpu_60000=4096)
    return made


NODE_FILES = st.sampled_from(["gpu_id", "properties", "mem_banks/0/properties"])


@given(name=NODE_FILES, content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_content_of_a_node_s_files_raises(one_device: AmdHost, name: str, content: bytes) -> None:
    path = one_device.kfd / "topology/nodes/1" / name
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        for node in kfd.read_topology(str(one_device.kfd)).nodes:
            assert node.gpu_id > 0
            assert node.memory_bytes is None or node.memory_bytes > 0
    finally:
        path.write_bytes(before)


@given(st.text())
def test_an_address_is_four_numbers_or_none(text: str) -> None:
    assert kfd.parse_address(text) is None or text.count(":") == 2


def test_addresses_sort_as_pci_counts() -> None:
    texts = ["0000:c1:00.0", "0001:05:00.0", "0000:05:00.0", "10000:01:00.1"]
    assert sorted(texts, key=kfd.parse_address) == [  # type: ignore[arg-type]
        "0000:05:00.0",
        "0000:c1:00.0",
        "0001:05:00.0",
        "10000:01:00.1",
    ]
