"""The runbook of this version as a page: docs/ALERTS.md, at the address to which alerts link by default.

Served by the daemon itself, since whoever needs it may reach nothing else. The text stays as it is written;
only headings become places that a link can lead to.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:1rem auto;"
    "padding:0 1rem}pre{font:14px/1.5 ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere}"
    "h2:target{outline:3px solid #e69f00;outline-offset:4px}"
)
_HEADING = re.compile(r"^(#{1,2}) +(.+)$", re.MULTILINE)


def anchor(heading: str) -> str:
    """The place of a heading in a page, as GitHub names it."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def page() -> bytes | None:
    """The page, read anew; None where this installation carries no runbook."""
    path = _file()
    if path is None:
        return None
    before, *parts = _HEADING.split(path.read_text(encoding="utf-8"))
    body = [f"<pre>{escape(before.strip())}</pre>"] if before.strip() else []
    for signs, heading, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        tag = f"h{len(signs)}"
        body.append(f'<{tag} id="{escape(anchor(heading))}">{escape(heading)}</{tag}>')
        body.append(f"<pre>{escape(text.strip())}</pre>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Runbook</title>'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body><main>\n'
        + "\n".join(body)
        + "\n</main></body></html>\n"
    ).encode()


def _file() -> Path | None:
    """Inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for root in (package / "_files", package.parent):
        path = root / "docs" / "ALERTS.md"
        if path.is_file():
            return path
    return None
