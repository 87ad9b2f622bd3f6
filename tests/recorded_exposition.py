"""Whole hosts, read and rendered as the daemon does, held against expositions that stand recorded.

UPDATE_GOLDEN=1 writes the recorded expositions anew; read what changed before it is committed.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

from exporter.daemon.poller import Poller
from exporter.exposition.collect import samples
from exporter.exposition.render import Renderer
from exporter.hardware.inventory import Inventory
from exporter.settings.options import Settings
from exporter.snapshot import Snapshot

LEFT_OUT = re.compile(r"^#|_seconds\b|_build_info|_series\b|_threshold\b|_total\{source|^process_|^python_")
"""Times, versions, what the process says of itself, and what does not depend on the host alone."""


def started(snapshot: Snapshot) -> bool:
    """Whether every worker has given its first word."""
    return all(source.state != "initialising" for source in snapshot.sources)


def poll(
    settings: Settings,
    inventory: Inventory | None = None,
    *,
    until: Callable[[Snapshot], bool] = started,
) -> Snapshot:
    """What one poll learns, as soon as `until` holds. Raises TimeoutError after 15 s without."""

    async def main() -> Snapshot:
        poller = Poller(settings, inventory or Inventory(None))
        try:
            await poller.scan_processes()
            snapshot = await poller.poll()
            async with asyncio.timeout(15):
                while not until(snapshot):
                    snapshot = await poller.poll()
            return snapshot
        finally:
            await poller.close()

    return asyncio.run(main())


def exposition(snapshot: Snapshot) -> list[str]:
    """The lines of its text form that depend on the host alone."""
    text = Renderer().render(samples(snapshot)).text.decode()
    return [line for line in text.splitlines() if not LEFT_OUT.search(line)]


def assert_as_recorded(snapshot: Snapshot, path: Path) -> None:
    """Every line as in the file, no more and no less."""
    lines = exposition(snapshot)
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert lines == path.read_text(encoding="utf-8").splitlines()
