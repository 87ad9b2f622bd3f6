"""Two hosts that serve one model by tensor parallelism over both, read and rendered as the daemon does.

Recorded: the board (H200: the nvidia_gpu_exporter captures, tests/fake_nvml/devices.py). Constructed: the
processes, in the shape of vLLM 0.33's multiprocessing executor; what they hold, 128,330 MiB on each device, a
little below what `footprint` expects of the command; the network, an NDR port with the names that the mlx5
driver gives and a card of 25 Gb/s, in the shapes of the kernel (tests/network_tree.py); RAM.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import recorded_exposition
from daemon.conftest import DriverFactory
from fake_nvml.control import FakeDriver
from fake_nvml.devices import FakeProcess, many
from hardware.proc_tree import cpuinfo, meminfo, write
from network_tree import NetworkTree, route_table
from recorded_exposition import assert_as_recorded

from exporter.exposition.collect import samples
from exporter.exposition.render import Renderer
from exporter.settings.options import Host, Network, Nvml, Settings, Thresholds
from exporter.snapshot import Snapshot, Source
from exporter.units import MIB

GOLDEN = Path(__file__).parent / "golden"
HELD_BYTES = 128_330 * MIB
SERVER = 7100
TP16 = (
    "/usr/bin/python3", "/usr/local/bin/vllm", "serve", "unsloth/DeepSeek-R1-BF16", "--tensor-parallel-size",
    "16", "--nnodes", "2", "--master-addr", "10.0.0.1", "--max-model-len", "32768", "--max-num-seqs", "16",
    "--gpu-memory-utilization", "0.9",
)  # fmt: skip


class Node:
    """One of the two hosts."""

    def __init__(
        self,
        root: Path,
        rank: int,
        make_driver: DriverFactory,
        monkeypatch: pytest.MonkeyPatch,
        arguments: tuple[str, ...] = TP16,
    ) -> None:
        self.proc, self.sys = root / "proc", root / "sys"
        self.rank = rank
        self.network = NetworkTree(self.sys)
        write(self.proc, {"meminfo": meminfo(2015, 1990), "cpuinfo": cpuinfo(2, 56, 2, "Xeon 8480C")})
        (self.proc / "net").mkdir()
        (self.proc / "net" / "route").write_text(
            route_table(("eth0", "0.0.0.0", "0.0.0.0", 0), ("eth0", "10.0.0.0", "255.255.255.0", 0))
        )
        role = ("--node-rank", "0") if rank == 0 else ("--node-rank", "1", "--headless")
        self._run(SERVER, 1, "python3", "\0".join((*arguments, *role)))
        self._run(SERVER + 1, SERVER, "VLLM::EngineCor", "VLLM::EngineCore".ljust(80, "\0"))
        devices = many("h200", 8)
        for index, device in enumerate(devices):
            pid = SERVER + 2 + index
            title = f"VLLM::Worker_TP{8 * rank + index}"
            self._run(pid, SERVER + 1, title[:15], title.ljust(80, "\0"))
            device.memory_used_bytes = HELD_BYTES
            device.utilization_gpu_percent = 97
            device.energy_advances = False
            device.processes = [FakeProcess(pid, HELD_BYTES)]
        self.driver: FakeDriver = make_driver(devices)
        for key, text in self.driver.env.items():
            monkeypatch.setenv(key, text)

    def _run(self, pid: int, parent: int, program: str, line: str) -> None:
        status = "RssAnon:\t 3993600 kB\nRssFile:\t 0 kB\nRssShmem:\t 0 kB\n"
        write(
            self.proc / str(pid),
            {
                "stat": f"{pid} ({program}) S {parent} {'0 ' * 17}600 0 0\n",
                "status": f"Name:\t{program}\nPid:\t{pid}\nPPid:\t{parent}\n{status}",
                "cmdline": f"{line}\0",
                "cgroup": "0::/system.slice/vllm-r1.service\n",
            },
        )

    def poll(self, *, until: Callable[[Snapshot], bool] | None = None, **more: object) -> Snapshot:
        base: Mapping[str, object] = {
            "host": Host(proc_path=self.proc, sys_path=self.sys),
            "nvml": Nvml(init_deadline=10.0),
        }
        settings = Settings(**{**base, **more})  # type: ignore[arg-type]
        return recorded_exposition.poll(settings, until=until or found)


def found(snapshot: Snapshot) -> bool:
    """Whether the driver has answered and the engine's devices are known to be its own."""
    return recorded_exposition.started(snapshot) and any(
        one.running_as is not None and one.state == "warm" for one in snapshot.assessment.deployments
    )


def running(snapshot: Snapshot) -> bool:
    statuses = snapshot.assessment.deployments
    return recorded_exposition.started(snapshot) and any(one.running for one in statuses)


def rated(snapshot: Snapshot) -> bool:
    """Whether the interfaces have been read twice besides."""
    links = [one.link for one in snapshot.assessment.deployments]
    return found(snapshot) and all(link is None or link.read for link in links)


def exposition(snapshot: Snapshot) -> str:
    return Renderer().render(samples(snapshot)).text.decode()


def source(snapshot: Snapshot) -> Source | None:
    return next((one for one in snapshot.sources if one.name == "network"), None)


MakeNode = Callable[..., Node]


@pytest.fixture
def node(tmp_path: Path, make_driver: DriverFactory, monkeypatch: pytest.MonkeyPatch) -> MakeNode:
    def make(rank: int = 0, arguments: tuple[str, ...] = TP16) -> Node:
        return Node(tmp_path, rank, make_driver, monkeypatch, arguments)

    return make


@pytest.mark.parametrize("rank", [0, 1])
def test_a_nodes_exposition_is_as_recorded(rank: int, node: MakeNode) -> None:
    made = node(rank)
    made.network.card("eth0", "25000", sent=21_600_000_000, received=21_700_000_000)
    made.network.card("eth1", None, operstate="down")
    made.network.virtual("docker0")
    words = 8_640_000_000_000
    made.network.port("mlx5_0", sent_words=words, received_words=words + 5)
    snapshot = made.poll(until=rated)
    assert_as_recorded(snapshot, GOLDEN / f"two_node_tp16_rank{rank}.prom")


def test_both_nodes_have_the_same_name_and_the_same_ceiling(node: MakeNode) -> None:
    made = node(1)
    made.network.port("mlx5_0")
    text = exposition(made.poll())
    assert 'deepseek_deployment_info{deployment="vllm:unsloth/DeepSeek-R1-BF16"' in text
    assert 'node_rank="1"' in text
    ceilings = re.findall(r'link_ceiling_tokens_per_second\{[^}]*bound="(\w+)"\} (\S+)', text)
    assert {bound: round(float(value)) for bound, value in ceilings} == {"low": 14_090, "high": 28_355}
    # No server on this node, and it knows all the same that it works.
    assert 'deepseek_deployment_active{deployment="vllm:unsloth/DeepSeek-R1-BF16"} 1' in text


def test_the_route_to_where_the_ranks_meet_tells_without_ports(node: MakeNode) -> None:
    made = node()
    made.network.card("eth0", "10000")
    made.network.card("eth1", "100000")
    (status,) = made.poll().assessment.deployments
    assert status.link is not None
    assert (status.link.interfaces, status.link.basis) == (("eth0",), "route")
    assert status.link.ceiling_high_tokens is not None and status.link.needed_tokens is not None
    assert status.link.ceiling_high_tokens < status.link.needed_tokens == 3200


def test_what_is_configured_is_the_link_and_may_be_virtual(node: MakeNode) -> None:
    made = node()
    made.network.virtual("eth0", "100000")
    (status,) = made.poll(network=Network(interfaces="eth0, eth7")).assessment.deployments
    assert status.link is not None
    assert (status.link.interfaces, status.link.basis) == (("eth0", "eth7"), "configured")
    assert status.link.speed_bytes == 12_500_000_000


def test_without_a_network_to_read_the_expectation_stays_and_silence_is_a_fault(node: MakeNode) -> None:
    made = node()
    made.network.net.rmdir()
    snapshot = made.poll()
    told = source(snapshot)
    assert told is not None
    assert (told.up, told.state, told.expected) == (False, "enoent", True)
    text = exposition(snapshot)
    assert "deepseek_expected_network_bytes_per_token{" in text
    assert "deepseek_deployment_link_" not in text
    assert "deepseek_host_network_" not in text


def test_the_network_can_be_switched_off(node: MakeNode) -> None:
    made = node()
    made.network.port("mlx5_0")
    snapshot = made.poll(network=Network(enabled=False))
    assert (source(snapshot), snapshot.network) == (None, None)


def test_one_node_has_no_link(node: MakeNode) -> None:
    made = node(arguments=replace_all(TP16, {"16": "8", "--nnodes": "--seed"}))
    made.network.card("eth0", "10000")
    limits = replace(Thresholds(), link_tokens_per_second=1e6)
    snapshot = made.poll(thresholds=limits, until=running)  # BF16 on eight devices never gets warm
    (status,) = snapshot.assessment.deployments
    assert status.link is None and status.running_as is not None and status.running_as.network is None
    told = source(snapshot)
    assert told is not None and not told.expected
    assert "per_token{" not in exposition(snapshot).replace("kv_cache_bytes_per_token", "")


def replace_all(words: tuple[str, ...], others: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(others.get(word, word) for word in words)
