"""The status page and the JSON form, made when somebody asks and kept until the next snapshot.

Nothing is rendered while nobody looks: the template engine itself is loaded at the first look, because its
memory would otherwise be the daemon's for ever. The page loads nothing: style and script are inside, named to
the browser by their hashes, and everything else is forbidden to it.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.snapshot import Snapshot, to_public
from exporter.units import format_bytes

if TYPE_CHECKING:
    from jinja2 import Template

_FOLDER = Path(__file__).parent / "templates"
_KEPT_SECONDS = 30.0
"""A page of the same snapshot is made again after this, since it tells how long ago things were."""


class Body:
    """An answer, and its compressed form once somebody takes that."""

    def __init__(self, plain: bytes) -> None:
        self.plain = plain

    @cached_property
    def zipped(self) -> bytes:
        return gzip.compress(self.plain, compresslevel=5, mtime=0)


class StatusPage:
    """The two views of the latest snapshot. ``poll_seconds`` is asked whenever a page is made."""

    def __init__(self, poll_seconds: Callable[[], float] = lambda: 5.0) -> None:
        self._poll_seconds = poll_seconds
        self._snapshot: Snapshot | None = None
        self._html: tuple[float, Body] | None = None
        self._json: Body | None = None
        self._assets: _Assets | None = None

    def show(self, snapshot: Snapshot) -> None:
        """From now on it is this one."""
        self._snapshot, self._html, self._json = snapshot, None, None

    def json(self) -> Body | None:
        """The public JSON form (docs/API.md); None before the first snapshot."""
        if self._json is None and self._snapshot is not None:
            self._json = Body(json.dumps(to_public(self._snapshot)).encode() + b"\n")
        return self._json

    async def html(self) -> Body | None:
        """The page; None before the first snapshot."""
        if self._snapshot is None:
            return None
        if self._assets is None:
            # Loading the template engine takes some 100 ms, in which scrapes must be answered.
            self._assets = await asyncio.to_thread(_Assets)
        now = time.monotonic()
        if self._html is None or now - self._html[0] > _KEPT_SECONDS:
            self._html = now, Body(self._assets.render(self._snapshot, self._poll_seconds()))
        return self._html[1]

    @property
    def security_policy(self) -> bytes:
        """Content-Security-Policy of the page that was made last."""
        return self._assets.policy if self._assets is not None else b"default-src 'none'"


class _Assets:
    """The template with its style and script; making one loads the template engine."""

    def __init__(self) -> None:
        self._style = (_FOLDER / "status.css").read_text()
        self._script = (_FOLDER / "status.js").read_text()
        self.policy = (
            f"default-src 'none'; style-src '{hash_source(self._style)}'; "
            f"script-src '{hash_source(self._script)}'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ).encode()
        self._template = _template()

    def render(self, snapshot: Snapshot, poll_seconds: float) -> bytes:
        """The page of one snapshot, as of now."""
        from markupsafe import Markup

        from exporter.views.look import look

        view = look(
            to_public(snapshot),
            now_seconds=time.time(),
            host_name=snapshot.demo or socket.gethostname(),
            poll_seconds=poll_seconds,
        )
        return self._template.render(
            view=view,
            taken=datetime.fromtimestamp(view.taken_at_seconds, UTC),
            refresh_seconds=max(1.0, poll_seconds),
            build=hashlib.sha256((self._style + self._script).encode()).hexdigest()[:16],
            style=Markup(self._style),
            script=Markup(self._script),
        ).encode("utf-8", "replace")


def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = format_bytes
    environment.filters["percent"] = lambda part, whole: f"{100 * part / whole:.3f}%"
    return environment.get_template("status.html.j2")


def hash_source(text: str) -> str:
    """An inline style or script as a Content-Security-Policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
