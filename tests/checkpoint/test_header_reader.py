"""The door: a limited child reads, the parent waits no longer than it said, and nothing else gets in."""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from checkpoint_files import (
    GgufTensor,
    SafeTensor,
    gguf_bytes,
    scalar,
    string,
    strings,
    write_gguf,
    write_safetensors,
    write_sharded,
)

from exporter.models.checkpoint import reader
from exporter.models.checkpoint.reader import CheckpointReader
from exporter.models.checkpoint.tensors import Format, HeaderError, Problem

KEYS = [string("general.architecture", "llama"), scalar("llama.block_count", 4, 2)]
TENSORS = [GgufTensor("token_embd.weight", (64, 8), 0, 2048), GgufTensor("output_norm.weight", (64,), 0, 256)]
U32, U16, I32 = 4, 2, 5


def refused(path: Path, **options: object) -> HeaderError:
    with pytest.raises(HeaderError) as caught:
        CheckpointReader().read(path, **options)  # type: ignore[arg-type]
    return caught.value


def test_gguf_through_the_door(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", KEYS, TENSORS)
    header = CheckpointReader().read(path)
    assert header.format is Format.GGUF
    assert header.metadata == {"general.architecture": "llama", "llama.block_count": 2}
    assert [tensor.name for tensor in header.tensors] == ["token_embd.weight", "output_norm.weight"]
    assert header.tensors[0].shape == (8, 64)
    assert header.tensor_bytes == 2304
    assert header.file_bytes == path.stat().st_size == header.header_bytes + 2304
    assert header.bytes_by_type == {"F32": 2304}
    assert header.files[0].name == "model.gguf"


def test_43_bytes_that_claim_2_to_the_60_tensors_cost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1 << 60, 1) + bytes(19))
    assert path.stat().st_size == 43
    script = """if True:
        import re, sys, time, pathlib
        from exporter.models.checkpoint.files import Access
        from exporter.models.checkpoint.gguf import read_gguf
        from exporter.models.checkpoint.tensors import HeaderError, LIMITS
        def peak():
            status = pathlib.Path("/proc/self/status").read_text()
            return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1])
        before, started = peak(), time.perf_counter()
        try:
            with Access(("/",)).opened(sys.argv[1]) as source:
                read_gguf(source, LIMITS)
        except HeaderError as error:
            print(error.kind, time.perf_counter() - started, peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True, timeout=20
    )
    kind, seconds, kib = done.stdout.split()
    assert kind == Problem.TOO_MANY_TENSORS
    assert float(seconds) < 0.05
    assert int(kib) < 4096
    assert refused(path).kind is Problem.TOO_MANY_TENSORS


@pytest.mark.parametrize(
    "make",
    [
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("/dev/tty"),
        lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
    ],
    ids=["fifo", "zero", "terminal", "socket"],
)
def test_only_regular_files_are_opened(tmp_path: Path, make: object) -> None:
    path = tmp_path / "model.gguf"
    make(path)  # type: ignore[operator]
    started = time.monotonic()
    assert refused(path, roots=["/"]).kind is Problem.NOT_A_FILE
    assert time.monotonic() - started < 5


def test_missing_and_unreadable_and_strange_paths(tmp_path: Path) -> None:
    assert refused(tmp_path / "nothing.gguf").kind is Problem.NOT_FOUND
    assert refused(tmp_path / "a" / "b.gguf").kind is Problem.NOT_FOUND
    assert refused(tmp_path / "nul\0byte.gguf").kind is Problem.NOT_FOUND
    loop = tmp_path / "loop.gguf"
    loop.symlink_to(loop)
    assert refused(loop).kind is Problem.NOT_A_FILE


def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xff\xfe.gguf"))
    write_gguf(path, KEYS, TENSORS)
    assert len(CheckpointReader().read(path).tensors) == 2


def test_links_out_of_the_folder_are_refused_unless_their_place_is_a_root(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "model"
    elsewhere.mkdir()
    folder.mkdir()
    write_safetensors(elsewhere / "secret", [SafeTensor("x", (2,), "F32")])
    (folder / "model.safetensors").symlink_to(elsewhere / "secret")
    assert refused(folder).kind is Problem.OUTSIDE_ROOTS
    assert len(CheckpointReader().read(folder, roots=[folder, elsewhere]).tensors) == 1
    assert len(CheckpointReader().read(folder, roots=["/"]).tensors) == 1


def test_roots_bind_the_given_path_too(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    path = write_gguf(tmp_path / "model.gguf", KEYS, TENSORS)
    assert refused(path, roots=[allowed]).kind is Problem.OUTSIDE_ROOTS
    assert refused(tmp_path, roots=[allowed]).kind is Problem.OUTSIDE_ROOTS
    # A sibling whose name begins with the root's is not below it.
    (tmp_path / "allowed-not").mkdir()
    other = write_gguf(tmp_path / "allowed-not" / "model.gguf", KEYS, TENSORS)
    assert refused(other, roots=[allowed]).kind is Problem.OUTSIDE_ROOTS


def test_answer_is_kept_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "model.gguf", KEYS, TENSORS)
    patient, wary = CheckpointReader(trusted_seconds=60), CheckpointReader(trusted_seconds=0)
    first, also_first = patient.read(path), wary.read(path)
    assert wary.read(path) is also_first
    write_gguf(path, KEYS, TENSORS[:1])
    assert patient.read(path) is first
    assert len(wary.read(path).tensors) == 1
    path.unlink()
    with pytest.raises(HeaderError):
        wary.read(path)
    monkeypatch.setattr(reader, "command", lambda: ["/bin/false"])
    assert patient.read(path) is first


def test_refusal_is_kept_too_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"nothing")
    patient, wary = CheckpointReader(trusted_seconds=60), CheckpointReader(trusted_seconds=0)
    for asked in (patient, wary, patient):
        with pytest.raises(HeaderError, match="does not begin with GGUF"):
            asked.read(path)
    write_gguf(path, KEYS, TENSORS)
    assert len(wary.read(path).tensors) == 2
    with pytest.raises(HeaderError, match="does not begin with GGUF"):
        patient.read(path)


def test_new_file_in_the_folder_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_safetensors(folder / "a.safetensors", [SafeTensor("a", (2,), "F32")])
    wary = CheckpointReader(trusted_seconds=0)
    assert len(wary.read(folder).tensors) == 1
    write_safetensors(folder / "b.safetensors", [SafeTensor("b", (2,), "F32")])
    assert len(wary.read(folder).tensors) == 2


def stuck(seconds: float = 60) -> list[str]:
    return [sys.executable, "-c", f"import time; time.sleep({seconds})"]


def test_reader_that_hangs_costs_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "command", stuck)
    started = time.monotonic()
    with pytest.raises(HeaderError) as caught:
        CheckpointReader(deadline_seconds=0.5).read(tmp_path)
    assert caught.value.kind is Problem.TIME
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    "answer", ["", "{", "[]", "null", '{"error": 3}', '{"error": ["no such kind", "x"]}', "{}"]
)
def test_reader_that_answers_nonsense_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(reader, "command", lambda: [sys.executable, "-c", f"print({answer!r}, end='')"])
    assert refused(tmp_path).kind is Problem.READER


def test_reader_that_talks_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "command", lambda: ["/bin/cat", "/dev/zero"])
    monkeypatch.setattr(reader, "ANSWER_BYTES", 1 << 22)
    assert refused(tmp_path).kind is Problem.MEMORY


def test_reader_out_of_processor_time_is_a_named_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGXCPU)"
    monkeypatch.setattr(reader, "command", lambda: [sys.executable, "-c", script])
    assert refused(tmp_path).kind is Problem.TIME


def test_child_limits_itself() -> None:
    script = """if True:
        import json, resource
        from exporter.models.checkpoint import child
        child._limit(6, 768 << 20, 64, 20)
        names = ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CORE")
        print(json.dumps([resource.getrlimit(getattr(resource, name))[0] for name in names]))
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [768 << 20, 6, 64, 0, 0]


def test_header_that_eats_memory_is_a_named_error(tmp_path: Path) -> None:
    # 90 MB of JSON: a list of empty lists takes twenty times that.
    text = b'{"a":[' + b"[],[]," * 15_000_000 + b"[]]}"
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    started = time.monotonic()
    assert refused(path).kind in (Problem.MEMORY, Problem.TIME)
    assert time.monotonic() - started < reader.DEADLINE_SECONDS
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(usage, reader.MEMORY_BYTES >> 10)


def test_threads_may_share_a_reader(tmp_path: Path) -> None:
    paths = [write_gguf(tmp_path / f"{number}.gguf", KEYS, TENSORS) for number in range(6)]
    shared, found = CheckpointReader(), []
    threads = [
        threading.Thread(target=lambda path=path: found.append(shared.read(path).files[0].name))
        for path in paths
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [path.name for path in paths]


def test_nothing_of_our_environment_reaches_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPSEEK_EXPORTER_SECRET", "canary")
    monkeypatch.setattr(
        reader,
        "command",
        lambda: [sys.executable, "-c", "import os, sys; sys.exit('DEEPSEEK' in str(os.environ))"],
    )
    assert "ended with 0" in refused(tmp_path).message


def test_sharded_checkpoint_is_read_with_its_index(tmp_path: Path) -> None:
    some = [SafeTensor(f"model.layers.{number}.x", (number, 3), "BF16") for number in range(1, 20)]
    header = CheckpointReader().read(write_sharded(tmp_path / "model", some, 4))
    assert header.format is Format.SAFETENSORS
    assert {tensor.name: tensor.size_bytes for tensor in header.tensors} == {
        t.name: t.size_bytes for t in some
    }
    assert header.files[0].name == "model-00001-of-000004.safetensors"
    assert header.file_bytes == header.header_bytes + header.tensor_bytes


def test_bundle_of_a_vocabulary_is_small_in_the_answer(tmp_path: Path) -> None:
    keys = [*KEYS, strings("tokenizer.ggml.tokens", [f"token{number}" for number in range(100_000)])]
    path = write_gguf(tmp_path / "model.gguf", keys, TENSORS)
    header = CheckpointReader().read(path)
    assert header.metadata["tokenizer.ggml.tokens.count"] == 100_000
    assert header.header_bytes == len(gguf_bytes(keys, TENSORS)[0])
