"""The chapters as they are published: their stored notebooks, and the pages rendered from them."""

from __future__ import annotations

import importlib
import re
import zipfile
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup, Tag
from nbformat import NotebookNode

from book.engine.pdf import assemble
from book.engine.render import chapters, is_numbered
from book.engine.render import pages as listed

BOOK = Path(__file__).parents[1] / "book"
CHAPTERS = chapters(BOOK)
EXERCISE_TAGS = ("exercise-stub", "exercise-check", "exercise-solution")


@cache
def stored(name: str) -> NotebookNode:
    return nbformat.read(BOOK / "chapters" / f"{name}.ipynb", as_version=4)


def code(name: str) -> list[NotebookNode]:
    return [cell for cell in stored(name).cells if cell.cell_type == "code"]


def tagged(name: str, tag: str) -> list[NotebookNode]:
    return [cell for cell in code(name) if tag in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("name", CHAPTERS)
def test_stored_notebook_ran_from_top_to_bottom(name: str) -> None:
    assert [cell.execution_count for cell in code(name)] == list(range(1, len(code(name)) + 1))
    outputs = [output for cell in code(name) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_has_one_cell_of_parameters_with_the_quick_profile(name: str) -> None:
    (parameters,) = tagged(name, "parameters")
    assert re.search(r'^profile = "smoke"', parameters.source, flags=re.MULTILINE)
    assert not tagged(name, "injected-parameters"), "it would overrule the parameters that a reader sets"


@pytest.mark.parametrize("name", CHAPTERS)
def test_code_exercise_has_a_stub_a_check_and_a_solution(name: str) -> None:
    counts = {tag: len(tagged(name, tag)) for tag in EXERCISE_TAGS}
    assert len(set(counts.values())) == 1, counts
    if is_numbered(name):
        assert counts["exercise-stub"] >= 1, "every chapter of the main line has a code exercise"


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_begins_with_its_setup_in_one_box(name: str, html: Path) -> None:
    cells = stored(name).cells
    first_section = next(n for n, cell in enumerate(cells) if re.search(r"^## ", cell.source, re.MULTILINE))
    is_setup = ["setup" in cell.metadata.get("tags", []) for cell in cells]
    kinds = ["setup" if each else cell.cell_type for each, cell in zip(is_setup, cells, strict=True)]
    before = kinds[:first_section]
    assert "code" not in before, "what stands before the first section is set-up"
    assert before == ["markdown"] + ["setup"] * sum(is_setup), "one after the other, and none later"
    (box,) = article(html / "chapters" / f"{name}.html").select("details.setup")
    assert len(box.select("div.cell")) == sum(is_setup) >= 3, "installation, imports, parameters"


@cache
def parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_bytes(), "html.parser")


@cache
def named(path: Path) -> dict[str, Tag]:
    """What a link can lead to on a page, by its identifier: a search for each link would take minutes."""
    return {str(each["id"]): each for each in reversed(parsed(path).find_all(id=True))}


def article(path: Path) -> Tag:
    found = parsed(path).select_one("article.bd-article")
    assert found is not None
    return found


def pages(html: Path) -> list[Path]:
    return sorted(path for path in html.rglob("*.html") if "_static" not in path.parts)


def local(page: Path, reference: str) -> Path:
    return (page.parent / unquote(urlsplit(reference).path)).resolve()


def test_every_page_of_the_table_of_contents_is_there(html: Path) -> None:
    for file in [*listed(BOOK), "execution_times", "downloads"]:
        assert article(html / f"{file}.html").find("h1"), file


def test_sidebar_has_the_parts_and_the_number_of_each_chapter(html: Path) -> None:
    for page in ("chapters/00_preface", "chapters/15_ledger", "glossary"):
        sidebar = parsed(html / f"{page}.html").select_one("nav.bd-links")
        assert sidebar is not None
        captions = [caption.get_text(strip=True) for caption in sidebar.select("p.caption")]
        assert captions[:4] == ["Neurons and learning", "The building blocks", "The network", "What holds"]
        assert captions[-1] == "Reference"
        links = [(str(link["href"]), link.get_text(strip=True)) for link in sidebar.select("a.internal")]
        shown = {unquote(Path(address).stem): text for address, text in links}
        for name in CHAPTERS:
            text = shown.get(name, shown.get("#", ""))
            number = f"{name[:2].lstrip('0')}. " if name[:2] != "00" else ""
            assert re.match(rf"{re.escape(number)}[A-Z]", text), f"{name}: {text}"


def test_figures_equations_and_theorems_are_numbered_by_chapter(html: Path) -> None:
    for name in filter(is_numbered, CHAPTERS):
        page, number = article(html / "chapters" / f"{name}.html"), int(name[:2])
        captions = [each.get_text(strip=True) for each in page.select("figcaption .caption-number")]
        assert captions == [f"Fig. {number}.{n}" for n in range(1, len(captions) + 1)]
        equations = [each.get_text(strip=True).strip("()#") for each in page.select("span.eqno")]
        assert equations == [f"{number}.{n}" for n in range(1, len(equations) + 1)]
        for kind in ("theorem", "proposition"):
            titles = [each.get_text(strip=True) for each in page.select(f".{kind} > .admonition-title")]
            assert all(re.match(rf"{kind.title()} {number}\.\d+\b", title) for title in titles), titles


def test_first_page_is_reached_from_the_index(html: Path) -> None:
    refresh = parsed(html / "index.html").find("meta", attrs={"http-equiv": "Refresh"})
    assert isinstance(refresh, Tag)
    target = str(refresh["content"]).partition("url=")[2]
    assert local(html / "index.html", target) == html / "chapters" / "00_preface.html"


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_figure_has_its_picture_a_caption_and_an_alternative_text(name: str, html: Path) -> None:
    page = html / "chapters" / f"{name}.html"
    figures = article(page).find_all("figure")
    asked_for = [cell for cell in code(name) if "figure" in cell.metadata.get("mystnb", {})]
    assert len(figures) >= len(asked_for)
    drawn = [cell for cell in code(name) if any("image/png" in o.get("data", {}) for o in cell.outputs)]
    assert [cell.source for cell in drawn if cell not in asked_for] == [], "a picture without a caption"
    for figure in figures:
        assert figure.find("figcaption").get_text(strip=True)
    for image in article(page).find_all("img"):
        assert local(page, image["src"]).is_file(), image["src"]
        assert len(image["alt"]) > 10, f"{image['src']}: say what the picture shows, not {image['alt']!r}"


def test_no_link_inside_the_book_is_dead(html: Path) -> None:
    dead = []
    for page in pages(html):
        for link in parsed(page).find_all("a", href=True):
            parts = urlsplit(link["href"])
            if parts.scheme or parts.netloc:
                continue
            target = local(page, link["href"]) if parts.path else page
            if not target.is_file() or (
                parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in named(target)
            ):
                dead.append(f"{page.relative_to(html)}: {link['href']}")
    assert not dead


def test_every_link_of_the_assembled_book_leads_somewhere(html: Path) -> None:
    # A few pages that lead to each other, two with proofs: every link of every page is followed above.
    names = ["chapters/03_normalisation", "chapters/09_mfi_proven", "notation", "glossary"]
    whole = BeautifulSoup(assemble(html, names), "html.parser")
    identifiers = [each["id"] for each in whole.find_all(id=True)]
    assert len(identifiers) == len(set(identifiers)), "unique, though pages use the same ones"
    inside = [str(link["href"]) for link in whole.find_all("a", href=True) if "://" not in str(link["href"])]
    assert len(inside) > 100
    assert [link for link in inside if unquote(link).removeprefix("#") not in identifiers] == []
    pictures = [str(image["src"]) for image in whole.find_all("img")]
    assert [picture for picture in pictures if not (html / unquote(picture)).is_file()] == []


def test_a_table_that_a_cell_prints_is_shown_as_one(html: Path) -> None:
    raw = {
        page.name: text
        for page in pages(html)
        for each in parsed(page).find_all("p")
        if (text := each.get_text().strip()).startswith("|") or "|---" in text
    }
    assert raw == {}
    printed = article(html / "chapters" / "07_skip_connections.html").select(".cell_output table")
    assert any("spike_bn" in table.get_text() for table in printed)


def test_notebooks_can_be_taken_along(html: Path) -> None:
    links = [str(link["href"]) for link in article(html / "downloads.html").select("li a")]
    assert links == ["notebooks.zip"], "no PDF was asked for"
    with zipfile.ZipFile(html / "notebooks.zip") as archive:
        assert archive.namelist() == [f"{name}.ipynb" for name in CHAPTERS]
        for name in CHAPTERS:
            assert nbformat.reads(archive.read(f"{name}.ipynb").decode(), as_version=4) == stored(name)


def test_site_is_small_enough_to_carry(html: Path) -> None:
    assert sum(path.stat().st_size for path in html.rglob("*") if path.is_file()) < 45e6


def public_names() -> list[str]:
    """Every name that the library says is public, in the modules that the API reference covers."""
    modules = ["snnmlp_edu", *(f"snnmlp_edu.{name}" for name in ("mfi", "cost", "training", "ledger"))]
    skipped = {"snnmlp_edu.cost.table", "snnmlp_edu.ledger.VERDICTS"}  # a module and a constant
    names = [f"{module}.{name}" for module in modules for name in importlib.import_module(module).__all__]
    return [name for name in names if name not in skipped]


@pytest.mark.parametrize("name", public_names())
def test_public_name_is_in_the_reference_with_its_docstring(name: str, html: Path) -> None:
    described = named(html / "api.html").get(name)
    assert described is not None, f"add {name} to book/api.md"
    assert described.find_next("dd").get_text(strip=True), f"{name} has no docstring"


def is_foreign(reference: str) -> bool:
    return bool(urlsplit(reference).netloc)


def test_no_page_loads_anything_from_another_machine(html: Path) -> None:
    foreign = []
    for page in pages(html):
        for tag in parsed(page).find_all(
            ["script", "img", "iframe", "source", "video", "audio", "embed", "object"]
        ):
            foreign += [f"{page.name}: {tag[a]}" for a in ("src", "data") if is_foreign(str(tag.get(a, "")))]
        for link in parsed(page).find_all("link", href=True):
            if is_foreign(link["href"]) and "canonical" not in link["rel"]:
                foreign.append(f"{page.name}: {link['href']}")
    for sheet in html.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        for reference in re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""", text):
            if is_foreign(reference):
                foreign.append(f"{sheet.name}: {reference}")
    assert not foreign


def test_every_script_and_style_sheet_is_there(html: Path) -> None:
    for page in pages(html):
        scripts = [tag["src"] for tag in parsed(page).find_all("script", src=True)]
        sheets = [tag["href"] for tag in parsed(page).find_all("link", rel="stylesheet")]
        missing = [each for each in scripts + sheets if not local(page, each).is_file()]
        assert not missing, page


def test_mathematics_is_set_with_the_copy_that_comes_with_the_book(html: Path) -> None:
    page = html / "chapters" / "01_lif.html"
    assert article(page).select(".math")
    (mathjax,) = [tag["src"] for tag in parsed(page).find_all("script", src=True) if "mathjax" in tag["src"]]
    folder = local(page, mathjax).parent
    assert folder == html / "mathjax"
    assert list((folder / "output" / "chtml" / "fonts").rglob("*.woff"))
    assert (folder / "input" / "tex" / "extensions" / "ams.js").is_file()


def test_nothing_of_the_live_code_service_is_left(html: Path) -> None:
    """It is off, but its scripts would be added twice, and a browser calls that an error."""
    for page in pages(html):
        assert "thebe" not in " ".join(str(tag) for tag in parsed(page).find_all("script")), page
