"""How long each chapter's main line is: its words, its visible lines of code, and the minutes they take.

The main line is what every reader reads: not what is folded (`<details>`, hidden cells, the setup box), and
not the exercises and the self-check, whose minutes each chapter states apart.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jupytext
from nbformat import NotebookNode

from snnmlp_edu.errors import InputError

from .cache import write_if_changed
from .render import chapters

WORDS_A_MINUTE, SECONDS_A_LINE, ROUNDED_TO = 200, 20, 5
MAX_WORDS, MAX_LINES = 4_500, 250  # of a chapter's main line

APART = ("Exercises", "Self-check")  # sections with minutes of their own, or none
NOT_VISIBLE = re.compile(r"hide-input|hide-cell|setup|remove[-_].*|exercise-.*")

_TIME = re.compile(
    r"\*\*Time\*\* (?P<reading>\d+) minutes to read(?:, (?P<exercises>\d+) more for the exercises)?;"
)
_SECTION = re.compile(r"##? +(?P<title>.+?) *")
_FENCE = re.compile(r" *(?P<fence>`{3,}|~{3,})")
_DIRECTIVE = re.compile(r" *:{3,}(?:\{[^}]*\})?|:[a-z-]+:( .*)?")  # its first or last line, or an option
_FOLDED = re.compile(r"<details.*?</details>", flags=re.DOTALL)
_UNREAD = re.compile(r"<!--.*?-->|^\$\$.*?\$\$[^\n]*", flags=re.DOTALL | re.MULTILINE)
_ONE_WORD = re.compile(r"(?:\{[a-z:]+\})?(`+)[^`]+\1|\$[^$\n]+\$")  # a role, code in a line, a formula
_ADDRESS = re.compile(r"(?<=\])\([^)\s]*\)|<[^>\n]*>")  # what a link leads to; what HTML calls its parts


class Length(NamedTuple):
    """What a chapter's main line asks of its reader."""

    words: int
    lines: int

    @property
    def minutes(self) -> int:
        """Minutes to read it, rounded to five.

        >>> Length(words=4_500, lines=100).minutes  # 22.5 for the words, 33.3 for the code
        55
        """
        exact = self.words / WORDS_A_MINUTE + self.lines * SECONDS_A_LINE / 60
        return ROUNDED_TO * max(1, int(exact / ROUNDED_TO + 0.5))


class Stated(NamedTuple):
    """The minutes that a chapter's card states; None where it states none."""

    reading: int | None
    exercises: int | None


@functools.cache  # a table asks twice, and reading a notebook takes its time
def measure(text: str) -> Length:
    """Measure a chapter, given as MyST Markdown.

    >>> measure("# A title\\n\\nThree words, [one](link.md) formula $a + b = c$ and `a name`.")
    Length(words=9, lines=0)
    """
    cells = list(_main_line(jupytext.reads(text, fmt="md:myst")))
    prose = "\n".join(source for kind, source in cells if kind == "markdown")
    code = [line for kind, source in cells if kind == "code" for line in source.splitlines() if line.strip()]
    return Length(_count_words(prose), len(code))


def stated(text: str) -> Stated:
    """The minutes in a chapter's card.

    >>> stated("**Time** 60 minutes to read, 45 more for the exercises; it runs in one minute.")
    Stated(reading=60, exercises=45)
    >>> stated("**Time** 10 minutes to read; it runs in one minute.")
    Stated(reading=10, exercises=None)
    """
    found = _TIME.search(text)
    if found is None:
        return Stated(None, None)
    return Stated(int(found["reading"]), None if found["exercises"] is None else int(found["exercises"]))


def restated(text: str) -> str:
    """The chapter with the minutes to read that its length makes; as it was where its card states no time.

    >>> restated("**Time** 60 minutes to read; it runs in one minute.")
    '**Time** 5 minutes to read; it runs in one minute.'
    """
    minutes = measure(text).minutes
    return _TIME.sub(lambda found: found[0].replace(found["reading"], str(minutes), 1), text, count=1)


def _main_line(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """Kind and source of what the main line shows: prose without its folded parts, and visible code."""
    section = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose = []
            for line in _FOLDED.sub("", _without_fences(cell.source)).splitlines():
                if heading := _SECTION.fullmatch(line):
                    section = heading["title"]
                if section not in APART:
                    prose.append(line)
            yield "markdown", "\n".join(prose)
        elif section not in APART and not any(map(NOT_VISIBLE.fullmatch, cell.metadata.get("tags", []))):
            yield "code", cell.source


def _without_fences(markdown: str) -> str:
    """The text without what stands between fences: formulas, lists of sources, commands."""
    kept: list[str] = []
    fence = ""
    for line in markdown.splitlines():
        found = _FENCE.match(line)
        if fence:
            if found and found["fence"].startswith(fence):
                fence = ""
        elif found:
            fence = found["fence"]
        else:
            kept.append(line)
    return "\n".join(kept)


def _count_words(prose: str) -> int:
    titles = re.sub(r"^ *:{3,}\{[^}]*\}", "", prose, flags=re.MULTILINE)  # an admonition's is read
    lines = "\n".join(line for line in titles.splitlines() if not _DIRECTIVE.fullmatch(line))
    plain = _ADDRESS.sub("", _ONE_WORD.sub(" x ", _UNREAD.sub(" ", lines)))
    return sum(any(letter.isalnum() for letter in word) for word in plain.split())


def read_chapters(root: Path, revision: str | None = None) -> dict[str, str]:
    """The text of each chapter by name, as it stands or as it stood at a revision; there some may be missing.

    Raises:
        InputError: the repository has no such revision.
    """
    files = {name: Path("book/chapters") / f"{name}.md" for name in chapters(root / "book")}
    if revision is None:
        return {name: (root / file).read_text(encoding="utf-8") for name, file in files.items()}
    if _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}") is None:
        raise InputError(
            f"--before {revision!r}: the repository has no such revision; give a commit or a tag"
        )
    stood = {name: _git(root, "show", f"{revision}:{file.as_posix()}") for name, file in files.items()}
    return {name: text for name, text in stood.items() if text is not None}


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, or None where it fails."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, encoding="utf-8", check=False)
    return done.stdout if done.returncode == 0 else None


def table(texts: Mapping[str, str], before: Mapping[str, str] | None = None) -> str:
    """A table in Markdown: each chapter's length, the minutes it states, and its length before if given."""
    names = ["chapter", "words", "lines", "minutes", "stated", "exercises"]
    rows = [[name, *_length(measure(text)), *map(_cell, stated(text))] for name, text in texts.items()]
    rows.append(["together", *_sum(texts.values()), "", ""])
    if before is not None:
        names += [f"{name} before" for name in ("words", "lines", "minutes")]
        for row in rows[:-1]:
            row += _length(measure(before[row[0]])) if row[0] in before else ["", "", ""]
        rows[-1] += _sum(before.values())
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        f"| {row[0]:{widths[0]}} | {' | '.join(map(str.rjust, row[1:], widths[1:]))} |"
        for row in (names, rule, *rows)
    )


def _length(length: Length) -> list[str]:
    return [f"{length.words:,}", f"{length.lines:,}", f"{length.minutes:,}"]


def _sum(texts: Iterable[str]) -> list[str]:
    lengths = [measure(text) for text in texts]
    return [f"{sum(each):,}" for each in zip(*((*one, one.minutes) for one in lengths), strict=True)]


def _cell(value: int | None) -> str:
    return "" if value is None else str(value)


def write_minutes(root: Path) -> list[str]:
    """State in each card the minutes that the length makes; returns the names of chapters that changed."""
    return [
        name
        for name, text in read_chapters(root).items()
        if write_if_changed(root / "book" / "chapters" / f"{name}.md", restated(text))
    ]
