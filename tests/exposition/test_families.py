"""The table of families keeps Prometheus's naming rules (prometheus.io/docs/practices/naming) and ours."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from exporter.exposition.document import markdown
from exporter.exposition.families import FAMILIES, SECTIONS, Family, Kind

REPOSITORY = Path(__file__).parents[2]

UNITS = {
    "bytes",
    "seconds",
    "watts",
    "joules",
    "celsius",
    "ratio",
    "tokens",
    "grams",
}
"""What a quantity is measured in; a family without one of these counts things or says yes or no."""
WITHOUT_UNIT = {
    "deepseek_gpus",
    "deepseek_gpus_expected",
    "deepseek_gpu_up",
    "deepseek_gpu_healthy",
    "deepseek_gpu_state",
    "deepseek_gpu_clocks_limited",
    "deepseek_gpu_clocks_limited_by_fault",
    "deepseek_gpu_mig_enabled",
    "deepseek_gpu_mig_slices",
    "deepseek_gpu_xid_errors_total",
    "deepseek_gpu_ecc_errors_total",
    "deepseek_host_oom_kills_total",
    "deepseek_model_store_root_state",
    "deepseek_deployment_up",
    "deepseek_deployment_state",
    "deepseek_deployment_matches_declaration",
    "deepseek_requests_running",
    "deepseek_requests_waiting",
    "deepseek_preemptions_total",
    "deepseek_kv_cache_bytes_per_token",
    "deepseek_deployment_max_sequences",
    "deepseek_deployment_full_length_sequences",
    "deepseek_deployments_running",
    "deepseek_host_network_interfaces",
    "deepseek_host_network_up",
    "deepseek_host_network_speed_bytes_per_second",
    "deepseek_expected_network_bytes_per_token",
    "deepseek_deployment_link_speed_bytes_per_second",
    "deepseek_deployment_link_ceiling_tokens_per_second",
    "deepseek_deployment_link_needed_tokens_per_second",
    "deepseek_deployment_active",
    "deepseek_threshold",
    "deepseek_alert_active",
    "deepseek_exporter_notifications_up",
    "deepseek_exporter_notifications_total",
    "deepseek_host_memory_bandwidth_bytes_per_second",
    "deepseek_deployment_memory_limit_state",
    "deepseek_confined_oom_kills_total",
    "deepseek_deployment_major_page_faults_total",
    "deepseek_expected_tokens_per_second",
    "deepseek_exporter_source_up",
    "deepseek_exporter_source_state",
    "deepseek_exporter_source_expected",
    "deepseek_exporter_source_errors_total",
    "deepseek_exporter_worker_restarts_total",
    "deepseek_exporter_workers_stuck",
    "deepseek_exporter_series",
    "deepseek_exporter_series_dropped_total",
    "deepseek_exporter_config_last_reload_successful",
    "deepseek_exporter_clock_steps_total",
}
FOREIGN_LABELS = {"instance", "job", "hostname", "host", "pid", "path", "user", "command", "le", "quantile"}
"""The scraper's own, personal data, or reserved."""

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@every_family
def test_names_are_snake_case_with_our_prefix(family: Family) -> None:
    assert re.fullmatch(r"deepseek(_[a-z][a-z0-9]*)+", family.name)


@every_family
def test_the_suffix_tells_the_type(family: Family) -> None:
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert family.name.endswith("_info") == (family.kind is Kind.INFO)
    assert not family.name.endswith(("_count", "_sum", "_bucket", "_created"))


@every_family
def test_a_quantity_ends_in_its_base_unit(family: Family) -> None:
    if family.kind is not Kind.INFO and family.name not in WITHOUT_UNIT:
        assert family.name.removesuffix("_total").rpartition("_")[2] in UNITS


@every_family
def test_labels_are_ours_and_occur_once(family: Family) -> None:
    assert len(set(family.labels)) == len(family.labels)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in family.labels)
    assert not FOREIGN_LABELS & set(family.labels)


@every_family
def test_gpu_and_uuid_stand_together(family: Family) -> None:
    assert ("gpu" in family.labels) == ("uuid" in family.labels)


@every_family
def test_help_is_a_sentence(family: Family) -> None:
    assert family.help.endswith(".")
    assert "\n" not in family.help


def test_no_name_occurs_twice_even_without_its_suffix() -> None:
    stems = [re.sub("_(total|info)$", "", family.name) for family in FAMILIES]
    assert [name for name, times in Counter(stems).items() if times > 1] == []


def test_the_document_is_not_stale() -> None:
    written = (REPOSITORY / "docs" / "METRICS.md").read_text(encoding="utf-8")
    assert written == markdown(SECTIONS), "python -m exporter.exposition.document > docs/METRICS.md"


def test_the_document_has_a_row_for_every_family() -> None:
    text = markdown({"Things": [Family("deepseek_a_bytes", Kind.GAUGE, ("b", "c"), "One | two.")]})
    assert "## Things\n\n| metric | type | labels | meaning |\n" in text
    assert "| `deepseek_a_bytes` | gauge | `b`, `c` | One \\| two. |\n" in text
