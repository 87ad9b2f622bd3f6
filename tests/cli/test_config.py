"""`config`: what is printed can be read again, and the default file documents every option."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from exporter.cli import main
from exporter.cli.config import to_toml
from exporter.settings import options
from exporter.settings.options import Alertmanager, Deployment, Match, Settings
from exporter.settings.resolve import plain


def config(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, ["config", *arguments], env=environment)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(
        'pool = "research"\n'
        "[poll]\ninterval = 1\n"
        '[capacity]\ngpu_safety_margin = "2GiB"\n'
        '[state]\ndirectory = "/srv/größe und\\tmehr"\n'
        '[[deployments]]\nname = "r1 \\"quoted\\""\nmodel = "deepseek-ai/DeepSeek-R1"\ndevices = [0, 1]\n'
        "memory_fraction = 0.85\n"
        'match = { program = "VLLM::*" }\n'
        '[[deployments]]\nname = "distill"\nmodel = "r1-distill"\nengine = "ollama"\nrequired = false\n',
        encoding="utf-8",
    )
    return path


def test_print_shows_file_environment_and_flags_in_force(file: Path) -> None:
    done = config(
        "print", f"--config.file={file}", "--poll.interval=3", DEEPSEEK_EXPORTER_WEB_MAX_CONNECTIONS="99"
    )
    assert done.exit_code == 0
    shown = tomllib.loads(done.output)
    assert shown["pool"] == "research"
    assert shown["poll"]["interval"] == 3.0
    assert shown["web"]["max_connections"] == 99
    assert shown["capacity"]["gpu_safety_margin"] == 2**31


def test_what_is_printed_is_accepted_and_means_the_same(file: Path, tmp_path: Path) -> None:
    printed = config("print", f"--config.file={file}").output
    again = tmp_path / "again.toml"
    again.write_text(printed, encoding="utf-8")
    checked = config("check", str(again))
    assert (checked.exit_code, checked.output) == (0, f"{again}: fine, deployments declared: 2\n")
    assert config("print", f"--config.file={again}").output == printed


def test_print_as_json_has_every_option(file: Path) -> None:
    shown = json.loads(config("print", "--json", f"--config.file={file}").output)
    assert shown.keys() == {one.name for one in dataclasses.fields(Settings)}
    assert shown["state"] == {"directory": "/srv/größe und\tmehr", "control_socket": None}


def toml_settings() -> st.SearchStrategy[Settings]:
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    numbers = st.floats(allow_nan=False, allow_infinity=False)
    return st.builds(
        Settings,
        pool=text,
        poll=st.builds(options.Poll, interval=numbers),
        nvml=st.builds(options.Nvml, enabled=st.booleans(), retry=numbers),
        deployments=st.lists(
            st.builds(
                Deployment,
                name=text,
                devices=st.lists(st.integers(0, 2**63 - 1), max_size=3),
                quantization=st.none() | text,
                match=st.none() | st.builds(Match, program=st.none() | text, unit=st.none() | text),
            ),
            max_size=2,
        ),
        alertmanagers=st.lists(
            st.builds(Alertmanager, url=text, labels=st.dictionaries(text, text, max_size=2)), max_size=2
        ),
    )


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


@given(toml_settings())
def test_any_settings_become_toml_that_says_the_same(settings: Settings) -> None:
    expected = without_nulls(plain(settings))
    for name in options.TABLES:
        if not expected[name]:
            del expected[name]
    assert tomllib.loads(to_toml(settings)) == expected


class TestDefault:
    def test_it_is_accepted_and_changes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_text(config("default").output, encoding="utf-8")
        assert config("check", str(path)).exit_code == 0
        assert json.loads(config("print", "--json", f"--config.file={path}").output) == plain(Settings())

    def test_it_is_accepted_with_every_line_that_has_a_value_switched_on(self, tmp_path: Path) -> None:
        lines = []
        headers = {f"[[{name}]]" for name in options.TABLES}
        for line in config("default").output.splitlines():
            bare = line.removeprefix("# ")
            is_option = " = " in bare and "…" not in bare and bare.split(" = ")[0].isidentifier()
            lines.append(bare if is_option or bare in headers else line)
        path = tmp_path / "config.toml"
        path.write_text("\n".join(lines), encoding="utf-8")
        checked = config("check", str(path))
        assert (checked.exit_code, checked.output) == (0, f"{path}: fine, deployments declared: 1\n")

    def test_it_names_every_option_with_its_meaning(self) -> None:
        lines = config("default").output.splitlines()
        tables = {"": Settings, **options.sections()}
        for table in tables.values():
            for one in dataclasses.fields(table):
                if one.name not in tables and one.name not in options.TABLES:
                    said = [
                        lines[number - 1]
                        for number, line in enumerate(lines)
                        if line.startswith(f"# {one.name} = ")
                    ]  # several sections may have an option of this name
                    assert any(line.startswith(f"# {one.metadata['meaning']}") for line in said)

    @pytest.mark.parametrize("kind", [Deployment, Match, Alertmanager])
    def test_it_names_every_key_of_an_entry(self, kind: type) -> None:
        lines = config("default").output.splitlines()
        for one in dataclasses.fields(kind):
            assert f"#   {one.name}: {one.metadata['meaning']}" in lines


class TestCheck:
    def test_a_bad_file_ends_with_2_and_a_line_for_each_problem(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_text("[poll]\nintervall = 5\n[web]\nmax_connections = 1\n", encoding="utf-8")
        done = config("check", str(path))
        assert (done.exit_code, done.stdout) == (2, "")
        assert sorted(done.stderr.splitlines()) == [
            f"error: {path}: poll.intervall: unknown key; did you mean 'interval'?",
            f"error: {path}: web.max_connections: input should be greater than or equal to 8 (got 1)",
        ]

    def test_an_address_that_serve_would_refuse_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_text('[web]\nlisten_address = "nonsense"\n', encoding="utf-8")
        done = config("check", str(path))
        assert done.exit_code == 2
        assert "expected HOST:PORT" in done.stderr

    def test_the_environment_is_applied(self, file: Path) -> None:
        assert config("check", str(file), DEEPSEEK_EXPORTER_POLL_INTERVAL="-1").exit_code == 2
