"""Expected against observed, and the state that follows from what is held and what the engine says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from capacity.builders import GIB, declared, footprint, gpu, observation
from exporter.capacity import comparison
from exporter.capacity.assessment import DeploymentStatus, assess
from exporter.capacity.attribution import Holding
from exporter.capacity.observation import Running
from exporter.engines.process import ProcessMemory
from exporter.engines.telemetry.types import Telemetry
from exporter.footprint.result import RankFootprint, Term


def judged(running: Running | None, *, held: int = 80) -> DeploymentStatus:
    """A deployment that should hold 80 GiB of weights and holds `held`."""
    one = declared("r1", footprint(1, weights=80 * GIB), devices=(0,))
    gpus = (gpu(0, used=90 * GIB, processes={10: held * GIB}),)
    seen = observation(gpus, (one,), owned={"r1": frozenset({10})})
    if running is not None:
        seen.running["r1"] = running  # type: ignore[index]
    return assess(seen, gpu_margin=0, host_margin=0).deployments[0]


@pytest.mark.parametrize(
    ("running", "held", "state"),
    [
        (None, 80, "warm"),
        (None, 10, "loading"),
        (Running("vllm", answered=True, state="warm"), 10, "warm"),
        (Running("vllm", answered=True, state="sleeping"), 80, "sleeping"),
        (Running("vllm", answered=False, state="unreachable", reason="refused"), 80, "unreachable"),
        (Running("vllm", answered=False, state="unreachable", reason="refused"), 10, "loading"),
        (
            Running("vllm", answered=False, has_answered=True, state="unreachable", reason="timeout"),
            10,
            "unreachable",
        ),
        (Running("vllm", answered=False, state="loading", reason="loading"), 80, "loading"),
        (Running("vllm", answered=False, state="unreachable", reason="key_required"), 80, "warm"),
        (Running("vllm", orphaned=True), 80, "orphaned"),
    ],
)
def test_state(running: Running | None, held: int, state: str) -> None:
    assert judged(running, held=held).state == state


def test_deviation_is_observed_minus_expected_on_each_device() -> None:
    deviation = judged(None, held=60).deviation["GPU-0"]
    assert deviation.size_bytes == -20 * GIB
    assert deviation.ratio == pytest.approx(-0.25)


def test_a_deployment_that_does_not_run_deviates_from_nothing() -> None:
    one = declared("r1", footprint(1, weights=80 * GIB), devices=(0,))
    (status,) = assess(observation((gpu(0),), (one,)), gpu_margin=0, host_margin=0).deployments
    assert status.deviation == {}
    assert status.kv is None


def test_mapped_weights_in_ram_are_a_share_of_what_is_mapped() -> None:
    one = declared("r1", footprint(0, weights=0, ram=4 * GIB, ram_mapped=4 * GIB))
    memory = ProcessMemory(anonymous=0, file=3 * GIB, shared=0, hugepages=0)
    assert comparison.resident_ratio(one, memory) == 0.75
    assert comparison.resident_ratio(declared("r2", footprint(1, weights=GIB)), memory) is None


def test_the_engines_own_capacity_goes_before_the_plan() -> None:
    one = declared("r1", footprint(1, weights=GIB), devices=(0,))
    assert comparison.kv_use(one, Telemetry(kv_capacity_tokens=1000, kv_usage_ratio=0.25)).used_tokens == 250
    assert comparison.kv_use(one, Telemetry(kv_capacity_tokens=1000, kv_used_tokens=100)).usage_ratio == 0.1
    assert comparison.kv_use(one, None) == comparison.KvUse(None, None, None)


def test_the_plan_is_held_against_what_the_engine_prints() -> None:
    one = declared("r1", footprint(2, weights=80 * GIB), devices=(0, 1))
    errors = comparison.plan_errors(one, Telemetry(weights_bytes=100 * GIB))
    assert errors == {"weights": pytest.approx(-0.2)}
    assert comparison.plan_errors(one, Telemetry()) == {}


def test_what_no_request_uses_of_a_pool_could_be_had_back_but_never_more_than_is_held() -> None:
    need = footprint(1, weights=GIB, estimate=(0, 0))
    pool = need.devices[0].components["weights"]
    rank = RankFootprint(0, 0, 0, {"weights": pool, "kv_cache": pool}, pool)
    one = declared("r1", replace(need, devices=(rank,)), devices=(0,))
    running = Running("vllm", telemetry=Telemetry(kv_usage_ratio=0.25))
    held = {"GPU-0": (Holding("r1", "deployment", 2 * GIB),)}
    assert comparison.reclaimable(one, running, held) == {"GPU-0": 3 * GIB // 4}
    little = {"GPU-0": (Holding("r1", "deployment", 5),)}
    assert comparison.reclaimable(one, running, little) == {"GPU-0": 5}
    assert comparison.reclaimable(one, None, held) == {}


class TestWhatIsNotKnown:
    """A figure that the driver does not give is no deviation: it would be an alert about nothing."""

    def deviation_of(
        self, processes: dict[int, int | None] | None, *, used: int = 82 * GIB
    ) -> dict[str, comparison.Deviation]:
        one = declared("r1", footprint(1, weights=80 * GIB), devices=(0,))
        seen = observation((gpu(0, used=used, processes=processes),), (one,), owned={"r1": frozenset({10})})
        return dict(assess(seen, gpu_margin=0, host_margin=0).deployments[0].deviation)

    def test_a_process_list_that_cannot_be_read(self) -> None:
        assert self.deviation_of(None) == {}

    def test_a_process_whose_memory_the_driver_does_not_tell(self) -> None:
        assert self.deviation_of({10: None}) == {}

    def test_memory_that_is_there_under_a_process_nobody_knows(self) -> None:
        # In a pid namespace of its own the driver's pid is not the one that we see.
        assert self.deviation_of({4711: 82 * GIB}) == {}

    def test_a_stranger_too_small_to_be_the_deployment(self) -> None:
        found = self.deviation_of({4711: 10 * GIB, 10: 0}, used=10 * GIB)
        assert found["GPU-0"].size_bytes == -80 * GIB


class TestPlan:
    """Tokens that were promised against those that fit; the engine is given the benefit of the doubt."""

    @staticmethod
    def shortfall(planned: int | None, *, told: int | None = None, from_blocks: bool = False) -> int | None:
        need = footprint(1, weights=40 * GIB)
        pool = Term(20 * GIB, 25 * GIB, "estimate")
        rank = replace(need.devices[0], components={**need.devices[0].components, "kv_cache": pool})
        figures = replace(need.kv_cache, capacity_tokens=100_000)
        need = replace(need, devices=(rank,), kv_cache=figures)
        one = replace(declared("r1", need, devices=(0,)), planned_tokens=planned)
        said = None
        if told is not None:
            said = Telemetry(kv_capacity_tokens=told, kv_capacity_from_blocks=from_blocks)
        return comparison.plan_shortfall(one, said)

    def test_without_a_plan_there_is_none(self) -> None:
        assert self.shortfall(None, told=10) is None

    def test_the_engines_word_decides(self) -> None:
        assert self.shortfall(120_000, told=90_000) == 30_000
        assert self.shortfall(80_000, told=90_000) == -10_000

    def test_an_estimate_counts_at_its_optimistic_end(self) -> None:
        # 100,000 tokens at the low end of the pool, a quarter more at the high end.
        assert self.shortfall(125_000) == 0
        assert self.shortfall(125_001) == 1

    def test_a_word_that_is_only_a_number_of_blocks_is_no_word(self) -> None:
        assert self.shortfall(120_000, told=90_000, from_blocks=True) == -5_000


def test_of_weights_that_are_mapped_as_they_are_read_those_count_that_ever_were() -> None:
    """llama.cpp --numa: half of the experts were never chosen; later a backup takes a third of what was."""
    need = footprint(0, weights=0, ram=100 * GIB, ram_mapped=90 * GIB)
    lazy = declared("r1", replace(need, host=replace(need.host, mapped_lazily=True)))
    whole = declared("r1", need)
    young = ProcessMemory(5 * GIB, 45 * GIB, 0, 0, peak=50 * GIB)
    assert comparison.resident_ratio(lazy, young) == 1.0
    assert comparison.resident_ratio(whole, young) == 0.5
    assert comparison.resident_ratio(lazy, replace(young, file=30 * GIB)) == pytest.approx(30 / 45)
    assert comparison.resident_ratio(lazy, ProcessMemory(0, 0, 0, 0)) is None
