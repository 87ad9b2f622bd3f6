"""A stand-in for another exporter: a server on loopback, in a thread, whose page can change."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Exporter:
    """``page`` None: every question is answered with ``status``."""

    page: str | None
    port: int = 0
    status: int = 503
    asked: list[dict[str, str]] = field(default_factory=list)
    """headers of every request"""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/metrics"


@contextmanager
def exporting(page: str | None) -> Iterator[Exporter]:
    """An exporter that answers under /metrics."""
    exporter = Exporter(page)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            exporter.asked.append(dict(self.headers))
            found = exporter.page is not None and self.path == "/metrics"
            body = (exporter.page or "").encode() if found else b""
            self.send_response(200 if found else exporter.status if exporter.page is None else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    exporter.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield exporter
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
