"""The book in a real browser: every page, by light and by dark, at a desk and on a phone.

Without a Chromium these tests are skipped by name; `.ci/run` installs one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from PIL import Image

from book.engine.render import pages

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request, Response, ViewportSize

TESTS = Path(__file__).parent
PAGES = [*pages(TESTS.parent / "book"), "execution_times", "downloads", "genindex", "search"]

DESK: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
CHECKS = (TESTS / "site_checks.js").read_text(encoding="utf-8")
STILL = "*, *::before, *::after { transition: none !important; animation: none !important; }"
PATIENCE = 300_000  # milliseconds: machines that test are busy


class Look(NamedTuple):
    """What one page did and showed."""

    requests: list[str]
    errors: list[str]
    sideways: list[str]
    mathematics: dict[str, Any]
    violations: list[str]
    brightness: dict[str, float]


class Reader:
    """One tab, in which a reader with a taste for light or dark opens page after page."""

    def __init__(self, browser: Browser, site: str, scheme: Literal["light", "dark"] = "light") -> None:
        # One context keeps what the pages share: scripts are fetched and compiled once.
        self.tab = browser.new_context(color_scheme=scheme, viewport=DESK).new_page()
        self.tab.set_default_timeout(PATIENCE)
        self.site = site
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.tab.on("request", self._note_request)
        self.tab.on("response", self._note_response)
        self.tab.on("requestfailed", lambda request: self.requests.append(f"failed: {request.url}"))
        self.tab.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.site}/", "data:", "blob:")):
            self.requests.append(f"foreign: {request.url}")

    def _note_response(self, answer: Response) -> None:
        if answer.status >= 400:
            self.requests.append(f"{answer.status}: {answer.url}")

    def open(self, name: str, size: ViewportSize = DESK) -> Page:
        """Load a page; failed and foreign requests and errors are those since then."""
        self.requests, self.errors = [], []
        self.tab.set_viewport_size(size)
        self.tab.goto(f"{self.site}/{name}.html", wait_until="load")
        self.tab.evaluate(CHECKS)
        return self.tab

    def close(self) -> None:
        self.tab.context.close()


@pytest.fixture(scope="module")
def reader(browser: Browser, site: str) -> Iterator[Reader]:
    opened = Reader(browser, site)
    yield opened
    opened.close()


def brightness(page: Page) -> float:
    """How bright the ground of the text is, from 0 to 1."""
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return float(np.mean([int(part) for part in color.strip("rgba()").split(",")[:3]]) / 255)


def describe(violation: dict[str, Any]) -> str:
    """A violation with the first elements that it was found in."""
    nodes = [f"{node['html'][:150]} {node['failureSummary']}" for node in violation["nodes"][:3]]
    return f"{violation['id']}, {len(violation['nodes'])} times: {'; '.join(nodes)}"


@pytest.fixture(scope="module")
def look_at(reader: Reader) -> Callable[[str], Look]:
    """Open a page once, and keep all there is to see: on a phone, at a desk, by light and by dark."""

    @cache
    def look(name: str) -> Look:
        page = reader.open(name, PHONE)
        page.add_style_tag(content=STILL)
        mathematics = page.evaluate("siteChecks.mathematics()")
        page.evaluate("siteChecks.unfold()")
        sideways = page.evaluate("siteChecks.sideways()")
        page.evaluate("siteChecks.thin()")
        page.set_viewport_size(DESK)
        page.evaluate(AXE_SCRIPT)
        light = brightness(page)
        found = {
            "either": page.evaluate("siteChecks.rules()"),
            "light": page.evaluate("siteChecks.contrast()"),
        }
        page.emulate_media(color_scheme="dark")
        page.evaluate("siteChecks.nextFrame()")
        found["dark"] = page.evaluate("siteChecks.contrast()")
        dark = brightness(page)
        page.emulate_media(color_scheme="light")
        violations = [
            f"{scheme}: {describe(each)}"
            for scheme, several in found.items()
            for each in several
            if each["impact"] in ("serious", "critical")
        ]
        brightnesses = {"light": light, "dark": dark}
        return Look(reader.requests, reader.errors, sideways, mathematics, violations, brightnesses)

    return look


@pytest.mark.parametrize("name", PAGES)
def test_no_request_fails_or_leaves_the_machine(name: str, look_at: Callable[[str], Look]) -> None:
    assert look_at(name).requests == []


@pytest.mark.parametrize("name", PAGES)
def test_no_error_on_the_console(name: str, look_at: Callable[[str], Look]) -> None:
    assert look_at(name).errors == []


@pytest.mark.parametrize("name", PAGES)
def test_all_mathematics_is_set(name: str, look_at: Callable[[str], Look]) -> None:
    found = look_at(name).mathematics
    assert found["broken"] == []
    assert found["set"] == found["asked"]


def test_there_is_mathematics_to_set(look_at: Callable[[str], Look]) -> None:
    assert look_at("chapters/01_lif").mathematics["asked"] > 10


@pytest.mark.parametrize("name", PAGES)
def test_nothing_scrolls_sideways_on_a_phone(name: str, look_at: Callable[[str], Look]) -> None:
    assert look_at(name).sideways == []


@pytest.mark.parametrize("name", PAGES)
def test_light_is_light_and_dark_is_dark(name: str, look_at: Callable[[str], Look]) -> None:
    seen = look_at(name).brightness
    assert seen["light"] > 0.9
    assert seen["dark"] < 0.2


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(name: str, look_at: Callable[[str], Look]) -> None:
    assert look_at(name).violations == []


def test_pictures_are_opaque(html: Path) -> None:
    """Dark lines on a transparent ground cannot be read on a dark page."""
    for path in (html / "_images").glob("*.png"):
        with Image.open(path) as picture:
            assert picture.convert("RGBA").getchannel("A").getextrema() == (255, 255), path.name


def test_search_finds_a_word_and_leads_to_it(reader: Reader) -> None:
    page = reader.open("search")
    field = page.locator("input[name=q]").locator("visible=true").first
    field.fill("rheobase")
    field.press("Enter")
    link = page.locator("#search-results li a", has_text="LIF neurons").first
    link.wait_for()
    assert page.locator("#search-results li p.context").first.inner_text(), "with an excerpt"
    link.click()
    page.wait_for_url("**/chapters/01_lif.html*")
    assert page.locator("article h1").inner_text().startswith("1. LIF neurons")
    assert reader.requests == reader.errors == []


def test_pages_can_be_walked_by_keyboard(reader: Reader) -> None:
    page = reader.open("chapters/01_lif")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to main content"
    for folded in ("details.setup > summary", "details:not([class]) > summary"):
        summary = page.locator(f"article {folded}").first
        for is_open in (True, False):
            summary.focus()
            page.keyboard.press("Enter")
            assert summary.evaluate("each => each.parentElement.open") == is_open, folded


def test_a_page_that_is_loaded_by_dark_is_dark_from_the_start(browser: Browser, site: str) -> None:
    reader = Reader(browser, site, "dark")
    assert brightness(reader.open("notation")) < 0.2
    assert reader.requests == reader.errors == []
    reader.close()
