"""Interfaces and RDMA ports: which are reported, what is read of them, and what no file can break."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from network_tree import INFINIBAND, NetworkTree, route_table

from exporter.hardware.network import (
    MOST_INTERFACES,
    Interface,
    NetworkFiles,
    NetworkReading,
    NetworkUnreadable,
    Route,
    parse_counter,
    parse_port_state,
    parse_rate,
    parse_routes,
    parse_speed,
)
from exporter.hardware.network_rates import Rates

UNSIGNED_UNKNOWN = str(2**32 - 1)


@pytest.fixture
def tree(tmp_path: Path) -> NetworkTree:
    return NetworkTree(tmp_path / "sys")


def files(tree: NetworkTree) -> NetworkFiles:
    return NetworkFiles(str(tree.sys), str(tree.sys.parent / "proc"))


def read(tree: NetworkTree, *wanted: str) -> dict[str, Interface]:
    source = files(tree)
    source.look(wanted)
    return {one.name: one for one in source.read().interfaces}


def test_a_card_is_read_in_bytes_a_second(tree: NetworkTree) -> None:
    tree.card("eth0", "25000", sent=7, received=9)
    assert read(tree) == {
        "eth0": Interface("eth0", "network", True, 3_125_000_000, {"sent": 7, "received": 9})
    }


def test_a_port_counts_words_and_is_an_interface_of_its_own(tree: NetworkTree) -> None:
    tree.port("mlx5_0", sent_words=1000, received_words=3)
    tree.port("mlx5_0", 2, "10 Gb/sec (4X SDR)", state="1: DOWN")
    assert read(tree) == {
        "mlx5_0:1": Interface("mlx5_0:1", "rdma", True, 50_000_000_000, {"sent": 4000, "received": 12}),
        "mlx5_0:2": Interface("mlx5_0:2", "rdma", False, None, {"sent": 0, "received": 0}),
    }


def test_only_what_has_hardware_behind_it_is_reported(tree: NetworkTree) -> None:
    for name in ("lo", "docker0", "cni0", "veth12ab", "tap3", "eth0.100", "br-0", "vxlan.calico", "wg0"):
        tree.virtual(name)
    tree.card("eth0")
    assert list(read(tree)) == ["eth0"]


def test_what_is_configured_is_read_also_when_it_is_virtual(tree: NetworkTree) -> None:
    tree.virtual("eth0", sent=5)
    assert list(read(tree, "eth0", "eth9")) == ["eth0"]


def test_a_bond_counts_once_and_a_port_of_a_bridge_counts(tree: NetworkTree) -> None:
    tree.card("eth0", sent=1)
    tree.card("eth1", sent=2)
    tree.bond("bond0", "eth0", "eth1", sent=3)
    bridged = tree.card("eth2", sent=4)
    (bridged / "master").symlink_to(tree.virtual("br0"))
    assert {name: one.bytes_total["sent"] for name, one in read(tree).items()} == {"bond0": 3, "eth2": 4}
    assert read(tree)["bond0"].speed_bytes_per_second == 6_250_000_000


def test_ip_over_infiniband_counts_at_its_port(tree: NetworkTree) -> None:
    tree.card("ib0", kind=INFINIBAND)
    assert list(read(tree)) == ["ib0"]
    tree.port("mlx5_0")
    assert list(read(tree)) == ["mlx5_0:1"]


@pytest.mark.parametrize("speed", ["-1", "0", UNSIGNED_UNKNOWN, "fast", "", "1e9", "2500 Mb"])
def test_a_speed_that_is_none_is_absent_and_the_counters_stay(tree: NetworkTree, speed: str) -> None:
    tree.card("eth0", speed, sent=1)
    one = read(tree)["eth0"]
    assert (one.speed_bytes_per_second, one.bytes_total["sent"]) == (None, 1)


@pytest.mark.parametrize(
    ("operstate", "up"),
    [("up", True), ("unknown", None), ("down", False), ("lowerlayerdown", False), ("dormant", False)],
)
def test_only_a_link_that_may_be_up_has_a_speed(tree: NetworkTree, operstate: str, up: bool | None) -> None:
    tree.card("eth0", operstate=operstate)
    one = read(tree)["eth0"]
    assert one.up is up
    assert (one.speed_bytes_per_second is None) == (up is False)


def test_a_speed_that_the_driver_refuses_is_no_error(tree: NetworkTree) -> None:
    # A folder in its place fails as no file does; EINVAL of a real driver is of the same kind.
    folder = tree.card("eth0", None)
    (folder / "speed").mkdir()
    source = files(tree)
    source.look()
    (one,) = source.read().interfaces
    assert one.speed_bytes_per_second is None
    assert source.errors == {"eisdir": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_counter_that_may_not_be_read_costs_itself_alone(tree: NetworkTree) -> None:
    folder = tree.card("eth0", received=9)
    (folder / "statistics" / "tx_bytes").chmod(0)
    source = files(tree)
    source.look()
    (one,) = source.read().interfaces
    assert one.bytes_total == {"received": 9}
    assert source.errors == {"no_permission": 1}


@pytest.mark.parametrize("text", ["", "x", "-1", "1" * 21, str(2**64)])
def test_a_counter_that_is_no_number_is_absent(tree: NetworkTree, text: str) -> None:
    tree.card("eth0", sent=text, received=9)
    assert read(tree)["eth0"].bytes_total == {"received": 9}


def test_an_interface_that_vanishes_is_gone_and_the_others_stay(tree: NetworkTree) -> None:
    tree.card("eth0", sent=1)
    tree.card("eth1", sent=2)
    source = files(tree)
    source.look()
    (tree.net / "eth0").unlink()
    assert [one.name for one in source.read().interfaces] == ["eth1"]
    assert source.changed()
    source.look()
    assert [one.name for one in source.read().interfaces] == ["eth1"]
    assert not source.changed()


def test_a_link_that_goes_down_is_noticed_without_asking_for_speeds(tree: NetworkTree) -> None:
    tree.card("eth0")
    source = files(tree)
    source.look()
    assert not source.changed()
    tree.card("eth0", None, operstate="down")
    assert source.changed()


@pytest.mark.parametrize("name", ['eth0"} 1', "eth\n0", "a" * 16, "é0", "eth 0", "x:1", "\x1b[31m"])
def test_names_that_no_tool_makes_are_left_out(tree: NetworkTree, name: str) -> None:
    tree.card(name)
    tree.card("eth0")
    source = files(tree)
    source.look([name])
    reading = source.read()
    assert ([one.name for one in reading.interfaces], reading.left_out) == (["eth0"], 1)


def test_devices_with_strange_names_or_ports_are_left_out(tree: NetworkTree) -> None:
    tree.port('mlx"5', 1)
    (tree.port("mlx5_0", 1).parent / "x").mkdir()
    assert list(read(tree)) == ["mlx5_0:1"]


def test_of_many_interfaces_those_that_are_wanted_or_up_come_first(tree: NetworkTree) -> None:
    for number in range(40):
        tree.card(f"down{number:02}", operstate="down")
    tree.card("zup")
    source = files(tree)
    source.look(["down39"])
    reading = source.read()
    names = [one.name for one in reading.interfaces]
    assert (len(names), reading.left_out) == (MOST_INTERFACES, 41 - MOST_INTERFACES)
    assert {"zup", "down39"} <= set(names)


def test_a_host_without_a_network_of_its_own_is_told(tmp_path: Path) -> None:
    with pytest.raises(NetworkUnreadable, match="enoent"):
        NetworkFiles(str(tmp_path), str(tmp_path)).look()


def test_a_host_without_rdma_has_its_cards(tree: NetworkTree) -> None:
    tree.card("eth0")
    source = files(tree)
    source.look()
    assert source.errors == {}
    assert source.read() == NetworkReading((Interface("eth0", "network", True, 3_125_000_000, _ZERO),))


_ZERO = {"sent": 0, "received": 0}


def test_routes_are_read_with_their_masks(tree: NetworkTree) -> None:
    proc = tree.sys.parent / "proc" / "net"
    proc.mkdir(parents=True)
    (proc / "route").write_text(
        route_table(("eth0", "0.0.0.0", "0.0.0.0", 100), ("eth1", "10.0.0.0", "255.255.255.0", 0))
    )
    source = files(tree)
    source.look()
    assert source.routes == (Route(0, 0, "eth0", 100), Route(10 << 24, 0xFFFFFF00, "eth1", 0))


@pytest.mark.parametrize(
    ("text", "gigabits"),
    [
        ("400 Gb/sec (4X NDR)", 400),
        ("2.5 Gb/sec (1X SDR)", 2.5),
        ("56 Gb/sec (4X FDR)", 56),
        ("0 Gb/sec (0X)", None),
        ("400", None),
        ("400 Mb/sec", None),
        ("", None),
        (None, None),
    ],
)
def test_rates_as_the_kernel_writes_them(text: str | None, gigabits: float | None) -> None:
    assert parse_rate(text) == (None if gigabits is None else int(gigabits * 1e9 / 8))


def test_states_of_ports() -> None:
    assert [parse_port_state(text) for text in ("4: ACTIVE", "1: DOWN", "2: INIT", "ACTIVE", "", None)] == [
        True, False, False, None, None, None,
    ]  # fmt: skip


@given(st.text() | st.from_regex(r"\A-?\d{1,25}\Z") | st.from_regex(r"\A\d+(\.\d)? Gb/sec.*"))
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in (parse_counter, parse_speed, parse_rate):
        value = parse(text)
        assert value is None or 0 <= value < 2**64
    parse_port_state(text)


@given(
    st.lists(
        st.lists(st.text(alphabet=" 0123456789ABCDEFxg\t-", max_size=10) | st.just("eth0"), max_size=12).map(
            "\t".join
        ),
        max_size=8,
    ).map("\n".join)
    | st.text()
)
def test_no_table_of_routes_breaks_the_reader(text: str) -> None:
    for route in parse_routes(text):
        assert 0 <= route.network <= route.network | route.mask < 2**32


def test_bytes_of_an_address_are_in_the_machines_order() -> None:
    (route,) = parse_routes(route_table(("eth0", "10.1.2.0", "255.255.255.0", 0)))
    expected = int.from_bytes(bytes([10, 1, 2, 0]), "big")
    assert route.network == expected or sys.byteorder == "big"


def at(sent: int, name: str = "eth0", speed: int | None = 1000) -> NetworkReading:
    return NetworkReading((Interface(name, "network", True, speed, {"sent": sent, "received": 0}),))


def rate(reading: NetworkReading) -> float | None:
    return reading.interfaces[0].rate_bytes_per_second.get("sent")


def test_a_rate_is_the_average_of_the_last_minute() -> None:
    rates = Rates()
    assert rate(rates.add(at(0), 0)) is None
    assert rate(rates.add(at(500), 5)) == 100
    for second in range(10, 125, 5):
        reading = rates.add(at(500 + (second - 5) * 200), second)
    assert rate(reading) == 200
    assert reading.interfaces[0].usage_ratio("sent") == 0.2


def test_a_counter_that_falls_costs_its_own_pair_alone() -> None:
    rates = Rates()
    rates.add(at(10**9), 0)
    rates.add(at(10**9 + 1000), 10)
    reset = rates.add(at(7), 20)
    assert rate(reset) == 100
    assert rate(rates.add(at(1007), 30)) == 100
    fresh = Rates()
    fresh.add(at(2**32 - 1), 0)
    assert rate(fresh.add(at(5), 10)) is None


def test_readings_that_lie_too_close_make_no_rate() -> None:
    rates = Rates()
    rates.add(at(0), 0)
    assert rate(rates.add(at(10**12), 0.5)) is None


def test_an_interface_that_was_away_begins_anew() -> None:
    rates = Rates()
    rates.add(at(0), 0)
    rates.add(NetworkReading(()), 10)
    assert rate(rates.add(at(10**6), 20)) is None


def test_more_than_a_link_can_carry_is_no_usage() -> None:
    rates = Rates()
    rates.add(at(0), 0)
    assert rates.add(at(10_500), 10).interfaces[0].usage_ratio("sent") == 1.05
    fast = Rates()
    fast.add(at(0), 0)
    assert fast.add(at(25_000), 10).interfaces[0].usage_ratio("sent") is None
    unknown = Rates()
    unknown.add(at(0, speed=None), 0)
    assert unknown.add(at(1, speed=None), 10).interfaces[0].usage_ratio("sent") is None


@given(st.lists(st.tuples(st.integers(0, 2**64), st.floats(0.01, 100)), max_size=40))
def test_no_course_of_a_counter_makes_a_negative_rate(steps: list[tuple[int, float]]) -> None:
    rates, now = Rates(), 0.0
    for count, pause in steps:
        now += pause
        found = rate(rates.add(at(count), now))
        assert found is None or found >= 0
