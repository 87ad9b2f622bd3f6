"""docs/API.md says what /api/v1/snapshot gives: every key, no other, and nothing that is the owner's."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fixed_snapshot import FULL, RUNNING
from made_up_hosts import in_trouble

from exporter.snapshot import Reload, to_plain, to_public

DOCUMENT = Path(__file__).parents[2] / "docs" / "API.md"


def documented() -> dict[str, set[str]]:
    """Path of every documented object → its keys; "" is the whole."""
    found: dict[str, set[str]] = {}
    for section in DOCUMENT.read_text().split("\n### ")[1:]:
        title, _, body = section.partition("\n")
        rows = [line.split("|")[1] for line in body.splitlines() if line.startswith("| `")]
        found[title.strip("`").replace("The whole", "")] = {
            key for row in rows for key in re.findall(r"`([^`]+)`", row)
        }
    return found


def at(plain: Any, path: str) -> Any:
    """The object at a path such as `gpus[].identity`; of a list, its first."""
    for step in path.split(".") if path else ():
        plain = plain[step.removesuffix("[]")]
        if step.endswith("[]"):
            plain = plain[0]
    return plain


def with_an_alert() -> dict[str, Any]:
    return to_public(dataclasses.replace(FULL, alerts=in_trouble().alerts))


@pytest.mark.parametrize("path", documented())
def test_every_key_is_documented_and_every_documented_key_is_there(path: str) -> None:
    assert documented()[path] == set(at(with_an_alert(), path))


def test_the_whole_is_documented() -> None:
    assert {"", "gpus[]", "host", "assessment", "alerts[]", "sources[]", "reload"} <= documented().keys()


def test_what_is_the_owners_alone_is_not_given() -> None:
    secret = "/srv/private/token-4711"
    deployment = FULL.assessment.deployments[0]
    guarded = dataclasses.replace(
        FULL,
        reload=Reload(False, 0.0, f"{secret}: unknown key"),
        assessment=dataclasses.replace(
            FULL.assessment,
            deployments=(
                dataclasses.replace(
                    deployment,
                    declared=dataclasses.replace(deployment.declared, programs=(secret,), unit=secret),
                    running_as=dataclasses.replace(RUNNING, unit=secret),
                ),
            ),
        ),
    )
    assert json.dumps(to_plain(guarded)).count(secret) == 4
    text = json.dumps(to_public(guarded))
    assert secret not in text
    assert not re.search(r"\b4242\b", text)  # the pid of the deployment
    assert re.search(r"\b4242\b", json.dumps(to_plain(guarded)))
