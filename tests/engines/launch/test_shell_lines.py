"""Lines as people type them: quotes, variables, pipelines, and what is refused."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.engines.launch import LaunchError, Role, read_command
from exporter.engines.launch.shell import LONGEST_COMMAND, simple_commands


def words(line: str, **environment: str) -> list[tuple[str, ...]]:
    return [command.words for command in simple_commands(line, environment)]


def test_a_line_is_cut_at_its_operators() -> None:
    assert words("a b && c; d | e\nf & g") == [("a", "b"), ("c",), ("d",), ("e",), ("f",), ("g",)]


def test_redirections_and_comments_are_left_out() -> None:
    assert words("a 8000 > log 2>&1 # note\n") == [("a", "8000")]
    assert words("a &> log --b <in") == [("a", "--b")]
    assert words("a b#c") == [("a", "b#c")]


def test_a_continued_line_is_one_command() -> None:
    assert words("vllm serve m \\\n  --tp 2 \\\r\n  --x") == [("vllm", "serve", "m", "--tp", "2", "--x")]


def test_variables_of_the_line_and_of_the_environment_are_put_in() -> None:
    assert words("A=2; run $A ${B} ${C:-3} $D", B="x") == [("run", "2", "x", "3", "$D")]
    assert words("A=2 run $A") == [("run", "2")]


def test_a_variable_before_a_command_is_its_own() -> None:
    first, second = simple_commands("A=1 run; run", {})
    assert (first.assignments, second.assignments) == ({"A": "1"}, {})


def test_an_exported_variable_belongs_to_the_commands_that_follow() -> None:
    *_, last = simple_commands("export A=1; run", {})
    assert last.assignments == {"A": "1"}


@pytest.mark.parametrize("line", ["vllm serve 'x", 'vllm serve "x', "vllm serve x \\"])
def test_an_open_quote_is_refused_without_repeating_it(line: str) -> None:
    with pytest.raises(LaunchError) as refused:
        read_command(line.replace("x", "canary"))
    assert "quote" in str(refused.value)
    assert "canary" not in str(refused.value)


def test_a_line_without_a_command_is_refused() -> None:
    with pytest.raises(LaunchError, match="no command"):
        read_command("   # nothing")


def test_a_line_too_long_is_refused() -> None:
    with pytest.raises(LaunchError, match="longer"):
        read_command("x" * (LONGEST_COMMAND + 1))


def test_of_several_commands_the_server_counts() -> None:
    launch = read_command("cd /srv && source venv/bin/activate && vllm serve m -tp 2 2>&1 | tee log")
    assert (launch.role, launch.model, launch.tp) == (Role.SERVER, "m", 2)


def test_a_command_substitution_is_one_word_and_no_value() -> None:
    launch = read_command("vllm serve m -tp $(nvidia-smi -L | wc -l) --port 9000")
    assert (launch.tp, launch.gpus, launch.port) == (None, None, 9000)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1))
def test_quoted_words_come_back_as_they_were(arguments: list[str]) -> None:
    line = " ".join(shlex.quote(one) for one in ["run", *arguments])
    # An unset variable stays as it stands; shlex quotes it, the shell would too.
    assert words(line) == [("run", *arguments)]


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(line: str) -> None:
    try:
        read_command(line)
    except LaunchError as error:
        assert len(str(error)) < 200
