"""The verdict: what is wrong, what matters most of it, and what an alert tells already."""

from __future__ import annotations

import dataclasses

import pytest
from fixed_snapshot import EMPTY, FULL, NOW_SECONDS
from hostile_snapshot import RUNBOOKS
from made_up_hosts import in_trouble, quiet

from exporter.snapshot import Reload, Snapshot, Source, to_plain, to_public
from exporter.views.alerts import runbook_link
from exporter.views.facts import Level, View
from exporter.views.look import look


def view(snapshot: Snapshot, *, later: float = 3, poll_seconds: float = 5) -> View:
    return look(
        to_plain(snapshot),
        now_seconds=NOW_SECONDS + later,
        host_name="gpu-01",
        poll_seconds=poll_seconds,
    )


def test_it_needs_nothing_that_http_does_not_give() -> None:
    for snapshot in (FULL, EMPTY, quiet(), in_trouble()):
        public = look(to_public(snapshot), now_seconds=NOW_SECONDS + 3, host_name="gpu-01")
        assert public == view(snapshot)


def test_a_quiet_host_is_well() -> None:
    seen = view(quiet())
    assert (seen.level, seen.verdict, seen.findings) == (Level.GOOD, "All well", ())
    assert seen.headline == "4 deployments on 8 GPUs; least to spare: 11.1 GiB on GPU 0."


def test_the_worst_is_the_verdict_and_two_of_it_are_the_headline() -> None:
    seen = view(in_trouble())
    assert (seen.level, seen.verdict) == (Level.CRITICAL, "Critical")
    assert seen.headline == (
        "GPU 5 is lost: the driver no longer has it (fell off the bus). "
        "GPU 6 is overcommitted: 20.0–23.0 GiB more promised than it can give."
    )


def test_firing_alerts_come_first_and_the_worst_and_oldest_of_them() -> None:
    assert [(one.name, one.state) for one in view(in_trouble()).alerts] == [
        ("DeepSeekGpuLost", "firing"),
        ("DeepSeekVramOvercommitted", "firing"),
        ("DeepSeekKvCacheSaturated", "firing"),
        ("DeepSeekForeignVram", "pending"),
    ]


def test_a_finding_that_an_alert_tells_is_not_told_twice() -> None:
    told = {one.text for one in view(in_trouble()).findings}
    alone = {one.text for one in view(dataclasses.replace(in_trouble(), alerts=())).findings}
    assert told == {"distill-32b: must be able to run, and does not", "source engines is unreadable"}
    assert "10.0 GiB on GPU 2 held by no deployment" in alone - told
    assert len(alone - told) == 3


def test_an_alert_of_one_source_does_not_hide_another() -> None:
    sources = tuple(Source(name, "unreadable", True, None, 0.0) for name in ("nvml", "host"))
    alert = dataclasses.replace(
        in_trouble().alerts[0], name="DeepSeekMonitoringBlind", subject={"source": "nvml"}
    )
    seen = view(dataclasses.replace(quiet(), sources=sources, alerts=(alert,)))
    assert [one.text for one in seen.findings] == ["source host is unreadable"]


def test_a_pending_alert_alone_is_no_verdict() -> None:
    pending = dataclasses.replace(in_trouble().alerts[0], firing=False, firing_since_seconds=None)
    seen = view(dataclasses.replace(quiet(), alerts=(pending,)))
    assert seen.level is Level.GOOD
    assert seen.alerts[0].state == "pending"


def test_a_firing_alert_about_what_the_snapshot_does_not_show_is_the_verdict() -> None:
    alert = dataclasses.replace(in_trouble().alerts[3], summary="Something else is full.")
    seen = view(dataclasses.replace(quiet(), alerts=(alert,)))
    assert (seen.level, seen.headline) == (Level.WARNING, "Something else is full.")


def test_a_subject_is_named_as_the_device_is_elsewhere() -> None:
    subjects = {one.name: one.subject for one in view(in_trouble()).alerts}
    assert subjects["DeepSeekGpuLost"] == ("GPU 5",)
    assert subjects["DeepSeekKvCacheSaturated"] == ("deployment distill-70b",)
    stranger = dataclasses.replace(in_trouble().alerts[0], subject={"gpu": "9", "uuid": "GPU-gone"})
    (alert,) = view(dataclasses.replace(quiet(), alerts=(stranger,))).alerts
    assert alert.subject == ("gpu 9", "uuid GPU-gone")


@pytest.mark.parametrize(("later", "poll_seconds", "stale"), [(59, 5, False), (61, 5, True), (61, 30, False)])
def test_a_snapshot_is_stale_when_three_polls_should_have_followed(
    later: float, poll_seconds: float, stale: bool
) -> None:
    seen = view(quiet(), later=later, poll_seconds=poll_seconds)
    assert seen.stale is stale
    assert ("what follows is old" in seen.headline) is stale


def test_missing_devices_and_an_old_configuration_are_told() -> None:
    short = dataclasses.replace(
        quiet(), expected_gpus=9, reload=Reload(False, NOW_SECONDS, "/etc/x: key = 'secret'")
    )
    texts = [one.text for one in view(short).findings]
    assert texts == [
        "1 of 9 GPUs that should be here were never seen",
        "the configuration was not reloaded, the old one stays in force; the log says why",
    ]


@pytest.mark.parametrize("address", RUNBOOKS)
def test_no_link_leads_where_harm_is(address: str) -> None:
    assert runbook_link(address) is None


@pytest.mark.parametrize(
    "address",
    [
        "https://docs.example.org/ALERTS.md#deepseekgpulost",
        "http://wiki:8080/runbooks?q=1",
        "docs/ALERTS.md#deepseekgpulost",
        "docs/ALERTS.md",
    ],
)
def test_web_addresses_and_relative_paths_are_links(address: str) -> None:
    assert runbook_link(address) == address
