"""The status page in a real Chromium: fits every screen, passes axe-core, refreshes without a jump."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import axe_playwright_python
import pytest
from fixed_snapshot import EMPTY
from hostile_snapshot import hostile
from made_up_hosts import in_trouble, quiet
from page_browser import Served, as_of_now, chromium, served
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SCREENS = {"phone": (360, 780), "desk": (1280, 900), "wall": (2560, 1440)}
HOSTS = {"quiet": quiet, "in trouble": in_trouble, "hostile": hostile, "blind": lambda: EMPTY}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


class Look:
    """One page with everything that it complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self, site: Served) -> Page:
        """The page after its script has refreshed it once."""
        self.page.goto(site.url)
        expect(self.page.locator("#age")).to_contain_text("ago")
        return self.page


def looking(browser: Browser, screen: str = "desk", *, script: bool = True) -> Look:
    width, height = SCREENS[screen]
    context = browser.new_context(viewport={"width": width, "height": height}, java_script_enabled=script)
    context.set_default_timeout(10_000)
    return Look(context.new_page())


def open_all_details(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("screen", SCREENS)
def test_every_host_fits_every_screen_in_both_schemes(browser: Browser, screen: str, name: str) -> None:
    with served(as_of_now(HOSTS[name]())) as site:
        look = looking(browser, screen)
        page = look.open(site)
        open_all_details(page)
        backgrounds = set()
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            overflowing = page.evaluate(
                "[...document.querySelectorAll('#page *')].filter(one => !one.closest('svg, .hidden') &&"
                " one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 200))"
            )
            assert overflowing == []
            assert page.evaluate("document.documentElement.scrollWidth") <= SCREENS[screen][0]
            verdict = page.locator("#verdict").bounding_box()
            assert verdict is not None
            assert verdict["y"] < SCREENS[screen][1] / 2
            backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(backgrounds) == 2
        assert look.complaints == []
        page.context.close()


@pytest.mark.parametrize("name", HOSTS)
def test_axe_core_finds_nothing(browser: Browser, name: str) -> None:
    with served(as_of_now(HOSTS[name]()), poll_seconds=60) as site:
        page = looking(browser).open(site)
        open_all_details(page)
        page.evaluate(AXE)
        for scheme, rules in zip(SCHEMES, ("", "runOnly: ['color-contrast']"), strict=True):
            page.emulate_media(color_scheme=scheme)
            result = page.evaluate(f"axe.run({{resultTypes: ['violations'], {rules}}})")
            assert "color-contrast" in {one["id"] for one in result["passes"]}
            told = [(one["id"], one["impact"], one["nodes"][0]["html"]) for one in result["violations"]]
            assert told == []
        page.context.close()


def test_hostile_names_run_nothing(browser: Browser) -> None:
    with served(as_of_now(hostile())) as site:
        look = looking(browser)
        page = look.open(site)
        assert page.evaluate("window.harmed") is None
        assert page.locator("img").count() == 0
        assert look.complaints == []
        page.context.close()


def test_an_incident_is_seen_without_reloading_and_the_reader_stays_where_he_is(browser: Browser) -> None:
    with served(as_of_now(quiet()), poll_seconds=1.0) as site:
        page = looking(browser, "phone").open(site)
        page.evaluate("window.stays = document.querySelector('#device-1')")
        summary = page.locator("#device-1 summary")
        summary.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#device-1-more")).to_have_attribute("open", "")
        page.evaluate("scrollTo(0, 700)")
        expect(page.locator("#verdict")).to_contain_text("All well")
        site.show(as_of_now(in_trouble()))
        expect(page.locator("#verdict")).to_contain_text("GPU 5 is lost")
        assert page.title().startswith("Critical")
        expect(page.locator("#device-1-more")).to_have_attribute("open", "")
        assert page.evaluate("document.activeElement.closest('li').id") == "device-1"
        assert page.evaluate("window.stays === document.querySelector('#device-1')")
        assert page.evaluate("scrollY") > 0
        page.context.close()


def test_every_control_is_reached_by_keyboard(browser: Browser) -> None:
    with served(as_of_now(in_trouble())) as site:
        page = looking(browser).open(site)
        controls = page.locator("a, summary").count()
        for _ in range(controls):
            page.keyboard.press("Tab")
        last = page.evaluate("document.activeElement.textContent")
        assert last == "health"
        page.context.close()


def test_a_daemon_that_cannot_be_reached_is_told_and_forgotten_when_it_is_back(browser: Browser) -> None:
    with served(as_of_now(quiet()), poll_seconds=1.0) as site:
        page = looking(browser).open(site)
        notice = page.locator("#connection")
        expect(notice).to_be_hidden()
        site.stop()
        expect(notice).to_contain_text("cannot be reached since")
        expect(page.locator("#verdict")).to_contain_text("All well")
        site.start()
        expect(notice).to_be_hidden()
        page.context.close()


def test_a_daemon_that_answers_and_reads_nothing_is_told(browser: Browser) -> None:
    fresh = as_of_now(quiet())
    old = dataclasses.replace(fresh, taken_at_seconds=fresh.taken_at_seconds - 300)
    with served(old) as site:
        page = looking(browser).open(site)
        expect(page.locator("#connection")).to_contain_text("Stale: the daemon answers, and has read nothing")
        expect(page.locator("#verdict")).to_contain_text("Nothing was read for 5 min: what follows is old")
        page.context.close()


def test_a_hidden_page_asks_nothing(browser: Browser) -> None:
    with served(as_of_now(quiet()), poll_seconds=1.0) as site:
        page = looking(browser).open(site)
        asked: list[str] = []
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {get: () => window.away, configurable: true});"
            "window.away = true; document.dispatchEvent(new Event('visibilitychange'))"
        )
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(2500)
        assert asked == []
        with page.expect_request("**/"):
            page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
        page.context.close()


def test_without_script_the_page_is_whole_and_renews_itself(browser: Browser) -> None:
    with served(as_of_now(in_trouble())) as site:
        page = looking(browser, script=False).page
        page.goto(site.url)
        expect(page.locator("#verdict")).to_contain_text("GPU 5 is lost")
        assert page.locator("meta[http-equiv=refresh]").get_attribute("content") == "15"
        page.context.close()
