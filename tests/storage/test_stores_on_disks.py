"""Roots as stores: what shares a disk, what stores are called, and what their parts add up to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from model_stores import KIB, Repository, grown

from exporter.storage.facts import (
    Checkpoint,
    CheckpointState,
    Kind,
    RootState,
    Scan,
    Space,
    Store,
)
from exporter.storage.space import NoSpace, place_of, probe, root_of, short_name
from exporter.storage.stores import MORE, MOST_SHOWN, Root, Wanted, stores, unique

COMPLETE, DOWNLOADING = CheckpointState.COMPLETE, CheckpointState.DOWNLOADING
GB = 10**9
R1 = Checkpoint("deepseek-ai/DeepSeek-R1", COMPLETE, 689 * GB, True)
LLAMA = Checkpoint("other", COMPLETE, 16 * GB)
V3 = Checkpoint("deepseek-ai/DeepSeek-V3.2", DOWNLOADING, 100 * GB, True, None, 690 * GB, 590 * GB)


def root(
    name: str = "models",
    *found: Checkpoint,
    device: int = 1,
    free: int | None = 1000 * GB,
    state: RootState = RootState.UP,
    at: float = 1.0,
) -> Root:
    size = 4000 * GB
    space = None if free is None else Space(device, size, free)
    scan = Scan(state, at, tuple(found), free_bytes=free) if state is RootState.UP else None
    return Root(name, Kind.AUTO, "configured", state, (), (device, size), space, scan)


def only(*roots: Root, wanted: Wanted | None = None) -> Store:
    [one] = stores(roots, wanted)
    return one


def test_roots_on_one_disk_are_one_store_by_the_name_of_the_first() -> None:
    one = only(root("hub", R1), root("gguf", LLAMA))
    assert (one.name, one.size_bytes, one.free_bytes) == ("hub", 4000 * GB, 1000 * GB)
    assert (one.used_bytes, one.other_models_bytes) == (689 * GB, 16 * GB)
    assert [status.name for status in one.roots] == ["hub", "gguf"]


def test_roots_on_two_disks_are_two() -> None:
    assert [one.name for one in stores([root("a"), root("b", device=2)])] == ["a", "b"]


def test_quotas_make_two_stores_of_one_disk() -> None:
    other = replace(root("b"), device=(1, 100 * GB), space=Space(1, 100 * GB, GB))
    assert len(stores([root("a"), other])) == 2


def test_a_root_that_never_answered_is_a_store_of_its_own() -> None:
    lost = Root("nfs", Kind.AUTO, "configured", RootState.STALLED)
    one = stores([root("a", R1), lost])[1]
    assert (one.size_bytes, one.free_bytes, one.used_bytes, one.occupied_bytes) == (None,) * 4


@pytest.mark.parametrize("state", [one for one in RootState if one is not RootState.UP])
def test_a_sum_with_a_part_missing_is_no_sum(state: RootState) -> None:
    one = only(root("a", R1, V3), root("b", state=state))
    assert one.free_bytes is not None
    assert (one.used_bytes, one.orphaned_bytes, one.incomplete_bytes) == (None, None, None)
    assert (one.download_remaining_bytes, one.download_headroom_bytes) == (None, None)
    assert len(one.checkpoints) == 2  # what is known of each is told


class TestDownloads:
    def test_headroom_is_what_was_free_at_the_scan_less_what_is_still_to_come(self) -> None:
        scanned = replace(root("a", V3), space=Space(1, 4000 * GB, 700 * GB))
        one = only(scanned)
        assert (one.download_remaining_bytes, one.download_headroom_bytes) == (590 * GB, 410 * GB)

    def test_two_roots_of_a_disk_share_it(self) -> None:
        one = only(root("a", V3, free=1000 * GB), root("b", V3, free=900 * GB, at=2.0))
        assert one.download_headroom_bytes == (900 - 2 * 590) * GB

    def test_without_one_there_is_none(self) -> None:
        one = only(root("a", R1))
        assert (one.download_remaining_bytes, one.download_headroom_bytes) == (None, None)

    def test_one_that_does_not_tell_its_size_leaves_only_what_is_certain(self) -> None:
        silent = Checkpoint("unknown", DOWNLOADING, GB)
        fits, full = only(root("a", V3, silent)), only(root("a", V3, silent, free=500 * GB))
        assert (fits.download_remaining_bytes, fits.download_headroom_bytes) == (None, None)
        assert (full.download_remaining_bytes, full.download_headroom_bytes) == (None, -90 * GB)

    def test_beside_a_part_that_cannot_be_read_too_much_is_still_too_much(self) -> None:
        one = only(root("a", V3, free=500 * GB), root("b", state=RootState.STALLED))
        assert (one.download_remaining_bytes, one.download_headroom_bytes) == (None, -90 * GB)


class TestNextModel:
    WANTED = Wanted("deepseek-ai/DeepSeek-V3.2", "fp8", True, 690 * GB)

    def room(self, *found: Checkpoint) -> tuple[int, int]:
        """Bytes that it needs, and that are left then."""
        one = only(root("a", *found), wanted=self.WANTED).next_model
        assert one is not None
        return one.needed_bytes, one.headroom_bytes

    def test_room_is_what_is_free_less_its_size(self) -> None:
        assert self.room(R1) == (690 * GB, 310 * GB)

    def test_it_needs_nothing_when_it_is_there(self) -> None:
        assert self.room(replace(V3, state=COMPLETE, remaining_bytes=None)) == (0, 1000 * GB)

    def test_what_is_being_fetched_counts_once(self) -> None:
        assert self.room(V3) == (0, 410 * GB)

    def test_another_quantization_of_it_is_another_model(self) -> None:
        awq = replace(V3, state=COMPLETE, quantization="awq", remaining_bytes=None)
        assert self.room(awq) == (690 * GB, 310 * GB)

    def test_of_a_disk_that_is_not_known_nothing_is_told(self) -> None:
        assert only(root("a", free=None), wanted=self.WANTED).next_model is None


def test_the_smallest_beyond_a_number_are_one_row() -> None:
    many = [Checkpoint(f"m{n}", COMPLETE, GB + n, True) for n in range(MOST_SHOWN + 9)]
    one = only(root("a", *many))
    assert len(one.checkpoints) == MOST_SHOWN + 1
    assert one.checkpoints[-1].model == MORE
    assert sum(found.size_bytes for found in one.checkpoints) == one.used_bytes


def test_the_same_model_twice_is_one_row() -> None:
    [row] = only(root("a", V3, V3)).checkpoints
    assert (row.size_bytes, row.remaining_bytes) == (200 * GB, 2 * 590 * GB)


def test_names_are_made_to_differ() -> None:
    given = unique(["models", "ollama", "models", "models-2", "models"])
    assert given == ["models", "ollama", "models-2", "models-2-2", "models-3"]


class TestPlaces:
    @pytest.mark.parametrize(
        ("real", "is_folder", "root", "kind"),
        [
            ("/c/hub/models--a--b/snapshots/1", True, "/c/hub", Kind.HUGGINGFACE),
            ("/c/hub/models--a--b/blobs/feed", False, "/c/hub", Kind.HUGGINGFACE),
            ("/u/.ollama/models/blobs/sha256-00", False, "/u/.ollama/models", Kind.OLLAMA),
            ("/models/r1", True, "/models/r1", Kind.AUTO),
            ("/models/r1.gguf", False, "/models", Kind.AUTO),
            ("/r1.gguf", False, "/", Kind.AUTO),
        ],
    )
    def test_a_path_tells_its_root(self, real: str, is_folder: bool, root: str, kind: Kind) -> None:
        assert root_of(real, is_folder=is_folder)[:2] == (root, kind)

    def test_links_lead_to_the_cache(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path / "hub", "deepseek-ai/DeepSeek-R1")
        repository.add("aaaa", "r1.gguf", content=b"x" * KIB)
        (tmp_path / "current").symlink_to(repository.path / "snapshots" / "aaaa" / "r1.gguf")
        place = place_of(str(tmp_path / "current"))
        assert place is not None
        assert (place.root, place.kind, place.name) == (
            str(tmp_path / "hub"),
            Kind.HUGGINGFACE,
            "huggingface",
        )

    def test_folders_beside_a_model_belong_to_its_store(self, tmp_path: Path) -> None:
        grown(tmp_path / "store" / "r1" / "model.safetensors", KIB)
        place = place_of(str(tmp_path / "store" / "r1"))
        assert place is not None
        assert place.root == str(tmp_path / "store")

    def test_a_folder_of_everything_is_no_store(self) -> None:
        place = place_of("/usr/share")
        assert place is not None
        assert place.root == "/usr/share"

    @pytest.mark.parametrize("path", ["/nowhere/at/all", "/\0", "relative"])
    def test_what_is_not_there_has_no_place(self, path: str) -> None:
        assert place_of(path) is None

    def test_a_name_is_no_part_of_a_path(self) -> None:
        paths = ("/home/alice/.cache/huggingface/hub", "/usr/share/ollama/.ollama", "/srv/alice")
        assert {short_name(path, Kind.AUTO) for path in paths} == {"huggingface", "ollama", "models"}


class TestSpace:
    def test_a_disk_has_a_size_and_something_free(self, tmp_path: Path) -> None:
        found = probe(str(tmp_path))
        assert 0 < found.space.free_bytes < found.space.size_bytes
        assert found.identity == (tmp_path.stat().st_dev, tmp_path.stat().st_ino)

    @pytest.mark.parametrize(
        ("name", "state"),
        [("nowhere", RootState.MISSING), ("file", RootState.NOT_A_FOLDER), ("\0", RootState.FAILED)],
    )
    def test_what_is_no_disk_says_why(self, tmp_path: Path, name: str, state: RootState) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(NoSpace) as raised:
            probe(str(tmp_path / name))
        assert raised.value.state is state

    def test_a_file_system_without_a_size_is_none(self) -> None:
        with pytest.raises(NoSpace):
            probe("/proc")
