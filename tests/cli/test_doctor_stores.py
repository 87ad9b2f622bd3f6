"""What `doctor` says of stores: whether they can be read, and what to do where not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from model_stores import OllamaStore, Repository

from exporter.cli import doctor_stores
from exporter.cli.checks import Check
from exporter.cli.doctor_stores import ADVICE, stores
from exporter.settings.options import Host, Settings, Storage, Store
from exporter.storage.facts import RootState
from exporter.storage.space import Probe


@pytest.fixture(autouse=True)
def no_engines(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()


def checks(tmp_path: Path, *entries: Store, storage: Storage | None = None) -> dict[str, Check]:
    settings = Settings(
        storage=storage or Storage(), stores=list(entries), host=Host(proc_path=tmp_path / "proc")
    )
    return {check.id: check for check in stores(settings)}


def test_a_store_that_can_be_read_is_fine(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "hub", "deepseek-ai/DeepSeek-R1")
    repository.shards("aaaa", 2)
    found = checks(tmp_path, Store(path=tmp_path / "hub", kind="huggingface"))
    assert {name: check.verdict for name, check in found.items()} == {
        "store.huggingface": "ok",
        "store.huggingface.files": "ok",
    }
    assert " free of " in found["store.huggingface"].found
    assert found["store.huggingface.files"].found.endswith("DeepSeek models: 1")


def test_what_is_not_there_comes_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = checks(
        tmp_path,
        Store(path=tmp_path / "nowhere", name="spare"),
        Store(path=tmp_path / "file", name="one"),
    )
    assert {name: (check.verdict, check.found) for name, check in found.items()} == {
        "store.spare": ("problem", "missing"),
        "store.one": ("problem", "not a folder"),
    }
    assert "models.conf.example" in found["store.spare"].advice


def test_a_list_that_makes_no_sense_is_noted(tmp_path: Path) -> None:
    OllamaStore(tmp_path / "o").manifest("r1", "7b", b"{")
    found = checks(tmp_path, Store(path=tmp_path / "o"))
    assert found["store.models.files"].verdict == "note"
    assert found["store.models.files"].found == "not readable: 1"


def test_a_mount_that_hangs_does_not_hang_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleeping(_: str) -> Probe:
        time.sleep(0.5)
        raise AssertionError

    monkeypatch.setattr(doctor_stores, "probe", sleeping)
    monkeypatch.setattr(doctor_stores, "ANSWER_SECONDS", 0.05)
    found = checks(tmp_path, Store(path=tmp_path, name="nfs"))
    assert (found["store.nfs"].verdict, found["store.nfs"].found) == ("problem", "stalled")


def test_every_state_has_its_advice() -> None:
    assert set(RootState) - set(ADVICE) == {RootState.UP, RootState.UNSCANNED}


def test_without_a_store_nothing_is_wrong(tmp_path: Path) -> None:
    assert [check.verdict for check in checks(tmp_path).values()] == ["note"]
    off = checks(tmp_path, Store(path=tmp_path), storage=Storage(enabled=False))
    assert [check.found for check in off.values()] == ["switched off (storage.enabled)"]
