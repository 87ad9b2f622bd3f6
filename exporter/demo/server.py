"""The engines' HTTP on loopback: one listening socket each, so that the exporter really asks them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping

from exporter.demo.answers import answer
from exporter.demo.scene import Serving

_HEAD_LIMIT_BYTES = 8192
_REQUEST_SECONDS = 5.0
_REASONS = {200: "OK", 404: "Not Found"}


class Doors:
    """Free ports of loopback, one for each name, taken as long as this lives."""

    def __init__(self, names: list[str]) -> None:
        """Raises OSError."""
        self._sockets = {name: _bound() for name in names}
        self._servers: list[asyncio.Server] = []

    @property
    def ports(self) -> Mapping[str, int]:
        return {name: one.getsockname()[1] for name, one in self._sockets.items()}

    async def open(self, now: Callable[[str], Serving | None]) -> None:
        """Answer from here on; an engine of which `now` gives nothing hangs up."""
        for name, one in self._sockets.items():
            server = await asyncio.start_server(_handler(name, now), sock=one, limit=_HEAD_LIMIT_BYTES)
            self._servers.append(server)

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for one in self._sockets.values():
            one.close()


def _bound() -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    one.bind(("127.0.0.1", 0))
    return one


def _handler(
    name: str, now: Callable[[str], Serving | None]
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = now(name)
        try:
            if serving is None:
                writer.transport.abort()
                return
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(serving, head))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # a client that says nothing, too much, or goes away costs only itself
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    return handle


def _response(serving: Serving, head: bytes) -> bytes:
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    path = words[1].partition("?")[0] if len(words) == 3 and words[0] == "GET" else ""
    found = answer(serving, path)
    body = found.body.encode()
    return (
        f"HTTP/1.1 {found.status} {_REASONS[found.status]}\r\nContent-Type: {found.content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body
