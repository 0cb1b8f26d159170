"""A chapter's Markdown source becomes a notebook, the same one each time."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import jupytext
from nbformat import NotebookNode

from snnmlp_edu.errors import InputError

_LANGUAGE = {"name": "python", "pygments_lexer": "ipython3", "file_extension": ".py"}
# Cells that the pages fold. The setup is one closed box there (book/_ext/setup_box.py).
_FOLDED = {"setup", "hide-input", "hide-cell", "exercise-solution"}
_TITLE = re.compile(r"^# .*$", flags=re.MULTILINE)


def convert(source: Path, repository: str = "") -> NotebookNode:
    """Convert a chapter's MyST Markdown into a notebook without outputs.

    Cell identifiers are a hash of the cell's content, so that two conversions are equal and an edit
    changes no identifier but its own. With a `repository` address the title gets a Colab badge. JupyterLab
    and Colab show code closed that is folded on the pages.

    Raises:
        InputError: the file is missing, or its header names no `python3` kernel.
    """
    if not source.is_file():
        raise InputError(f"{source} does not exist: write that chapter or take it out of book/_toc.yml")
    notebook = jupytext.read(source, fmt="md:myst")
    kernel = notebook.metadata.get("kernelspec", {})
    if kernel.get("name") != "python3":
        raise InputError(f"{source.name}: its header names no kernel: add `kernelspec:` with `name: python3`")
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = dict(_LANGUAGE)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    if repository:
        _insert_badge(notebook, repository, source.stem)
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        if _FOLDED & {*cell.metadata.get("tags", [])}:
            cell.metadata["jupyter"] = {"source_hidden": True}  # in JupyterLab
            cell.metadata["cellView"] = "form"  # in Colab
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return notebook


def colab_address(repository: str, chapter: str) -> str:
    """Address under which Colab opens a chapter's committed notebook.

    >>> colab_address("https://github.com/example/book", "01_lif")
    'https://colab.research.google.com/github/example/book/blob/main/book/chapters/01_lif.ipynb'
    """
    match = re.fullmatch(r"https://github\.com/([^/]+/[^/]+?)(\.git)?/?", repository)
    if match is None:
        raise InputError(
            f"repository in book/_config.yml is {repository!r}: give https://github.com/OWNER/NAME or nothing"
        )
    return f"https://colab.research.google.com/github/{match[1]}/blob/main/book/chapters/{chapter}.ipynb"


def _insert_badge(notebook: NotebookNode, repository: str, chapter: str) -> None:
    """Put the Colab badge under the chapter's title; its picture is ours, so nothing is requested."""
    badge = f"[![Open in Colab](../_static/open-in-colab.svg)]({colab_address(repository, chapter)})"
    for cell in notebook.cells:
        title = _TITLE.search(cell.source)
        if cell.cell_type == "markdown" and title:
            cell.source = f"{cell.source[: title.end()]}\n\n{badge}{cell.source[title.end() :]}"
            return
    raise InputError(f"{chapter}.md: no title for the Colab badge to stand under: start it with `# Title`")
