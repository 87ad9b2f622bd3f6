"""Every query of every board, run by a real Prometheus on the made-up fleet's history."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from board_files import BOARDS, TARGETS, Target
from prometheus_history import History, running_history
from synthetic_hosts import DAY, GIB

pytestmark = pytest.mark.e2e

TABLE = "GPU memory by host and device"


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with running_history(tmp_path_factory.mktemp("history")) as server:
        yield server


def of(board: str, panel: str = "") -> list[Target]:
    found = [one for one in TARGETS if one.board == board and panel in ("", one.panel)]
    assert found, f"no panel {panel!r} on {board!r}"
    return found


def column(history: History, board: str, panel: str, heading: str, **chosen: str) -> dict[str, float]:
    """A table's column: by deployment where it is about deployments, else by host or pool."""
    shown: dict[str, Any] = next(p for p in BOARDS[board]["panels"] if p["title"] == panel)
    names = next(t for t in shown["transformations"] if t["id"] == "organize")["options"]["renameByName"]
    [ref] = [key.removeprefix("Value #") for key, name in names.items() if name == heading]
    [target] = [one for one in of(board, panel) if one.ref == ref]
    rows = history.ask(target.filled(chosen))
    return {
        row["metric"].get("deployment") or row["metric"].get("instance") or row["metric"]["pool"]: float(
            row["value"][1]
        )
        for row in rows
    }


def number(history: History, panel: str, board: str = "capacity-overview", **chosen: str) -> float | None:
    """What a panel of one number shows."""
    [target] = of(board, panel)
    found = history.ask(target.filled(chosen))
    return float(found[0]["value"][1]) if found else None


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_query_has_an_answer(history: History, target: Target) -> None:
    if target.instant:
        assert history.ask(target.filled())
    else:
        assert history.ask_range(target.filled(), target.range_seconds, target.step_seconds)


@pytest.mark.parametrize("target", of("capacity-review"), ids=str)
def test_the_review_reaches_back_90_days(history: History, target: Target) -> None:
    longer = replace(target, range_seconds=90 * DAY)
    if target.instant:
        assert history.ask(longer.filled())
    else:
        series = history.ask_range(longer.filled(), longer.range_seconds, longer.step_seconds)
        assert min(float(one["values"][0][0]) for one in series) < history.end_seconds - 88 * DAY


@pytest.mark.parametrize("name", BOARDS)
def test_every_choice_has_something_to_choose(history: History, name: str) -> None:
    for variable in BOARDS[name]["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            assert asked
            selector = re.sub(r"\$\w+", ".+", asked[1])
            assert history.values_of(asked[2], selector)


class TestCapacityOverview:
    def test_the_fullest_device_leads(self, history: History) -> None:
        assert number(history, "GPU committed") == pytest.approx(1.1232, abs=1e-4)
        assert number(history, "GPUs over") == 2
        assert number(history, "GPU headroom") == pytest.approx(-17.2 * GIB, rel=0.01)

    def test_numbers_follow_the_chosen_device(self, history: History) -> None:
        host = "gpu-01:9671"
        assert number(history, "GPUs over", instance=host, gpu="2") == 1
        assert number(history, "GPUs over", instance=host, gpu="0") == 0
        assert number(history, "GPU headroom", instance=host, gpu="0|1") == pytest.approx(
            13.8 * GIB, rel=0.01
        )

    def test_a_host_without_a_gpu_has_no_number_rather_than_zero(self, history: History) -> None:
        assert number(history, "GPUs over", instance="cpu-01:9671") is None
        assert number(history, "GPU headroom", instance="cpu-01:9671") is None
        assert number(history, "RAM headroom", instance="cpu-01:9671") == pytest.approx(80 * GIB)

    def test_a_missing_driver_where_none_is_expected_is_no_blind_spot(self, history: History) -> None:
        assert number(history, "Sources down") == 0
        assert number(history, "Hosts silent") == 0

    def test_firing_alerts_are_counted_per_choice(self, history: History) -> None:
        assert number(history, "Alerts firing") == 3
        assert number(history, "Alerts firing", instance="cpu-01:9671") == 0

    def test_a_lost_device_keeps_its_row(self, history: History) -> None:
        queries = {
            one.expr.split("(deepseek_")[-1].split("{")[0]: one for one in of("capacity-overview", TABLE)
        }
        [state] = [row for row in history.ask(queries["gpu_state"].filled()) if row["metric"]["gpu"] == "6"]
        assert state["metric"]["state"] == "lost"
        total = history.ask(queries["gpu_memory_total_bytes"].filled())
        assert not [row for row in total if row["metric"]["gpu"] == "6"]

    def test_every_device_has_one_largest_holder(self, history: History) -> None:
        [query] = [one for one in of("capacity-overview", TABLE) if one.expr.startswith("topk")]
        rows = history.ask(query.filled({"instance": "gpu-01:9671"}))
        holders = [(row["metric"]["gpu"], row["metric"]["holder"]) for row in rows]
        assert sorted(holders) == [(str(gpu), "r1") for gpu in range(8) if gpu != 6]

    def test_the_verdict_counts_the_thresholds_that_are_passed(self, history: History) -> None:
        [query] = [one for one in of("capacity-overview", TABLE) if "near_ratio" in one.expr]
        rows = history.ask(query.filled({"instance": "gpu-01:9671"}))
        verdicts = {row["metric"]["gpu"]: int(row["value"][1]) for row in rows}
        assert verdicts == {"0": 0, "1": 0, "2": 2, "3": 2, "4": 0, "5": 0, "7": 0}


class TestCapacityReview:
    def test_a_pool_survives_when_what_is_committed_fits_without_its_largest_host(
        self, history: History
    ) -> None:
        survives = column(history, "capacity-review", "Pools", "Survives")
        assert survives == {"production": 0, "research": 1}

    def test_headroom_has_its_worst_moment_and_its_usual_ones(self, history: History) -> None:
        worst = column(history, "capacity-review", "Pools", "Headroom min")["production"]
        usual = column(history, "capacity-review", "Pools", "Headroom p50")["production"]
        mostly = column(history, "capacity-review", "Pools", "Headroom p95")["production"]
        assert worst < 0 < mostly < usual

    def test_days_are_judged_only_where_the_line_fits(self, history: History) -> None:
        [days] = [
            one
            for one in of("capacity-review", "Days to exhaustion")
            if "urgency" in one.ref or one.ref == "F"
        ]
        rows = history.ask(days.filled())
        verdicts = {(row["metric"]["instance"], row["metric"]["resource"]): row["value"][1] for row in rows}
        assert verdicts[("gpu-01:9671", "kv_cache")] == "3"
        assert verdicts[("gpu-03:9671", "gpu_memory")] == "2"
        assert verdicts[("cpu-01:9671", "ram")] == "1"
        assert verdicts[("gpu-05:9671", "gpu_memory")] == "0"

    def test_decisions_are_by_room_first_then_by_what_can_be_made_smaller(self, history: History) -> None:
        decisions = column(history, "capacity-review", "Decisions", "Decision")
        assert decisions == {"gpu-01:9671": 2, "gpu-03:9671": 3, "gpu-04:9671": 1}
        missing = column(history, "capacity-review", "Decisions", "Missing")
        assert missing["gpu-01:9671"] == pytest.approx(17.2 * GIB, rel=0.01)

    def test_waste_counts_only_what_holds_memory(self, history: History) -> None:
        held = column(history, "capacity-review", "Waste", "GPU-h held")
        assert "distill-32b" not in held, "it does not run"
        assert held["v31-awq"] == 8 * 30 * 24


class TestModelFit:
    def test_a_small_deployment_fits_where_a_device_has_the_room(self, history: History) -> None:
        now = column(history, "model-fit", "Another $deployment", "Fits now", deployment="distill-14b")
        assert [host for host, fits in now.items() if fits] == ["gpu-05:9671"]
        empty = column(history, "model-fit", "Another $deployment", "Fits empty", deployment="distill-14b")
        assert set(empty.values()) == {1}

    def test_what_is_missing_is_on_the_tightest_device(self, history: History) -> None:
        missing = column(history, "model-fit", "Another $deployment", "Missing", deployment="distill-14b")
        assert missing["gpu-04:9671"] == pytest.approx(6.6 * GIB, rel=0.01)
        assert missing["gpu-05:9671"] == 0

    def test_a_deployment_over_two_nodes_takes_the_devices_of_both(self, history: History) -> None:
        taken = column(history, "model-fit", "Another $deployment", "GPUs taken", deployment="v31-awq")
        assert set(taken.values()) == {8}

    def test_without_the_devices_there_is_no_context(self, history: History) -> None:
        context = column(history, "model-fit", "Another $deployment", "Context", deployment="r1")
        assert set(context.values()) == {0}


class TestEnergyAndCost:
    def test_cost_is_energy_at_the_chosen_price(self, history: History) -> None:
        energy = number(history, "Energy", "energy-and-cost")
        cheap = number(history, "Cost", "energy-and-cost", price_per_kwh="0.10")
        assert energy is not None
        assert cheap == pytest.approx(energy * 0.10)
        assert energy == pytest.approx(24 * 7 * 7.2, rel=0.1), "about 7.2 kW"

    def test_a_million_tokens_cost_what_their_energy_costs(self, history: History) -> None:
        joules = column(history, "energy-and-cost", "Deployments", "Per token")
        cost = column(history, "energy-and-cost", "Deployments", "Cost of a million", price_per_kwh="0.2")
        assert cost == pytest.approx({name: one * 1e6 / 3.6e6 * 0.2 for name, one in joules.items()})
        all_joules = number(history, "Energy per token", "energy-and-cost")
        all_cost = number(history, "Cost of a million tokens", "energy-and-cost", price_per_kwh="0.2")
        assert all_joules is not None
        assert all_cost == pytest.approx(all_joules * 1e6 / 3.6e6 * 0.2)

    def test_the_days_of_all_hosts_are_the_whole(self, history: History) -> None:
        a_day = column(history, "energy-and-cost", "Hosts", "kWh/day")
        cost = column(history, "energy-and-cost", "Hosts", "Cost/month", price_per_kwh="0.2")
        assert sum(a_day.values()) * 7 == pytest.approx(number(history, "Energy", "energy-and-cost"))
        assert cost == pytest.approx({host: one * 30 * 0.2 for host, one in a_day.items()})

    def test_a_device_without_a_model_is_drawn_without_work(self, history: History) -> None:
        share = number(history, "Drawn without work", "energy-and-cost", instance="gpu-04:9671")
        assert share == pytest.approx(82 / (82 + 82 + 0.15 * (350 - 82)), rel=0.05), (
            "one of two devices idles"
        )

    def test_a_deployment_over_two_nodes_pays_for_both(self, history: History) -> None:
        table = "Deployments"
        both = column(history, "energy-and-cost", table, "kWh")["v31-awq"]
        one = column(history, "energy-and-cost", table, "kWh", instance="gpu-02:9671")["v31-awq"]
        assert both == pytest.approx(2 * one, rel=0.01)

    def test_what_generated_nothing_has_no_price_of_a_token(self, history: History) -> None:
        per_token = column(history, "energy-and-cost", "Deployments", "Per token")
        assert set(per_token) == {"r1", "v31-awq", "distill-14b", "distill-8b"}


class TestDeployment:
    def test_observed_memory_is_summed_over_nodes(self, history: History) -> None:
        observed = number(history, "Observed", "deployment", deployment="v31-awq")
        assert observed == pytest.approx(8 * 72 * 0.9905 * GIB, rel=1e-3)

    def test_a_cache_below_its_plan_is_told(self, history: History) -> None:
        below = column(history, "deployment", "Limits", "Below plan")
        assert [name for name, is_below in below.items() if is_below] == ["distill-14b"]
