"""The status page as HTML: tells what matters, escapes foreign names, loads nothing, costs nothing unseen."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gzip
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from fixed_snapshot import EMPTY, FULL
from hostile_snapshot import EMOJI, LONG, NAMES, hostile
from made_up_hosts import in_trouble, quiet
from page_browser import as_of_now
from web_site import EXPOSITION, Answer, serve

from exporter.snapshot import SCHEMA, Snapshot, to_public

VOID = {"meta", "link", "img"}


class Elements(HTMLParser):
    """Collects every element with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def answer(path: str, snapshot: Snapshot) -> Answer:
    async def talk() -> Answer:
        async with serve(snapshot=snapshot) as site:
            return await site.ask(path)

    return asyncio.run(talk())


def page(snapshot: Snapshot) -> str:
    return answer("/", as_of_now(snapshot)).body.decode()


def text_of(html: str) -> str:
    body = html.partition("</header>")[2].partition("<script>")[0]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def test_what_is_wrong_comes_first_and_in_words() -> None:
    text = text_of(page(in_trouble()))
    assert text.startswith(
        "Critical. GPU 5 is lost: the driver no longer has it (fell off the bus). GPU 6 is over"
    )
    assert text.index("DeepSeekGpuLost") < text.index("DeepSeekForeignVram") < text.index("Room for")
    assert "DeepSeekKvCacheSaturated warning firing for 31 min data missing, state kept" in text
    assert "distill-32b: must be able to run, and does not" in text


def test_a_quiet_host_says_so_and_where_the_least_is_left() -> None:
    text = text_of(page(quiet()))
    assert text.startswith("All well. 4 deployments on 8 GPUs; least to spare: 11.1 GiB on GPU 0.")
    assert "What is wrong" not in text
    assert "Room for 37 more full-length requests (32,768 tokens each)" in text


def test_every_number_of_a_bar_is_told_to_those_who_do_not_see_it() -> None:
    labels = [
        attributes["aria-label"] or ""
        for tag, attributes in Elements(page(FULL)).found
        if tag == "svg" and attributes.get("role") == "img"
    ]
    assert labels[0].startswith("GPU 0: 2.9 GiB to spare at best, 2.1 GiB short")
    assert "expected: weights of r1 90.0 GiB, KV cache of r1 22.0 GiB, runtime of r1 1.5 GiB" in labels[0]
    assert "in use: r1 110.0 GiB, other processes 4.0 GiB, no process 6.0 GiB" in labels[0]


def test_a_host_of_which_nothing_is_known_has_a_page_too() -> None:
    assert "Critical. Nothing is known of this host: no memory could be read." in text_of(page(EMPTY))


def test_a_demo_says_that_nothing_is_real() -> None:
    played = dataclasses.replace(FULL, demo="8xh200-r1")
    assert "recorded host “8xh200-r1”, played back" in page(played)
    assert "DEMO" not in page(FULL)


def test_foreign_names_become_text_and_nothing_else() -> None:
    html = page(hostile())
    elements = Elements(html)
    assert elements.open == []
    assert [tag for tag, _ in elements.found].count("script") == 1
    assert "img" not in {tag for tag, _ in elements.found}
    assert not any(name.startswith("on") or name == "style" for _, had in elements.found for name in had)
    assert "&lt;script&gt;window.harmed=1&lt;/script&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert EMOJI in html
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", html)
    assert LONG[:100] in html
    assert LONG[:2000] not in html


def test_only_harmless_runbooks_are_links() -> None:
    links = {had["href"] for tag, had in Elements(page(hostile())).found if tag == "a"}
    own = {link for link in links if link and link.startswith("docs/ALERTS.md")}
    assert links - own == {"metrics", "api/v1/snapshot", "-/healthy"}
    links = {had["href"] for tag, had in Elements(page(in_trouble())).found if tag == "a"}
    assert "https://docs.example.org/ALERTS.md#deepseekgpulost" in links


def test_the_page_is_well_formed_and_loads_nothing_from_anywhere() -> None:
    html = page(in_trouble())
    elements = Elements(html)
    assert elements.open == []
    loaded = [had.get("src") or had.get("data") for _, had in elements.found if "src" in had or "data" in had]
    assert loaded == []
    icons = [had["href"] or "" for tag, had in elements.found if tag == "link"]
    assert [icon.partition(",")[0] for icon in icons] == ["data:image/svg+xml"]
    assert set(re.findall(r"url\((.)", html)) == {"#"}
    assert "@import" not in html
    identifiers = [had["id"] for _, had in elements.found if "id" in had]
    assert len(identifiers) == len(set(identifiers))


def test_the_browser_may_run_and_load_only_what_the_page_itself_carries() -> None:
    got = answer("/", FULL)
    html = got.body.decode()
    policy = dict(part.strip().split(" ", 1) for part in got.headers["content-security-policy"].split(";"))

    def hash_of(tag: str) -> str:
        inside = html.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        return "'sha256-" + base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode() + "'"

    assert policy == {
        "default-src": "'none'",
        "style-src": hash_of("style"),
        "script-src": hash_of("script"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


@pytest.mark.parametrize("path", ["/", "/api/v1/snapshot"])
def test_neither_view_is_stored_or_open_to_other_sites(path: str) -> None:
    headers = answer(path, FULL).headers
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert not any(name.startswith("access-control") for name in headers)


def test_the_json_is_the_snapshot_without_what_is_the_owners_alone() -> None:
    got = answer("/api/v1/snapshot", hostile())
    assert got.headers["content-type"] == "application/json"
    plain = json.loads(got.body)
    assert plain == json.loads(json.dumps(to_public(hostile())))
    assert plain["schema"] == SCHEMA
    assert [one["declared"]["name"] for one in plain["assessment"]["deployments"][:-1]] == list(NAMES)


@pytest.mark.parametrize("path", ["/", "/api/v1/snapshot"])
def test_who_takes_gzip_gets_the_same_smaller(path: str) -> None:
    async def talk() -> tuple[Answer, Answer]:
        async with serve(snapshot=as_of_now(FULL)) as site:
            return await site.ask(path), await site.ask(path, accept_encoding="gzip, br")

    plain, zipped = asyncio.run(talk())
    assert "content-encoding" not in plain.headers
    assert zipped.headers["content-encoding"] == "gzip"
    assert plain.headers["vary"] == zipped.headers["vary"] == "accept-encoding"
    assert gzip.decompress(zipped.body) == plain.body
    assert len(zipped.body) < len(plain.body) / 3


def test_a_new_snapshot_is_seen_at_the_next_look() -> None:
    async def talk() -> tuple[bytes, bytes, bytes]:
        async with serve(snapshot=as_of_now(quiet())) as site:
            first, again = (await site.ask("/")).body, (await site.ask("/")).body
            assert first == again
            site.application.publish(EXPOSITION, as_of_now(in_trouble()))
            return first, (await site.ask("/")).body, (await site.ask("/api/v1/snapshot")).body

    first, second, plain = asyncio.run(talk())
    assert b"All well" in first
    assert b"GPU 5 is lost" in second
    assert json.loads(plain)["alerts"][0]["name"] == "DeepSeekVramOvercommitted"


def test_while_nobody_looks_the_template_engine_is_not_even_loaded() -> None:
    program = (
        "import sys, exporter.daemon.service; "
        "print([name for name in ('jinja2', 'markupsafe', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
