"""The bounds that keep slow, silent, many or mad clients from delaying a scrape."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
from fixed_snapshot import FULL
from hypothesis import given, settings
from hypothesis import strategies as st
from web_site import Client, Site, serve

from exporter.exposition.render import Exposition
from exporter.web import server
from exporter.web.server import ListenError, is_loopback, listen, parse_address

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
LARGE = Exposition(b"x" * 2_000_000, b"z", b"y", b"z", 1)

pytestmark = pytest.mark.timeout(60)


def run(talk: Callable[[Site], Awaitable[None]], **options: float) -> None:
    """Talk to a fresh server with these options of `[web]`."""

    async def whole() -> None:
        async with serve(
            max_connections=int(options.get("max_connections", 256)),
            request_deadline=options.get("request_deadline", 30.0),
        ) as site:
            await talk(site)

    asyncio.run(whole())


async def scrape_seconds(site: Site) -> float:
    """How long a scrape takes that succeeds."""
    started = time.monotonic()
    assert (await site.ask()).status == 200
    return time.monotonic() - started


class TestConnections:
    def test_a_connection_serves_one_request_after_the_other(self) -> None:
        async def talk(site: Site) -> None:
            client = await site.connect()
            for path in (b"/metrics", b"/-/ready", b"/nowhere", b"/metrics"):
                client.send(REQUEST.replace(b"/metrics", path))
                assert (await client.answer()).status in (200, 404)

        run(talk)

    def test_an_idle_kept_connection_outlives_the_request_deadline(self) -> None:
        async def talk(site: Site) -> None:
            client = await site.connect()
            for _ in range(2):
                client.send(REQUEST)
                assert (await client.answer()).status == 200
                await asyncio.sleep(0.5)

        run(talk, request_deadline=0.2)

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        async def talk(site: Site) -> None:
            client = await site.connect()
            client.send((REQUEST + REQUEST.replace(b"/metrics", b"/")) * 200)
            for _ in range(200):
                assert (await client.answer()).body == b"text 1\n"
                assert (await client.answer()).body.startswith(b"<!doctype html>")

        run(talk)

    def test_a_request_in_small_pieces_is_a_request(self) -> None:
        async def talk(site: Site) -> None:
            client = await site.connect()
            for at in range(0, len(REQUEST), 5):
                client.send(REQUEST[at : at + 5])
                await client.writer.drain()
                await asyncio.sleep(0.005)
            assert (await client.answer()).status == 200

        run(talk)

    def test_a_client_that_has_said_all_and_closes_its_side_gets_its_answer(self) -> None:
        async def talk(site: Site) -> None:
            client = await site.connect()
            client.send(REQUEST)
            client.writer.write_eof()
            assert (await client.answer()).status == 200

        run(talk)


class TestDeadlines:
    def test_a_client_that_says_nothing_is_closed(self) -> None:
        async def talk(site: Site) -> None:
            client = await site.connect()
            async with asyncio.timeout(5):
                assert await client.until_closed() == b""

        run(talk, request_deadline=0.3)

    def test_dripping_a_head_does_not_move_the_deadline(self) -> None:
        async def talk(site: Site) -> None:
            client = await site.connect()
            closed = asyncio.create_task(client.until_closed())
            async with asyncio.timeout(5):
                while not closed.done():
                    client.send(b"X-Ab:")
                    await asyncio.sleep(0.05)

        run(talk, request_deadline=0.3)

    def test_the_second_request_has_the_same_deadline(self) -> None:
        async def talk(site: Site) -> None:
            client = await site.connect()
            client.send(REQUEST)
            assert (await client.answer()).status == 200
            client.send(REQUEST[:-4])
            async with asyncio.timeout(5):
                assert await client.until_closed() == b""

        run(talk, request_deadline=0.3)

    def test_a_body_that_was_announced_and_never_comes_does_not_delay_the_answer(self) -> None:
        async def talk(site: Site) -> None:
            client = await site.connect()
            client.send(REQUEST.replace(b"\r\n\r\n", b"\r\nContent-Length: 1000000\r\n\r\n"))
            assert (await client.answer()).status == 200
            client.send(b"some of it")
            async with asyncio.timeout(5):
                await client.until_closed()

        run(talk, request_deadline=0.3)

    def test_a_client_that_never_reads_is_closed_and_holds_up_nobody(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "UNREAD_SECONDS", 0.5)

        async def talk(site: Site) -> None:
            site.application.publish(LARGE, FULL)
            deaf = socket.socket()
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()
            with deaf:
                await loop.sock_connect(deaf, ("127.0.0.1", site.port))
                await loop.sock_sendall(deaf, REQUEST * 50)
                assert await scrape_seconds(site) < 5
                # An aborted connection answers what is sent to it with a reset, before it is read.
                async with asyncio.timeout(10):
                    with pytest.raises(ConnectionError):
                        while True:
                            await loop.sock_sendall(deaf, b"\r\n")
                            await asyncio.sleep(0.05)

        run(talk)

    def test_a_slow_reader_of_a_large_answer_gets_it_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "UNREAD_SECONDS", 5.0)

        async def talk(site: Site) -> None:
            site.application.publish(LARGE, FULL)
            client = await site.connect()
            client.send(REQUEST)
            await asyncio.sleep(0.3)
            assert (await client.answer()).body == LARGE.text

        run(talk)


class TestManyClients:
    def test_500_silent_connections_do_not_delay_a_scrape(self) -> None:
        async def talk(site: Site) -> None:
            for _ in range(500):
                await site.connect()
            assert await scrape_seconds(site) < 5

        run(talk)

    def test_beyond_the_cap_the_one_that_was_silent_longest_is_closed(self) -> None:
        async def talk(site: Site) -> None:
            clients = [await site.connect() for _ in range(8)]
            clients[0].send(REQUEST)
            assert (await clients[0].answer()).status == 200
            await site.connect()
            async with asyncio.timeout(5):
                assert await clients[1].until_closed() == b""
            for client in (clients[0], *clients[2:]):
                client.send(REQUEST)
                assert (await client.answer()).status == 200

        run(talk, max_connections=8)

    def test_clients_that_come_and_go_take_no_place_from_those_that_stay(self) -> None:
        async def talk(site: Site) -> None:
            staying = [await site.connect() for _ in range(4)]
            for _ in range(100):
                await site.ask()
            for client in staying:
                client.send(REQUEST)
                assert (await client.answer()).status == 200

        run(talk, max_connections=8)


async def last_answer(site: Site, data: bytes) -> tuple[Client, int]:
    client = await site.connect()
    client.send(data)
    return client, (await client.answer(head=True)).status


class TestGarbage:
    @pytest.fixture(autouse=True)
    def nothing_is_logged(self, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
        """A client's mistake is not the daemon's: no traceback, no error."""
        yield
        assert [one for one in caplog.get_records("call") if one.levelno >= logging.ERROR] == []

    @pytest.mark.parametrize(
        "data",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xa5" * 500,
            b"hello\r\n\r\n",
            b"GET /metrics SPDY/3\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
            b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /" + b"a" * 9000,
            b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(900)),
        ],
    )
    def test_what_is_not_a_request_gets_400_and_the_door(self, data: bytes) -> None:
        async def talk(site: Site) -> None:
            client, status = await last_answer(site, data)
            assert status == 400
            async with asyncio.timeout(5):
                await client.until_closed()
            assert (await site.ask()).status == 200

        run(talk)

    @pytest.mark.parametrize("when", ["with the head", "after the answer", "while the answer is written"])
    def test_a_body_that_is_garbage_costs_only_its_own_connection(self, when: str) -> None:
        async def talk(site: Site) -> None:
            head = REQUEST.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
            client = await site.connect()
            if when == "with the head":
                client.send(head + b"nonsense\r\n")
            elif when == "after the answer":
                client.send(head)
                assert (await client.answer()).status == 200
                client.send(b"nonsense\r\n")
            else:
                site.application.publish(LARGE, FULL)
                client.send(REQUEST + head)
                await client.reader.readexactly(1000)
                client.send(b"nonsense\r\n")
            async with asyncio.timeout(5):
                await client.until_closed()
            assert (await site.ask()).status == 200

        run(talk)

    def test_an_upgrade_that_is_not_offered_is_answered_as_a_plain_request(self) -> None:
        async def talk(site: Site) -> None:
            upgrade = b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
            _, status = await last_answer(site, REQUEST.replace(b"\r\n\r\n", upgrade))
            assert status == 200

        run(talk)

    @given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
    @settings(max_examples=20, deadline=None)
    def test_any_bytes_leave_the_server_answering(self, pieces: list[bytes]) -> None:
        async def talk(site: Site) -> None:
            for piece in pieces:
                client = await site.connect()
                client.send(piece)
            assert (await site.ask()).status == 200

        run(talk)


class TestAddress:
    @pytest.mark.parametrize(
        ("address", "parsed"),
        [
            ("127.0.0.1:9671", ("127.0.0.1", 9671)),
            ("[::1]:9671", ("::1", 9671)),
            ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
            (":9671", ("", 9671)),
            ("localhost:0", ("localhost", 0)),
        ],
    )
    def test_host_and_port_are_told_apart(self, address: str, parsed: tuple[str, int]) -> None:
        assert parse_address(address) == parsed

    @pytest.mark.parametrize(
        "address", ["", "9671", "127.0.0.1", "127.0.0.1:", "a:b", "a:65536", "a:-1", "a:٣", "a:" + "9" * 5000]
    )
    def test_what_is_no_address_is_told_what_one_looks_like(self, address: str) -> None:
        with pytest.raises(ListenError, match=r"such as 127\.0\.0\.1:9671"):
            parse_address(address)

    @pytest.mark.parametrize("address", ["::1:9671", "fe80::1", "[::1]x:80"])
    def test_a_bare_ipv6_address_is_told_of_its_brackets(self, address: str) -> None:
        with pytest.raises(ListenError, match=r"\[ADDRESS\]:PORT"):
            listen(address)

    def test_a_port_in_use_says_what_to_do(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ListenError, match="another program listens there; stop it or choose another"):
                listen(f"127.0.0.1:{port}")

    @pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 300, "host..name"])
    def test_a_name_that_is_no_address_is_named(self, host: str) -> None:
        with pytest.raises(ListenError, match="is no address of this host"):
            listen(f"{host}:0")

    def test_another_hosts_address_cannot_be_listened_on(self) -> None:
        with pytest.raises(ListenError, match="cannot listen"):
            listen("192.0.2.1:0")

    @pytest.mark.parametrize(
        ("address", "only_here"),
        [("127.0.0.1:0", True), ("127.0.0.9:0", True), (":0", False), ("0.0.0.0:0", False)],
    )
    def test_it_is_known_whether_others_can_reach_it(self, address: str, only_here: bool) -> None:
        with listen(address) as bound:
            assert is_loopback(bound) is only_here

    @pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
    def test_ipv6_loopback_is_loopback(self) -> None:
        with listen("[::1]:0") as bound:
            assert is_loopback(bound)
            with socket.create_connection(bound.getsockname()[:2], timeout=5):
                pass
