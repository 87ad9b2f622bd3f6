"""What the person on call would get: the webhooks of Alertmanager as they come; and a page of addresses."""

from __future__ import annotations

import json
import textwrap
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_LIMIT_BYTES = 2**22
_WIDTH = 110
_KINDS = {"page": "PAGE", "ticket": "TICKET"}
"""Receiver in the webhook's path → what it is called. The dead man's switch is not shown."""


@dataclass(frozen=True)
class Notice:
    """One message: all alerts of a name and a host."""

    kind: str
    alert: str
    instance: str
    firing: bool
    at: str


class Pager:
    """Listens on loopback; keeps what has come. `links` are (title, address) of what there is to see."""

    def __init__(self, port: int) -> None:
        self.notices: list[Notice] = []
        self.links: Sequence[tuple[str, str]] = ()
        pager = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = min(int(self.headers.get("Content-Length") or 0), _LIMIT_BYTES)
                body = self.rfile.read(length)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                pager.take(self.path.strip("/"), json.loads(body))

            def do_GET(self) -> None:
                body = pager.page().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, receiver: str, message: dict[str, Any]) -> None:
        """Print a message and keep it."""
        if receiver not in _KINDS:
            return
        labels = message["groupLabels"]
        notice = Notice(
            _KINDS[receiver],
            labels.get("alertname", ""),
            labels.get("instance", ""),
            message["status"] == "firing",
            time.strftime("%H:%M:%S"),
        )
        self.notices.append(notice)
        print(_text(notice, message["alerts"]), flush=True)

    def page(self) -> str:
        """The addresses, and the messages so far, newest first."""
        links = "".join(f'<li><a href="{escape(url)}">{escape(title)}</a>' for title, url in self.links)
        rows = "".join(
            f"<tr><td>{one.at}<td>{one.kind}<td>{'firing' if one.firing else 'resolved'}"
            f"<td>{escape(one.alert)}<td>{escape(one.instance)}"
            for one in reversed(self.notices)
        )
        return (
            '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="2"><title>Demo</title>'
            "<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui;margin:2rem}"
            "td{padding-right:1rem}</style><h1>Demo: recorded hosts</h1>"
            f"<ul>{links}</ul><h2>Pages and tickets</h2><table>{rows}</table>"
        )

    def got(self, alert: str, *, firing: bool) -> bool:
        """Whether such a message has come."""
        return any(one.alert == alert and one.firing == firing for one in self.notices)


def _text(notice: Notice, alerts: list[dict[str, Any]]) -> str:
    head = f"\n{notice.at}  {notice.kind:6}"
    where = f"{notice.alert}  on {notice.instance}"
    if not notice.firing:
        return f"{head}  resolved  {where}"
    firing = [one for one in alerts if one["status"] == "firing"]
    more = f", and {len(firing) - 1} more" if len(firing) > 1 else ""
    first = firing[0]["annotations"] if firing else {}
    lines = [f"{head}  FIRING    {where}"]
    summary = first.get("summary", "") + more
    lines += textwrap.wrap(summary, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    _, found, action = first.get("description", "").partition("First action: ")
    if found:
        lines += textwrap.wrap(f"→ {action}", _WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)
