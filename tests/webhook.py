"""An HTTP server that keeps what it is sent: a webhook, or a stand-in for an Alertmanager that misbehaves."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Received:
    """One request; names of headers in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Webhook:
    """Listens on loopback while entered. `statuses`: what it answers, in turn; the last one for ever."""

    statuses: list[int] = field(default_factory=lambda: [200])
    answer: bytes = b"{}"
    tls: ssl.SSLContext | None = None
    silent: threading.Event | None = None
    """set: nothing is answered until it is cleared"""
    received: list[Received] = field(default_factory=list)

    def __enter__(self) -> Webhook:
        handler = type("Handler", (_Handler,), {"webhook": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.silent is not None:
            self.silent.clear()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def wait_for(
        self, condition: Callable[[list[Received]], object], seconds: float = 20.0
    ) -> list[Received]:
        """What was received, as soon as it meets the condition; AssertionError when it takes too long."""
        deadline = time.monotonic() + seconds
        while not condition(self.received):
            told = [one.body[:300] for one in self.received]
            assert time.monotonic() < deadline, f"not within {seconds} s: {told}"
            time.sleep(0.05)
        return self.received

    def _take(self, request: Received) -> int:
        self.received.append(request)
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


class _Handler(BaseHTTPRequestHandler):
    webhook: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status = self.webhook._take(
            Received(self.path, {name.lower(): text for name, text in self.headers.items()}, body)
        )
        while self.webhook.silent is not None and self.webhook.silent.is_set():
            time.sleep(0.05)
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", str(len(self.webhook.answer)))
        self.end_headers()
        self.wfile.write(self.webhook.answer)

    do_GET = do_POST  # noqa: N815  # the name that the standard library calls

    def log_message(self, *arguments: Any) -> None:
        pass
