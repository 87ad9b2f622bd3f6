"""`models`: every model with its size, every number with its source."""

from __future__ import annotations

import json

from click.testing import CliRunner, Result

from exporter.cli import main
from exporter.models.catalog import catalog


def models(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments])


def test_the_list_has_every_model_at_80_columns() -> None:
    lines = models("list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [model.id for model in catalog().models]
    assert max(len(line) for line in lines) <= 80


def test_the_list_as_json_has_sizes() -> None:
    listed = {one["id"]: one for one in json.loads(models("list", "--json").stdout)}
    r1 = listed["deepseek-ai/DeepSeek-R1"]
    assert (r1["parameters"], r1["quantization"]) == (671_026_419_200, "fp8")
    assert len(listed) == len(catalog().models)


def test_every_number_has_a_source_and_a_confidence() -> None:
    for model in catalog().models:
        shown = json.loads(models("show", model.id, "--json").stdout)
        assert shown["numbers"]
        for one in shown["numbers"]:
            assert one["source"] and one["confidence"] in ("high", "medium", "low")


def test_a_model_is_shown_by_any_of_its_names() -> None:
    names = ("deepseek-ai/DeepSeek-R1", "DeepSeek-R1", "deepseek-r1:671b")
    assert len({models("show", name).stdout for name in names}) == 1


def test_a_person_reads_a_model_at_80_columns() -> None:
    for model in catalog().models:
        text = models("show", model.id).stdout
        assert max(len(line) for line in text.splitlines()) <= 80
        assert "(confidence " in text


def test_a_model_that_is_not_known_ends_with_2() -> None:
    done = models("show", "no-such-model")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "is not in the catalogue" in done.stderr
