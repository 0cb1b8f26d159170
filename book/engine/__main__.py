"""`python -m book.engine book` renders the book, `pdf` prints it too, `notebooks` refreshes the notebooks.

`lengths` prints how long each chapter is, and how many minutes it takes.
"""

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
from snnmlp_edu.printing import Parser, quiet_broken_pipe

from .browser import require_browser, seconds_to_first_page
from .cache import Run, committed_run, notebook_text, run_chapter, write_if_changed
from .convert import convert
from .execute import PROFILES, ChapterError
from .lengths import read_chapters, table, write_minutes
from .pdf import print_book
from .render import PDF, RenderError, chapters, lay_out, offer_pdf, pages, render, repository

ROOT = Path(__file__).resolve().parents[2]

# Which chapters are executed: those whose code is not that of their committed notebook, or every one.
EXECUTE = ("changed", "all")

# The picture at the top of the README is a figure of the preface.
README_FIGURE, README_PICTURE = "fig-preface-spikes", Path("_static/spikes.png")


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Carry out one command; returns 0, or 1 when a chapter or a page failed, or 2 for wrong usage."""
    try:
        chosen = _parser().parse_args(arguments)
        if chosen.command == "lengths":
            print_lengths(root, chosen.before, chosen.write)
            return 0
        if chosen.jobs < 1:
            raise InputError(f"--jobs is {chosen.jobs}: at least one chapter has to run at a time")
        if chosen.command == "notebooks":
            refresh_notebooks(root, chosen.jobs)
            return 0
        if chosen.profile not in PROFILES:
            raise InputError(f"unknown profile {chosen.profile!r}: choose one of {', '.join(PROFILES)}")
        if chosen.execute not in EXECUTE:
            raise InputError(f"unknown --execute {chosen.execute!r}: choose one of {', '.join(EXECUTE)}")
        if chosen.command == "pdf":
            require_browser()  # before minutes of work, not after them
        build_book(root, chosen.profile, chosen.jobs, chosen.execute)
        if chosen.command == "pdf":
            print_pdf(root)
        print(root / "book/_build/html/index.html")
    except BrokenPipeError:
        raise
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except (ChapterError, RenderError) as error:
        print(f"The book was not built: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m book.engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    running = Parser(add_help=False)
    running.add_argument(
        "--jobs",
        type=int,
        default=default_jobs(),
        help="chapters executed at once; by default one for each core, at most 4",
    )
    building = Parser(add_help=False, parents=[running])
    building.add_argument(
        "--profile", default="smoke", help=f"how much the chapters compute: {', '.join(PROFILES)}"
    )
    building.add_argument(
        "--execute",
        default="changed",
        help="`changed` executes the chapters whose code is not that of their committed notebook, and shows "
        "the others as they were committed; `all` executes every one, as other profiles than smoke do",
    )
    commands.add_parser("book", parents=[building], help="execute what changed, and render the pages")
    commands.add_parser("pdf", parents=[building], help="the book, and all of it as one PDF beside its pages")
    commands.add_parser("notebooks", parents=[running], help="refresh the committed notebooks")
    lengths = commands.add_parser("lengths", help="words, visible lines of code and minutes of each chapter")
    lengths.add_argument("--before", metavar="REVISION", help="beside them, those at this commit or tag")
    lengths.add_argument(
        "--write", action="store_true", help="first write the computed minutes into the chapters' cards"
    )
    return parser


def print_lengths(root: Path, before: str | None = None, write: bool = False) -> None:
    """Print a table of the chapters' lengths, where asked beside those at a revision.

    Raises:
        InputError: the repository has no such revision.
    """
    stood = None if before is None else read_chapters(root, before)
    if write:
        print(f"Minutes written: {', '.join(write_minutes(root)) or 'none, all cards state them already'}.\n")
    print(table(read_chapters(root), stood))


def build_book(root: Path, profile: str, jobs: int = 1, execute: str = "changed") -> None:
    """Execute what changed, or `all`, and render the pages."""
    build = root / "book" / "_build"
    runs = run_chapters(root, profile, jobs, use_committed=execute == "changed" and profile == "smoke")
    notebooks = {name: run.notebook for name, run in runs.items()}
    lay_out(root / "book", notebooks, times_page(runs, profile), build / "source")
    rendered = render(build / "source", build / "html")
    print("The pages were rendered." if rendered else "The pages stand as they were: nothing changed.")
    size = sum(file.stat().st_size for file in (build / "html").rglob("*") if file.is_file())
    print(f"The site has {size / 1e6:.1f} MB.")


def print_pdf(root: Path) -> None:
    """Print the rendered book, unless that was done, and link to the PDF from its pages.

    Raises:
        InputError: no browser is installed.
    """
    build = root / "book" / "_build"
    pdf = build / "html" / PDF
    if not pdf.is_file():
        new = build / PDF
        print_book(build / "html", pages(build / "source"), new)
        new.replace(pdf)
    offer_pdf(build / "html")
    print(f"The PDF is printed; the first page loads in {seconds_to_first_page(build / 'html'):.1f} s.")


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


def run_chapters(root: Path, profile: str, jobs: int = 1, use_committed: bool = False) -> dict[str, Run]:
    """Execute each chapter of the table of contents that changed, and print a table of the times.

    With `use_committed` a chapter whose code is that of its committed notebook is not executed, whatever has
    changed in the library. A chapter with a cell tagged `measures-time` runs alone, after the others: beside
    them its figures would be those of a busy machine.

    Raises:
        ChapterError: a cell failed; what has not begun by then is not begun any more.
    """
    book = root / "book"
    address = repository(book)
    notebooks = {name: convert(book / "chapters" / f"{name}.md", address) for name in chapters(book)}
    runs: dict[str, Run] = {}
    if use_committed:
        committed = {
            name: committed_run(book / "chapters" / f"{name}.ipynb", each) for name, each in notebooks.items()
        }
        runs = {name: run for name, run in committed.items() if run is not None}
        print(f"{len(runs)} of {len(notebooks)} chapters are shown as they were committed.", flush=True)
    waiting = [name for name in notebooks if name not in runs]
    timed = [name for name in waiting if _measures_time(notebooks[name])]
    for names, at_once in (([name for name in waiting if name not in timed], jobs), (timed, 1)):
        run = partial(
            run_chapter, root, profile=profile, kept=book / "_build/executed" / profile, jobs=at_once
        )
        # Threads are enough, the work is done by kernels; and within one process no two get the same ports.
        with ThreadPoolExecutor(at_once) as pool:
            started = {name: pool.submit(run, name, notebooks[name]) for name in names}
            try:
                for name, future in started.items():
                    done = runs[name] = future.result()
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
    """The page that tells how long the execution of chapters took, as far as this machine executed them."""
    measured = {name: run.seconds for name, run in runs.items() if run.seconds is not None}
    lines = ["# Execution times", ""]
    if measured:
        rows = [f"| [](chapters/{name}.ipynb) | {seconds:.1f} |" for name, seconds in measured.items()]
        lines += [
            f"Seconds to execute a chapter with profile `{profile}`, on the machine that built this copy.",
            "",
            "| chapter | seconds |",
            "|---|---:|",
            *rows,
            f"| together | {sum(measured.values()):.1f} |",
            "",
        ]
    if len(measured) < len(runs):
        lines += [
            f"{len(runs) - len(measured)} of the {len(runs)} chapters are shown as they were committed, "
            "and were not executed for this copy: `make book EXECUTE=all` executes and times every one.",
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    with quiet_broken_pipe():
        sys.exit(main())
