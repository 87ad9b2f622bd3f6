"""How each kind of parser cuts a line into flags and values."""

from __future__ import annotations

import argparse
import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.engines.launch import values
from exporter.engines.launch.flags import (
    ARGPARSE,
    CLICK,
    FLEXIBLE,
    GO,
    LLAMA_CPP,
    Arity,
    Dialect,
    Flag,
    Grammar,
    Vocabulary,
    appended,
    first_of,
    json_object,
    optional,
    read_flags,
    switch,
    toggles,
    value,
    vocabulary,
)

FLAGS = (
    value("tp", values.size, "--tensor-parallel-size", "-tp"),
    value("length", values.integer(-1), "--max-length"),
    first_of("name", values.text_of, "--served-name"),
    appended("rules", values.text_of, ",", "--rule", "-r"),
    *toggles("eager", "--eager"),
    optional("flash", values.boolean, True, "--flash"),
    json_object("config", {"method": ("method", values.word), "n": ("n", values.integer(1))}, "--config"),
)


def read(
    dialect: Dialect, *arguments: str, others: Vocabulary | None = None, env: dict[str, str] | None = None
) -> dict[str, object]:
    grammar = Grammar(
        dialect,
        FLAGS,
        positionals=(value("model", values.model, "model"),),
        others=others or Vocabulary({}, frozenset(), frozenset()),
    )
    return dict(read_flags(arguments, env or {}, grammar).values)


@pytest.mark.parametrize("spelling", ["--tensor-parallel-size", "-tp", "--tensor-p"])
@pytest.mark.parametrize("joined", [True, False])
def test_argparse_takes_every_spelling_with_space_or_equals(spelling: str, joined: bool) -> None:
    arguments = [f"{spelling}=8"] if joined else [spelling, "8"]
    assert read(ARGPARSE, *arguments) == {"tp": 8}


def test_a_repeated_flag_is_the_last_one_and_a_list_grows() -> None:
    assert read(ARGPARSE, "-tp", "2", "-tp", "4", "-r", "a,b", "--rule", "c") == {
        "tp": 4,
        "rules": ("a", "b", "c"),
    }


def test_a_negative_number_is_a_value_and_a_flag_is_not() -> None:
    assert read(ARGPARSE, "--max-length", "-1") == {"length": -1}
    assert read(ARGPARSE, "--max-length", "--eager") == {"eager": True}


def test_a_switch_takes_no_word() -> None:
    assert read(ARGPARSE, "--eager", "m") == {"eager": True, "model": "m"}
    assert read(ARGPARSE, "--eager", "--no-eager") == {"eager": False}


def test_the_first_of_several_names_counts_and_the_others_are_no_model() -> None:
    assert read(ARGPARSE, "--served-name", "a", "b", "--eager", "m") == {
        "name": "a",
        "eager": True,
        "model": "m",
    }


def test_an_optional_value_does_not_swallow_the_next_flag_or_word() -> None:
    assert read(LLAMA_CPP, "--flash", "--eager") == {"flash": True, "eager": True}
    assert read(LLAMA_CPP, "--flash", "off") == {"flash": False}
    assert read(LLAMA_CPP, "--flash", "m.gguf") == {"flash": True, "model": "m.gguf"}


def test_underscores_are_dashes_up_to_the_first_dot() -> None:
    assert read(FLEXIBLE, "--max_length=7", "--config.method", "a_b") == {"length": 7, "method": "a_b"}


def test_a_json_object_gives_its_listed_keys_only() -> None:
    assert read(ARGPARSE, "--config", '{"method": "mtp", "n": 2, "key": "canary"}') == {
        "method": "mtp",
        "n": 2,
    }


def test_llama_cpp_has_no_equals_form() -> None:
    assert read(LLAMA_CPP, "--max-length=7") == {}


def test_click_takes_what_begins_with_a_dash_as_a_value() -> None:
    assert read(CLICK, "--max_length", "-1", "--tensor_parallel_size", "4") == {"length": -1, "tp": 4}


def test_go_reads_one_dash_as_two() -> None:
    assert read(GO, "-max-length", "5", "--eager") == {"length": 5, "eager": True}


def test_an_unlisted_value_is_not_the_model() -> None:
    others = Vocabulary(
        {"--seed": Arity.VALUE, "--trace": Arity.SWITCH, "--keys": Arity.LIST}, frozenset(), frozenset()
    )
    assert read(ARGPARSE, "--seed", "1", "--trace", "m", "--keys", "a", "b", others=others) == {"model": "m"}
    assert read(ARGPARSE, "--never-heard-of", "canary", "m") == {"model": "m"}
    assert read(ARGPARSE, "--enable-something", "m") == {"model": "m"}


def test_an_ambiguous_beginning_is_what_the_oldest_release_took() -> None:
    arities = {"--tensor-trace": Arity.SWITCH}
    recent = Vocabulary(arities, frozenset({"--tensor-trace"}), frozenset())
    retired = Vocabulary(arities, frozenset(), frozenset({"--tensor-trace"}))
    assert read(ARGPARSE, "--tensor", "3", others=recent) == {"tp": 3}
    assert read(ARGPARSE, "--tensor", "3", others=retired) == {"tp": 3}


def test_a_variable_is_overridden_by_the_line() -> None:
    grammar = Grammar(ARGPARSE, (value("tp", values.size, "--tp", env=("TP",)),))
    assert read_flags((), {"TP": "2"}, grammar).values == {"tp": 2}
    assert read_flags(("--tp", "4"), {"TP": "2"}, grammar).values == {"tp": 4}


def test_a_negative_switch_by_variable() -> None:
    grammar = Grammar(ARGPARSE, (switch("offload", "--no-offload", constant=False, env=("NO_OFFLOAD",)),))
    assert read_flags((), {"NO_OFFLOAD": "1"}, grammar).values == {"offload": False}
    assert read_flags((), {"NO_OFFLOAD": "0"}, grammar).values == {"offload": True}


def test_what_cannot_be_read_is_named_by_its_flag_and_not_repeated() -> None:
    grammar = Grammar(ARGPARSE, FLAGS)
    readings = read_flags(("-tp", "canary", "--max-length", "2"), {}, grammar)
    assert readings.values == {"length": 2}
    assert readings.problems == ("-tp: not a whole number",)
    assert readings.unread == {"tp"}


def test_a_later_good_value_mends_an_earlier_bad_one() -> None:
    grammar = Grammar(ARGPARSE, FLAGS)
    readings = read_flags(("-tp", "x", "-tp", "4"), {}, grammar)
    assert (dict(readings.values), readings.problems) == ({"tp": 4}, ())


def test_a_spelling_is_listed_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        Grammar(ARGPARSE, (Flag("a", ("--a",)), Flag("b", ("--a",))))


@pytest.mark.parametrize("name", ["vllm", "sglang", "lmdeploy"])
def test_the_vocabularies_tell_words_from_switches(name: str) -> None:
    arity = vocabulary(name).arity
    assert arity["--trust-remote-code"] is Arity.SWITCH
    assert Arity.VALUE in arity.values() and Arity.LIST in arity.values()


WORDS = st.sampled_from(
    [
        *("--tensor-parallel-size", "-tp", "--tensor", "--max-length", "--eager", "--no-eager", "4", "-1"),
        *("m", "--tensor-parallel-size=2", "--max-len=9", "-tp=3", "--"),
    ]
)


@given(st.lists(WORDS, max_size=8))
def test_whatever_argparse_accepts_is_read_as_argparse_reads_it(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--tensor-parallel-size", "-tp", type=int)
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--eager", action=argparse.BooleanOptionalAction)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            expected = parser.parse_args(arguments)
    except (SystemExit, argparse.ArgumentError):
        return
    found = read(ARGPARSE, *arguments)
    degree = expected.tensor_parallel_size
    assert found.get("tp") == (degree if degree is None or degree >= 1 else None)
    assert found.get("length") == expected.max_length
    assert found.get("eager") == expected.eager
    assert found.get("model") == expected.model
