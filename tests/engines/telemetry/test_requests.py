"""What is asked, of whom, how often, and with which key."""

from __future__ import annotations

import asyncio
import time

import pytest
from stand_in_http import Requests, answering, response, saying, serving

from exporter.engines.telemetry import Reason, Target, TelemetryResult
from exporter.engines.telemetry import ask as asking
from exporter.engines.telemetry.reader import TelemetryReader

CANARY = "canary-key-0123456789"
MODELS = response(b'{"data": [{"id": "m", "owned_by": "vllm", "root": "org/m", "max_model_len": 4096}]}')
METRICS = response(b'vllm:num_requests_running{model_name="m"} 3.0\n')
ANSWERS = {"/metrics": METRICS, "/version": response(b'{"version": "0.33.0"}'), "/v1/models": MODELS}


def asked(polls: int = 1, answers: dict[str, bytes] | None = None, **more: object) -> Requests:
    requests = Requests()

    async def run() -> None:
        async with serving(answering(ANSWERS if answers is None else answers, requests)) as port:
            reader = TelemetryReader()
            for _ in range(polls):
                await reader.read([Target("it", "vllm", "127.0.0.1", port, **more)])

    asyncio.run(run())
    return requests


def test_only_get_is_sent_without_a_key_or_a_coding() -> None:
    for head in asked().heads:
        lines = head.decode().lower().split("\r\n")
        assert lines[0].startswith("get /") and lines[0].endswith(" http/1.1")
        assert "accept-encoding: identity" in lines and "connection: close" in lines
        assert not any(line.startswith(("authorization:", "cookie:", "x-api-key:")) for line in lines)


def test_a_configured_key_is_sent_as_a_bearer() -> None:
    assert all(f"Authorization: Bearer {CANARY}".encode() in head for head in asked(key=CANARY).heads)


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert set(asked().paths) == set(ANSWERS)


@pytest.mark.parametrize(
    "host",
    ["localhost", "example.org", "10.0.0.7", "0.0.0.0", "169.254.169.254", "::", "fe80::1", "224.0.0.1", "",
     "127.1", "2130706433", "0x7f000001", "127.0.0.1@evil", "::ffff:10.0.0.7"],
)  # fmt: skip
def test_other_addresses_are_no_targets(host: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Target("it", "vllm", host, 8000)


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "engine"]
)
def test_no_namespace_holds_these_addresses(host: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Target("it", "vllm", host, 8000, own_address=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_a_target(host: str) -> None:
    assert Target("it", "vllm", host, 8000).host == host


def test_an_engine_on_ipv6_is_read() -> None:
    requests = Requests()

    async def run() -> TelemetryResult:
        async with serving(answering(ANSWERS, requests), "::1") as port:
            return (await TelemetryReader().read([Target("it", "vllm", "::1", port)]))["it"]

    assert asyncio.run(run()).telemetry is not None
    assert all(b"\r\nHost: [::1]:" in head for head in requests.heads)


def test_the_engines_own_address_is_a_target_when_said_to_be() -> None:
    assert Target("it", "vllm", "172.17.0.2", 8000, own_address=True).host == "172.17.0.2"


@pytest.mark.parametrize("key", ["", " ", "a\r\nX: y", "a\nb", "ключ", "a\x00b"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_named(key: str) -> None:
    with pytest.raises(ValueError) as error:
        Target("it", "vllm", "127.0.0.1", 8000, key=CANARY + key if key.strip() else key)
    assert CANARY not in str(error.value)


def test_a_key_is_not_shown() -> None:
    assert CANARY not in repr(Target("it", "vllm", "127.0.0.1", 8000, key=CANARY))


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_is_one(port: int) -> None:
    with pytest.raises(ValueError, match="port"):
        Target("it", "vllm", "127.0.0.1", port)


def test_what_does_not_change_is_asked_once() -> None:
    paths = asked(polls=4).paths
    assert (paths.count("/metrics"), paths.count("/version"), paths.count("/v1/models")) == (4, 1, 1)


def test_what_is_not_there_is_not_asked_every_time() -> None:
    paths = asked(polls=4, answers={"/metrics": METRICS}).paths
    assert (paths.count("/metrics"), paths.count("/version"), paths.count("/v1/models")) == (4, 1, 1)


def test_what_is_remembered_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "STEADY_SECONDS", 0.0)
    assert asked(polls=3).paths.count("/version") == 3


def test_another_generation_is_asked_anew() -> None:
    async def run() -> tuple[str | None, str | None]:
        answers = dict(ANSWERS)
        async with serving(answering(answers)) as port:
            reader = TelemetryReader()
            one = await reader.read([Target("it", "vllm", "127.0.0.1", port, generation=(7, 100))])
            answers["/version"] = response(b'{"version": "0.34.0"}')
            two = await reader.read([Target("it", "vllm", "127.0.0.1", port, generation=(7, 200))])
        assert one["it"].telemetry and two["it"].telemetry
        return one["it"].telemetry.engine_version, two["it"].telemetry.engine_version

    assert asyncio.run(run()) == ("0.33.0", "0.34.0")


def test_an_engine_that_came_back_is_asked_anew() -> None:
    async def run() -> list[str | None]:
        answers, reader = dict(ANSWERS), TelemetryReader()
        found: list[str | None] = []
        async with serving(answering(answers)) as port:
            target = Target("it", "vllm", "127.0.0.1", port)
            for version in (b"0.33.0", None, b"0.34.0"):
                broken = response(b"", status="500 Broken")
                answers["/metrics"] = METRICS if version else broken
                answers["/version"] = response(b'{"version": "%s"}' % version) if version else broken
                telemetry = (await reader.read([target]))["it"].telemetry
                found.append(telemetry.engine_version if telemetry else None)
        return found

    assert asyncio.run(run()) == ["0.33.0", None, "0.34.0"]


def test_an_engine_that_is_gone_is_seen_at_once() -> None:
    """What is remembered does not stand in for an engine that no longer answers."""

    async def run() -> list[Reason | None]:
        reader = TelemetryReader()
        async with serving(answering(ANSWERS)) as port:
            target = Target("it", "vllm", "127.0.0.1", port)
            first = await reader.read([target])
        second = await reader.read([target])
        return [first["it"].reason, second["it"].reason]

    assert asyncio.run(run()) == [None, Reason.REFUSED]


def test_results_bear_the_time_they_were_read() -> None:
    async def run() -> float:
        async with serving(saying(METRICS)) as port:
            return (await TelemetryReader().read([Target("it", "vllm", "127.0.0.1", port)]))["it"].at

    before = time.monotonic()
    assert before <= asyncio.run(run()) <= time.monotonic()
