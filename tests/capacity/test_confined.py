"""Deployments that may not use all RAM of their host: a limit of their cgroup, nodes that they are bound to.

The cases are those in which the host has room and the engine dies all the same, and those in which a page
would be wrong.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from capacity.builders import GIB, declared, footprint, observation
from exporter.capacity.assessment import assess
from exporter.capacity.bounds import Bounds
from exporter.capacity.confined import Confined, Limit, confined, limits
from exporter.capacity.decode import DecodeBound, decode_bounds
from exporter.capacity.observation import Declared, Observation
from exporter.engines.confinement import Confinement, Group, LimitState
from exporter.engines.process import ProcessMemory
from exporter.hardware.bandwidth import Bandwidth
from exporter.hardware.host import HostReading, NumaNode

HOST = HostReading(
    memory_total_bytes=512 * GIB,
    memory_available_bytes=450 * GIB,
    numa={0: NumaNode(256 * GIB, 20 * GIB, 200 * GIB), 1: NumaNode(256 * GIB, 150 * GIB, 80 * GIB)},
)


def deployment(name: str, ram: int, *, mapped: int = 0) -> Declared:
    return declared(name, footprint(0, weights=0, ram=ram, ram_mapped=mapped))


def group(limit: int, used: int, *, droppable: int = 0, mapped: int | None = None, path: str = "a") -> Group:
    return Group(path, limit, used, droppable, mapped)


def here(*deployments: tuple[Declared, ProcessMemory, Confinement], host: HostReading = HOST) -> Observation:
    """All of them run, each as one process."""
    one = observation(
        deployments=tuple(one for one, _, _ in deployments),
        owned={one.name: frozenset({pid}) for pid, (one, _, _) in enumerate(deployments)},
        memory={pid: memory for pid, (_, memory, _) in enumerate(deployments)},
        host=host,
    )
    return replace(one, confinement={one.name: where for one, _, where in deployments})


def judged(what: Observation) -> dict[str, tuple[Confined, ...]]:
    return confined(what, assess(what, gpu_margin=0, host_margin=2 * GIB), host_margin=2 * GIB)


def limited(*groups: Group, nodes: frozenset[int] | None = None) -> Confinement:
    return Confinement(LimitState.LIMITED if groups else LimitState.UNLIMITED, groups, nodes)


def test_a_container_of_200_gib_on_a_host_of_512_does_not_hold_376_gib_of_weights() -> None:
    r1 = deployment("r1", 376 * GIB, mapped=370 * GIB)
    memory = ProcessMemory(6 * GIB, 185 * GIB, 0, 0)
    (place,) = judged(
        here((r1, memory, limited(group(200 * GIB, 198 * GIB, droppable=190 * GIB, mapped=185 * GIB))))
    )["r1"]
    assert (place.kind, place.commitment.capacity) == ("cgroup", 200 * GIB)
    # 198 - 190 GiB are in use and 6 of them its own: the other two are somebody else's.
    assert place.commitment.committed == Bounds(378 * GIB, 378 * GIB)
    assert place.used_bytes == 8 * GIB


def test_weights_that_another_group_pays_for_do_not_page() -> None:
    """The file was read before the container started: its pages are charged elsewhere."""
    r1 = deployment("r1", 100 * GIB, mapped=95 * GIB)
    memory = ProcessMemory(5 * GIB, 95 * GIB, 0, 0)
    (place,) = judged(here((r1, memory, limited(group(64 * GIB, 6 * GIB, mapped=GIB)))))["r1"]
    assert place.commitment.committed == Bounds(100 * GIB - 94 * GIB + GIB, 101 * GIB)


def test_all_deployments_of_a_slice_share_its_limit() -> None:
    slice_ = group(150 * GIB, 120 * GIB, path="llm.slice")
    memory = ProcessMemory(60 * GIB, 0, 0, 0)
    found = judged(
        here(
            (deployment("a", 80 * GIB), memory, limited(group(100 * GIB, 60 * GIB, path="a"), slice_)),
            (deployment("b", 80 * GIB), memory, limited(slice_)),
        )
    )
    assert found["a"] == found["b"]
    assert found["a"][0].commitment.headroom.low == -10 * GIB


def test_the_tightest_limit_around_a_deployment_is_told() -> None:
    memory = ProcessMemory(10 * GIB, 0, 0, 0)
    where = limited(group(40 * GIB, 10 * GIB, path="a/b"), group(30 * GIB, 25 * GIB, path="a"))
    (place,) = judged(here((deployment("r1", 20 * GIB), memory, where)))["r1"]
    assert place.commitment.headroom.low == -5 * GIB  # 30 - 20 - the 15 of others


def test_locked_weights_are_its_own_and_not_others() -> None:
    r1 = deployment("r1", 100 * GIB, mapped=95 * GIB)
    memory = ProcessMemory(5 * GIB, 95 * GIB, 0, 0, locked=95 * GIB)
    (place,) = judged(here((r1, memory, limited(group(120 * GIB, 101 * GIB, mapped=95 * GIB)))))["r1"]
    assert place.commitment.committed == Bounds(101 * GIB, 101 * GIB)


def test_a_limit_above_the_hosts_memory_is_none() -> None:
    what = here((deployment("r1", GIB), ProcessMemory(GIB, 0, 0, 0), limited(group(600 * GIB, GIB))))
    assert judged(what) == {}
    assert limits(what) == {"r1": Limit("unlimited")}


def test_what_is_not_known_of_a_group_is_told_with_its_reason() -> None:
    what = here((deployment("r1", GIB), ProcessMemory(GIB, 0, 0, 0), Confinement(LimitState.HIDDEN)))
    assert limits(what) == {"r1": Limit("hidden")}
    assert judged(what) == {}


def test_counters_are_the_innermost_groups_whichever_is_the_tightest() -> None:
    inner = Group("a/b", 40 * GIB, 10 * GIB, 0, None, 2.0, 1.0, 0)
    outer = Group("a", 30 * GIB, 25 * GIB, 0, None, 900.0, 800.0, 7)
    what = here((deployment("r1", GIB), ProcessMemory(GIB, 0, 0, 0), limited(inner, outer)))
    assert limits(what) == {"r1": Limit("limited", 2.0, 1.0, 0)}


def test_a_node_may_be_full_while_the_host_has_room() -> None:
    """Bound to node 0, of which others hold 36 GiB: 250 GiB of experts do not fit there."""
    kt = deployment("kt", 250 * GIB)
    memory = ProcessMemory(20 * GIB, 0, 0, 0)
    (place,) = judged(here((kt, memory, limited(nodes=frozenset({0})))))["kt"]
    assert (place.kind, place.nodes) == ("numa", (0,))
    assert place.commitment.capacity == 255 * GIB  # half of the margin
    assert place.commitment.committed.low == (250 + 36 - 20) * GIB
    assert place.used_bytes == 36 * GIB


def test_mapped_weights_may_lie_on_the_other_node_however_a_process_is_bound() -> None:
    r1 = deployment("r1", 300 * GIB, mapped=290 * GIB)
    (place,) = judged(here((r1, ProcessMemory(10 * GIB, 290 * GIB, 0, 0), limited(nodes=frozenset({0})))))[
        "r1"
    ]
    assert place.commitment.committed.low == (300 - 80 + 26) * GIB  # 80 GiB of page cache on node 1
    assert place.commitment.committed.high == 326 * GIB


def test_a_deployment_that_may_go_anywhere_is_not_confined() -> None:
    memory = ProcessMemory(GIB, 0, 0, 0)
    for nodes in (None, frozenset({0, 1}), frozenset(range(64)), frozenset({7})):
        assert judged(here((deployment("r1", 300 * GIB), memory, limited(nodes=nodes)))) == {}


def test_nodes_that_do_not_say_what_can_be_dropped_are_not_judged() -> None:
    old = replace(HOST, numa={0: NumaNode(256 * GIB, GIB), 1: NumaNode(256 * GIB, GIB)})
    where = limited(nodes=frozenset({0}))
    assert judged(here((deployment("r1", 300 * GIB), ProcessMemory(GIB, 0, 0, 0), where), host=old)) == {}


sizes = st.integers(0, 2**42)


@given(need=sizes, anonymous=sizes, file=sizes, limit=sizes, used=sizes, droppable=sizes, mapped=sizes)
def test_low_is_never_above_high_nor_below_what_cannot_be_given_back(
    need: int, anonymous: int, file: int, limit: int, used: int, droppable: int, mapped: int
) -> None:
    memory = ProcessMemory(anonymous, file, 0, 0)
    where = limited(group(limit, used, droppable=droppable, mapped=mapped), nodes=frozenset({1}))
    places = judged(here((deployment("r1", need, mapped=need // 2), memory, where))).get("r1", ())
    for place in places:
        low, high = place.commitment.committed.low, place.commitment.committed.high
        assert 0 <= low <= high
        assert high >= anonymous


def reads(read: int | None, nodes: frozenset[int] | None = None, *, bandwidth: int = 460) -> Observation:
    need = footprint(0, weights=0, ram=100 * GIB)
    one = declared("r1", replace(need, host=replace(need.host, token_read_bytes=read)))
    host = replace(HOST, bandwidth=Bandwidth(bandwidth * 10**9, "processor"))
    return here((one, ProcessMemory(GIB, 0, 0, 0), limited(nodes=nodes)), host=host)


def test_a_token_comes_no_faster_than_its_weights_are_read() -> None:
    found = decode_bounds(reads(23 * 10**9))
    assert found == {"r1": DecodeBound(20.0, 23 * 10**9, 460 * 10**9, "processor")}


def test_one_socket_has_its_own_channels_alone() -> None:
    assert decode_bounds(reads(23 * 10**9, frozenset({0})))["r1"].tokens_per_second == 10.0


def test_what_is_computed_on_devices_has_no_bound_of_ram() -> None:
    assert decode_bounds(reads(None)) == {}
    assert decode_bounds(reads(0)) == {}
    assert decode_bounds(replace(reads(10**9), host=HOST)) == {}
