"""Walking what others made: bounds, loops, files that go meanwhile, and what is not done twice."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from model_stores import KIB, OLD_SECONDS, aged, grown, settle

from exporter.storage.facts import ACTIVE_SECONDS, RootState
from exporter.storage.walk import MOST_DEPTH, Memo, NotWalked, Walk, settled, walk


def walked(root: Path, most_entries: int = 10_000, memo: Memo | None = None, **more: object) -> Walk:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    return walk(fd, most_entries, memo, **more)  # type: ignore[arg-type]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_links_are_not_followed_so_that_circles_end(tmp_path: Path) -> None:
    grown(tmp_path / "a" / "w.gguf", KIB)
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "away").symlink_to("/etc")
    found = walked(tmp_path)
    assert set(found.tree.folders) == {"", "a"}
    assert found.tree.folders["a"].links == {"up": "..", "self": "self"}


def test_a_tree_of_any_depth_ends(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * (MOST_DEPTH + 5))
    grown(deep / "w.gguf", KIB)
    found = walked(tmp_path)
    assert max(path.count("/") + 1 for path in found.tree.folders if path) == MOST_DEPTH
    assert found.unreadable == 1  # what is deeper is not known, and that is told


def test_more_files_than_the_bound_are_given_up(tmp_path: Path) -> None:
    for number in range(1200):
        (tmp_path / f"{number}").touch()
    before = open_descriptors()
    with pytest.raises(NotWalked) as raised:
        walked(tmp_path, 1000)
    assert raised.value.state is RootState.TOO_MANY_FILES
    assert open_descriptors() == before


def test_pipes_sockets_and_devices_are_neither_opened_nor_counted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    assert walked(tmp_path).tree.folders[""].files == []


def test_a_folder_that_may_not_be_read_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests run as root, who may read everything: the kernel's refusal is played.
    (tmp_path / "closed").mkdir()
    (tmp_path / "open").mkdir()
    really = os.open

    def refusing(path: str, flags: int, *more: object, dir_fd: int | None = None) -> int:
        if path == "closed":
            raise PermissionError(13, "Permission denied")
        return really(path, flags, dir_fd=dir_fd)

    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    monkeypatch.setattr(os, "open", refusing)
    found = walk(fd, 100)
    assert (found.unreadable, set(found.tree.folders)) == (1, {"", "open"})


def test_what_goes_while_it_is_looked_at_was_never_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "going").mkdir()
    grown(tmp_path / "stays.gguf", KIB)
    really = os.open

    def racing(path: str, flags: int, *more: object, dir_fd: int | None = None) -> int:
        if path == "going":
            (tmp_path / "going").rmdir()
        return really(path, flags, dir_fd=dir_fd)

    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    monkeypatch.setattr(os, "open", racing)
    found = walk(fd, 100)
    assert found.unreadable == 0
    assert [one.name for one in found.tree.folders[""].files] == ["stays.gguf"]


def test_a_folder_that_becomes_a_link_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "swapped").mkdir()
    really = os.open

    def racing(path: str, flags: int, *more: object, dir_fd: int | None = None) -> int:
        if path == "swapped":
            (tmp_path / "swapped").rmdir()
            (tmp_path / "swapped").symlink_to("/etc")
        return really(path, flags, dir_fd=dir_fd)

    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    monkeypatch.setattr(os, "open", racing)
    assert set(walk(fd, 100).tree.folders) == {""}


def test_roots_within_a_root_are_left_to_themselves(tmp_path: Path) -> None:
    inner = tmp_path / "hub"
    inner.mkdir()
    status = inner.stat()
    found = walked(tmp_path, elsewhere=[(status.st_dev, status.st_ino)])
    assert set(found.tree.folders) == {""}
    # It does not hide itself.
    assert set(walked(inner, elsewhere=[(status.st_dev, status.st_ino)]).tree.folders) == {""}


def test_a_mount_is_not_entered_and_told(tmp_path: Path) -> None:
    # /proc is another file system wherever there is one.
    found = walked(Path("/"), 200_000, elsewhere=_all_but("proc"))
    assert found.other_file_systems >= 1
    assert not any(path.startswith("proc") for path in found.tree.folders)


def _all_but(kept: str) -> list[tuple[int, int]]:
    places = [
        one for one in Path("/").iterdir() if one.is_dir() and not one.is_symlink() and one.name != kept
    ]
    return [(one.stat().st_dev, one.stat().st_ino) for one in places]


class TestMemory:
    def test_what_did_not_change_is_not_listed_again(self, tmp_path: Path) -> None:
        for name in ("a", "b", "c"):
            grown(tmp_path / name / "w.gguf", KIB)
        settle(tmp_path)
        first = walked(tmp_path)
        again = walked(tmp_path, memo=settled(first.tree, time.time()))
        assert (first.relisted, again.relisted) == (4, 0)
        assert again.tree.folders == first.tree.folders

    def test_a_new_file_is_seen(self, tmp_path: Path) -> None:
        grown(tmp_path / "a" / "w.gguf", KIB)
        settle(tmp_path)
        memo = settled(walked(tmp_path).tree, time.time())
        grown(tmp_path / "a" / "x.gguf", KIB)
        again = walked(tmp_path, memo=memo)
        assert again.relisted == 1
        assert [one.name for one in again.tree.folders["a"].files] == ["w.gguf", "x.gguf"]

    def test_a_file_that_may_still_grow_is_looked_at_each_time(self, tmp_path: Path) -> None:
        # Growing changes the file and not its folder.
        path = grown(tmp_path / "a" / "w.gguf", KIB)
        settle(tmp_path)
        grown(path, 2 * KIB, age_seconds=ACTIVE_SECONDS / 2)
        grown(tmp_path / "b" / "x.incomplete", KIB)
        settle(tmp_path / "b")
        aged(tmp_path, OLD_SECONDS)
        memo = settled(walked(tmp_path).tree, time.time())
        assert set(memo) == {""}

    def test_a_folder_that_was_just_changed_is_not_trusted(self, tmp_path: Path) -> None:
        # Its time may be that of a second change that was not seen.
        grown(tmp_path / "w.gguf", KIB, age_seconds=OLD_SECONDS)
        assert settled(walked(tmp_path).tree, time.time()) == {}
