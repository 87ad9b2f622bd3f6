"""The runbook that the daemon itself serves: every alert is a place in it, and every finding leads to one."""

from __future__ import annotations

import asyncio
import dataclasses
import re

import pytest
from fixed_snapshot import FULL, NOW_SECONDS, UUIDS
from made_up_hosts import in_trouble
from web_site import Answer, serve

from exporter.capacity.assessment import Commitment
from exporter.capacity.bounds import Bounds
from exporter.capacity.conditions import CONDITIONS
from exporter.snapshot import Reload, to_plain
from exporter.views.look import look
from exporter.web.runbook import anchor


def runbook() -> Answer:
    async def talk() -> Answer:
        async with serve() as site:
            return await site.ask("/docs/ALERTS.md")

    return asyncio.run(talk())


def places() -> set[str]:
    return set(re.findall(r'<h[12] id="([^"]+)"', runbook().body.decode()))


def test_every_condition_has_its_place() -> None:
    assert {one.runbook_anchor for one in CONDITIONS} <= places()


def test_it_is_a_page_that_may_run_nothing() -> None:
    answer = runbook()
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "script" not in answer.headers["content-security-policy"]
    assert b"First." in answer.body


def test_every_finding_that_an_alert_would_tell_leads_to_its_place() -> None:
    tight = Commitment(100, Bounds(90, 101))
    over = dataclasses.replace(
        FULL.assessment, devices={UUIDS[0]: tight}, host=Commitment(100, Bounds(101, 102))
    )
    snapshots = (
        dataclasses.replace(in_trouble(), alerts=()),
        dataclasses.replace(FULL, alerts=(), assessment=over, reload=Reload(False, NOW_SECONDS)),
    )
    links = set()
    for snapshot in snapshots:
        seen = look(to_plain(snapshot), now_seconds=NOW_SECONDS + 3, host_name="gpu-01")
        links |= {one.runbook_link for one in seen.findings if one.runbook_link is not None}
    assert len(links) == 7
    known = places()
    assert {link.partition("#")[2] for link in links} <= known
    assert {link.partition("#")[0] for link in links} == {"docs/ALERTS.md"}


@pytest.mark.parametrize(
    ("heading", "place"),
    [("DeepSeekGpuLost", "deepseekgpulost"), ("What, then? Now", "what-then-now"), (" A_b-c ", "a_b-c")],
)
def test_places_are_named_as_github_names_them(heading: str, place: str) -> None:
    assert anchor(heading) == place
