"""Which interfaces carry a deployment, what they allow, and whether it works."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capacity.builders import gpu
from exporter.capacity.links import Carrier, choose, is_active, link_status
from exporter.engines.launch import Link
from exporter.footprint.result import NetworkFootprint, Traffic
from exporter.hardware.gpu import Gpu
from exporter.hardware.network import Interface, NetworkReading, Route

GIGABIT = 125_000_000
ROUTES = (
    Route(0, 0, "eth0", 0),
    Route(10 << 24, 0xFF000000, "eth0", 5),
    Route(10 << 24, 0xFFFFFF00, "eth1", 9),
    Route(10 << 24, 0xFFFFFF00, "eth2", 8),
    Route(192 << 24, 0xFF000000, "bond0.7", 0),
)


def card(name: str, gigabits: int | None = 25, *, up: bool | None = True) -> Interface:
    speed = None if gigabits is None else gigabits * GIGABIT
    return Interface(name, "network", up, speed, {"sent": 0, "received": 0})


def port(name: str, gigabits: int = 400, *, up: bool = True) -> Interface:
    return Interface(name, "rdma", up, gigabits * GIGABIT if up else None, {"sent": 0, "received": 0})


def chosen(*interfaces: Interface, said: Link | None = None, **more: object) -> tuple[list[str], str] | None:
    reading = NetworkReading(interfaces)
    found = choose(reading, ROUTES, more.get("configured", ()), said, more.get("before", frozenset()))  # type: ignore[arg-type]
    return None if found is None else (list(found.interfaces), found.basis)


ETH = (card("eth0", 1), card("eth1", 10), card("eth2", 10))


def test_what_is_configured_wins_over_everything() -> None:
    assert chosen(*ETH, port("mlx5_0:1"), configured=("eth0",)) == (["eth0"], "configured")


def test_ports_that_are_up_win_over_what_a_launch_says_of_sockets() -> None:
    said = Link(interfaces="eth0", rendezvous="10.0.0.1")
    assert chosen(*ETH, port("mlx5_0:1"), said=said) == (["mlx5_0:1"], "rdma")
    assert chosen(*ETH, port("mlx5_0:1", up=False), said=said) == (["eth0"], "launch")


def test_slower_ports_are_for_something_else() -> None:
    ports = (port("mlx5_0:1"), port("mlx5_1:1"), port("mlx5_bond_0:1", 100))
    assert chosen(*ports) == (["mlx5_0:1", "mlx5_1:1"], "rdma")


def test_a_launch_may_name_its_ports_or_refuse_them() -> None:
    ports = (port("mlx5_0:1"), port("mlx5_1:1"), port("mlx5_10:1"))
    for patterns, names in (
        ("mlx5_1", ["mlx5_1:1", "mlx5_10:1"]),
        ("=mlx5_1", ["mlx5_1:1"]),
        ("=mlx5_0:1,mlx5_10:1", ["mlx5_0:1", "mlx5_10:1"]),
        ("^mlx5_1", ["mlx5_0:1"]),
        ("^=mlx5_1", ["mlx5_0:1", "mlx5_10:1"]),
    ):
        assert chosen(*ports, said=Link(devices=patterns)) == (names, "launch"), patterns
    assert chosen(*ports, said=Link(devices="=mlx5_0:2")) == (["mlx5_0:1", "mlx5_1:1", "mlx5_10:1"], "rdma")
    assert chosen(*ETH, *ports, said=Link(rdma=False, interfaces="=eth1,eth2")) == (
        ["eth1", "eth2"],
        "launch",
    )


@pytest.mark.parametrize(
    ("rendezvous", "expected"),
    [
        ("10.0.0.1:5757", (["eth2"], "route")),
        ("10.9.0.1", (["eth0"], "route")),
        ("172.16.0.1", (["eth0"], "route")),
        ("192.1.1.1", (["bond0"], "route")),
        ("127.0.0.1", (["eth1", "eth2"], "fastest")),
        ("node-0.example:5757", (["eth1", "eth2"], "fastest")),
        ("10.0.0.999", (["eth1", "eth2"], "fastest")),
        ("::1", (["eth1", "eth2"], "fastest")),
        ("", (["eth1", "eth2"], "fastest")),
    ],
)
def test_without_ports_the_way_to_where_the_ranks_meet_tells(
    rendezvous: str, expected: tuple[list[str], str]
) -> None:
    assert chosen(*ETH, card("bond0", 1), said=Link(rendezvous=rendezvous)) == expected


def test_nothing_tells_where_no_speed_is_known_of_several() -> None:
    assert chosen(card("eth0", None), card("eth1", None)) is None
    assert chosen(card("eth0", None)) == (["eth0"], "only")
    assert chosen(card("eth0", up=False)) is None
    assert chosen() is None


def test_a_port_that_goes_down_stays_the_deployments() -> None:
    before = frozenset({"mlx5_0:1", "mlx5_1:1"})
    ports = (port("mlx5_0:1"), port("mlx5_1:1", up=False), port("mlx5_2:1", up=False))
    assert chosen(*ETH, *ports, before=before) == (["mlx5_0:1", "mlx5_1:1"], "rdma")
    both = (port("mlx5_0:1", up=False), port("mlx5_1:1", up=False))
    assert chosen(*ETH, *both, before=before) == (["mlx5_0:1", "mlx5_1:1"], "rdma")


@given(st.text(alphabet="^=,:_0159mlxeth", max_size=20), st.text(alphabet="0123456789.:a", max_size=20))
def test_nothing_that_a_launch_says_breaks_the_choice(patterns: str, address: str) -> None:
    here = {one.name for one in ETH} | {"mlx5_0:1"}
    for rdma in (False, None):
        found = chosen(*ETH, port("mlx5_0:1"), said=Link(patterns, patterns, rdma, address))
        assert found is not None and found[0] and set(found[0]) <= here


R1_TP16 = NetworkFootprint(2, 16, {}, Traffic(1_763_328, 3_548_640))
R1_EP16 = NetworkFootprint(2, 16, {}, Traffic(606_748, 2_520_448))
R1_PP2 = NetworkFootprint(2, 16, {}, Traffic(14_336, 28_672))


def allows(network: NetworkFootprint, *interfaces: Interface) -> bool:
    """Whether the optimistic end suffices for the default threshold."""
    carrier = Carrier(tuple(one.name for one in interfaces), "configured")
    status = link_status(carrier, NetworkReading(interfaces), network, 200.0)
    assert status.ceiling_high_tokens is not None and status.needed_tokens is not None
    return status.ceiling_high_tokens >= status.needed_tokens


def test_ten_gigabits_suffice_for_stages_and_not_for_experts_or_tensor_ranks() -> None:
    ten = card("eth0", 10)
    assert [allows(one, ten) for one in (R1_EP16, R1_TP16, R1_PP2)] == [False, False, True]
    rails = tuple(port(f"mlx5_{number}:1") for number in range(8))
    assert all(allows(one, *rails) for one in (R1_EP16, R1_TP16, R1_PP2))


def rated(name: str, gigabits: int, sent: float, received: float) -> Interface:
    speed = gigabits * GIGABIT
    rates = {"sent": sent * speed, "received": received * speed}
    return Interface(name, "rdma", True, speed, {"sent": 1, "received": 1}, rates)


def test_a_link_is_as_fast_as_its_interfaces_together_and_as_full_as_the_fullest() -> None:
    reading = NetworkReading((rated("a:1", 100, 0.5, 0.1), rated("b:1", 100, 0.2, 0.95)))
    status = link_status(Carrier(("a:1", "b:1"), "rdma"), reading, R1_TP16, 200.0)
    assert status.speed_bytes == 200 * GIGABIT
    assert status.usage_ratio == {"sent": 0.5, "received": 0.95}
    assert status.ceiling_low_tokens == pytest.approx(200 * GIGABIT / 3_548_640)
    assert status.ceiling_high_tokens == pytest.approx(200 * GIGABIT / 1_763_328)
    assert (status.needed_tokens, status.read) == (3200.0, True)


def test_what_is_not_known_is_absent() -> None:
    carrier = Carrier(("a:1", "b:1"), "rdma")
    gone = link_status(carrier, NetworkReading((rated("a:1", 100, 0.5, 0.5),)), R1_TP16, 200.0)
    assert (gone.speed_bytes, gone.read) == (100 * GIGABIT, False)
    blind = link_status(carrier, None, R1_TP16, 200.0)
    assert (blind.speed_bytes, blind.ceiling_high_tokens, blind.usage_ratio, blind.read) == (
        None, None, {}, False,
    )  # fmt: skip
    slow = link_status(Carrier(("eth0",), "only"), NetworkReading((card("eth0", None),)), R1_TP16, 200.0)
    assert (slow.speed_bytes, slow.ceiling_low_tokens) == (None, None)
    cache = NetworkFootprint(1, 8, {"kv_transfer": Traffic(1, 8)}, None)
    handed = link_status(Carrier(("eth0",), "only"), NetworkReading((card("eth0"),)), cache, 200.0)
    assert (handed.ceiling_high_tokens, handed.needed_tokens) == (None, None)


def used(index: int, ratio: float | None) -> Gpu:
    one = gpu(index)
    assert one.reading is not None
    return replace(one, reading=replace(one.reading, utilization_ratio=ratio))


def test_a_deployment_works_while_a_device_is_used_or_a_request_runs() -> None:
    mine = {"GPU-0", "GPU-1"}
    assert is_active([used(0, 0.0), used(1, 0.3)], mine, None, 0.05) is True
    assert is_active([used(0, 0.0), used(1, 0.01), used(2, 1.0)], mine, None, 0.05) is False
    assert is_active([used(0, 0.0)], mine, 3, 0.05) is True
    assert is_active([used(0, None)], mine, 0, 0.05) is False
    assert is_active([used(0, None)], mine, None, 0.05) is None
    assert is_active([], set(), None, 0.05) is None
