"""The book in a real browser: every page, by light and by dark, at a desk and on a phone.

Without a Chromium these tests are skipped by name; `.ci/run` installs one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import yaml
from axe_playwright_python.base import AXE_SCRIPT
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Response, Route

TESTS = Path(__file__).parent
TOC = yaml.safe_load((TESTS.parent / "book" / "_toc.yml").read_text(encoding="utf-8"))
CHAPTERS = [entry["file"] for entry in TOC["chapters"] if entry["file"].startswith("chapters/")]
OTHERS = [entry["file"] for entry in TOC["chapters"] if entry["file"] not in CHAPTERS]
PAGES = [TOC["root"], *CHAPTERS, *OTHERS, "execution_times", "downloads", "genindex", "search"]

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
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

    @classmethod
    def empty(cls) -> Look:
        return cls([], [], [], {}, [], {})


@pytest.fixture(scope="module")
def contexts(browser: Browser) -> Iterator[dict[str, BrowserContext]]:
    """A reader who likes it light and a reader who likes it dark."""
    made = {scheme: browser.new_context(color_scheme=scheme, viewport=DESK) for scheme in ("light", "dark")}
    for context in made.values():
        context.set_default_timeout(PATIENCE)
    yield made
    for context in made.values():
        context.close()


def open_page(context: BrowserContext, site: str, name: str, look: Look) -> Page:
    """Load a page, cut off from all but the book; failed and foreign requests and errors go into `look`."""
    page = context.new_page()

    def keep_inside(route: Route) -> None:
        if route.request.url.startswith((f"{site}/", "data:", "blob:")):
            route.continue_()
        else:
            look.requests.append(f"foreign: {route.request.url}")
            route.abort()

    def note_status(answer: Response) -> None:
        if answer.status >= 400:
            look.requests.append(f"{answer.status}: {answer.url}")

    page.route("**/*", keep_inside)
    page.on("response", note_status)
    page.on("requestfailed", lambda request: look.requests.append(f"failed: {request.url}"))
    page.on("console", lambda said: look.errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: look.errors.append(str(error)))
    page.goto(f"{site}/{name}.html", wait_until="load")
    page.evaluate(CHECKS)
    return page


def brightness(page: Page) -> float:
    """How bright the ground of the text is, from 0 to 1."""
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return float(np.mean([int(part) for part in color.strip("rgba()").split(",")[:3]]) / 255)


def describe(violation: dict[str, Any]) -> str:
    """A violation with the first elements that it was found in."""
    nodes = [f"{node['html'][:150]} {node['failureSummary']}" for node in violation["nodes"][:3]]
    return f"{violation['id']}, {len(violation['nodes'])} times: {'; '.join(nodes)}"


@pytest.fixture(scope="module")
def look_at(contexts: dict[str, BrowserContext], site: str) -> Callable[[str], Look]:
    """Open a page once in each scheme, and keep all there is to see."""
    looks: dict[str, Look] = {}

    def open_once(name: str) -> Look:
        if name in looks:
            return looks[name]
        look = Look.empty()
        opened = {scheme: open_page(context, site, name, look) for scheme, context in contexts.items()}
        for scheme, page in opened.items():
            mathematics = page.evaluate("siteChecks.mathematics()")
            page.evaluate("siteChecks.unfold()")
            if scheme == "light":
                look.mathematics.update(mathematics)
                page.set_viewport_size(PHONE)
                look.sideways.extend(page.evaluate("siteChecks.sideways()"))
                page.set_viewport_size(DESK)
            page.add_style_tag(content=STILL)
            look.brightness[scheme] = brightness(page)
            page.evaluate("siteChecks.thin()")
            page.evaluate(AXE_SCRIPT)
            # All rules once: the dark page differs in its colours only. Both run at the same time.
            rules = {} if scheme == "light" else {"runOnly": ["color-contrast"]}
            page.evaluate("rules => siteChecks.startAxe(rules)", rules)
        for scheme, page in opened.items():
            for found in page.evaluate("siteChecks.violations"):
                if found["impact"] in ("serious", "critical"):
                    look.violations.append(f"{scheme}: {describe(found)}")
            page.close()
        looks[name] = look
        return look

    return open_once


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


def test_search_finds_a_word_and_leads_to_it(contexts: dict[str, BrowserContext], site: str) -> None:
    look = Look.empty()
    page = open_page(contexts["light"], site, "search", look)
    field = page.locator("input[name=q]").locator("visible=true").first
    field.fill("rheobase")
    field.press("Enter")
    link = page.locator("#search-results li a", has_text="LIF neurons").first
    link.wait_for()
    assert page.locator("#search-results li p.context").first.inner_text(), "with an excerpt"
    link.click()
    page.wait_for_url("**/chapters/01_lif.html*")
    assert page.locator("article h1").inner_text().startswith("LIF neurons")
    assert look.requests == look.errors == []
    page.close()


def test_pages_can_be_walked_by_keyboard(contexts: dict[str, BrowserContext], site: str) -> None:
    page = open_page(contexts["light"], site, "chapters/01_lif", Look.empty())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to main content"
    answer = page.locator("article details summary").first
    answer.focus()
    page.keyboard.press("Enter")
    assert answer.evaluate("each => each.parentElement.open")
    page.close()
