"""What "more than 90 % used" says of a host, and what the alerts say, from the assessment on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from stories import STORIES, Story

from exporter.alerting.evaluation import Evaluation, Links
from exporter.capacity.alert import Alert
from exporter.exposition.collect import samples

RUNBOOK = Path(__file__).parents[2] / "docs" / "ALERTS.md"
HALF_AN_HOUR = 1800
STEP = 15

each_story = pytest.mark.parametrize("story", STORIES, ids=lambda one: one.title)


def told(story: Story) -> list[Alert]:
    """What fires after half an hour."""
    evaluation = Evaluation(Links("host:9671", "docs/ALERTS.md"))
    alerts: tuple[Alert, ...] = ()
    for seconds in range(0, HALF_AN_HOUR + 1, STEP):
        rows = (
            (family.name, family.labels, labels, value)
            for family, labels, value in samples(story.at(seconds))
        )
        alerts = evaluation.evaluate(rows, float(seconds), story.at(0).taken_at_seconds + seconds).alerts
    return [one for one in alerts if one.firing]


def row(story: Story) -> str:
    """A story as a line of the table in docs/ALERTS.md."""
    naive = story.naive()
    devices = f"pages for {len(naive)} of {story.count}" if naive else "nothing"
    words = [
        f"{'**page** ' if severity == 'critical' else 'ticket '}{name.removeprefix('DeepSeek')}"
        for name, severity in story.expected.items()
    ]
    return f"| {story.title} | {devices} | {', '.join(words) or 'nothing'} | {story.why} |"


@each_story
def test_the_alerts_say(story: Story) -> None:
    assert {one.name: one.severity for one in told(story)} == story.expected
    assert story.pages == ("critical" in story.expected.values())


@each_story
def test_the_runbook_has_it_in_its_table(story: Story) -> None:
    assert row(story) in RUNBOOK.read_text(encoding="utf-8"), row(story)


def test_the_table_has_no_other_story() -> None:
    text = RUNBOOK.read_text(encoding="utf-8").partition("| host | used > 90 % |")[2].split("\n\n")[0]
    assert len(re.findall(r"^\| ", text, re.MULTILINE)) == len(STORIES)


def test_a_leak_of_one_rank_is_told_of_that_rank_alone() -> None:
    story = next(one for one in STORIES if "rank" in one.title)
    assert [one.subject["gpu"] for one in told(story)] == ["5"]
