"""What an endpoint does to whoever asks it costs that endpoint alone, and no more than the deadline."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from contextlib import AsyncExitStack

import pytest
from stand_in_http import Handler, Requests, answering, flooding, response, saying, serving

from exporter.engines.telemetry import Reason, State, Target, TelemetryResult
from exporter.engines.telemetry.client import BODY_LIMIT_BYTES, HEAD_LIMIT_BYTES
from exporter.engines.telemetry.reader import TelemetryReader

DEADLINE_SECONDS = 0.4
PAGE = b'vllm:num_requests_running{model_name="m"} 3.0\n'
GOOD = {"/metrics": response(PAGE), "/version": response(b'{"version": "0.33.0"}')}
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def target(port: int, name: str = "it", engine: str = "vllm", **more: object) -> Target:
    return Target(name, engine, "127.0.0.1", port, **more)


def read(handler: Handler, **more: object) -> TelemetryResult:
    async def run() -> TelemetryResult:
        async with serving(handler) as port:
            reader = TelemetryReader(deadline_seconds=DEADLINE_SECONDS)
            return (await reader.read([target(port, **more)]))["it"]

    return asyncio.run(run())


async def never(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    for byte in response(PAGE * 100):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.01)


async def hanging_up(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


CHUNK = b"%x\r\n%s\r\n" % (65536, b"a" * 65536)
HOSTILE: dict[str, tuple[Handler, Reason]] = {
    "accepts and is silent": (never, Reason.TIMEOUT),
    "slow": (dripping, Reason.TIMEOUT),
    "hangs behind its head": (
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", hang=True),
        Reason.TIMEOUT,
    ),
    "hangs up": (hanging_up, Reason.NOT_HTTP),
    "ends too early": (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nvllm"), Reason.NOT_HTTP),
    "endless body": (flooding(b"HTTP/1.1 200 OK\r\n\r\n", PAGE * 100), Reason.TOO_LARGE),
    "endless chunks": (flooding(CHUNKED, CHUNK), Reason.TOO_LARGE),
    "endless tiny chunks": (flooding(CHUNKED, b"1\r\na\r\n" * 1000), Reason.TOO_LARGE),
    "endless chunk extension": (flooding(CHUNKED, b"1;" + b"x" * 65536), Reason.TOO_LARGE),
    "endless trailer": (flooding(CHUNKED + b"0\r\n", b"A: b\r\n" * 1000), Reason.TOO_LARGE),
    "claims too much": (
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (BODY_LIMIT_BYTES + 1), hang=True),
        Reason.TOO_LARGE,
    ),
    "huge head": (saying(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 4 * HEAD_LIMIT_BYTES), Reason.TOO_LARGE),
    "endless head": (flooding(b"HTTP/1.1 200 OK\r\n", b"X-Y: z\r\n" * 100), Reason.TOO_LARGE),
    "endless early hints": (flooding(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100), Reason.TOO_LARGE),
    "gzip": (saying(response(gzip.compress(PAGE), headers="Content-Encoding: gzip\r\n")), Reason.NONSENSE),
    "claims a coding": (saying(response(PAGE, headers="Content-Encoding: br\r\n")), Reason.NONSENSE),
    "gzip bomb": (
        saying(response(gzip.compress(bytes(50 * 2**20)), headers="Content-Encoding: GZIP\r\n")),
        Reason.NONSENSE,
    ),
    "binary": (saying(bytes(range(256)) * 8), Reason.NOT_HTTP),
    "TLS alert": (saying(b"\x15\x03\x01\x00\x02\x02\x46"), Reason.NOT_HTTP),
    "SSH": (saying(b"SSH-2.0-OpenSSH_9.7\r\n"), Reason.NOT_HTTP),
    "two lengths": (
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"),
        Reason.NOT_HTTP,
    ),
    "negative length": (saying(b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nabcd"), Reason.NOT_HTTP),
    "key wanted": (saying(response(b"{}", status="401 Unauthorized")), Reason.KEY_REQUIRED),
    "forbidden": (saying(response(b"{}", status="403 Forbidden")), Reason.KEY_REQUIRED),
    "loading": (saying(response(b"{}", status="503 Service Unavailable")), Reason.LOADING),
    "broken": (saying(response(b"", status="500 Internal Server Error")), Reason.BAD_STATUS),
    "unknown": (saying(response(b"", status="404 Not Found")), Reason.BAD_STATUS),
    "upgrade": (saying(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), Reason.NOT_HTTP),
    "HTML": (saying(response(b"<!doctype html>\n<title>hello</title>\n" * 9)), Reason.NONSENSE),
    "JSON for text": (saying(response(b'{"detail": "x"}')), Reason.NONSENSE),
    "malformed samples": (saying(response(b'vllm:num_requests_running{model_name="m 3\n')), Reason.NONSENSE),
    "zeros": (saying(response(bytes(BODY_LIMIT_BYTES))), Reason.NONSENSE),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_each_failure_has_its_reason_within_the_deadline(name: str) -> None:
    handler, reason = HOSTILE[name]
    start = time.monotonic()
    result = read(handler)
    assert (result.telemetry, result.reason) == (None, reason)
    assert result.state is (State.LOADING if reason is Reason.LOADING else State.UNREACHABLE)
    assert time.monotonic() - start < DEADLINE_SECONDS + 1


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 900_000,
        b'{"data":' * 100_000,
        b'{"data": [NaN]}',
        b'{"data": "x"}',
        b"1" * 900_000,
        b'{"data": [{"id": "' + b"x" * 900_000,
        b"\xff\xfe",
        b"",
        b"null",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_malformed_json_is_nonsense(body: bytes) -> None:
    result = read(answering({"/v1/models": response(body)}), engine="llama-cpp-python")
    assert (result.telemetry, result.reason) == (None, Reason.NONSENSE)


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent", "304 Not Modified"]
)
def test_no_redirect_is_followed(status: str) -> None:
    async def run() -> tuple[TelemetryResult, Requests]:
        elsewhere = Requests()
        async with serving(answering(GOOD, elsewhere)) as other:
            location = f"Location: http://127.0.0.1:{other}/metrics\r\n"
            async with serving(saying(response(b"", status=status, headers=location))) as port:
                results = await TelemetryReader(deadline_seconds=DEADLINE_SECONDS).read(
                    [target(port, key="k")]
                )
        return results["it"], elsewhere

    result, elsewhere = asyncio.run(run())
    assert (result.reason, elsewhere.heads) == (Reason.REDIRECT, [])


def test_nobody_listening_is_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        [result] = asyncio.run(TelemetryReader().read([target(port)])).values()
    assert (result.telemetry, result.reason) == (None, Reason.REFUSED)


def test_an_engine_without_an_endpoint_is_named_so() -> None:
    [result] = asyncio.run(TelemetryReader().read([target(9, engine="transformers")])).values()
    assert (result.telemetry, result.reason) == (None, Reason.UNSUPPORTED)


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"10\r\n" + PAGE[:16] + b"\r\n%x\r\n" % len(PAGE[16:]) + PAGE[16:] + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + response(PAGE),
        b"HTTP/1.0 200 OK\r\n\r\n" + PAGE,
        response(PAGE, headers="Connection: close\r\n"),
        response(PAGE, headers="Content-Encoding: identity\r\n"),
        response(PAGE, headers="Keep-Alive: timeout=5, max=100\r\n") + b"more that nobody asked for",
    ],
    ids=["chunked", "continued", "until the end", "closing", "identity", "more than asked"],
)
def test_every_lawful_framing_is_read(answer: bytes) -> None:
    result = read(answering({"/metrics": answer}))
    assert result.telemetry is not None
    assert result.telemetry.requests_running == 3


def test_a_server_that_keeps_its_connection_open_is_read() -> None:
    result = read(saying(response(PAGE), hang=True))
    assert result.telemetry is not None and result.telemetry.requests_running == 3


def test_the_largest_body_is_read() -> None:
    padding = b"# HELP padding\n" * ((BODY_LIMIT_BYTES - len(PAGE)) // 15)
    result = read(answering({"/metrics": response(padding + PAGE)}))
    assert result.telemetry is not None and result.telemetry.requests_running == 3


def test_what_is_skipped_counts_too() -> None:
    """Hints before an answer are no part of it, and still they take time to read."""
    sent = 0
    hint = b"HTTP/1.1 103 Early Hints\r\nX: " + b"y" * 8000 + b"\r\n\r\n"

    async def hinting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        while True:
            writer.write(hint)
            await writer.drain()
            sent += len(hint)

    assert read(hinting, engine="llama-cpp-python").reason is Reason.TOO_LARGE
    assert sent < 2 * BODY_LIMIT_BYTES + 12 * 2**20  # what was read, and what lies in the buffers between


def test_hostile_engines_cost_only_themselves() -> None:
    async def run() -> tuple[dict[str, TelemetryResult], float]:
        async with AsyncExitStack() as stack:
            targets = []
            for name, (handler, _) in list(HOSTILE.items())[:14]:
                targets.append(target(await stack.enter_async_context(serving(handler)), name))
            targets.insert(7, target(await stack.enter_async_context(serving(answering(GOOD))), "good"))
            start = time.monotonic()
            results = await TelemetryReader(len(targets), DEADLINE_SECONDS).read(targets)
            return results, time.monotonic() - start

    results, seconds = asyncio.run(run())
    good = results.pop("good")
    assert good.telemetry is not None and good.telemetry.requests_running == 3
    assert {name: result.reason for name, result in results.items()} == {
        name: HOSTILE[name][1] for name in results
    }
    assert seconds < 2 * DEADLINE_SECONDS + 1


def test_no_more_than_so_many_are_read_at_once() -> None:
    async def run() -> int:
        open_now = most = 0

        async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal open_now, most
            open_now += 1
            most = max(most, open_now)
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.02)
            open_now -= 1
            writer.write(response(b'{"data": []}'))
            await writer.drain()

        async with AsyncExitStack() as stack:
            ports = [await stack.enter_async_context(serving(counting)) for _ in range(6)]
            await TelemetryReader(2).read([target(port, str(port), "llama-cpp-python") for port in ports])
        return most

    assert asyncio.run(run()) == 2


def test_a_slow_question_leaves_the_others_their_answers() -> None:
    """A llama-server answers /slots after its current batch only."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b" /slots " in head:
            await asyncio.sleep(60)
        answer = response(b'{"default_generation_settings": {"n_ctx": 512}, "total_slots": 1}')
        writer.write(answer if b" /props " in head else response(b"", status="501 Not Implemented"))
        await writer.drain()

    result = read(handle, engine="llama.cpp")
    assert result.telemetry is not None
    assert (result.telemetry.kv_capacity_tokens, result.telemetry.kv_used_tokens) == (512, None)
    assert dict(result.missing)["/slots"] is Reason.TIMEOUT


def test_a_fault_of_the_reader_costs_the_one_target(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr("exporter.engines.telemetry.reader.ask", fails)
    assert read(answering(GOOD)).reason is Reason.NONSENSE
