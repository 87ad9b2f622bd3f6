"""The real server in a thread of its own and the system's Chromium in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import threading
import time
from collections.abc import Iterator

from playwright.sync_api import Browser, sync_playwright
from web_site import EXPOSITION, Site, serve

from exporter.snapshot import Snapshot

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Chromium's sandbox refuses to start as root, as which containers run tests.
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
]


class Served:
    """A site that a browser can look at. `stop` and `start` play a daemon that restarts."""

    def __init__(self, snapshot: Snapshot, poll_seconds: float) -> None:
        self._snapshot = snapshot
        self._poll_seconds = poll_seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = contextlib.AsyncExitStack()
        self._site: Site | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        async def enter() -> Site:
            return await self._stack.enter_async_context(
                serve(snapshot=self._snapshot, poll_seconds=self._poll_seconds, port=self.port)
            )

        self._site = asyncio.run_coroutine_threadsafe(enter(), self._loop).result(10)
        self.port = self._site.port

    def show(self, snapshot: Snapshot) -> None:
        """What the next request gets."""
        self._snapshot = snapshot
        site = self._site
        assert site is not None
        self._loop.call_soon_threadsafe(site.application.publish, EXPOSITION, snapshot)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result(10)

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


@contextlib.contextmanager
def served(snapshot: Snapshot, poll_seconds: float = 1.0) -> Iterator[Served]:
    site = Served(snapshot, poll_seconds)
    try:
        yield site
    finally:
        site.close()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, headless=True)
        try:
            yield browser
        finally:
            browser.close()


def as_of_now(snapshot: Snapshot) -> Snapshot:
    """The same snapshot, with all its times moved so that it was taken just now."""
    shift = time.time() - snapshot.taken_at_seconds

    def moved(at: float | None) -> float | None:
        return None if at is None else at + shift

    return dataclasses.replace(
        snapshot,
        taken_at_seconds=snapshot.taken_at_seconds + shift,
        sources=tuple(
            dataclasses.replace(one, last_success_seconds=moved(one.last_success_seconds))
            for one in snapshot.sources
        ),
        alerts=tuple(
            dataclasses.replace(
                one,
                active_since_seconds=one.active_since_seconds + shift,
                firing_since_seconds=moved(one.firing_since_seconds),
            )
            for one in snapshot.alerts
        ),
    )
