"""What each address answers, and which of the prepared bytes a client gets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from web_site import EXPOSITION, Answer, Site, serve

from exporter.exposition.render import OPENMETRICS, TEXT
from exporter.web.app import accepts_gzip, accepts_openmetrics


def ask(
    request: Callable[[Site], Awaitable[Answer]], *, published: bool = True, healthy: bool = True
) -> Answer:
    """One answer of a server in the given state."""

    async def talk() -> Answer:
        async with serve(exposition=EXPOSITION if published else None, healthy=healthy) as site:
            return await request(site)

    return asyncio.run(talk())


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/metrics", 200, b"text 1\n"),
        ("/metrics?collect=all", 200, b"text 1\n"),
        ("/-/healthy", 200, b"healthy\n"),
        ("/-/ready", 200, b"ready\n"),
        ("/favicon.ico", 404, b"not here; try /metrics\n"),
        ("/metrics/", 404, b"not here; try /metrics\n"),
        ("/%2e%2e/etc/passwd", 404, b"not here; try /metrics\n"),
    ],
)
def test_each_address_has_its_answer(path: str, status: int, body: bytes) -> None:
    answer = ask(lambda site: site.ask(path))
    assert (answer.status, answer.body) == (status, body)
    assert answer.headers["content-length"] == str(len(body))
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_head_answers_as_get_without_a_body() -> None:
    answer = ask(lambda site: site.ask(method="HEAD"))
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == "7"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_are_refused(method: str) -> None:
    answer = ask(lambda site: site.ask(method=method))
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/metrics", 503), ("/-/ready", 503), ("/-/healthy", 200), ("/", 503), ("/api/v1/snapshot", 503)],
)
def test_before_the_first_snapshot_there_are_no_metrics_and_the_daemon_is_alive(
    path: str, status: int
) -> None:
    assert ask(lambda site: site.ask(path), published=False).status == status


def test_a_daemon_whose_sampling_stands_still_is_not_healthy() -> None:
    assert ask(lambda site: site.ask("/-/healthy"), healthy=False).status == 503


@pytest.mark.parametrize(
    ("accept", "encoding", "content_type", "body"),
    [
        ("*/*", "identity", TEXT, b"text 1\n"),
        ("*/*", "gzip, deflate", TEXT, b"zipped text"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            "",
            OPENMETRICS,
            b"openmetrics 1\n# EOF\n",
        ),
        ("application/openmetrics-text", "gzip", OPENMETRICS, b"zipped openmetrics"),
        ("application/openmetrics-text;q=0, text/plain", "", TEXT, b"text 1\n"),
    ],
)
def test_the_client_chooses_format_and_encoding(
    accept: str, encoding: str, content_type: str, body: bytes
) -> None:
    answer = ask(lambda site: site.ask(accept=accept, accept_encoding=encoding))
    assert (answer.headers["content-type"], answer.body) == (content_type, body)
    assert (answer.headers.get("content-encoding") == "gzip") == body.startswith(b"zipped")
    assert answer.headers["vary"] == "accept, accept-encoding"


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("gzip;q=0.001", True),
        ("gzip ; q=0.5", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("*;q=0", False),
        ("*, gzip;q=0", False),
        ("*;q=0, gzip", True),
        ("x-not-gzip", False),
        (";;;,,q=gzip", False),
    ],
)
def test_gzip_is_sent_only_to_those_who_take_it(header: str, allowed: bool) -> None:
    assert accepts_gzip(header) is allowed


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("text/html, Application/OpenMetrics-Text;q=0.1", True),
        ("application/openmetrics-text;q=0.0", False),
        ("*/*", False),
        ("application/*", False),
        ("application/openmetrics-text-like", False),
        ("", False),
    ],
)
def test_openmetrics_is_sent_only_to_those_who_name_it(header: str, allowed: bool) -> None:
    assert accepts_openmetrics(header) is allowed
