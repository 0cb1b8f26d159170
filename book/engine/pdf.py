"""The whole book as one PDF: the rendered pages behind each other, printed by a browser."""

from __future__ import annotations

import posixpath
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

from .browser import open_browser, serve

PATIENCE = 600_000  # milliseconds; setting the mathematics of a whole book takes a while on a busy machine

# What is folded on a screen and is no code stands open on paper; hidden code and the setup are left out.
LOOK = """
  @page { margin: 18mm 16mm; }
  body { background: white; font-size: 10.5pt; }
  section.chapter { break-before: page; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 8pt; }
  figure, table, .admonition { break-inside: avoid; }
  .explorer, .headerlink, button, details.hide > summary { display: none !important; }
"""
FOOTER = (
    '<div style="width: 100%; text-align: center; font-size: 8px">'
    '<span class="pageNumber"></span> / <span class="totalPages"></span></div>'
)


def print_book(html: Path, pages: list[str], target: Path) -> None:
    """Print rendered pages, in this order, to one PDF that begins with a table of contents.

    Raises:
        InputError: no browser is installed.
    """
    sheet = html / "print.html"
    sheet.write_text(assemble(html, pages), encoding="utf-8")
    try:
        with serve(html) as address, open_browser() as browser:
            page = browser.new_page()
            page.set_default_timeout(PATIENCE)
            page.goto(f"{address}/{sheet.name}", wait_until="load")
            page.evaluate("async () => { if (window.MathJax?.startup) await MathJax.startup.promise; }")
            page.pdf(
                path=target,
                format="A4",
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=FOOTER,
                tagged=False,  # the marks for screen readers would more than double it; the pages have them
            )
    finally:
        sheet.unlink()


def assemble(html: Path, pages: list[str]) -> str:
    """One page with the articles of all, where links from page to page have become links within it."""
    parsed = {name: BeautifulSoup((html / f"{name}.html").read_bytes(), "html.parser") for name in pages}
    head = _head(parsed[pages[0]], pages[0])
    titles = {name: _title(page) for name, page in parsed.items()}
    contents = "".join(f'<li><a href="#{_slug(name)}">{title}</a></li>' for name, title in titles.items())
    sections = [f'<section class="chapter" id="{_slug(name)}">' for name in pages]
    bodies = [str(_article(parsed[name], name, pages)) for name in pages]
    articles = "\n".join(f"{s}{body}</section>" for s, body in zip(sections, bodies, strict=True))
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head>{head}</head>'
        f'<body><main><article class="bd-article"><ul>{contents}</ul>'
        f"{articles}</article></main></body></html>"
    )


def _title(page: BeautifulSoup) -> str:
    """The text of a page's first heading, without the mark that links to it."""
    heading = page.select_one("article.bd-article h1")
    return heading.get_text().strip().removesuffix("#") if heading else "Untitled"


def _slug(name: str) -> str:
    return name.replace("/", "-")


def _from_root(name: str, reference: str) -> str:
    """Path of what a page refers to, seen from the root of the site."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(urlsplit(reference).path)))


def _head(page: BeautifulSoup, name: str) -> str:
    """Title, style sheets and the setter of mathematics; no other script has work to do on paper."""
    kept = ['<meta charset="utf-8"/>', str(page.title)]
    for sheet in page.find_all("link", rel="stylesheet"):
        kept.append(f'<link rel="stylesheet" href="{_from_root(name, str(sheet["href"]))}"/>')
    for script in page.find_all("script"):
        if "mathjax" in str(script.get("src", "")):
            kept.append(f'<script defer src="{_from_root(name, str(script["src"]))}"></script>')
        elif script.string and "window.MathJax" in script.string:
            kept.append(str(script))
    return "".join([*kept, f"<style>{LOOK}</style>"])


def _article(page: BeautifulSoup, name: str, pages: list[str]) -> Tag:
    """A page's article with its identifiers, links and pictures made fit for the assembled page."""
    article = page.select_one("article.bd-article")
    assert article is not None, f"{name}.html has no article"
    article.name = "div"
    for idle in article.select("script, .explorer, details.hide, details.setup"):
        idle.decompose()
    for folded in article.find_all("details"):
        folded["open"] = ""
    given: set[str] = set()
    for each in article.find_all(id=True):
        if each["id"] in given:
            del each["id"]  # proofs share one
            continue
        given.add(str(each["id"]))
        each["id"] = f"{_slug(name)}--{each['id']}"
    for image in article.find_all("img", src=True):
        if not urlsplit(str(image["src"])).scheme:
            image["src"] = _from_root(name, str(image["src"]))
    for link in article.find_all("a", href=True):
        parts = urlsplit(str(link["href"]))
        if parts.scheme or parts.netloc:
            continue
        target = _from_root(name, str(link["href"])).removesuffix(".html") if parts.path else name
        if target in pages:
            link["href"] = f"#{_slug(target)}" + (f"--{unquote(parts.fragment)}" if parts.fragment else "")
        else:
            del link["href"]
    return article
