"""`rules`: the files of this version, printed and installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from click.testing import CliRunner, Result

from exporter.cli import main
from exporter.cli.rules import shipped


def rules(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["rules", *arguments])


def test_the_list_has_the_rules_and_the_boards() -> None:
    names = rules("list").output.splitlines()
    assert "rules/deepseek.rules.yml" in names
    assert any(name.startswith("dashboards/") and name.endswith(".json") for name in names)


def test_print_gives_the_prometheus_rules() -> None:
    printed = rules("print").output
    assert printed == Path(shipped()["rules/deepseek.rules.yml"]).read_text(encoding="utf-8")
    assert yaml.safe_load(printed)["groups"]


def test_the_wheel_carries_what_a_checkout_has(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=60)
    [wheel] = tmp_path.glob("*.whl")
    carried = {
        name.removeprefix("exporter/_files/") for name in ZipFile(wheel).namelist() if "/_files/" in name
    }
    # The runbook is no file to install: the daemon serves it itself.
    assert carried - set(shipped()) == {"docs/ALERTS.md"}
    assert carried >= set(shipped())


@pytest.mark.parametrize("name", ["rules/none.yml", "../pyproject.toml", "/etc/passwd"])
def test_only_shipped_files_are_printed(name: str) -> None:
    done = rules("print", name)
    assert (done.exit_code, done.stdout) == (2, "")


class TestInstall:
    def test_every_file_is_copied_below_the_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "new" / "place"
        assert rules("install", str(folder)).exit_code == 0
        copied = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
        assert copied == {name: path.read_bytes() for name, path in shipped().items()}

    def test_a_second_time_changes_nothing(self, tmp_path: Path) -> None:
        rules("install", str(tmp_path))
        assert rules("install", str(tmp_path)).exit_code == 0

    def test_a_file_that_somebody_changed_is_kept_unless_forced(self, tmp_path: Path) -> None:
        changed = tmp_path / "rules" / "deepseek.rules.yml"
        changed.parent.mkdir()
        changed.write_text("mine", encoding="utf-8")
        done = rules("install", str(tmp_path))
        assert done.exit_code == 2
        assert "would overwrite rules/deepseek.rules.yml" in done.stderr
        assert [path for path in tmp_path.rglob("*.*") if path.is_file()] == [changed]
        assert changed.read_text(encoding="utf-8") == "mine"
        assert rules("install", "--force", str(tmp_path)).exit_code == 0
        assert changed.read_bytes() == shipped()["rules/deepseek.rules.yml"].read_bytes()

    def test_a_folder_that_cannot_be_made_says_why(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("", encoding="utf-8")
        done = rules("install", str(tmp_path / "file" / "below"))
        assert done.exit_code == 2
        assert "Not a directory" in done.stderr
