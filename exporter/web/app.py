"""The HTTP answers, as an ASGI application: /metrics, health, the status page and the snapshot as JSON.

A request reads no hardware and takes no lock. Metrics are bytes that lie ready; the page and the JSON are
made from the latest snapshot when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from exporter.exposition.render import OPENMETRICS, TEXT, Exposition
from exporter.snapshot import Snapshot
from exporter.web import runbook
from exporter.web.page import Body, StatusPage, hash_source

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_PLAIN = "text/plain; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_JSON = "application/json"
_NOT_YET = b"""<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<title>deepseek-capacity-exporter</title><p>No snapshot yet; this page tries again by itself.</p></html>
"""
_UNSTORED = ((b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer"))


class Application:
    """Serves what `publish` handed over last. `healthy` tells whether sampling goes on, `poll_seconds` how
    often a page that is looked at should ask again.
    """

    def __init__(self, healthy: Callable[[], bool], poll_seconds: Callable[[], float] = lambda: 5.0) -> None:
        self._healthy = healthy
        self._exposition: Exposition | None = None
        self._page = StatusPage(poll_seconds)

    def publish(self, exposition: Exposition, snapshot: Snapshot) -> None:
        """Serve these from now on."""
        self._exposition = exposition
        self._page.show(snapshot)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request (ASGI 3)."""
        if scope["type"] != "http":
            return
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(scope, send, 405, _PLAIN, b"only GET and HEAD\n", (b"allow", b"GET, HEAD"))
            return
        match scope["path"]:
            case "/metrics":
                await self._metrics(scope, send)
            case "/-/healthy":
                if self._healthy():
                    await _answer(scope, send, 200, _PLAIN, b"healthy\n")
                else:
                    await _answer(scope, send, 503, _PLAIN, b"sampling stands still\n")
            case "/-/ready":
                if self._exposition is not None:
                    await _answer(scope, send, 200, _PLAIN, b"ready\n")
                else:
                    await _answer(scope, send, 503, _PLAIN, b"no snapshot yet\n")
            case "/":
                await self._status(scope, send)
            case "/api/v1/snapshot":
                made = self._page.json()
                if made is None:
                    await _answer(scope, send, 503, _JSON, b'{"error": "no snapshot yet"}\n', *_UNSTORED)
                else:
                    await _answer_made(scope, send, _JSON, made, *_UNSTORED)
            case "/docs/ALERTS.md" if (page := runbook.page()) is not None:
                policy = f"default-src 'none'; style-src '{hash_source(runbook.STYLE)}'; img-src data:"
                security = (b"content-security-policy", policy.encode())
                await _answer(scope, send, 200, _HTML, page, security)
            case _:
                await _answer(scope, send, 404, _PLAIN, b"not here; try /metrics\n")

    async def _status(self, scope: Scope, send: Send) -> None:
        page = await self._page.html()
        if page is None:
            await _answer(scope, send, 503, _HTML, _NOT_YET, *_UNSTORED)
            return
        policy = (b"content-security-policy", self._page.security_policy)
        await _answer_made(scope, send, _HTML, page, policy, *_UNSTORED)

    async def _metrics(self, scope: Scope, send: Send) -> None:
        ready = self._exposition
        if ready is None:
            await _answer(scope, send, 503, _PLAIN, b"no snapshot yet\n")
            return
        open_metrics = accepts_openmetrics(_header(scope, b"accept"))
        zipped = accepts_gzip(_header(scope, b"accept-encoding"))
        content_type = OPENMETRICS if open_metrics else TEXT
        vary = (b"vary", b"accept, accept-encoding")
        if zipped:
            body = ready.openmetrics_gzip if open_metrics else ready.text_gzip
            await _answer(scope, send, 200, content_type, body, (b"content-encoding", b"gzip"), vary)
        else:
            body = ready.openmetrics if open_metrics else ready.text
            await _answer(scope, send, 200, content_type, body, vary)


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110 §12.5.3): named, and not with q=0."""
    wanted = _wanted(header)
    return wanted.get("gzip", wanted.get("*", False))


def accepts_openmetrics(header: str) -> bool:
    """Whether an Accept header names OpenMetrics, and not with q=0. Wildcards get the older text format."""
    return _wanted(header).get("application/openmetrics-text", False)


def _wanted(header: str) -> dict[str, bool]:
    """What a header of weighted alternatives names → whether it is acceptable at all (RFC 9110 §12.4.2)."""
    found = {}
    for part in header.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((one.removeprefix("q=") for one in parameters if one.startswith("q=")), "1")
        found[name] = weight.strip("0.") != ""
    return found


def _header(scope: Scope, name: bytes) -> str:
    values: list[bytes] = [value for key, value in scope["headers"] if key == name]
    return b",".join(values).decode("latin-1")


async def _answer_made(
    scope: Scope, send: Send, content_type: str, made: Body, *more: tuple[bytes, bytes]
) -> None:
    headers = [*more, (b"vary", b"accept-encoding")]
    if accepts_gzip(_header(scope, b"accept-encoding")):
        headers.append((b"content-encoding", b"gzip"))
        await _answer(scope, send, 200, content_type, made.zipped, *headers)
    else:
        await _answer(scope, send, 200, content_type, made.plain, *headers)


async def _answer(
    scope: Scope, send: Send, status: int, content_type: str, body: bytes, *more: tuple[bytes, bytes]
) -> None:
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
