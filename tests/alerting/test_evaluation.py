"""The daemon's own evaluation: how an alert begins, waits, fires, is held and ends, and what it tells."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from exporter.alerting.evaluation import Evaluation, Judgement, Links
from exporter.alerting.frame import Reading
from exporter.capacity.conditions import CONDITIONS, THRESHOLDS
from exporter.capacity.terms import HOLD_SECONDS
from exporter.units import GIB

NOW = 1_767_225_600.0
POLL = 5.0
DEVICE = (("gpu", "0"), ("uuid", "GPU-a0"))
OVER = "DeepSeekVramOvercommitted"


def reading(family: str, value: float, *labels: tuple[str, str]) -> Reading:
    names = tuple(name for name, _ in labels)
    return family, names, tuple(text for _, text in labels), value


def thresholds() -> list[Reading]:
    return [reading("deepseek_threshold", one.default, ("name", one.name)) for one in THRESHOLDS]


def ratio(value: float) -> list[Reading]:
    return [reading("deepseek_gpu_memory_overcommit_ratio", value, *DEVICE, ("bound", "low"))]


class Host:
    """A daemon whose snapshots a test makes up, on a clock that the test turns."""

    def __init__(self, evaluation: Evaluation | None = None) -> None:
        self.evaluation = evaluation or Evaluation(Links("gpu-01:9671", "docs/ALERTS.md"))
        self.now = 1000.0
        self.last = Judgement()

    def see(self, readings: Iterable[Reading], seconds: float = POLL) -> Judgement:
        """The same snapshot for so long; the last judgement."""
        ends = self.now + seconds
        rows = [*readings, *thresholds()]
        ended = []
        changed = False
        while self.now < ends:
            self.now += POLL
            taken_at = reading("deepseek_exporter_snapshot_timestamp_seconds", NOW + self.now)
            self.last = self.evaluation.evaluate([*rows, taken_at], self.now, NOW + self.now)
            ended += self.last.ended
            changed |= self.last.changed
        self.last = Judgement(self.last.alerts, tuple(ended), changed)
        return self.last

    def firing(self) -> set[str]:
        return {one.name for one in self.last.alerts if one.firing}

    def standing(self) -> set[str]:
        return {one.name for one in self.last.alerts}


@pytest.fixture
def host() -> Host:
    return Host()


class TestLife:
    def test_it_waits_then_fires_with_both_times(self, host: Host) -> None:
        host.see(ratio(1.2), 60)
        assert (host.standing(), host.firing()) == ({OVER}, set())
        host.see(ratio(1.2), 65)
        [alert] = host.last.alerts
        assert alert.firing
        assert alert.firing_since_seconds is not None
        assert alert.firing_since_seconds - alert.active_since_seconds == 120

    def test_one_that_was_only_pending_ends_without_a_word(self, host: Host) -> None:
        host.see(ratio(1.2), 60)
        judgement = host.see(ratio(0.9))
        assert (judgement.alerts, judgement.ended) == ((), ())

    def test_one_that_fired_is_kept_for_its_time_then_told_to_have_ended(self, host: Host) -> None:
        host.see(ratio(1.2), 130)
        host.see(ratio(0.9), 590)
        assert host.firing() == {OVER}
        judgement = host.see(ratio(0.9), 20)
        assert judgement.alerts == ()
        assert [one.name for one in judgement.ended] == [OVER]

    def test_nothing_is_worth_writing_down_while_all_stays_as_it_is(self, host: Host) -> None:
        assert host.see(ratio(1.2)).changed
        assert not host.see(ratio(1.2), 60).changed
        assert host.see(ratio(1.2), 60).changed
        assert not host.see(ratio(1.2), 60).changed

    def test_critical_comes_first_and_firing_before_pending(self, host: Host) -> None:
        foreign = [reading("deepseek_gpu_memory_foreign_bytes", 5 * GIB, *DEVICE)]
        lost = [reading("deepseek_gpu_up", 0, ("gpu", "1"), ("uuid", "GPU-a1"))]
        host.see([*foreign, reading("deepseek_gpu_memory_total_bytes", 80 * GIB, *DEVICE)], 700)
        host.see([*foreign, *ratio(1.2)], 130)
        host.see([*foreign, *ratio(1.2), *lost], 60)
        assert [(one.name, one.firing) for one in host.last.alerts] == [
            (OVER, True),
            ("DeepSeekForeignVram", True),
            ("DeepSeekGpuLost", False),
        ]


class TestMissingData:
    def test_what_fires_is_held_and_says_so(self, host: Host) -> None:
        host.see(ratio(1.2), 130)
        told = host.last.alerts[0].summary
        host.see([], 1800)
        [alert] = host.last.alerts
        assert (alert.firing, alert.held, alert.summary) == (True, True, told)

    def test_it_is_held_no_longer_than_an_hour_and_its_keeping_time(self, host: Host) -> None:
        host.see(ratio(1.2), 130)
        host.see([], HOLD_SECONDS)
        assert host.firing() == {OVER}
        judgement = host.see([], 700)
        assert [one.name for one in judgement.ended] == [OVER]

    def test_what_is_only_pending_does_not_begin_to_fire(self, host: Host) -> None:
        host.see(ratio(1.2), 60)
        host.see([], 300)
        assert host.standing() == set()

    def test_one_that_only_lingers_is_not_revived(self, host: Host) -> None:
        host.see(ratio(1.2), 130)
        host.see(ratio(0.9), 300)
        host.see([], 400)
        assert host.standing() == set()

    def test_data_that_come_back_decide(self, host: Host) -> None:
        host.see(ratio(1.2), 130)
        host.see([], 600)
        host.see(ratio(0.9), 605)
        assert host.standing() == set()

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_what_is_no_number_is_missing(self, host: Host, value: float) -> None:
        host.see(ratio(value), 300)
        assert host.standing() == set()


class TestRestart:
    def restarted(self, host: Host, away: float) -> Host:
        saved = json.loads(json.dumps(host.evaluation.standing(host.now, NOW + host.now)))
        fresh = Host()
        fresh.now = 77.0  # monotonic time begins anew with the machine
        fresh.evaluation.restore(saved, fresh.now, NOW + host.now + away)
        return fresh

    def test_the_time_that_it_waited_counts(self, host: Host) -> None:
        host.see(ratio(1.2), 100)
        again = self.restarted(host, 25)
        again.see(ratio(1.2))
        assert again.firing() == {OVER}

    def test_what_fires_goes_on_before_the_driver_has_answered(self, host: Host) -> None:
        host.see(ratio(1.2), 130)
        again = self.restarted(host, 30)
        again.see([], 60)
        assert again.firing() == {OVER}

    def test_what_ended_meanwhile_is_told_to_have_ended(self, host: Host) -> None:
        host.see(ratio(1.2), 130)
        again = self.restarted(host, 30)
        assert [one.name for one in again.see(ratio(0.9), 610).ended] == [OVER]

    def test_after_more_than_an_hour_it_is_forgotten(self, host: Host) -> None:
        host.see(ratio(1.2), 130)
        again = self.restarted(host, HOLD_SECONDS + 1)
        again.see([])
        assert again.standing() == set()

    def test_a_clock_that_was_set_back_does_not_bring_back_the_future(self, host: Host) -> None:
        host.see(ratio(1.2), 130)
        again = self.restarted(host, -10)
        again.see([])
        assert again.standing() == set()

    @pytest.mark.parametrize(
        "saved",
        [
            {},
            {"version": 9},
            {"version": 1, "saved_at": "x"},
            {"version": 1, "saved_at": NOW, "alerts": [{}]},
        ],
    )
    def test_what_is_no_such_file_is_refused(self, host: Host, saved: dict[str, object]) -> None:
        with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
            host.evaluation.restore(saved, host.now, NOW + 10)

    def test_an_alert_that_is_no_more_is_forgotten(self, host: Host) -> None:
        host.see(ratio(1.2), 130)
        saved = host.evaluation.standing(host.now, NOW + host.now)
        saved["alerts"][0]["alert"] = "DeepSeekOfAnOlderRelease"
        host.evaluation.restore(saved, host.now, NOW + host.now)
        host.see([])
        assert host.standing() == set()


class TestWords:
    def test_a_page_names_host_device_bytes_deployments_and_runbook(self, host: Host) -> None:
        rows = [
            *ratio(1.2),
            reading("deepseek_gpu_memory_committed_bytes", 167.7 * GIB, *DEVICE, ("bound", "low")),
            reading("deepseek_gpu_memory_capacity_bytes", 139.8 * GIB, *DEVICE),
        ]
        for name in ("r1", "v3-test"):
            rows.append(
                reading(
                    "deepseek_expected_gpu_memory_bytes",
                    80 * GIB,
                    ("deployment", name),
                    *DEVICE,
                    ("component", "weights"),
                )
            )
        [alert] = host.see(rows).alerts
        assert alert.summary == (
            "GPU 0 of gpu-01:9671 is overcommitted at 120.0%: 167.7 GiB committed, 139.8 GiB to give. "
            "Deployments: r1, v3-test."
        )
        assert alert.runbook_url == "docs/ALERTS.md#deepseekvramovercommitted"
        assert "First action" in alert.description

    def test_what_is_not_known_is_said_to_be(self, host: Host) -> None:
        [alert] = host.see(ratio(1.2)).alerts
        assert "not known committed, not known to give. Deployments: not known." in alert.summary

    def test_braces_in_a_name_are_a_name(self, host: Host) -> None:
        deployment = ("deployment", "{host} {0.__class__}")
        rows = [
            reading("deepseek_deployment_matches_declaration", 0, deployment, ("field", "model")),
            reading("deepseek_deployments_running", 1),
        ]
        [alert] = host.see(rows).alerts
        assert alert.summary.startswith("{host} {0.__class__} on gpu-01:9671 does not run as declared")

    def test_a_hundred_deployments_are_counted(self, host: Host) -> None:
        rows = [
            reading(
                "deepseek_expected_gpu_memory_bytes",
                GIB,
                ("deployment", f"d{number:03}"),
                *DEVICE,
                ("component", "weights"),
            )
            for number in range(100)
        ]
        [alert] = host.see([*ratio(1.2), *rows]).alerts
        assert alert.summary.endswith("d011 and 88 more.")


def test_every_condition_of_one_host_that_names_a_metric_is_judged_here() -> None:
    from exporter.alerting.evaluation import is_judged_here

    left = {one.name for one in CONDITIONS if not is_judged_here(one)}
    assert left == {
        "DeepSeekCapacityNMinusOne",
        "DeepSeekCapacityExhaustion",
        "DeepSeekExporterDown",
        "DeepSeekExporterAbsent",
        "DeepSeekWatchdog",
    }
