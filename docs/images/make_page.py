"""Draws the pictures of the status page and of `status` from the tests' made-up host.

    python docs/images/make_page.py

Needs the development requirements and Chromium (requirements/system.sh).
"""

from __future__ import annotations

import socket
import sys
import time
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from rich.terminal_theme import MONOKAI

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from made_up_hosts import HOST_NAME, in_trouble, quiet  # noqa: E402  the tests' helpers are not installed
from page_browser import as_of_now, chromium, served  # noqa: E402

from exporter.cli.status_view import whole  # noqa: E402
from exporter.snapshot import Snapshot, to_plain  # noqa: E402
from exporter.views.look import look  # noqa: E402

TERMINAL_COLUMNS = 110


def page(name: str, snapshot: Snapshot, *, scheme: str, width: int, height: int) -> None:
    """One picture of the page, as tall as given."""
    with served(as_of_now(snapshot)) as site, chromium() as browser:
        seen = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        seen.goto(site.url)
        seen.wait_for_function("document.getElementById('age').textContent")
        seen.screenshot(path=HERE / name)


def terminal(name: str, snapshot: Snapshot) -> None:
    """What a terminal shows, drawn by Chromium from rich's own HTML."""
    console = Console(
        file=StringIO(), width=TERMINAL_COLUMNS, record=True, force_terminal=True, markup=False, emoji=False
    )
    view = look(to_plain(as_of_now(snapshot)), now_seconds=time.time(), host_name=HOST_NAME)
    console.print(whole(view, console, bars=True), highlight=False)
    html = console.export_html(inline_styles=True, theme=MONOKAI)
    with chromium() as browser:
        seen = browser.new_page(viewport={"width": 960, "height": 600})
        seen.set_content(html)
        seen.add_style_tag(
            content="body { margin: 0 } pre { padding: 14px; width: fit-content; font-size: 14px }"
        )
        seen.locator("pre").screenshot(path=HERE / name)


def main() -> None:
    # The pictures show the made-up host's name, not that of the machine that draws them.
    with patch.object(socket, "gethostname", lambda: HOST_NAME):
        page("status-page-light.png", quiet(), scheme="light", width=1280, height=1000)
        page("status-page-dark.png", in_trouble(), scheme="dark", width=1360, height=1110)
    terminal("status-terminal.png", in_trouble())


if __name__ == "__main__":
    main()
