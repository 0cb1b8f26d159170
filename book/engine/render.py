"""Lay out a source tree from executed notebooks and render it to HTML that asks no other machine."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import importlib.resources
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode

from book.interactive.embed import add_explorers, write_explorers

from .cache import notebook_text, tree_hash, write_if_changed

# What a page with mathematics loads, and what MathJax's accessibility menu loads on request.
MATHJAX_FILES = (
    "tex-chtml.js",
    "input/tex/extensions",
    "output/chtml/fonts",
    "a11y",
    "sre/mathmaps/base.json",
    "sre/mathmaps/en.json",
    "sre/mathmaps/nemeth.json",
)
PDF, NOTEBOOKS = "multiplication-free-spiking-mlp.pdf", "notebooks.zip"
PDF_MARK = "<!-- the PDF, once it is printed -->"
DOWNLOADS_PAGE = f"""# Take it with you

{PDF_MARK}

- <a href="{NOTEBOOKS}">All chapters as notebooks</a>, with what their cells showed. They run in
  Jupyter, on Colab and on Kaggle; the first cell of each looks for this package, and installs it from where
  `SNNMLP_SOURCE` points.

The pages themselves need no connection either: copy their folder, and serve it with `python -m http.server`.
"""
AT_THE_ROOT = ("CHANGELOG.md", "REPRODUCTION.md")  # where people look for them, and pages of the book as well
# Jupyter Book, without what takes long and changes no page: a look through all installed packages for each
# entry of the bibliography, and the search for garbage, since nearly all that a page is made of stays.
JUPYTER_BOOK = """
import functools, gc
import pybtex.plugin
from jupyter_book.cli.main import main
pybtex.plugin.entry_points = functools.cache(pybtex.plugin.entry_points)
gc.freeze()
gc.set_threshold(100_000, 50, 50)
main(prog_name="jupyter-book")
"""
RENDERERS = ("jupyter-book", "Sphinx", "myst-nb", "sphinx-book-theme", "sphinx-exercise", "sphinx-proof")


class RenderError(Exception):
    """The book has a broken reference, citation, link or picture; the message lists them."""


def repository(book: Path) -> str:
    """The public address that book/_config.yml names, empty while it is not decided."""
    return str(_read_yaml(book / "_config.yml").get("repository") or "")


def pages(folder: Path) -> list[str]:
    """Names of all pages that a folder's _toc.yml lists, in reading order, without their suffix.

    >>> from tempfile import TemporaryDirectory
    >>> neurons = "{caption: Neurons, numbered: true, chapters: [{file: chapters/01_lif}]}"
    >>> reference = "{caption: Reference, chapters: [{file: glossary}]}"
    >>> toc = f"{{root: chapters/00_preface, parts: [{neurons}, {reference}]}}"
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "_toc.yml").write_text(toc)
    ...     pages(Path(folder))
    ['chapters/00_preface', 'chapters/01_lif', 'glossary']
    """
    toc = _read_yaml(folder / "_toc.yml")
    return [str(toc["root"]), *(str(each["file"]) for part in toc["parts"] for each in part["chapters"])]


def chapters(book: Path) -> list[str]:
    """Names of all that is executed, in reading order: the preface, the chapters and the appendices.

    >>> chapters(Path("book"))[0]
    '00_preface'
    """
    return [Path(page).name for page in pages(book) if page.startswith("chapters/")]


def is_numbered(name: str) -> bool:
    """Whether this is a chapter of the main line, with a number of its own, a limit of length and exercises.

    The preface (`00_...`) is none, and neither are the appendices (`A1_...`), though both are executed.

    >>> [name for name in ("00_preface", "01_lif", "15_ledger", "A1_simulation_cost") if is_numbered(name)]
    ['01_lif', '15_ledger']
    """
    return name[0].isdigit() and not name.startswith("00")


def lay_out(book: Path, notebooks: Mapping[str, NotebookNode], times: str, source: Path) -> None:
    """Write the tree that the renderer reads: the book's own pages, the executed chapters, their scripts.

    `times` is the page of execution times; it becomes the book's last page but one. The last one has the
    book to take along: the notebooks, and once `offer_pdf` was called the PDF.
    """
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(
        book,
        source,
        ignore=shutil.ignore_patterns("_build", "engine", "interactive", "chapters", "__pycache__"),
    )
    for pictures in (book / "chapters").glob("*.[ps][nv]g"):
        shutil.copy2(pictures, source / "chapters" / pictures.name)
    explorers = []
    for name, notebook in notebooks.items():
        page = copy.deepcopy(notebook)
        explorers += add_explorers(page)
        write_if_changed(source / "chapters" / f"{name}.ipynb", notebook_text(page))
    write_explorers(explorers, source / "_extra")
    write_if_changed(source / "execution_times.md", times)
    write_if_changed(source / "downloads.md", DOWNLOADS_PAGE)
    _zip_notebooks(notebooks, source / "_extra" / NOTEBOOKS)
    toc = _read_yaml(book / "_toc.yml")
    toc["parts"][-1]["chapters"] += [{"file": "execution_times"}, {"file": "downloads"}]
    write_if_changed(source / "_toc.yml", yaml.safe_dump(toc, sort_keys=False))
    for name in AT_THE_ROOT:
        if (book.parent / name).is_file():
            shutil.copy2(book.parent / name, source / name.lower())
    config = with_buttons(_read_yaml(book / "_config.yml"))
    write_if_changed(source / "_config.yml", yaml.safe_dump(config, sort_keys=False))
    _copy_mathjax(source / "_extra" / "mathjax")


def offer_pdf(html: Path) -> None:
    """Link to the printed PDF on the page of downloads, where its mark is."""
    page = html / "downloads.html"
    link = f'<p><a href="{PDF}">The whole book as a PDF</a>, for paper and for trains.</p>'
    write_if_changed(page, page.read_text(encoding="utf-8").replace(PDF_MARK, link))


def _zip_notebooks(notebooks: Mapping[str, NotebookNode], target: Path) -> None:
    """Write all notebooks into one archive, the same bytes for the same notebooks."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, notebook in notebooks.items():
            entry = zipfile.ZipInfo(f"{name}.ipynb", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, notebook_text(notebook))


def with_buttons(config: dict[str, Any]) -> dict[str, Any]:
    """Make the launch, edit and report buttons from the repository's address; without one there are none."""
    config = dict(config)
    address = str(config.pop("repository") or "").rstrip("/")
    if not address:
        return config
    buttons = {f"use_{each}_button": True for each in ("repository", "edit_page", "issues")}
    sphinx = config["sphinx"]
    context = sphinx["config"]["html_context"] | {
        "edit_page_provider_name": "GitHub",
        # People edit a chapter's Markdown source, not the notebook that is made from it.
        "edit_page_url_template": f"{address}/edit/main/book/{{{{ file_name | replace('.ipynb', '.md') }}}}",
    }
    return config | {
        "repository": {"url": address, "branch": "main", "path_to_book": "book"},
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
        "html": config["html"] | buttons,
        "sphinx": sphinx | {"config": sphinx["config"] | {"html_context": context}},
    }


def render(source: Path, html: Path) -> bool:
    """Render a laid-out tree to `html`, unless it stands there already; returns whether it rendered.

    Every run starts anew: a page that is left alone would keep its warnings to itself. The finished pages
    replace the old ones in one step.

    Raises:
        RenderError: the renderer warned or failed; `html` is as it was.
    """
    stamp = html.with_name(f"{html.name}.stamp")
    wanted = _render_key(source)
    if (html / "index.html").is_file() and stamp.is_file() and stamp.read_text() == wanted:
        return False
    work = html.with_name(f"{html.name}.new")
    shutil.rmtree(work, ignore_errors=True)
    # Not by its script: that does not start where the path of the environment has spaces.
    program = [sys.executable, "-c", JUPYTER_BOOK]
    strictly = ["-q", "-W", "-n", "--keep-going"]
    command = [*program, "build", str(source), "--path-output", str(work), *strictly]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RenderError(strip_ansi(result.stderr.strip() or result.stdout))
    for unused in (work / "_build" / "html" / "_static").rglob("*.map"):
        unused.unlink()  # source maps, for those who debug the theme
    stamp.unlink(missing_ok=True)
    shutil.rmtree(html, ignore_errors=True)
    os.replace(work / "_build" / "html", html)
    shutil.rmtree(work)
    write_if_changed(stamp, wanted)
    return True


def _render_key(source: Path) -> str:
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in RENDERERS]
    return hashlib.sha256("\n".join([tree_hash([source]), *versions]).encode()).hexdigest()


def _copy_mathjax(target: Path) -> None:
    """Copy what a page needs of MathJax out of the package that ships it."""
    package = importlib.resources.files("mathjax") / "static" / "mathjax" / "es5"
    with importlib.resources.as_file(package) as folder:
        for name in MATHJAX_FILES:
            origin, copy = folder / name, target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if origin.is_dir():
                shutil.copytree(origin, copy)
            else:
                shutil.copy2(origin, copy)


def _read_yaml(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content
