"""Compares the `deployment` of an answer with what a recorded line is expected to say.

`expect` holds what the line states (null: must be absent; a list: any of these), `expect_derived` what
follows from it, `expect_not` wrong readings that are easy to make.
"""

from __future__ import annotations

from typing import Any

_MISSING = object()


def misses(case: dict[str, Any], deployment: dict[str, Any]) -> list[str]:
    """Fields of a case that the deployment gets wrong, with what was expected and found."""
    wrong = []
    for part in ("expect", "expect_derived"):
        for field, wanted in case.get(part, {}).items():
            found = deployment.get(field)
            options = wanted if isinstance(wanted, list) else [wanted]
            if not any(agrees(field, option, found) for option in options):
                wrong.append(f"{field}: {wanted!r} expected, {found!r} found")
    for field, refused in case.get("expect_not", {}).items():
        if deployment.get(field) in refused:
            wrong.append(f"{field}: {deployment[field]!r} is a wrong reading")
    return wrong


def agrees(field: str, wanted: Any, found: Any) -> bool:
    if field == "ep" and found is True:
        return True
    if wanted is None or found is None:
        return wanted is found
    if field == "kv_cache_dtype" and isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            _same(wanted.get(side, "f16"), found.get(side, "f16")) for side in ("k", "v")
        )
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            _part(value, found.get(key, _MISSING)) for key, value in wanted.items()
        )
    if field == "model" and isinstance(found, str):
        return _same(str(wanted).rstrip("/"), found.rstrip("/"))
    return _same(wanted, found)


def _part(wanted: Any, found: Any) -> bool:
    """A list of patterns may be given by its length."""
    if isinstance(found, list) and isinstance(wanted, int):
        return len(found) == wanted
    return _same(wanted, found)


def _same(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, str) and isinstance(found, str):
        return wanted.lower() == found.lower()
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    return bool(wanted == found)
