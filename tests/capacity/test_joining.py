"""Declared meets discovered: which instance a declaration takes, what differs, and what others are called."""

from __future__ import annotations

from dataclasses import replace

from capacity.builders import GIB, declared, footprint, gpu
from exporter.capacity.joining import Names, differences, join
from exporter.capacity.observation import Declared, Running
from exporter.engines.discovery import Instance
from exporter.engines.launch import Launch, Role
from exporter.engines.process import PROGRAMS, Process
from exporter.engines.sockets import Door

R1 = "deepseek-ai/DeepSeek-R1"


def instance(
    pid: int,
    model: str = R1,
    *,
    engine: str = "vllm",
    start: int | None = None,
    port: int | None = None,
    unit: str = "",
) -> Instance:
    units = frozenset({unit} if unit else ())
    root = Process(pid, pid if start is None else start, 1, frozenset({engine}), units, True)
    door = Door("127.0.0.1", port) if port is not None else None
    launch = Launch(Role.SERVER, engine, model=model, port=port)
    return Instance(engine, launch, root, root, frozenset({pid}), None, door)


def of_engine(name: str, engine: str = "vllm", devices: tuple[int, ...] = ()) -> Declared:
    one = declared(name, footprint(len(devices), weights=1), devices=devices)
    return replace(one, engine=engine, programs=PROGRAMS[engine])


def joined(declarations, instances, gpus=(), extra=(), roles=None):
    table = {one.root.pid: one.root for one in instances} | {one.pid: one for one in extra}
    known = {one.root.pid: "server" for one in instances} | (roles or {})
    found = join(declarations, instances, table, gpus, lambda one: one.launch.model, known)
    return {name: sorted(pids) for name, pids in found.owned.items()}, [
        one.root.pid for one in found.undeclared
    ]


def test_a_declaration_takes_the_instance_of_its_engine_and_the_rest_is_undeclared() -> None:
    instances = (instance(10, engine="sglang"), instance(20))
    assert joined((of_engine("r1"),), instances) == ({"r1": [20]}, [10])


def test_the_instance_with_the_declared_model_goes_before_an_older_one() -> None:
    instances = (instance(10, "deepseek-ai/DeepSeek-V3"), instance(20))
    assert joined((of_engine("r1"),), instances) == ({"r1": [20]}, [10])


def test_another_model_on_the_declared_devices_is_still_that_deployment() -> None:
    instances = (instance(10, "deepseek-ai/DeepSeek-V3"),)
    gpus = (gpu(0, processes={10: GIB}),)
    assert joined((of_engine("r1", devices=(0,)),), instances, gpus) == ({"r1": [10]}, [])


def test_an_instance_on_other_devices_is_not_the_declared_one() -> None:
    gpus = (gpu(0), gpu(1, processes={10: GIB}))
    assert joined((of_engine("r1", devices=(0,)),), (instance(10),), gpus) == ({}, [10])


def test_a_unit_decides_among_alike() -> None:
    wanted = replace(of_engine("r1"), unit="b.service")
    instances = (instance(10, unit="a.service"), instance(20, unit="b.service"))
    assert joined((wanted,), instances) == ({"r1": [20]}, [10])


def test_forks_of_an_engine_are_taken_for_it() -> None:
    wanted = of_engine("r1", "ik_llama.cpp")
    assert joined((wanted,), (instance(10, engine="llama.cpp"),)) == ({"r1": [10]}, [])


def test_a_program_whose_launch_cannot_be_read_is_found_by_its_name_alone() -> None:
    hidden = Process(30, 30, 1, frozenset({"vllm"}), frozenset())
    assert joined((of_engine("r1"),), (), extra=(hidden,)) == ({"r1": [30]}, [])


def test_a_client_of_an_engine_is_not_taken_for_the_engine() -> None:
    client = Process(30, 30, 1, frozenset({"vllm"}), frozenset(), True)
    assert joined((of_engine("r1"),), (), extra=(client,), roles={30: "client"}) == ({}, [])


def test_a_configured_program_is_found_whatever_it_is() -> None:
    wanted = replace(of_engine("r1"), programs=("my-server",))
    own = Process(30, 30, 1, frozenset({"my-server"}), frozenset())
    assert joined((wanted,), (instance(10),), extra=(own,)) == ({"r1": [30]}, [10])


def test_fields_that_both_state_are_compared() -> None:
    wanted = replace(of_engine("r1", devices=(0, 1)), max_model_len=8192)
    runs = Running("vllm", model=R1, model_known=True, quantization="fp8", tp=4, max_model_len=8192)
    assert differences(wanted, runs) == {
        "model": True,
        "quantization": True,
        "tp": False,
        "pp": True,
        "dp": True,
        "max_model_len": True,
    }


def test_what_is_not_known_of_either_is_not_compared() -> None:
    assert differences(of_engine("r1", "llama.cpp"), Running("llama.cpp")) == {}


def names_of(names: Names, *instances: tuple[Instance, int | None], reserved: tuple[str, ...] = ()):
    given = names.of([(one, R1, device) for one, device in instances], reserved)
    return [given[one.key] for one, _ in instances]


def test_a_name_is_engine_and_served_model() -> None:
    assert names_of(Names(), (instance(10, port=8000), 0)) == [f"vllm:{R1}"]


def test_ports_tell_two_alike_apart_and_go_on_doing_so_while_one_restarts() -> None:
    names = Names()
    left, right = (instance(10, port=8000), 0), (instance(20, port=8001), 1)
    assert names_of(names, left, right) == [f"vllm:{R1}:8000", f"vllm:{R1}:8001"]
    assert names_of(names, right) == [f"vllm:{R1}:8001"]
    assert names_of(names, (instance(30, port=8000), 0), right) == [f"vllm:{R1}:8000", f"vllm:{R1}:8001"]


def test_one_alone_has_its_plain_name_again_when_all_were_gone() -> None:
    names = Names()
    names_of(names, (instance(10, port=8000), 0), (instance(20, port=8001), 1))
    names_of(names)
    assert names_of(names, (instance(30, port=8001), 0)) == [f"vllm:{R1}"]


def test_devices_tell_apart_what_has_no_port() -> None:
    assert sorted(names_of(Names(), (instance(10), 0), (instance(20), 4))) == [f"vllm:{R1}", f"vllm:{R1}@0"]


def test_the_successor_on_the_same_port_has_the_name_of_the_one_that_ends() -> None:
    old, new = (instance(10, port=8000, start=5), 0), (instance(20, port=8000, start=9), 1)
    assert names_of(Names(), old, new)[1] == f"vllm:{R1}"


def test_a_declared_name_is_never_given_twice() -> None:
    assert names_of(Names(), (instance(10, port=8000), 0), reserved=(f"vllm:{R1}",)) == [f"vllm:{R1}:8000"]
