"""The child that scans, and what becomes of one that does not answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_stores import KIB, Repository, index, settle

from exporter.models.checkpoint.tensors import HeaderError
from exporter.storage import files as store_files
from exporter.storage import scanner
from exporter.storage.facts import CheckpointState, Kind, RootState, Scan
from exporter.storage.guard import Guard
from exporter.storage.scanner import Scanner
from exporter.storage.wire import Question, decode_answer, encode_answer, encode_memo

R1 = "deepseek-ai/DeepSeek-R1"


def question(root: Path) -> Question:
    return Question(str(root), Kind.AUTO, 10_000)


def test_a_scan_goes_through_the_child_and_remembers(tmp_path: Path) -> None:
    repository = Repository(tmp_path, R1)
    repository.ref("main", "aaaa")
    repository.shards("aaaa", 2)
    settle(tmp_path)
    one = Scanner()
    first = one.scan(question(tmp_path), 10)
    second = one.scan(question(tmp_path), 10)
    assert first.state is RootState.UP
    assert first.checkpoints == second.checkpoints
    assert [(one.model, one.state, one.size_bytes) for one in first.checkpoints] == [
        (R1, CheckpointState.COMPLETE, 128 * KIB)
    ]
    assert first.free_bytes
    # Something that the memo hides from a scan that trusts it: it was used.
    blob = next(repository.path.joinpath("blobs").iterdir())
    at = blob.parent.stat()
    blob.unlink()
    os.utime(blob.parent, ns=(at.st_atime_ns, at.st_mtime_ns))
    assert one.scan(question(tmp_path), 10).checkpoints == first.checkpoints
    assert Scanner().scan(question(tmp_path), 10).checkpoints != first.checkpoints


@pytest.mark.parametrize(
    ("made", "state"),
    [("nothing", RootState.MISSING), ("file", RootState.NOT_A_FOLDER), ("folder", RootState.UP)],
)
def test_a_root_that_is_not_there_says_so(tmp_path: Path, made: str, state: RootState) -> None:
    root = tmp_path / "root"
    if made == "file":
        root.touch()
    if made == "folder":
        root.mkdir()
    assert Scanner().scan(question(root), 10).state is state


def test_a_child_that_never_answers_costs_the_deadline_of_its_root_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Scanner()
    with monkeypatch.context() as hung:
        hung.setattr(scanner, "command", lambda: ["/bin/sleep", "60"])
        started = time.monotonic()
        assert one.scan(question(tmp_path / "hung"), 0.3).state is RootState.STALLED
        assert time.monotonic() - started < 3
    assert one.scan(question(tmp_path), 10).state is RootState.UP


def test_a_child_that_cannot_be_ended_is_not_joined_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, begun = Scanner(), []
    child = subprocess.Popen(["/bin/sleep", "60"], stdout=subprocess.PIPE)

    def start(*_: object) -> subprocess.Popen[bytes]:
        begun.append(1)
        return child

    with monkeypatch.context() as stuck:
        stuck.setattr(scanner.limited_child, "start", start)
        stuck.setattr(scanner.limited_child, "end", lambda _: False)  # as in the kernel's D state
        assert one.scan(question(tmp_path), 0.1).state is RootState.STALLED
        assert one.scan(question(tmp_path), 0.1).state is RootState.STALLED
        assert begun == [1]
    child.kill()
    child.wait()
    assert one.scan(question(tmp_path), 10).state is RootState.UP


@pytest.mark.parametrize(
    "said", ["", "{", "[]", '{"memo": null}', '{"memo":1,"state":"up","checkpoints":[1]}']
)
def test_an_answer_without_sense_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(scanner, "command", lambda: [sys.executable, "-c", f"print({said!r}, end='')"])
    assert Scanner().scan(question(tmp_path), 10).state is RootState.FAILED


def test_one_that_talks_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanner, "command", lambda: ["/bin/cat", "/dev/zero"])
    monkeypatch.setattr(scanner, "ANSWER_BYTES", 1 << 20)
    assert Scanner().scan(question(tmp_path), 10).state is RootState.TOO_MANY_FILES


def test_question_and_answer_survive_the_pipe(tmp_path: Path) -> None:
    asked = Question("/a\udce9", Kind.PLAIN, 7, ((1, 2),), None)
    assert Question.decode(asked.encode()) == asked
    found = Scan(RootState.UP, 1.5, entries=3, free_bytes=4)
    assert decode_answer(encode_answer(found, {}))[0] == found
    assert encode_memo({}) == {}


def _nested(children: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    keys = st.sampled_from(["layers", "digest", "config", "weight_map", "metadata", "total_size", "x"])
    return st.lists(children, max_size=3) | st.dictionaries(keys, children, max_size=4)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), _nested, max_leaves=20
)


class TestSmallFiles:
    """Parsers of what others wrote never raise anything but a refusal."""

    @given(JSON)
    def test_any_json_is_a_manifest_or_is_refused(self, found: object) -> None:
        try:
            names = store_files._blobs(found)
        except HeaderError:
            return
        assert all(len(name) == 71 and name.startswith("sha256-") for name in names)

    @given(JSON)
    def test_any_json_is_an_index_or_none(self, found: object) -> None:
        one = store_files._index(found)
        assert one is None or all("/" not in name for name in one.files)

    @given(st.sampled_from([0, -1, True, "9", 1e300, float("nan"), float("inf"), 2**80, None, 700e9, 64]))
    def test_only_a_possible_size_is_one(self, size: object) -> None:
        one = store_files._index({"metadata": {"total_size": size}, "weight_map": {"a": "b"}})
        assert one is not None
        assert one.total_bytes == (size if size in (700e9, 64) and size is not True else None)

    @given(st.binary(max_size=300))
    def test_any_bytes_are_a_gguf_or_none(self, head: bytes) -> None:
        store_files._architecture(head)
        store_files._architecture(b"GGUF" + head)

    def test_an_index_that_names_other_folders_is_none(self) -> None:
        assert store_files._index(json.loads(index(1, ["../x"]))) is None


class TestGuard:
    def test_a_call_that_does_not_return_is_not_begun_again(self) -> None:
        guard: Guard[int] = Guard()
        release = threading.Event()

        def hang() -> int:
            release.wait(10)
            return 1

        first = guard.begin("a", hang)
        assert first is not None
        assert guard.begin("a", hang) is None
        assert guard.under_way("a") is not None
        other = guard.begin("b", lambda: 2)
        assert other is not None and other.result(5) == 2
        release.set()
        assert first.result(5) == 1
        again = guard.begin("a", lambda: 3)
        assert again is not None and again.result(5) == 3

    def test_an_error_is_the_callers(self) -> None:
        guard: Guard[int] = Guard()
        call = guard.begin("a", lambda: 1 // 0)
        assert call is not None
        with pytest.raises(ZeroDivisionError):
            call.result(5)
