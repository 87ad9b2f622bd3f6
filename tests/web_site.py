"""The real server on a free port of loopback, and a client that can misbehave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fixed_snapshot import FULL

from exporter.exposition.render import Exposition
from exporter.settings.options import Web
from exporter.snapshot import Snapshot
from exporter.web.app import Application
from exporter.web.server import Server, listen

EXPOSITION = Exposition(
    text=b"text 1\n",
    text_gzip=b"zipped text",
    openmetrics=b"openmetrics 1\n# EOF\n",
    openmetrics_gzip=b"zipped openmetrics",
    series=1,
)


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Client:
    """One connection; sends what it is given and reads answers."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, head: bool = False) -> Answer:
        """The next answer; `head` when it has no body whatever its length says."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        length = 0 if head else int(headers.get("content-length", 0))
        return Answer(int(lines[0].split()[1]), headers, await self.reader.readexactly(length))

    async def until_closed(self) -> bytes:
        """Everything that still comes until the server closes."""
        with contextlib.suppress(ConnectionResetError):
            return await self.reader.read()
        return b""


@dataclass
class Site:
    """A running server."""

    application: Application
    port: int
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def ask(self, path: str = "/metrics", method: str = "GET", **headers: str) -> Answer:
        """One request on a connection of its own."""
        client = await self.connect()
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        client.send("\r\n".join([*lines, "", ""]).encode())
        return await client.answer(head=method == "HEAD")


@contextlib.asynccontextmanager
async def serve(
    *,
    exposition: Exposition | None = EXPOSITION,
    snapshot: Snapshot = FULL,
    healthy: bool = True,
    max_connections: int = 256,
    request_deadline: float = 30.0,
    poll_seconds: float = 5.0,
    port: int = 0,
) -> AsyncIterator[Site]:
    """A server that has published, unless asked otherwise; the next two options are those of `[web]`."""
    application = Application(lambda: healthy, lambda: poll_seconds)
    if exposition is not None:
        application.publish(exposition, snapshot)
    bound = listen(f"127.0.0.1:{port}")
    server = Server(application, Web(max_connections=max_connections, request_deadline=request_deadline))
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    site = Site(application, bound.getsockname()[1])
    try:
        yield site
    finally:
        for client in site.clients:
            client.writer.transport.abort()
        server.stop()
        await serving
