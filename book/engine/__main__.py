"""`python -m book.engine book` renders the book, `... notebooks` refreshes the committed notebooks."""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from nbformat import NotebookNode

from snnmlp_edu.data.files import write_atomically
from snnmlp_edu.data.settings import cores
from snnmlp_edu.errors import InputError

from .browser import MISSING, find_browser, seconds_to_first_page
from .cache import Run, notebook_text, run_chapter, write_if_changed
from .convert import convert
from .execute import PROFILES, ChapterError
from .pdf import print_book
from .render import PDF, RenderError, chapters, lay_out, pages, render, repository

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
    parser.add_argument(
        "--jobs",
        type=int,
        default=default_jobs(),
        help="chapters executed at once; by default one for each core, at most 4",
    )
    chosen = parser.parse_args(arguments)
    try:
        if chosen.profile not in PROFILES:
            raise InputError(f"unknown profile {chosen.profile!r}: choose one of {', '.join(PROFILES)}")
        if chosen.jobs < 1:
            raise InputError(f"--jobs is {chosen.jobs}: at least one chapter has to run at a time")
        if chosen.command == "notebooks":
            refresh_notebooks(root, chosen.jobs)
        else:
            print(build_book(root, chosen.profile, chosen.jobs))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except (ChapterError, RenderError) as error:
        print(f"The book was not built: {error}", file=sys.stderr)
        return 1
    return 0


def build_book(root: Path, profile: str, jobs: int = 1) -> Path:
    """Execute what changed, render and print it, and return the path of the first page."""
    build = root / "book" / "_build"
    runs = run_chapters(root, profile, jobs)
    with_pdf = find_browser() is not None
    lay_out(
        root / "book",
        {name: run.notebook for name, run in runs.items()},
        times_page(runs, profile),
        build / "source",
        with_pdf,
    )
    rendered = render(build / "source", build / "html")
    print("The pages were rendered." if rendered else "The pages stand as they were: nothing changed.")
    pdf = build / "html" / PDF
    if not with_pdf:
        print(f"No PDF was printed: {MISSING}.")
    elif not pdf.is_file():
        print_book(build / "html", pages(build / "source"), pdf)
        print("The PDF was printed.")
    size = sum(file.stat().st_size for file in (build / "html").rglob("*") if file.is_file())
    loaded = f"; the first page loads in {seconds_to_first_page(build / 'html'):.1f} s" if with_pdf else ""
    print(f"The site has {size / 1e6:.1f} MB{loaded}.")
    return build / "html" / "index.html"


def refresh_notebooks(root: Path, jobs: int = 1) -> list[str]:
    """Write the committed notebook of each chapter whose content changed; returns their names."""
    written = []
    runs = run_chapters(root, "smoke", jobs)
    write_atomically(root / "book" / README_PICTURE, picture_of(runs["00_preface"].notebook, README_FIGURE))
    for name, run in runs.items():
        if write_if_changed(root / "book" / "chapters" / f"{name}.ipynb", notebook_text(run.notebook)):
            written.append(name)
    print(f"Refreshed: {', '.join(written) or 'nothing, all notebooks are as their sources make them'}.")
    return written


def default_jobs() -> int:
    """How many chapters this machine executes at once: most of what they run keeps one core busy."""
    return min(4, cores())


def run_chapters(root: Path, profile: str, jobs: int = 1) -> dict[str, Run]:
    """Execute each chapter of the table of contents that changed, and print a table of the times.

    A chapter with a cell tagged `measures-time` runs alone, after the others: beside them its figures would
    be those of a busy machine.

    Raises:
        ChapterError: a cell failed; what has not begun by then is not begun any more.
    """
    book = root / "book"
    address = repository(book)
    notebooks = {name: convert(book / "chapters" / f"{name}.md", address) for name in chapters(book)}
    timed = [name for name, notebook in notebooks.items() if _measures_time(notebook)]
    runs = {}
    for names, at_once in (([name for name in notebooks if name not in timed], jobs), (timed, 1)):
        run = partial(
            run_chapter, root, profile=profile, kept=book / "_build/executed" / profile, jobs=at_once
        )
        # Threads are enough, the work is done by kernels; and within one process no two get the same ports.
        with ThreadPoolExecutor(at_once) as pool:
            started = {name: pool.submit(run, name, notebooks[name]) for name in names}
            try:
                for name, waiting in started.items():
                    done = runs[name] = waiting.result()
                    state = "executed" if done.fresh else "unchanged"
                    print(f"{name:24} {done.seconds:8.1f} s  {state}", flush=True)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return {name: runs[name] for name in notebooks}


def _measures_time(notebook: NotebookNode) -> bool:
    return any("measures-time" in cell.metadata.get("tags", []) for cell in notebook.cells)


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
