"""Stores in words: what is full, what does not fit, what is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fixed_snapshot import FULL, NOW_SECONDS, STORE

from exporter.snapshot import to_plain
from exporter.storage.facts import Checkpoint, CheckpointState, RootState, Store
from exporter.units import GIB
from exporter.views.facts import Level, StoreFacts, View
from exporter.views.look import look


def seen(*stores: Store) -> View:
    plain = to_plain(replace(FULL, stores=stores))
    return look(plain, now_seconds=NOW_SECONDS + 3, host_name="gpu-01")


def only(store: Store) -> StoreFacts:
    [one] = seen(store).stores
    return one


def test_a_store_with_room_is_well() -> None:
    one = only(STORE)
    assert (one.level, one.words) == (Level.GOOD, "581.0 GiB free after downloads")
    assert "640.0 GiB orphaned" in one.details
    assert "deepseek-ai/DeepSeek-V3.1 bf16 does not fit, 697.0 GiB too little" in one.details
    assert one.models[0] == ("deepseek-ai/DeepSeek-R1", "complete", 642 * GIB)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"download_headroom_bytes": -90 * GIB},
            "a running download does not fit: 90.0 GiB too little",
        ),
        (
            {"download_headroom_bytes": GIB // 2},
            "a running download does not fit: only 512.0 MiB left then",
        ),
        (
            {"download_headroom_bytes": None, "free_bytes": 60 * GIB},
            "only 60.0 GiB of 3.4 TiB are free",
        ),
    ],
)
def test_what_the_alert_will_tell_is_seen_at_once(change: dict[str, int | None], words: str) -> None:
    view = seen(replace(STORE, **change))  # type: ignore[arg-type]
    [one] = view.stores
    assert (one.level, one.words) == (Level.WARNING, words)
    [found] = [finding for finding in view.findings if finding.alert == "DeepSeekModelStoreFull"]
    assert (found.text, found.key) == (f"store huggingface: {words}", "huggingface")


def test_a_small_share_of_a_large_disk_is_room() -> None:
    large = replace(STORE, size_bytes=30_000 * GIB, free_bytes=1200 * GIB, download_headroom_bytes=None)
    assert only(large).level is Level.GOOD


@pytest.mark.parametrize("state", [one for one in RootState if one is not RootState.UP])
def test_what_is_not_known_is_told_as_that(state: RootState) -> None:
    root = replace(STORE.roots[0], state=state)
    one = only(Store("models", roots=(root,)))
    assert one.level in (Level.GOOD, Level.INFO)
    assert "free" not in one.words
    assert (one.size_bytes, one.used_bytes) == (None, None)


def test_names_are_made_harmless() -> None:
    evil = Checkpoint("x\x1b[2J\u202e", CheckpointState.COMPLETE, GIB, True)
    one = only(replace(STORE, name="a\nb", checkpoints=(evil,)))
    assert one.name == "a b"
    assert one.models[0][0].isprintable()
