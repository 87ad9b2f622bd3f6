"""What an engine holds beside weights and cache."""

from __future__ import annotations

import pytest

from exporter.footprint import runtime
from exporter.footprint.result import Term, exact, sum_terms
from exporter.models.catalog import catalog
from exporter.units import GIB, MIB

V3 = catalog().resolve("DeepSeek-V3").architecture
QWEN_7B = catalog().resolve("deepseek-r1:7b").architecture


@pytest.mark.parametrize(("flash", "mib"), [(True, 438), (False, 8662)])
def test_compute_buffer_of_deepseek_v3_at_32k_cells_as_measured(flash: bool, mib: int) -> None:
    whole, growing = runtime.llamacpp_compute_bytes(V3, 512, 32_768, flash)
    assert whole / MIB == pytest.approx(mib, abs=0.5)
    assert 0 < growing < whole


def test_compute_buffer_of_a_dense_model() -> None:
    whole, growing = runtime.llamacpp_compute_bytes(QWEN_7B, 512, 4096, True)
    assert growing == 2 * 4096 * 512
    assert whole == growing + 4 * 512 * (5 * 3584 + 3 * 18_944)


def test_compute_buffer_is_linear_in_the_micro_batch() -> None:
    large, _ = runtime.llamacpp_compute_bytes(V3, 512, 8192, True)
    small, _ = runtime.llamacpp_compute_bytes(V3, 128, 8192, True)
    assert large == 4 * small


def test_heap_of_a_server_with_qwens_vocabulary_is_about_55_mib() -> None:
    assert runtime.llamacpp_rest_bytes(QWEN_7B, 4096) / MIB == pytest.approx(55, abs=7)


def test_one_rank_needs_no_communication_buffers() -> None:
    assert runtime.communication(1).high_bytes == 0
    assert 0 < runtime.communication(2).low_bytes < runtime.communication(8).high_bytes


def test_eager_execution_captures_no_graphs() -> None:
    assert runtime.cuda_graphs(enforce_eager=True).high_bytes == 0
    assert runtime.cuda_graphs(enforce_eager=False).high_bytes == 3 * GIB


def test_activations_grow_with_the_batch() -> None:
    small = runtime.activations(V3, 2048, 256, 8192, 8)
    large = runtime.activations(V3, 8192, 256, 8192, 8)
    assert large.low_bytes == 4 * small.low_bytes
    assert large.high_bytes > small.high_bytes


@pytest.mark.parametrize("ends", [(-1, 1), (2, 1)])
def test_a_term_runs_from_low_to_high(ends: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="low"):
        Term(*ends, "estimate")


def test_a_sum_is_as_certain_as_its_weakest_part() -> None:
    total = sum_terms(
        {"a": exact(3, "checkpoint"), "b": Term(1, 2, "estimate"), "c": exact(1, "architecture")}
    )
    assert (total.low_bytes, total.high_bytes, total.basis) == (5, 6, "estimate")
    assert total.expected_bytes == 5
