"""`python -m book.engine book` renders the book, `... notebooks` refreshes the committed notebooks."""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Sequence
from pathlib import Path

from nbformat import NotebookNode

from snnmlp_edu.data.files import write_atomically
from snnmlp_edu.errors import InputError

from .cache import Run, notebook_text, run_chapter, write_if_changed
from .convert import convert
from .execute import PROFILES, ChapterError
from .render import RenderError, chapters, lay_out, render, repository

ROOT = Path(__file__).resolve().parents[2]

# The picture at the top of the README is a figure of the preface.
README_FIGURE, README_PICTURE = "fig-preface-spikes", Path("_static/spikes.png")


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Carry out one command; returns 0, or 1 when a chapter or a page failed, or 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m book.engine", description=__doc__)
    parser.add_argument("command", choices=("book", "notebooks"))
    parser.add_argument(
        "--profile", default="smoke", help=f"how much the chapters compute: {', '.join(PROFILES)}"
    )
    chosen = parser.parse_args(arguments)
    try:
        if chosen.profile not in PROFILES:
            raise InputError(f"unknown profile {chosen.profile!r}: choose one of {', '.join(PROFILES)}")
        if chosen.command == "notebooks":
            refresh_notebooks(root)
        else:
            print(build_book(root, chosen.profile))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except (ChapterError, RenderError) as error:
        print(f"The book was not built: {error}", file=sys.stderr)
        return 1
    return 0


def build_book(root: Path, profile: str) -> Path:
    """Execute what changed, render it, and return the path of the first page."""
    build = root / "book" / "_build"
    runs = run_chapters(root, profile)
    lay_out(
        root / "book",
        {name: run.notebook for name, run in runs.items()},
        times_page(runs, profile),
        build / "source",
    )
    rendered = render(build / "source", build / "html")
    print("The pages were rendered." if rendered else "The pages stand as they were: nothing changed.")
    return build / "html" / "index.html"


def refresh_notebooks(root: Path) -> list[str]:
    """Write the committed notebook of each chapter whose content changed; returns their names."""
    written = []
    runs = run_chapters(root, "smoke")
    write_atomically(root / "book" / README_PICTURE, picture_of(runs["00_preface"].notebook, README_FIGURE))
    for name, run in runs.items():
        if write_if_changed(root / "book" / "chapters" / f"{name}.ipynb", notebook_text(run.notebook)):
            written.append(name)
    print(f"Refreshed: {', '.join(written) or 'nothing, all notebooks are as their sources make them'}.")
    return written


def run_chapters(root: Path, profile: str) -> dict[str, Run]:
    """Execute each chapter of the table of contents that changed, and print a table of the times."""
    book = root / "book"
    address = repository(book)
    runs = {}
    for name in chapters(book):
        notebook = convert(book / "chapters" / f"{name}.md", address)
        runs[name] = run_chapter(root, name, notebook, profile, book / "_build" / "executed" / profile)
        run = runs[name]
        print(f"{name:24} {run.seconds:8.1f} s  {'executed' if run.fresh else 'unchanged'}", flush=True)
    return runs


def picture_of(notebook: NotebookNode, figure: str) -> bytes:
    """The PNG that the cell of a named figure shows."""
    for cell in notebook.cells:
        if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == figure:
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output.data["image/png"])
    raise InputError(f"no cell shows a figure named {figure}: name it in the cell's mystnb metadata")


def times_page(runs: dict[str, Run], profile: str) -> str:
    """The page that tells how long each chapter's execution took when it was last run."""
    rows = [f"| [](chapters/{name}.ipynb) | {run.seconds:.1f} |" for name, run in runs.items()]
    total = sum(run.seconds for run in runs.values())
    return "\n".join(
        [
            "# Execution times",
            "",
            f"Seconds to execute each chapter with profile `{profile}`, on the machine that built this copy.",
            "",
            "| chapter | seconds |",
            "|---|---:|",
            *rows,
            f"| together | {total:.1f} |",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
