"""What is said about `[[foreign_exporters]]` entries that cannot be used, before anybody is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.settings.errors import ConfigurationError
from exporter.settings.foreign import is_of_this_host, place_of, problems
from exporter.settings.options import (
    ForeignExporter,
    ForeignLabels,
    ForeignMetric,
    ForeignMetrics,
    Settings,
    from_plain,
)
from exporter.settings.reader import read
from exporter.settings.resolve import plain

Write = Callable[[str], Path]

URL = 'url = "http://127.0.0.1:8082/metrics"'
CUSTOM = f"""\
[[foreign_exporters]]
kind = "custom"
name = "metax"
vendor = "metax"
driver_share = "512MiB"
{URL}
[foreign_exporters.labels]
index = "deviceId"
process = "pid"
[foreign_exporters.metrics]
memory_total_bytes = {{ name = "mx_memory_total", scale = 1024, where = {{ type = "vram" }} }}
memory_used_bytes = {{ name = "mx_memory_used", scale = 1024 }}
"""


def problem(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(path, {})
    return str(caught.value)


def test_a_known_kind_needs_its_url_only(write: Write) -> None:
    (entry,) = read(write(f'[[foreign_exporters]]\nkind = "ascend"\n{URL}\n'), {}).foreign_exporters
    assert (entry.kind, entry.source, entry.timeout, entry.max_age) == ("ascend", "ascend", 2.0, 60.0)


def test_a_mapping_of_the_operator_s_own_survives_the_way_into_the_daemon(write: Write) -> None:
    settings = read(write(CUSTOM), {})
    (entry,) = settings.foreign_exporters
    assert entry.driver_share == 512 * 2**20
    assert entry.metrics is not None and entry.metrics.memory_total_bytes is not None
    assert entry.metrics.memory_total_bytes.where == {"type": "vram"}
    assert from_plain(Settings, plain(settings)) == settings


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "url is missing"),
        ("127.0.0.1:8082", "url should be http://ADDRESS:PORT/metrics"),
        ("ftp://127.0.0.1/metrics", "url should be http://ADDRESS:PORT/metrics"),
        ("http://127.0.0.1:x/metrics", "url is no URL"),
        ("http://me:hunter2@127.0.0.1/", "use bearer_token_file"),
        ("http://127.0.0.1:0/metrics", "name the port"),
        ("http://127.0.0.1:1/a b", "percent-encode"),
        ("http://127.0.0.1:1/#a", "without #"),
        ("http://npu-01:8082/metrics", "an exporter of another host is not asked"),
        ("http://192.0.2.7:8082/metrics", "no address of this host"),
        ("http://169.254.169.254/latest", "no address of this host"),
        ("http://[fe80::1]:8082/metrics", "no address of this host"),
        ("http://0.0.0.0:8082/metrics", "no address of this host"),
        ("http://[::]:8082/metrics", "no address of this host"),
        ("http://224.0.0.1:8082/metrics", "no address of this host"),
        ("http://[::ffff:192.0.2.7]:8082/metrics", "no address of this host"),
    ],
)
def test_an_address_that_is_not_asked_is_refused_and_no_secret_repeated(url: str, said: str) -> None:
    [(place, found)] = problems([ForeignExporter(kind="ascend", url=url)])
    assert place == 0
    assert said in found and "hunter2" not in found


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "kind is missing: one of ascend, gaudi, xpumd, cambricon, custom"),
        ({"kind": "ascend", "ca_file": Path("/ca.pem")}, "belong to an https:// url"),
        ({"kind": "ascend", "name": "N P U"}, "name should begin with a small letter"),
        ({"kind": "ascend", "name": "nvml"}, "'nvml' is a source of the daemon's own"),
        ({"kind": "ascend", "vendor": "huawei"}, 'vendor belong to kind = "custom"'),
        ({"kind": "custom"}, "vendor is missing"),
        ({"kind": "custom", "vendor": "nvidia"}, "are read by the daemon itself"),
        ({"kind": "custom", "product": "a\nb"}, "control characters"),
        ({"kind": "custom"}, "labels should name what tells devices apart"),
        ({"kind": "custom"}, "metrics.memory_total_bytes is missing"),
        ({"kind": "custom"}, "needs memory_used_bytes or memory_free_bytes"),
        ({"kind": "custom", "labels": ForeignLabels(index="a-b")}, "is no name of a label"),
        (
            {"kind": "custom", "metrics": ForeignMetrics(process_bytes=ForeignMetric(name="p"))},
            "needs labels.process",
        ),
        (
            {"kind": "custom", "metrics": ForeignMetrics(healthy=ForeignMetric(name="a b"))},
            "is no name of a series",
        ),
    ],
)
def test_what_cannot_work_is_refused(entry: dict[str, object], said: str) -> None:
    made = ForeignExporter(url="http://127.0.0.1:8082/metrics", **entry)  # type: ignore[arg-type]
    assert any(said in found for _, found in problems([made]))


def test_every_problem_names_its_entry(write: Write) -> None:
    found = problem(write('[[foreign_exporters]]\nkind = "ascend"\nurl = "http://npu-01:8082/metrics"\n'))
    assert "foreign_exporters.0: url should name this host" in found


def test_an_unknown_kind_names_those_that_are_known(write: Write) -> None:
    found = problem(write(f'[[foreign_exporters]]\nkind = "ascent"\n{URL}\n'))
    assert "input should be 'ascend', 'gaudi', 'xpumd', 'cambricon' or 'custom'" in found


def test_names_must_differ(write: Write) -> None:
    entry = f'[[foreign_exporters]]\nkind = "gaudi"\n{URL}\n'
    assert "name 'gaudi' is used twice" in problem(write(entry + entry))
    assert len(read(write(entry + entry + 'name = "second"\n'), {}).foreign_exporters) == 2


@pytest.mark.parametrize(
    ("written", "near"),
    [
        (CUSTOM.replace("vendor", "vender"), "vendor"),
        (CUSTOM.replace("deviceId", "x").replace("index =", "indices ="), "index"),
        (CUSTOM.replace("memory_used_bytes", "memory_use_bytes"), "memory_used_bytes"),
        (CUSTOM.replace("scale", "scales"), "scale"),
    ],
)
def test_an_unknown_key_names_the_nearest_wherever_it_stands(written: str, near: str, write: Write) -> None:
    assert f"did you mean '{near}'" in problem(write(written))


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://127.0.0.1:8082/metrics", (False, "127.0.0.1", 8082, "/metrics")),
        ("http://localhost:41611", (False, "127.0.0.1", 41611, "/metrics")),
        ("https://[::1]/a?b=c", (True, "::1", 443, "/a?b=c")),
        ("http://[::ffff:127.0.0.1]:1/", (False, "127.0.0.1", 1, "/")),
    ],
)
def test_where_a_url_leads(url: str, place: tuple[bool, str, int, str]) -> None:
    assert place_of(url) == place


def test_addresses_of_this_host() -> None:
    assert is_of_this_host("127.0.0.1") and is_of_this_host("127.9.9.9") and is_of_this_host("::1")
    assert not is_of_this_host("192.0.2.1") and not is_of_this_host("2001:db8::1")


def test_the_source_is_the_name_else_the_kind() -> None:
    assert ForeignExporter(kind="gaudi").source == "gaudi"
    assert ForeignExporter(kind="gaudi", name="hpus").source == "hpus"
