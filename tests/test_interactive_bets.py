"""Bets in a real browser: placed in the preface, settled in chapter 15 as the ledger judges, kept between."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_interactive import CHAPTERS, assert_accessible, says

from book.engine.browser import serve
from book.engine.convert import convert
from book.interactive.bets import BETS, SETTLED_AT
from book.interactive.embed import markup
from snnmlp_edu import ledger
from snnmlp_edu.ledger.plots import on_board

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

STYLE = Path(__file__).parents[1] / "book" / "_static" / "custom.css"
PATIENCE = 60_000  # milliseconds: machines that test are busy
PAGES = {"place": "fig-board-blank", "settle": SETTLED_AT}


@cache
def claims() -> list[ledger.Claim]:
    return on_board(ledger.claims())


@pytest.fixture(scope="module")
def site(explorers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two pages, one to place bets and one to settle them."""
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(explorers, root, dirs_exist_ok=True)
    shutil.copy2(STYLE, root)
    (root / "chapters").mkdir()
    for page, name in PAGES.items():
        figure = f'<figure id="{name}"><img src="data:," alt="a picture"></figure>'
        head = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Bets</title>'
            '<link rel="icon" href="data:,"><link rel="stylesheet" href="../custom.css">'
        )
        text = f"{head}<main><h1>Bets</h1>{figure}{markup('bets', name)}</main>"
        (root / "chapters" / f"{page}.html").write_text(text, encoding="utf-8")
    with serve(root) as address:
        yield address


@pytest.fixture
def show(browser: Browser, site: str) -> Iterator[Any]:
    """Open a page on a phone that has placed no bets before; whatever goes wrong in it fails the test."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    context.set_default_timeout(PATIENCE)
    trouble: list[str] = []
    context.on("weberror", lambda error: trouble.append(str(error.error)))
    context.on("console", lambda said: trouble.append(said.text) if said.type == "error" else None)
    page = context.new_page()

    def open_page(name: str) -> Page:
        page.goto(f"{site}/chapters/{name}.html")
        page.locator(".explorer[data-ready]").wait_for()
        return page

    yield open_page
    context.close()
    assert trouble == []


def test_chapters_place_and_settle() -> None:
    for chapter, figure in (("00_preface", PAGES["place"]), ("15_ledger", SETTLED_AT)):
        cells = convert(CHAPTERS / f"{chapter}.md").cells
        (cell,) = [each for each in cells if each.metadata.get("interactive") == "bets"]
        assert cell.metadata["mystnb"]["figure"]["name"] == figure


def test_every_claim_can_be_chosen_and_no_more_than_five(show: Any) -> None:
    page = show("place")
    boxes = page.get_by_role("checkbox")
    assert boxes.count() == len(claims())
    for n, claim in enumerate(claims(), start=1):
        assert page.get_by_role("checkbox", name=f"{n} {claim.short}", exact=True).count() == 1
    assert says(page, f"Choose {BETS} claims")
    for n in range(BETS):
        assert boxes.nth(n).is_enabled()
        boxes.nth(n).check()
    assert says(page, "Chapter 15 settles them")
    assert boxes.nth(BETS).is_disabled()
    boxes.nth(0).uncheck()
    assert boxes.nth(BETS).is_enabled()
    assert says(page, "Your bets: 2, 3, 4, 5. 1 more to place.")


def test_bets_are_settled_as_the_ledger_judges(show: Any) -> None:
    page = show("place")
    verdicts = [claim.verdict for claim in claims()]
    first = sorted(
        {verdicts.index(verdict) for verdict in verdicts}
    )  # one claim of each verdict that there is
    assert len(first) <= BETS
    for place in first:
        page.get_by_role("checkbox").nth(place).focus()
        page.keyboard.press("Space")
    page = show("settle")
    rows = page.locator(".explorer li").all_inner_texts()
    assert len(rows) == len(first)
    back = 0
    for row, place in zip(rows, first, strict=True):
        verdict = verdicts[place]
        won = verdict in ("reproduced", "reproduced at small scale")
        said = "won" if won else "lost" if verdict == "not reproduced" else "stake back"
        back += said == "stake back"
        assert row.startswith(f"{place + 1} {claims()[place].short}")
        assert row.endswith(f"{verdict}: {said}")
    assert says(page, f"{len(first)} bets")
    assert says(page, f"{back} with the stake back")
    assert page.locator("figure img").is_visible(), "the board stays"
    assert_accessible(page)
    assert show("place").locator("input:checked").count() == len(first), "the bets are still there"
    assert_accessible(page)


@pytest.mark.parametrize("kept", [None, "[", "7", '["no such claim"]', "null"])
def test_what_is_no_bet_counts_as_none(kept: str | None, show: Any) -> None:
    page = show("place")
    if kept is not None:
        page.evaluate(f"localStorage.setItem('snnmlp-edu bets', {json.dumps(kept)})")
    assert says(show("settle"), "You placed no bets in the preface")
    assert show("place").locator("input:checked").count() == 0
