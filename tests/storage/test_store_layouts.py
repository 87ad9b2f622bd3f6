"""What lies in a store, read off trees on disk: sizes by model, what is missing, what nothing leads to."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import pytest
from model_stores import KIB, OllamaStore, Repository, grown, index, settle

from exporter.models.catalog import catalog
from exporter.models.quantization import Container, file_bytes
from exporter.storage.child import answer, bounded
from exporter.storage.facts import ACTIVE_SECONDS, Checkpoint, CheckpointState, Kind, RootState, Scan
from exporter.storage.tree import stored_bytes
from exporter.storage.wire import MOST_CHECKPOINTS, Question

R1 = "deepseek-ai/DeepSeek-R1"
COMPLETE, DOWNLOADING = CheckpointState.COMPLETE, CheckpointState.DOWNLOADING
INCOMPLETE, ORPHANED = CheckpointState.INCOMPLETE, CheckpointState.ORPHANED


def scan(root: Path, kind: Kind = Kind.AUTO, *, most_entries: int = 10_000) -> Scan:
    return answer(Question(str(root), kind, most_entries), time.time())[0]


def sizes(found: Scan) -> dict[tuple[str, CheckpointState], int]:
    sums: dict[tuple[str, CheckpointState], int] = {}
    for one in found.checkpoints:
        key = (one.model, one.state)
        sums[key] = sums.get(key, 0) + one.size_bytes
    return sums


def only(found: Scan) -> Checkpoint:
    [one] = found.checkpoints
    return one


class TestHuggingFace:
    def test_a_model_is_as_large_as_its_blobs(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path, R1)
        repository.ref("main", "aaaa")
        repository.shards("aaaa", 4)
        repository.add("aaaa", "config.json", content=b'{"model_type": "deepseek_v3"}')
        found = scan(tmp_path)
        assert found.state is RootState.UP
        assert sizes(found) == {(R1, COMPLETE): 4 * 64 * KIB + 4 * KIB}

    def test_what_two_revisions_share_counts_once_and_what_the_old_one_has_alone_is_orphaned(
        self, tmp_path: Path
    ) -> None:
        repository = Repository(tmp_path, R1)
        same = b"s" * 32 * KIB
        for revision, own in (("old0", b"o"), ("new0", b"n")):
            repository.add(revision, "model-00001-of-00002.safetensors", content=same)
            repository.add(revision, "model-00002-of-00002.safetensors", content=own * 64 * KIB)
        repository.ref("main", "new0")
        settle(tmp_path)
        assert sizes(scan(tmp_path)) == {(R1, COMPLETE): 96 * KIB, (R1, ORPHANED): 64 * KIB}

    def test_a_revision_that_any_ref_names_is_kept(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path, R1)
        for revision, ref in (("aaaa", "main"), ("bbbb", "refs/pr/1")):
            repository.shards(revision, 1)
            repository.ref(ref, revision)
        assert {state for _, state in sizes(scan(tmp_path))} == {COMPLETE}

    def test_a_repository_without_a_ref_was_fetched_by_revision_and_is_kept(self, tmp_path: Path) -> None:
        Repository(tmp_path, R1).shards("aaaa", 1)
        assert {state for _, state in sizes(scan(tmp_path))} == {COMPLETE}

    def test_a_blob_that_no_revision_links_to_is_orphaned_once_it_is_old(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path, R1)
        repository.ref("main", "aaaa")
        repository.shards("aaaa", 1)
        loose = grown(repository.path / "blobs" / "feed", 16 * KIB)
        assert sizes(scan(tmp_path)) == {(R1, COMPLETE): 80 * KIB}
        settle(tmp_path)
        assert sizes(scan(tmp_path)) == {(R1, COMPLETE): 64 * KIB, (R1, ORPHANED): 16 * KIB}
        assert loose.exists()

    def test_a_ref_that_cannot_be_read_makes_nothing_an_orphan(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path, R1)
        repository.shards("aaaa", 1)
        repository.shards("bbbb", 1)
        repository.ref("main", "bbbb")
        repository.ref("broken", "\x00/../../etc")
        found = scan(tmp_path)
        assert found.state is RootState.PARTIAL
        assert ORPHANED not in {one.state for one in found.checkpoints}

    def test_a_download_tells_what_is_still_to_come_by_its_shards(self, tmp_path: Path) -> None:
        # The index is the last of the files in the order of names, so it is not there meanwhile.
        repository = Repository(tmp_path, "someone/DeepSeek-V9-Tuned")
        repository.ref("main", "aaaa")
        repository.shards("aaaa", 8, present=3)
        repository.fetching(32 * KIB)
        one = only(scan(tmp_path))
        assert (one.model, one.deepseek, one.state) == ("someone/DeepSeek-V9-Tuned", True, DOWNLOADING)
        assert one.size_bytes == (3 * 64 + 32) * KIB
        assert (one.expected_bytes, one.remaining_bytes) == (8 * 64 * KIB, (5 * 64 - 32) * KIB)

    def test_the_index_knows_better(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path, "someone/DeepSeek-V9-Tuned")
        repository.ref("main", "aaaa")
        repository.shards("aaaa", 4, present=2)
        names = [f"model-{number:05d}-of-000004.safetensors" for number in range(1, 5)]
        repository.add("aaaa", "model.safetensors.index.json", content=index(200 * KIB, names))
        one = only(scan(tmp_path))
        assert (one.expected_bytes, one.remaining_bytes) == (200 * KIB, 72 * KIB)

    def test_the_catalogue_knows_before_the_first_shard_is_whole(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path, R1)
        repository.add("aaaa", "config.json", content=b"{}")
        repository.fetching(48 * KIB)
        one = only(scan(tmp_path))
        model = catalog().resolve(R1)
        whole = file_bytes(model.architecture, "fp8", Container.SAFETENSORS)
        assert 680e9 < whole < 700e9
        assert (one.state, one.expected_bytes, one.remaining_bytes) == (
            DOWNLOADING,
            whole,
            whole - 48 * KIB,
        )

    def test_of_a_re_upload_whose_name_tells_no_size_nothing_is_guessed(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path, "unsloth/DeepSeek-R1-GGUF")
        repository.fetching(48 * KIB)
        one = only(scan(tmp_path))
        assert (one.model, one.state, one.remaining_bytes) == (R1, DOWNLOADING, None)

    def test_a_download_that_stands_still_is_given_up(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path, R1)
        repository.shards("aaaa", 4, present=1)
        repository.fetching(32 * KIB)
        settle(tmp_path, ACTIVE_SECONDS + 60)
        one = only(scan(tmp_path))
        assert (one.state, one.size_bytes, one.remaining_bytes) == (INCOMPLETE, 96 * KIB, None)
        assert one.expected_bytes is not None

    def test_every_quantization_of_a_gguf_repository_is_a_checkpoint(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path, "unsloth/DeepSeek-R1-GGUF")
        repository.ref("main", "aaaa")
        for number in (1, 2):
            name = f"Q4_K_M/DeepSeek-R1-Q4_K_M-0000{number}-of-00002.gguf"
            repository.add("aaaa", name, content=bytes([number]) * 64 * KIB)
        repository.add("aaaa", "Q8_0/DeepSeek-R1-Q8_0-00001-of-00009.gguf", content=b"8" * 64 * KIB)
        settle(tmp_path)
        found = {(one.quantization, one.state): one.size_bytes for one in scan(tmp_path).checkpoints}
        assert found == {("Q4_K_M", COMPLETE): 128 * KIB, ("Q8_0", INCOMPLETE): 64 * KIB}

    def test_configuration_alone_is_no_model(self, tmp_path: Path) -> None:
        Repository(tmp_path, R1).add("aaaa", "tokenizer.json", content=b"t" * 8 * KIB)
        assert sizes(scan(tmp_path)) == {(R1, CheckpointState.NO_WEIGHTS): 8 * KIB}

    def test_other_models_have_no_name_and_data_sets_are_none(self, tmp_path: Path) -> None:
        other = Repository(tmp_path, "meta-llama/Llama-3.1-8B")
        other.shards("aaaa", 1)
        other.add("aaaa", "config.json", content=b'{"architectures": ["LlamaForCausalLM"]}')
        grown(tmp_path / "datasets--deepseek-ai--big" / "blobs" / "x.safetensors", 64 * KIB)
        one = only(scan(tmp_path))
        assert (one.model, one.deepseek, one.size_bytes) == ("other", False, 68 * KIB)

    def test_files_instead_of_links_count_too(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path, R1)
        repository.ref("main", "aaaa")
        grown(repository.path / "snapshots" / "aaaa" / "model.safetensors", 64 * KIB)
        assert sizes(scan(tmp_path)) == {(R1, COMPLETE): 64 * KIB}

    def test_a_link_that_leads_away_counts_nothing(self, tmp_path: Path) -> None:
        secret = grown(tmp_path / "elsewhere" / "blobs" / "secret", 64 * KIB)
        repository = Repository(tmp_path / "hub", R1)
        snapshot = repository.path / "snapshots" / "aaaa"
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").symlink_to(secret)
        assert sizes(scan(tmp_path / "hub")) == {}


class TestOllama:
    def test_models_by_their_manifests(self, tmp_path: Path) -> None:
        store = OllamaStore(tmp_path / "models")
        store.model("deepseek-r1", "7b", {"weights": 64 * KIB, "license": 4 * KIB})
        store.model("llama3", "8b", {"other weights": 32 * KIB, "license": 4 * KIB})
        found = scan(tmp_path)
        assert sizes(found) == {
            ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", COMPLETE): 68 * KIB,
            ("other", COMPLETE): 32 * KIB,
        }
        assert found.checkpoints[0].quantization == "Q4_K_M"

    def test_a_blob_that_is_not_there_makes_a_model_incomplete(self, tmp_path: Path) -> None:
        store = OllamaStore(tmp_path)
        store.model("deepseek-r1", "7b", {"weights": 64 * KIB, "more": 64 * KIB})
        next((tmp_path / "blobs").iterdir()).unlink()
        assert [one.state for one in scan(tmp_path).checkpoints] == [INCOMPLETE]

    def test_a_pull_has_no_name_yet_and_tells_its_size(self, tmp_path: Path) -> None:
        store = OllamaStore(tmp_path)
        store.fetching(1 << 40, 128 * KIB)
        one = only(scan(tmp_path))
        assert (one.model, one.state, one.size_bytes) == ("unknown", DOWNLOADING, 128 * KIB)
        assert one.remaining_bytes == (1 << 40) - 128 * KIB

    def test_blobs_of_no_manifest_are_orphaned_unless_something_is_pulled(self, tmp_path: Path) -> None:
        store = OllamaStore(tmp_path)
        store.blob("left", 64 * KIB, age_seconds=ACTIVE_SECONDS + 60)
        assert sizes(scan(tmp_path)) == {("other", ORPHANED): 64 * KIB}
        store.fetching(1 << 30, 4 * KIB)
        assert ORPHANED not in {one.state for one in scan(tmp_path).checkpoints}

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"[" * 100_000,
            b'{"layers": [1]}',
            b'{"layers": [{"digest": "sha256:../../../../etc/passwd"}]}',
            b'{"layers": [], "layers": []}',
            b'{"layers": ' + b"[{}," * 5000 + b"{}]}",
            b"\xff\xfe",
            b" " * (2 << 20),
        ],
    )
    def test_a_manifest_that_makes_no_sense_is_counted_and_makes_no_orphans(
        self, tmp_path: Path, content: bytes
    ) -> None:
        store = OllamaStore(tmp_path)
        store.model("deepseek-r1", "7b", {"weights": 64 * KIB})
        store.manifest("deepseek-r1", "70b", content)
        store.blob("of the other", 32 * KIB)
        settle(tmp_path)
        found = scan(tmp_path)
        if found.state is RootState.PARTIAL:
            assert found.unreadable == 1
            assert ORPHANED not in {one.state for one in found.checkpoints}
        assert ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", COMPLETE) in sizes(found)


class TestPlainFolders:
    def test_folders_and_files_are_named_by_themselves(self, tmp_path: Path) -> None:
        root = tmp_path / "models"
        for number in (1, 2):
            grown(root / "DeepSeek-V3.1-AWQ" / f"model-0000{number}-of-00002.safetensors", 64 * KIB)
        grown(root / "DeepSeek-R1-Q4_K_M.gguf", 32 * KIB)
        grown(root / "DeepSeek-R1-Q8_0.gguf", 16 * KIB)
        found = {(one.model, one.quantization): one.size_bytes for one in scan(root).checkpoints}
        assert found == {
            ("deepseek-ai/DeepSeek-V3.1", "awq"): 128 * KIB,
            (R1, "Q4_K_M"): 32 * KIB,
            (R1, "Q8_0"): 16 * KIB,
        }

    def test_what_no_name_tells_the_files_do(self, tmp_path: Path) -> None:
        grown(tmp_path / "prod-v2" / "model.safetensors", 64 * KIB)
        (tmp_path / "prod-v2" / "config.json").write_text('{"architectures": ["DeepseekV3ForCausalLM"]}')
        key = b"general.architecture"
        head = struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, len(key)) + key
        (tmp_path / "chat.gguf").write_bytes(head + struct.pack("<IQ", 8, 9) + b"deepseek2" + bytes(8 * KIB))
        (tmp_path / "talk.gguf").write_bytes(head + struct.pack("<IQ", 8, 5) + b"llama" + bytes(8 * KIB))
        found = {(one.model, one.deepseek) for one in scan(tmp_path).checkpoints}
        assert found == {("prod-v2", True), ("chat", True), ("other", False)}

    def test_parts_that_are_missing_make_it_incomplete(self, tmp_path: Path) -> None:
        grown(tmp_path / "DeepSeek-R1-Q4_K_M-00002-of-00009.gguf", 64 * KIB)
        settle(tmp_path)
        assert only(scan(tmp_path)).state is INCOMPLETE

    def test_shards_without_numbers_are_held_against_the_index(self, tmp_path: Path) -> None:
        grown(tmp_path / "r1" / "a.safetensors", 64 * KIB)
        (tmp_path / "r1" / "model.safetensors.index.json").write_bytes(
            index(128 * KIB, ["a.safetensors", "b.safetensors"])
        )
        one = only(scan(tmp_path))
        assert (one.state, one.remaining_bytes) == (DOWNLOADING, 64 * KIB)

    @pytest.mark.parametrize(
        "place",
        [
            "DeepSeek-V9/.cache/huggingface/download/x7Gf.ab12.incomplete",
            "DeepSeek-V9/._____temp/model-00002-of-00002.safetensors",
            "DeepSeek-V9/model-00002-of-00002.safetensors.downloadInProgress",
        ],
    )
    def test_what_is_being_fetched_belongs_to_its_folder(self, tmp_path: Path, place: str) -> None:
        grown(tmp_path / "DeepSeek-V9" / "model-00001-of-00002.safetensors", 64 * KIB)
        grown(tmp_path / place, 16 * KIB)
        one = only(scan(tmp_path))
        assert (one.model, one.state, one.size_bytes) == ("DeepSeek-V9", DOWNLOADING, 80 * KIB)
        assert one.remaining_bytes == 48 * KIB

    def test_a_file_that_was_given_its_full_size_counts_what_came(self, tmp_path: Path) -> None:
        grown(tmp_path / "DeepSeek-V9.gguf", 1 << 40, stored_bytes=64 * KIB)
        grown(tmp_path / "DeepSeek-V9.gguf.aria2", 4 * KIB)
        one = only(scan(tmp_path))
        assert one.state is DOWNLOADING
        assert one.size_bytes == 68 * KIB
        assert one.remaining_bytes == pytest.approx(1 << 40, rel=1e-6)

    def test_hard_links_take_their_room_once(self, tmp_path: Path) -> None:
        first = grown(tmp_path / "a" / "DeepSeek-R1-Q8_0.gguf", 64 * KIB)
        (tmp_path / "b").mkdir()
        os.link(first, tmp_path / "b" / "DeepSeek-R1-Q8_0.gguf")
        assert sum(sizes(scan(tmp_path)).values()) == 64 * KIB

    def test_a_folder_of_something_else_is_none(self, tmp_path: Path) -> None:
        grown(tmp_path / "photos" / "cat.jpg", 64 * KIB)
        assert scan(tmp_path).checkpoints == ()

    def test_a_kind_leaves_the_others_out(self, tmp_path: Path) -> None:
        Repository(tmp_path / "hub", R1).shards("aaaa", 1)
        OllamaStore(tmp_path / "ollama").model("deepseek-r1", "7b", {"weights": 32 * KIB})
        grown(tmp_path / "DeepSeek-V3.gguf", 16 * KIB)
        found = {kind: sum(sizes(scan(tmp_path, kind)).values()) // KIB for kind in Kind}
        assert found == {"auto": 112, "huggingface": 64, "ollama": 32, "plain": 16}


def test_room_is_what_the_disk_gave(tmp_path: Path) -> None:
    # st_blocks: of a sparse file what was written; object stores behind FUSE count none at all.
    assert stored_bytes(1 << 30, 8, partial=True) == 4096
    assert stored_bytes(1 << 30, 0, partial=True) == 0
    assert stored_bytes(1 << 30, 0, partial=False) == 1 << 30
    assert stored_bytes(100, 0, partial=False) == 0


def test_more_models_than_an_answer_holds_are_summed() -> None:
    many = [
        Checkpoint(f"m{n}", COMPLETE, 10, n % 2 == 0, remaining_bytes=1) for n in range(MOST_CHECKPOINTS + 6)
    ]
    cut = bounded(many)
    assert len(cut) == MOST_CHECKPOINTS + 2
    assert sum(one.size_bytes for one in cut) == 10 * len(many)
    assert {one.model for one in cut[MOST_CHECKPOINTS:]} == {"more"}
