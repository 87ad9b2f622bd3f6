"""One metrics page of another exporter of this host: asked with its token, over TLS where it wants that.

The address is looked at each time: one that is this host's no longer gets neither a connection nor a token.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from exporter.engines.telemetry.client import Unanswered, get
from exporter.engines.telemetry.samples import Samples, read_samples
from exporter.engines.telemetry.types import Target
from exporter.hardware.foreign_map import ForeignMap
from exporter.settings.foreign import is_of_this_host, place_of
from exporter.settings.options import ForeignExporter

PAGE_LIMIT_BYTES = 4 * 2**20
"""Sixteen dies with all groups of the NPU Exporter switched on come to about 0.6 MB."""
_SECRET_LIMIT_BYTES = 4096


class Unread(Exception):
    """The page was not read; the text is the state's name, and nothing that was received or is secret."""


async def scrape(entry: ForeignExporter, by: ForeignMap) -> Samples:
    """The wanted samples of an exporter's page. Raises Unread."""
    try:
        wants_tls, host, port, path = place_of(entry.url)
        if not is_of_this_host(host):
            raise Unread("not_this_host")
        key = _token(entry.bearer_token_file) if entry.bearer_token_file is not None else None
        tls = _tls(entry) if wants_tls else None
        target = Target(entry.source, "", host, port, key=key, own_address=True)
    except ValueError:
        raise Unread("address") from None
    deadline = asyncio.get_running_loop().time() + entry.timeout
    try:
        page = await get(target, path, deadline, limit_bytes=PAGE_LIMIT_BYTES, tls=tls)
        return read_samples(page, by.wanted, whole=True)
    except Unanswered as error:
        raise Unread(str(error.reason)) from None


def _token(file: Path) -> str:
    """What a token file holds, less its line end: read each time, so that a rotated one needs no reload."""
    try:
        with file.open("rb") as stream:
            token = stream.read(_SECRET_LIMIT_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise Unread("token_file") from None
    if not token or not token.isprintable():
        raise Unread("token_file")
    return token


def _tls(entry: ForeignExporter) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=entry.ca_file)
    except (OSError, ssl.SSLError):
        raise Unread("ca_file") from None
    if entry.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
