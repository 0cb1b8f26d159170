"""How long chapters are: on a tiny one counted by hand, and on every chapter of the book."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_book import HEADER, make_project

from book.engine.__main__ import main
from book.engine.lengths import (
    MAX_LINES,
    MAX_WORDS,
    Length,
    Stated,
    measure,
    read_chapters,
    restated,
    stated,
    table,
    write_minutes,
)
from book.engine.render import chapters, is_numbered

ROOT = Path(__file__).parents[1]
TEXTS = read_chapters(ROOT)
TIME = "**Time** 60 minutes to read, 45 more for the exercises; it runs in one minute."

# What a main line has, each part with the number of its words.
COUNTED = [
    ("# A tiny chapter", 3),
    ("**Why?** Read [this, first](01_lif.ipynb) and {cite:t}`somebody2020`.", 6),
    (":::{admonition} About this chapter\n:class: note\n", 3),
    ("- trace $u[t] = \\beta\\,v[t-1] + x[t]$ by hand; `a = b + c` is code", 7),
    (":::", 0),
    ("```{code-cell} ipython3\n:tags: [setup]\n\nimport torch\nimport numpy\n```", 0),
    ("```{code-cell} ipython3\n:tags: [parameters, setup]\n\nprofile = 'smoke'\n```", 0),
    ("## A section", 2),
    ("One -- or two; it's {eq}`eq-a`, *well-known* to all.", 8),
    ("$$\na + b\n$$ (eq-a)", 0),
    ("```{math}\n:label: eq-b\n\nc\n```", 0),
    ("```text\nsnnmlp train\n```", 0),
    ("| a | table |\n|---|---:|\n| 1 | 2 |", 4),
    ("```{code-cell} ipython3\nx = 1\n\n# a comment\ny = 2\n```", 0),
    ("```{code-cell} ipython3\n:tags: [nbval-check-output]\n\nx\n```", 0),
    (
        "```{code-cell} ipython3\n---\ntags: [hide-input]\nmystnb: {image: {alt: A line.}}\n---\nx\n```",
        0,
    ),
    ("<details><summary>Answer: is it?</summary>\n\nIt is not counted.\n\n</details>", 0),
    (":::{prf:theorem} A rule\n:label: thm-rule\n\nIt holds.\n:::", 4),
    ("## References", 1),
    ("```{bibliography}\n:filter: docname in docnames\n```", 0),
]
NOT_COUNTED = [
    "## Exercises",
    "**1. Recall.** (5 minutes) What is it?",
    "```{code-cell} ipython3\n:tags: [exercise-stub]\n\ndef f(): ...\n```",
    "```{code-cell} ipython3\nf()\n```",
    "### Project",
    "Not here.",
    "## Self-check",
    "**A.** Not here either.",
]
MAIN_LINE = "\n\n".join(text for text, _ in COUNTED)
TINY = "\n\n".join([HEADER, *NOT_COUNTED, MAIN_LINE]) + "\n"


def test_a_tiny_chapter_is_measured_as_by_hand() -> None:
    assert measure(TINY) == Length(words=sum(words for _, words in COUNTED), lines=3 + 1)


@pytest.mark.parametrize(("text", "words"), COUNTED)
def test_each_kind_of_text_is_counted_as_by_hand(text: str, words: int) -> None:
    assert measure(text).words == words


@pytest.mark.parametrize(
    "tag", ["hide-input", "hide-cell", "setup", "remove-input", "remove_cell", "exercise-check"]
)
def test_lines_of_cells_that_are_not_shown_do_not_count(tag: str) -> None:
    cell = "```{{code-cell}} ipython3\n:tags: [{}]\n\nx = 1\n```\n"
    assert measure(HEADER + cell.format(tag)).lines == 0
    assert measure(HEADER + cell.format("measures-time")).lines == 1


@pytest.mark.parametrize(
    ("words", "lines", "minutes"),
    [(0, 0, 5), (500, 0, 5), (1_499, 0, 5), (1_500, 0, 10), (0, 22, 5), (0, 23, 10), (4_500, 250, 105)],
)
def test_minutes_are_rounded_to_five(words: int, lines: int, minutes: int) -> None:
    assert Length(words, lines).minutes == minutes


def test_a_card_states_its_minutes() -> None:
    assert stated(f"# A\n\n{TIME}") == Stated(60, 45)
    assert stated("**Time** 10 minutes to read; it runs in seconds.") == Stated(10, None)
    for text in ("**Time:** about 50 minutes to read", "60 minutes to read, 45 more for the exercises;"):
        assert stated(text) == Stated(None, None)


def test_only_the_minutes_to_read_are_rewritten() -> None:
    assert restated(f"{TINY}{TIME}\n{TIME}") == f"{TINY}{TIME.replace('60', '5')}\n{TIME}"
    assert restated(TINY) == TINY


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one chapter, whose last commit is shorter than what stands there now."""
    make_project(tmp_path)
    chapter = tmp_path / "book" / "chapters" / "00_preface.md"
    chapter.write_text(f"{HEADER}\n# A title\n\n{TIME}\n", encoding="utf-8")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "m"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    chapter.write_text(f"{HEADER}\n# A title\n\n{TIME}\n\n" + "word " * 2_000, encoding="utf-8")
    return tmp_path


def rows(printed: str) -> list[list[str]]:
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_table_has_lengths_now_and_at_a_revision(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lengths"], root=project) == 0
    names, _, preface, together = rows(capsys.readouterr().out)
    assert names == ["chapter", "words", "lines", "minutes", "stated", "exercises"]
    assert preface == ["00_preface", "2,017", "0", "10", "60", "45"]
    assert together == ["together", "2,017", "0", "10", "", ""]
    assert main(["lengths", "--before", "HEAD"], root=project) == 0
    names, _, preface, together = rows(capsys.readouterr().out)
    assert names[6:] == ["words before", "lines before", "minutes before"]
    assert preface[6:] == together[6:] == ["17", "0", "5"]


def test_minutes_are_written_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lengths", "--write"], root=project) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Minutes written: 00_preface.\n")
    assert rows(printed)[2][3:5] == ["10", "10"]
    assert stated((project / "book/chapters/00_preface.md").read_text(encoding="utf-8")) == Stated(10, 45)
    assert write_minutes(project) == []


def test_a_chapter_that_was_not_there_before_has_no_length_then(project: Path) -> None:
    before = read_chapters(project, "HEAD")
    old, new, _ = rows(table({"00_preface": TINY, "01_new": TINY}, before))[2:]
    assert old[6:] == ["17", "0", "5"]
    assert new[6:] == ["", "", ""]


@pytest.mark.parametrize("revision", ["no-such", "--help", ""])
def test_unknown_revision_is_one_line(
    project: Path, revision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lengths", f"--before={revision}", "--write"], root=project) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"--before {revision!r}: the repository has no such revision")
    assert stated((project / "book/chapters/00_preface.md").read_text(encoding="utf-8")) == Stated(60, 45)


def test_without_a_repository_no_revision_is_known(project: Path) -> None:
    shutil.rmtree(project / ".git")
    assert main(["lengths", "--before", "HEAD"], root=project) == 2
    assert main(["lengths"], root=project) == 0


# The chapters of the book


@pytest.mark.parametrize("name", chapters(ROOT / "book"))
def test_stated_minutes_are_those_that_the_length_makes(name: str) -> None:
    found = stated(TEXTS[name])
    assert found.reading == measure(TEXTS[name]).minutes, "python -m book.engine lengths --write"
    assert found.exercises or not is_numbered(name), "and those of its exercises"


@pytest.mark.parametrize("name", [name for name in chapters(ROOT / "book") if is_numbered(name)])
def test_main_line_is_short_enough_to_finish(name: str) -> None:
    length = measure(TEXTS[name])
    assert length.words <= MAX_WORDS
    assert length.lines <= MAX_LINES


@pytest.mark.parametrize("name", [name for name in chapters(ROOT / "book") if is_numbered(name)])
def test_file_is_numbered_as_the_sidebar_counts(name: str) -> None:
    numbered = [each for each in chapters(ROOT / "book") if is_numbered(each)]
    assert re.match(r"\d\d(?=_)", name)
    assert int(name[:2]) == numbered.index(name) + 1
