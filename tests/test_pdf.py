"""The book as one PDF: assembled from rendered pages, and printed where there is a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from book.engine import browser
from book.engine.browser import MISSING, find_browser
from book.engine.pdf import assemble, print_book
from snnmlp_edu import InputError

HEAD = """<title>A book</title><link rel="stylesheet" href="../_static/a.css?v=1">
<script src="../_static/menu.js"></script><script defer src="../mathjax/tex-chtml.js"></script>"""


def page(body: str, head: str = HEAD) -> str:
    return f"<html><head>{head}</head><body><article class='bd-article'>{body}</article></body></html>"


@pytest.fixture
def html(tmp_path: Path) -> Path:
    """Two pages that use the same identifier, in two folders."""
    (tmp_path / "chapters").mkdir()
    first = """<h1 id="top">One<a class="headerlink" href="#top">#</a></h1>
      <a href="../words.html#top">there</a><a href="https://example.org/x">far</a>
      <a href="../genindex.html">index</a>
      <details class="hide"><summary>code</summary>hidden</details>
      <details class="setup"><summary>Setup</summary>imports</details>
      <details><summary>Answer</summary>42</details>
      <p id="proof">as some themes write it</p><p id="proof">twice</p>
      <div class="explorer"></div><img src="../_images/a%20b.png" alt="a"><script>alert(1)</script>"""
    (tmp_path / "chapters" / "one.html").write_text(page(first), encoding="utf-8")
    words = '<h1 id="top">Two</h1><a href="chapters/one.html">back</a>'
    (tmp_path / "words.html").write_text(page(words, "<title>x</title>"), encoding="utf-8")
    return tmp_path


def test_pages_stand_behind_each_other_with_their_links_turned_inwards(html: Path) -> None:
    whole = BeautifulSoup(assemble(html, ["chapters/one", "words"]), "html.parser")
    assert [each["id"] for each in whole.find_all(id=True)] == [
        *("chapters-one", "chapters-one--top", "chapters-one--proof", "words", "words--top")
    ]
    links = {link.get_text(): link.get("href") for link in whole.find_all("a")}
    assert links == {
        **{"One": "#chapters-one", "Two": "#words", "#": "#chapters-one--top"},  # the first two: contents
        **{"there": "#words--top", "far": "https://example.org/x", "index": None, "back": "#chapters-one"},
    }


def test_paper_gets_what_paper_can_show(html: Path) -> None:
    whole = BeautifulSoup(assemble(html, ["chapters/one", "words"]), "html.parser")
    assert [sheet["href"] for sheet in whole.find_all("link")] == ["_static/a.css"]
    assert [script.get("src") for script in whole.find_all("script")] == ["mathjax/tex-chtml.js"]
    assert whole.img["src"] == "_images/a b.png"
    (answer,) = whole.find_all("details")
    assert answer.has_attr("open"), "nobody unfolds paper"
    assert not whole.select(".explorer")


def test_pdf_is_printed_and_nothing_is_left_beside_it(html: Path) -> None:
    if find_browser() is None:
        pytest.skip(MISSING)
    before = sorted(html.rglob("*"))
    print_book(html, ["chapters/one", "words"], html.parent / "book.pdf")
    content = (html.parent / "book.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.count(b"/Type /Page\n") == 3, "contents, and each chapter on a page of its own"
    assert sorted(html.rglob("*")) == before


def test_without_a_browser_it_says_so(html: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SNNMLP_BROWSER", raising=False)
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    with pytest.raises(
        InputError, match=r"no Chromium is installed \(looked for: chromium, .*SNNMLP_BROWSER"
    ):
        print_book(html, ["chapters/one"], html.parent / "book.pdf")
    assert not (html / "print.html").exists()


def test_browser_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SNNMLP_BROWSER", str(tmp_path / "none"))
    with pytest.raises(
        InputError, match=r"SNNMLP_BROWSER is .*, which is no file: name a Chromium, or unset"
    ):
        find_browser()
    (tmp_path / "none").touch()
    assert find_browser() == str(tmp_path / "none")
