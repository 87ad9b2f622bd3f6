"""One GET over HTTP to an address of this host, trusting nothing that comes back.

Numeric addresses only, no redirects, no proxies, no content codings, one request per connection; head, body,
pieces and time are bounded. HTTP is h11's (RFC 9112). A key goes to the target that it was configured for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import h11

from exporter.engines.telemetry.types import Reason, Target

BODY_LIMIT_BYTES = 2**20
HEAD_LIMIT_BYTES = 16384
DEADLINE_SECONDS = 2.0
_READ_BYTES = 65536
_PIECES_LIMIT = 4096
"""A body cut into more pieces than this is hostile: the usual server sends a few, at most one per line."""
_AGENT = "deepseek-exporter"


class Unanswered(Exception):
    """The question was not answered; the text is the reason's name and nothing that was received."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


async def get(
    target: Target,
    path: str,
    deadline: float,
    *,
    limit_bytes: int = BODY_LIMIT_BYTES,
    tls: ssl.SSLContext | None = None,
) -> bytes:
    """The body under `path` of a target, complete and uncoded, by `deadline` (the loop's time).

    ``limit_bytes``: of the body. ``tls``: speak TLS, and trust what it trusts. Raises Unanswered.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await _exchange(target, path, limit_bytes, tls)
    except TimeoutError:
        raise Unanswered(Reason.TIMEOUT) from None
    except h11.ProtocolError as error:
        # 431 is what h11 suggests for a head that exceeds its limit.
        large = isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431
        raise Unanswered(Reason.TOO_LARGE if large else Reason.NOT_HTTP) from None
    except ssl.SSLError:
        raise Unanswered(Reason.TLS) from None
    except OSError:
        raise Unanswered(Reason.REFUSED) from None


async def _exchange(target: Target, path: str, limit_bytes: int, tls: ssl.SSLContext | None) -> bytes:
    reader, writer = await asyncio.open_connection(target.host, target.port, limit=_READ_BYTES, ssl=tls)
    try:
        # Connecting to a free port of this host can meet itself (RFC 9293, simultaneous open).
        if writer.get_extra_info("sockname") == writer.get_extra_info("peername"):
            raise Unanswered(Reason.REFUSED)
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT_BYTES)
        writer.write(_request(connection, target, path))
        return await _answer(reader, connection, limit_bytes)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _request(connection: h11.Connection, target: Target, path: str) -> bytes:
    host = f"[{target.host}]" if ":" in target.host else target.host
    headers = [
        ("Host", f"{host}:{target.port}"),
        ("User-Agent", _AGENT),
        ("Accept", "application/json, text/plain;version=0.0.4;q=0.9"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]
    if target.key is not None:
        headers.append(("Authorization", f"Bearer {target.key}"))
    head = connection.send(h11.Request(method="GET", target=path, headers=headers))
    end = connection.send(h11.EndOfMessage())
    return (head or b"") + (end or b"")


async def _answer(reader: asyncio.StreamReader, connection: h11.Connection, limit_bytes: int) -> bytes:
    """The body of the one answer; everything received is counted, also what h11 only skips."""
    body = bytearray()
    received = pieces = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(_READ_BYTES)
            received += len(data)
            if received > 2 * limit_bytes:
                raise Unanswered(Reason.TOO_LARGE)
            connection.receive_data(data)
            await asyncio.sleep(0)  # a flood fills the buffer as fast as it is read: others get their turn
            continue
        pieces += 1
        if isinstance(event, h11.Response):
            _check(event, limit_bytes)
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return bytes(body)
        elif not isinstance(event, h11.InformationalResponse):
            raise Unanswered(Reason.NOT_HTTP)
        if len(body) > limit_bytes or pieces > _PIECES_LIMIT:
            raise Unanswered(Reason.TOO_LARGE)


def _check(response: h11.Response, limit_bytes: int) -> None:
    """Whether the body is worth reading. Raises Unanswered."""
    if response.status_code in (401, 403):
        raise Unanswered(Reason.KEY_REQUIRED)
    if response.status_code == 503:
        raise Unanswered(Reason.LOADING)
    if 300 <= response.status_code < 400:
        raise Unanswered(Reason.REDIRECT)
    if response.status_code != 200:
        raise Unanswered(Reason.BAD_STATUS)
    for name, value in response.headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise Unanswered(Reason.NONSENSE)
        if name == b"content-length" and int(value) > limit_bytes:  # h11 has checked that it is a number
            raise Unanswered(Reason.TOO_LARGE)
