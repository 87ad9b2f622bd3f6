"""The table of options: every one has a meaning, and plain data gives the same settings again."""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from hypothesis import given
from hypothesis import strategies as st

from exporter.settings import options
from exporter.settings.options import Match, Settings, from_plain
from exporter.settings.resolve import plain


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of an annotation without its bounds."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return st.builds(kind, **{one.name: values(hints[one.name]) for one in dataclasses.fields(kind)})
    if get_origin(kind) is list:
        return st.lists(values(get_args(kind)[0]), max_size=3)
    if get_origin(kind) is dict:
        key, item = get_args(kind)
        return st.dictionaries(values(key), values(item), max_size=3)
    if get_origin(kind) in (Union, types.UnionType):
        return st.one_of([values(one) for one in get_args(kind)])
    if get_args(kind):
        return st.sampled_from(get_args(kind))  # a Literal
    plain_kinds: dict[Any, st.SearchStrategy[Any]] = {
        type(None): st.none(),
        bool: st.booleans(),
        int: st.integers(-(2**63), 2**63),
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: st.text(max_size=20),
        Path: st.text(alphabet="ab/. é", min_size=1, max_size=12).map(Path),
    }
    return plain_kinds[kind]


@given(values(Settings))
def test_settings_survive_the_way_through_json(settings: Settings) -> None:
    assert from_plain(Settings, json.loads(json.dumps(plain(settings)))) == settings


def test_every_option_says_what_it_means() -> None:
    silent = [
        f"{kind.__name__}.{one.name}"
        for kind in (*options.sections().values(), *options.TABLES.values(), Match)
        for one in dataclasses.fields(kind)
        if len(str(one.metadata.get("meaning", ""))) < 5
    ]
    assert silent == []


def test_options_outside_a_section_say_it_too() -> None:
    outside = {one.name for one in dataclasses.fields(Settings)} - options.sections().keys()
    assert outside == {"pool", "expected_gpus", *options.TABLES}
    assert all(one.metadata["meaning"] for one in dataclasses.fields(Settings) if one.name in outside)
