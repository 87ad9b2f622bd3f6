"""A recorded host as data and as files: the same time gives the same host, and memory adds up."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.demo import profile, timeline
from exporter.demo.proc_tree import Tree, files
from exporter.demo.profile import UnknownProfile
from exporter.demo.scene import Play, Scene

TIMES = (0.0, 11.5, 65.0, 100.0, 151.0, 240.0, 300.0, 479.0, 600.0, 5000.0)


def play(name: str, incident: str | None = None) -> Play:
    host = profile.load(name)
    ports = {engine.name: 40_000 + at for at, engine in enumerate(host.engines)}
    return Play(host, timeline.script(host, incident), ports)


@pytest.mark.parametrize("name", profile.names())
def test_the_same_profile_and_time_give_the_same_host(name: str) -> None:
    first, second = play(name), play(name)
    for at in TIMES:
        assert first.at(at) == second.at(at)
        assert files(first.at(at), first.profile) == files(second.at(at), second.profile)


@pytest.mark.parametrize("name", profile.names())
def test_no_device_holds_more_than_it_has_and_its_parts_sum_to_the_whole(name: str) -> None:
    host = play(name)
    for at in TIMES:
        scene = host.at(at)
        pids = {process.pid for process in scene.processes}
        for device in scene.devices:
            if device is None:
                continue
            values = device["values"]
            parts = ("memory_used_bytes", "memory_free_bytes", "memory_reserved_bytes")
            assert sum(values[part] for part in parts) == values["memory_total_bytes"]
            assert values["memory_free_bytes"] >= 0
            assert {pid for pid, _ in device["processes"]} <= pids


@pytest.mark.parametrize("name", profile.names())
def test_counters_of_a_host_only_grow_unless_its_engine_was_started_again(name: str) -> None:
    host = play(name)
    before: dict[tuple[int, int], int] = {}
    for at in range(0, 1000, 7):
        scene = host.at(float(at))
        started = {process.pid: process.start_ticks for process in scene.processes}
        for serving in scene.serving.values():
            ticks = min(ticks for pid, ticks in started.items() if abs(pid - serving.engine.pid) < 2000)
            key = (serving.engine.pid, ticks)
            assert serving.generated_tokens >= before.get(key, 0)
            before[key] = serving.generated_tokens
            assert 0 <= serving.kv_usage <= 1


def test_what_is_written_is_what_the_scene_says_and_what_ends_is_gone(tmp_path: Path) -> None:
    host = play("8xh200-r1", "stranger")
    tree = Tree(tmp_path)
    for at in (0.0, 20.0, 45.0):
        scene = host.at(at)
        tree.show(files(scene, host.profile))
        listed = {one.name for one in (tmp_path / "proc").iterdir() if one.name.isdigit()}
        assert listed == {str(process.pid) for process in scene.processes}
        assert written(tmp_path) == files(scene, host.profile).contents
    assert list((tmp_path / "proc").glob(".*")) == []


def written(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_a_device_that_is_lost_takes_its_group_with_it_until_the_engine_is_started_again() -> None:
    host = play("8xh100-v3-sglang", "gpu-lost")
    quiet, lost, back = host.at(5), host.at(20), host.at(45)
    assert [device is None for device in lost.devices] == [index == 3 for index in range(8)]
    assert lost.xids == {(3, 79): 1}
    assert (bool(quiet.serving), bool(lost.serving), bool(back.serving)) == (True, False, True)
    assert root(back).start_ticks > root(lost).start_ticks
    assert back.serving["v3"].generated_tokens < quiet.serving["v3"].generated_tokens


def root(scene: Scene) -> object:
    return next(process for process in scene.processes if process.parent == 1)


def test_names_that_are_not_there_are_answered_with_those_that_are() -> None:
    with pytest.raises(UnknownProfile, match=r"there are: .*8xh200-r1"):
        profile.load("../8xh200-r1")
    with pytest.raises(UnknownProfile, match="it has: second-deployment"):
        timeline.script(profile.load("8xh200-r1"), "flood")
