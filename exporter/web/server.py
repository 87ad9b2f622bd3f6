"""The HTTP server: uvicorn, with the three bounds it lacks.

A client has a few seconds to send its request head and a minute to read its answer (uvicorn waits for ever),
and open connections are capped by closing the one that has been silent longest, so that slow, silent or
many clients never delay a scrape. Requests are parsed by h11.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.settings.options import Web
from exporter.web.app import Application

_HEAD_LIMIT_BYTES = 8192
_KEEP_ALIVE_SECONDS = 75  # longer than the usual scrape interval, so that a scraper keeps its connection
UNREAD_SECONDS = 60.0
"""How long a client may leave an answer lying before its connection is closed."""
_BACKLOG = 128
_TICK_SECONDS = 1.0


class ListenError(OSError):
    """The address cannot be listened on; the text says what to do."""


class Server(uvicorn.Server):
    """Serves an application on sockets that are already open; `stop` ends it."""

    def __init__(self, application: Application, options: Web) -> None:
        connections: OrderedDict[_BoundedProtocol, None] = OrderedDict()
        self._stopping = asyncio.Event()

        def protocol(**arguments: Any) -> _BoundedProtocol:
            return _BoundedProtocol(connections, options, **arguments)

        super().__init__(
            uvicorn.Config(
                application,
                http=protocol,  # type: ignore[arg-type]  # any callable with these arguments serves
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=_HEAD_LIMIT_BYTES,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=2,
                backlog=_BACKLOG,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the daemon's."""
        yield

    async def main_loop(self) -> None:
        """As uvicorn's, ten times less often: an idle server costs next to nothing."""
        counter = 0
        while not await self.on_tick(counter):
            counter += 10
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._stopping.wait()

    def stop(self) -> None:
        """Let requests in progress end, then end `serve`."""
        self.should_exit = True
        self._stopping.set()


class _BoundedProtocol(H11Protocol):
    """A connection with deadlines for its client and a place in the queue of the silent."""

    def __init__(
        self, connections: OrderedDict[_BoundedProtocol, None], options: Web, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self._open = connections
        self._options = options
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._open[self] = None
        if len(self._open) > self._options.max_connections:
            silent, _ = self._open.popitem(last=False)
            silent.transport.abort()
        self._start_head_timer()

    def data_received(self, data: bytes) -> None:
        if self in self._open:
            self._open.move_to_end(self)
        if self._head_timer is None and not self._answering():
            self._start_head_timer()
        super().data_received(data)
        if self._answering():
            self._stop_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_unread_timer()
        self._open.pop(self, None)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stop_unread_timer()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # closing would wait for a client that does not read
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        if self._answering():
            self.cycle.disconnected = True  # so that its answer is dropped and not written after the refusal
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self._options.request_deadline, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None


def listen(address: str) -> socket.socket:
    """A listening socket at "host:port" or "[v6]:port". Raises ListenError."""
    host, port = parse_address(address)
    try:
        family, kind, number, _, place = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError):
        raise ListenError(f"--web.listen-address {address}: {host!r} is no address of this host") from None
    bound = socket.socket(family, kind, number)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        advice = "another program listens there; stop it or choose another address"
        text = advice if error.errno == errno.EADDRINUSE else error.strerror
        raise ListenError(f"--web.listen-address {address}: cannot listen: {text}") from None
    bound.setblocking(False)
    return bound


def parse_address(address: str) -> tuple[str, int]:
    """("host", port) of "host:port", ":port" or "[v6]:port". Raises ListenError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise ListenError(f"--web.listen-address {address!r}: expected HOST:PORT, such as 127.0.0.1:9671")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ListenError(f"--web.listen-address {address!r}: write an IPv6 address as [ADDRESS]:PORT")
    return host, int(port)


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this host can reach the socket."""
    host: str = bound.getsockname()[0]
    return host == "::1" or host.startswith("127.")
