"""The engine that converts, executes and keeps chapters, on a small book of two pages."""

from __future__ import annotations

import base64
import copy
import os
import queue
import re
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jupytext
import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from nbformat import NotebookNode

from book.engine import __main__ as program
from book.engine import browser
from book.engine.__main__ import main, refresh_notebooks
from book.engine.browser import MISSING, find_browser
from book.engine.cache import Run, cache_key, notebook_text, run_chapter, write_if_changed
from book.engine.convert import convert
from book.engine.execute import ChapterError, execute
from book.engine.render import PDF, RenderError, render, with_buttons
from snnmlp_edu.data.settings import cores
from snnmlp_edu.errors import InputError

BOOK = Path(__file__).parents[1] / "book"
EXAMPLE = "https://github.com/example/a-book"
PREFACE = Path("book/chapters/00_preface.md")
COLAB = "https://colab.research.google.com/github/example/a-book/blob/main/book/chapters/00_preface.ipynb"

HEADER = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
"""
CHAPTER = (
    HEADER
    + """
# A small chapter

Words, and $x^2$.

```{code-cell} ipython3
:tags: [parameters]

profile = "smoke"
```

```{code-cell} ipython3
:tags: [nbval-check-output]

profile
```

```{code-cell} ipython3
---
mystnb:
  image:
    alt: A line that rises.
  figure:
    caption: A line.
    name: fig-preface-spikes
tags: [hide-input]
---
import matplotlib.pyplot as plt

_ = plt.plot([0, 1])
```
"""
)

DRAWING = "import matplotlib.pyplot as plt\n\n_ = plt.plot([0, 1])"


def make_project(root: Path) -> None:
    """A checkout with one small chapter, and a library and data of one file each."""
    chapters = root / "book" / "chapters"
    chapters.mkdir(parents=True)
    (chapters / "00_preface.md").write_text(CHAPTER, encoding="utf-8")
    for name in ("snnmlp_edu/library.py", "data/images.gz"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("1", encoding="utf-8")
    for name in ("_config.yml", "references.bib"):
        shutil.copy(BOOK / name, root / "book")
    for name in ("_ext", "_static"):
        shutil.copytree(BOOK / name, root / "book" / name)
    reference = {"caption": "Reference", "chapters": []}  # the engine adds its own pages
    toc = {"format": "jb-book", "root": "chapters/00_preface", "parts": [reference]}
    (root / "book" / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make_project(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose book was executed and rendered; tests that change it copy it."""
    root = tmp_path_factory.mktemp("finished")
    make_project(root)
    rewrite(root / "book" / "_config.yml", 'repository: ""', f"repository: {EXAMPLE}")
    first = "```{code-cell} ipython3\n:tags: [nbval-ignore-output, setup]\n\nprint('version 1')\n```"
    rewrite(root / PREFACE, "Words, and $x^2$.\n", f"Words, and $x^2$.\n\n{first}\n")
    rewrite(root / PREFACE, "[parameters]", "[parameters, setup]")
    assert main(["book"], root=root) == 0
    return root


@pytest.fixture
def built(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "built")


@pytest.fixture
def source(project: Path) -> Path:
    return project / "book" / "chapters" / "00_preface.md"


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# Conversion


def test_two_conversions_are_equal_to_the_byte(source: Path) -> None:
    assert notebook_text(convert(source)) == notebook_text(convert(source))


def test_an_edit_changes_no_identifier_but_its_own(source: Path) -> None:
    before = [cell.id for cell in convert(source).cells]
    rewrite(source, "plt.plot([0, 1])", "plt.plot([0, 2])")
    after = [cell.id for cell in convert(source).cells]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, True, False]


def test_equal_cells_have_different_identifiers(source: Path) -> None:
    source.write_text(HEADER + "\n```{code-cell}\nprint(1)\n```\n" * 3, encoding="utf-8")
    identifiers = [cell.id for cell in convert(source).cells]
    assert len(identifiers) == len(set(identifiers)) == 3


def test_conversion_keeps_sources_tags_and_figure_metadata(source: Path) -> None:
    notebook = convert(source)
    again = jupytext.reads(jupytext.writes(notebook, fmt="md:myst"), fmt="md:myst")
    assert [(c.cell_type, c.source, c.metadata) for c in again.cells] == [
        (c.cell_type, c.source, c.metadata) for c in notebook.cells
    ]
    figure = code(notebook)[2].metadata
    assert figure.tags == ["hide-input"]
    assert figure.mystnb.image.alt == "A line that rises."
    assert figure.mystnb.figure == {"caption": "A line.", "name": "fig-preface-spikes"}


def test_missing_chapter_is_named(source: Path) -> None:
    source.unlink()
    with pytest.raises(InputError, match=r"00_preface\.md does not exist: write that chapter or take it out"):
        convert(source)


def test_chapter_without_a_kernel_is_named(source: Path) -> None:
    rewrite(source, "name: python3\n", "name: julia\n")
    with pytest.raises(InputError, match=r"00_preface\.md: its header names no kernel: add `kernelspec:`"):
        convert(source)


def test_badge_stands_under_the_title_and_opens_the_notebook_in_colab(source: Path) -> None:
    title, blank, badge, *_ = convert(source, EXAMPLE).cells[0].source.splitlines()
    assert (title, blank) == ("# A small chapter", "")
    assert badge == f"[![Open in Colab](../_static/open-in-colab.svg)]({COLAB})"
    assert (source.parent / "../_static/open-in-colab.svg").is_file()


def test_no_badge_without_an_address(source: Path) -> None:
    assert "colab" not in notebook_text(convert(source)).lower()


@pytest.mark.parametrize(
    "address", ["example/a-book", "https://github.com/example", "http://example.org/a/b"]
)
def test_an_address_that_is_none_is_refused(source: Path, address: str) -> None:
    with pytest.raises(InputError, match=r"repository in book/_config\.yml is .*: give https://github\.com/"):
        convert(source, address)


def test_badge_needs_a_title(source: Path) -> None:
    rewrite(source, "# A small chapter", "A small chapter")
    with pytest.raises(InputError, match=r"00_preface\.md: no title for the Colab badge"):
        convert(source, EXAMPLE)


@pytest.mark.parametrize(
    "tags",
    ["setup, nbval-ignore-output", "parameters, setup", "hide-input", "hide-cell", "exercise-solution"],
)
def test_what_the_pages_fold_is_closed_in_notebooks(source: Path, tags: str) -> None:
    rewrite(source, "[parameters]", f"[{tags}]")
    first, shown, _ = code(convert(source))
    assert first.metadata.jupyter == {"source_hidden": True}, "in JupyterLab"
    assert first.metadata.cellView == "form", "in Colab"
    assert not {"jupyter", "cellView"} & {*shown.metadata}


# Execution


def test_execution_stores_outputs_and_nothing_of_the_moment(source: Path) -> None:
    notebook = convert(source)
    executed = execute(notebook, "00_preface", "cpu")
    parameters, shown, figure = code(executed)
    assert shown.outputs[0].data["text/plain"] == "'cpu'", "the profile was set"
    assert parameters.source == 'profile = "smoke"', "but the source is the chapter's own"
    assert "image/png" in figure.outputs[0].data
    assert [cell.execution_count for cell in code(executed)] == [1, 2, 3]
    assert shown.outputs[0].execution_count == 2
    stripped = copy.deepcopy(executed)
    for cell in code(stripped):
        cell.outputs, cell.execution_count = [], None
    assert notebook_text(stripped) == notebook_text(notebook)


def test_cells_run_in_an_empty_scratch_directory(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    cell = "import os; print([n for n in os.listdir() if n[0] != '.']); open('left', 'w').close()"
    source.write_text(f"{HEADER}\n```{{code-cell}}\n{cell}\n```\n", encoding="utf-8")
    (only,) = code(execute(convert(source), "00_preface"))
    assert only.outputs[0].text == "[]\n"
    assert [path.name for path in source.parent.iterdir()] == ["00_preface.md"]


def test_failing_cell_is_named_with_its_chapter_and_its_run_is_not_kept(project: Path, source: Path) -> None:
    rewrite(source, DRAWING, "1 / 0")
    with pytest.raises(
        ChapterError, match=r"(?s)^chapter 00_preface, code cell 3 of 3: ZeroDivisionError"
    ) as caught:
        run_chapter(project, "00_preface", convert(source), "smoke", project / "kept")
    assert "1 / 0" in str(caught.value)
    assert "\x1b" not in str(caught.value), "no colour codes"
    assert not (project / "kept").exists()


def test_cell_that_ends_its_kernel_is_named(source: Path) -> None:
    rewrite(source, DRAWING, "import os; os._exit(1)")
    with pytest.raises(ChapterError, match=r"^chapter 00_preface, code cell 3 of 3: the kernel died"):
        execute(convert(source), "00_preface")


# Keeping what did not change


def test_key_changes_with_all_that_outputs_depend_on(project: Path, source: Path) -> None:
    def key(profile: str = "smoke") -> str:
        return cache_key(project, convert(source), profile)

    keys = [key(), key("cpu")]
    rewrite(source, "plt.plot([0, 1])", "plt.plot([0, 2])")
    keys.append(key())
    rewrite(source, "[hide-input]", "[hide-input, raises-exception]")
    keys.append(key())
    for name in ("snnmlp_edu/library.py", "data/images.gz"):
        (project / name).write_text("2", encoding="utf-8")
        keys.append(key())
    (project / "snnmlp_edu" / "library.py").rename(project / "snnmlp_edu" / "renamed.py")
    keys.append(key())
    assert len(set(keys)) == len(keys) == 7


def test_key_changes_with_the_version_of_a_package(
    project: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Newer:
        name, version = "torch", "99"

    before = cache_key(project, convert(source), "smoke")
    monkeypatch.setattr("importlib.metadata.distributions", lambda: [Newer()])
    assert cache_key(project, convert(source), "smoke") != before


def test_key_ignores_what_outputs_do_not_depend_on(project: Path, source: Path) -> None:
    before = cache_key(project, convert(source), "smoke")
    rewrite(source, "Words", "Other words")
    rewrite(source, "caption: A line.", "caption: A straight line.")
    (project / "snnmlp_edu" / "__pycache__").mkdir()
    (project / "snnmlp_edu" / "__pycache__" / "library.pyc").write_text("compiled")
    (project / "data" / ".hidden").write_text("left by an editor")
    assert cache_key(project, convert(source), "smoke") == before


def test_only_what_changed_runs_again(project: Path, source: Path) -> None:
    def run() -> Run:
        return run_chapter(project, "00_preface", convert(source), "smoke", project / "kept")

    rewrite(source, DRAWING, "print(1)")
    first = run()
    assert first.fresh
    assert first.seconds > 0
    assert run() == first._replace(fresh=False)
    rewrite(source, "Words", "Other words")
    reworded = run()
    assert not reworded.fresh
    assert "Other words" in reworded.notebook.cells[0].source
    assert [cell.outputs for cell in code(reworded.notebook)] == [
        cell.outputs for cell in code(first.notebook)
    ]
    (project / "kept" / "00_preface.ipynb").write_text("<<<<<<<")
    assert run().fresh, "what was kept is torn"
    (project / "snnmlp_edu" / "library.py").write_text("2", encoding="utf-8")
    assert run().fresh
    assert not run().fresh


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file.txt"
    assert write_if_changed(path, "one")
    assert not write_if_changed(path, "one"), "equal content is not written"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_if_changed(path, "two")
    assert [(each.name, each.read_text()) for each in path.parent.iterdir()] == [("file.txt", "one")]


# The commands


def test_notebooks_and_the_picture_of_the_readme_are_written_once(
    project: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refresh_notebooks(project) == ["00_preface"]
    path = source.with_suffix(".ipynb")
    written = path.stat().st_mtime_ns
    shown = code(nbformat.read(path, as_version=4))[2].outputs[0].data["image/png"]
    assert (project / "book" / "_static" / "spikes.png").read_bytes() == base64.b64decode(shown)
    assert refresh_notebooks(project) == []
    assert path.stat().st_mtime_ns == written
    assert "nothing" in capsys.readouterr().out.splitlines()[-1]
    rewrite(source, "name: fig-preface-spikes", "name: fig-other")
    with pytest.raises(InputError, match="no cell shows a figure named fig-preface-spikes"):
        refresh_notebooks(project)


def test_unknown_profile_is_one_line_and_nothing_is_made(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["book", "--profile", "smoek"], root=project) == 2
    assert capsys.readouterr().err == "unknown profile 'smoek': choose one of smoke, cpu, gpu, paper\n"
    assert not (project / "book" / "_build").exists()


def add_two_chapters(project: Path, source: Path) -> None:
    """Copies of the first chapter, as `01_more` and `02_more`."""
    for number in (1, 2):
        shutil.copy(source, source.with_name(f"0{number}_more.md"))
    toc = yaml.safe_load((project / "book" / "_toc.yml").read_text(encoding="utf-8"))
    more = [{"file": f"chapters/0{number}_more"} for number in (1, 2)]
    toc["parts"].insert(0, {"caption": "More", "numbered": True, "chapters": more})
    (project / "book" / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")


def test_chapters_run_at_once_and_in_order(
    project: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    share = max(1, cores() // 3)
    rewrite(source, DRAWING, f"import os\n\nassert os.environ['OMP_NUM_THREADS'] == '{share}'")
    add_two_chapters(project, source)
    everything = ["00_preface", "01_more", "02_more"]
    assert list(program.run_chapters(project, "smoke", jobs=3)) == everything
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == everything
    rewrite(source.with_name("01_more.md"), "profile\n```", "1 / 0\n```")
    assert main(["book", "--jobs", "2"], root=project) == 1
    first, *_ = capsys.readouterr().err.splitlines()
    reason = "chapter 01_more, code cell 2 of 3: ZeroDivisionError: division by zero"
    assert first == f"The book was not built: {reason}"


def test_a_chapter_that_measures_time_runs_alone_and_with_all_cores(
    project: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(source, DRAWING, "1")
    add_two_chapters(project, source)
    timed = source.with_name("01_more.md")
    cell = ":tags: [measures-time]\n\nprint(__import__('os').environ.get('OMP_NUM_THREADS'))"
    timed.write_text(
        timed.read_text(encoding="utf-8") + f"\n```{{code-cell}} ipython3\n{cell}\n```\n", encoding="utf-8"
    )
    runs = program.run_chapters(project, "smoke", jobs=2)
    assert list(runs) == ["00_preface", "01_more", "02_more"]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        *("00_preface", "02_more", "01_more")
    ]
    shown = runs["01_more"].notebook.cells[-1].outputs[0].text
    assert shown == f"{os.environ.get('OMP_NUM_THREADS')}\n"


def test_no_chapters_at_once_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["book", "--jobs", "0"], root=project) == 2
    assert capsys.readouterr().err == "--jobs is 0: at least one chapter has to run at a time\n"


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the chapters that a kernel is asked to execute; none is, and their cells show nothing."""
    names: list[str] = []

    def note(root: Path, chapter: str, notebook: NotebookNode, **_: object) -> Run:
        names.append(chapter)
        return Run(notebook, 1.5, fresh=True)

    monkeypatch.setattr(program, "run_chapter", note)
    return names


@pytest.fixture
def committed(project: Path, source: Path) -> Path:
    """Three chapters, with notebooks as if they had been executed."""
    add_two_chapters(project, source)
    for path in source.parent.glob("*.md"):
        notebook = convert(path)
        for number, cell in enumerate(code(notebook), start=1):
            text = nbformat.v4.new_output("stream", text=f"{path.stem} {number}\n")
            cell.execution_count, cell.outputs = number, [text]
        path.with_suffix(".ipynb").write_text(notebook_text(notebook), encoding="utf-8")
    return project


def chapters_for(root: Path, *, use_committed: bool = True) -> dict[str, Run]:
    return program.run_chapters(root, "smoke", use_committed=use_committed)


def test_committed_chapters_are_shown_and_not_executed(committed: Path, executed: list[str]) -> None:
    (committed / "snnmlp_edu" / "library.py").write_text("2", encoding="utf-8")
    runs = chapters_for(committed)
    assert executed == []
    assert list(runs) == ["00_preface", "01_more", "02_more"]
    for name, run in runs.items():
        assert [cell.outputs[0].text for cell in code(run.notebook)] == [f"{name} {n}\n" for n in (1, 2, 3)]
        assert run.seconds is None
        assert not run.fresh


def test_prose_and_captions_are_always_those_of_the_source(
    committed: Path, source: Path, executed: list[str]
) -> None:
    rewrite(source, "Words", "Other words")
    rewrite(source, "caption: A line.", "caption: A straight line.")
    notebook = chapters_for(committed)["00_preface"].notebook
    assert executed == []
    assert "Other words" in notebook.cells[0].source
    assert code(notebook)[2].metadata.mystnb.figure.caption == "A straight line."


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("plt.plot([0, 1])", "plt.plot([0, 2])"),
        ("[nbval-check-output]", "[nbval-check-output, measures-time]"),
        ("Words", "```{code-cell}\n1\n```\n\nWords"),
    ],
    ids=["code", "tags", "another cell"],
)
def test_a_chapter_whose_code_changed_is_executed_and_no_other(
    committed: Path, source: Path, executed: list[str], old: str, new: str
) -> None:
    rewrite(source.with_name("01_more.md"), old, new)
    runs = chapters_for(committed)
    assert executed == ["01_more"]
    assert [run.seconds for run in runs.values()] == [None, 1.5, None]


def test_a_committed_notebook_that_shows_nothing_is_executed(
    committed: Path, source: Path, executed: list[str]
) -> None:
    """It is missing, was never executed, or was left behind by an unfinished merge, or is no notebook."""
    chapters = source.parent
    (chapters / "00_preface.ipynb").unlink()
    (chapters / "01_more.ipynb").write_text(notebook_text(convert(chapters / "01_more.md")))
    for text in ("<<<<<<< HEAD\n{}\n", "{}", "[]", '{"nbformat": 4, "nbformat_minor": 5}', "\xff"):
        (chapters / "02_more.ipynb").write_text(text, encoding="latin-1")
        executed.clear()
        chapters_for(committed)
        assert executed == ["00_preface", "01_more", "02_more"], text


def test_all_chapters_are_executed_on_request_and_with_other_profiles(
    committed: Path, executed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "render", lambda source, html: html.mkdir())
    everything = ["00_preface", "01_more", "02_more"]
    for words, names in (
        ([], []),
        (["--execute", "changed"], []),
        (["--execute", "all"], everything),
        (["--profile", "cpu"], everything),
    ):
        shutil.rmtree(committed / "book" / "_build", ignore_errors=True)
        executed.clear()
        assert main(["book", *words], root=committed) == 0
        assert executed == names, words


def test_unknown_choice_of_chapters_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["book", "--execute", "none"], root=project) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--execute 'none'" in line
    assert "changed, all" in line


def test_times_are_those_of_chapters_that_were_executed_here() -> None:
    def page(*seconds: float | None) -> str:
        runs = {f"0{n}": Run(nbformat.v4.new_notebook(), each, fresh=False) for n, each in enumerate(seconds)}
        return program.times_page(runs, "smoke")

    def rows(text: str) -> list[str]:
        return [line for line in text.splitlines() if re.search(r"\d \|$", line)]

    every = page(1.5, 2.0)
    assert rows(every) == [
        "| [](chapters/00.ipynb) | 1.5 |",
        "| [](chapters/01.ipynb) | 2.0 |",
        "| together | 3.5 |",
    ]
    assert "EXECUTE=all" not in every
    some = page(None, 2.0)
    assert rows(some) == ["| [](chapters/01.ipynb) | 2.0 |", "| together | 2.0 |"]
    assert "1 of the 2 chapters" in some
    none = page(None, None)
    assert rows(none) == []
    assert "2 of the 2 chapters" in none


def test_pdf_is_printed_once_and_linked_to_where_it_was_printed(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_browser() is None:
        pytest.skip(MISSING)
    html = built / "book" / "_build" / "html"
    downloads = html / "downloads.html"
    assert not (html / PDF).exists()
    assert PDF not in downloads.read_text(encoding="utf-8")
    rendered = shutil.copytree(html, tmp_path / "rendered")
    assert main(["pdf"], root=built) == 0
    said = capsys.readouterr().out
    assert re.search(r"first page loads in \d+\.\d s\.$", said, re.MULTILINE), said
    printed = (html / PDF).stat().st_mtime_ns
    monkeypatch.setattr(program, "seconds_to_first_page", lambda folder: 1.0)  # that was measured
    for command in ("pdf", "book"):
        assert main([command], root=built) == 0
        assert (html / PDF).stat().st_mtime_ns == printed
        assert downloads.read_text(encoding="utf-8").count(f'href="{PDF}"') == 1

    def jupyter_book(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        """Pages as they were, which is quick: what they show is up to other tests."""
        work = Path(command[command.index("--path-output") + 1])
        shutil.copytree(rendered, work / "_build" / "html")
        return subprocess.CompletedProcess(command, 0, "", "")

    rewrite(built / PREFACE, "Words", "Other words")
    with monkeypatch.context() as patch:
        patch.setattr("book.engine.render.subprocess.run", jupyter_book)
        assert main(["book"], root=built) == 0
    assert not (html / PDF).exists(), "it would show the old words"
    assert PDF not in downloads.read_text(encoding="utf-8")


def test_pdf_without_a_browser_is_refused_before_anything_is_made(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("SNNMLP_BROWSER", raising=False)
    assert main(["pdf"], root=project) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(MISSING)
    assert not (project / "book" / "_build").exists()


def test_a_browser_that_is_closed_early_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its connection is reset while a large file is on its way."""
    (tmp_path / "large").write_bytes(bytes(50_000_000))
    failed: queue.Queue[BaseException | None] = queue.Queue()
    with pytest.MonkeyPatch.context() as patch:
        told = browser._Server.handle_error

        def note(*arguments: Any) -> None:
            told(*arguments)
            failed.put(sys.exception())

        patch.setattr(browser._Server, "handle_error", note)
        with browser.serve(tmp_path) as address:
            parts = urlsplit(address)
            with socket.create_connection((parts.hostname, parts.port)) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(b"GET /large HTTP/1.0\r\n\r\n")
                connection.recv(1000)
            assert isinstance(failed.get(timeout=60), ConnectionError)
    assert capsys.readouterr().err == ""


def test_book_ends_with_its_first_page_and_renders_only_what_changed(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = built / "book" / "_build" / "html" / "index.html"
    assert "chapters/00_preface.html" in index.read_text(encoding="utf-8")
    assert main(["book"], root=built) == 0
    said = capsys.readouterr().out
    assert "nothing changed" in said
    assert re.search(r"^The site has \d+\.\d MB\.$", said, re.MULTILINE), said
    assert said.splitlines()[-1] == str(index)

    page = index.parent / "chapters" / "00_preface.html"
    before = page.read_bytes()
    rewrite(built / PREFACE, "Words, and", "See [nowhere](nowhere.md), {cite:t}`nobody1900` and")
    for _ in range(2):  # a second try does not hide the warnings
        assert main(["book"], root=built) == 1
        said = capsys.readouterr().err
        assert "nowhere" in said
        assert "nobody1900" in said
        assert page.read_bytes() == before, "the pages of the last good build stay"


def test_setup_stands_in_one_closed_box(finished: Path) -> None:
    page = finished / "book" / "_build" / "html" / "chapters" / "00_preface.html"
    article = BeautifulSoup(page.read_bytes(), "html.parser").select_one("article.bd-article")
    assert article is not None
    (box,) = article.select("details.setup")
    assert "open" not in box.attrs
    summary, *cells = box.find_all(recursive=False)
    assert summary.name == "summary"
    assert summary.get_text() == "Setup: installation, imports and parameters"
    assert [cell.select_one(".cell_input").get_text().strip() for cell in cells] == [
        *("print('version 1')", 'profile = "smoke"')
    ]
    assert cells[0].select_one(".cell_output").get_text(strip=True) == "version 1"
    shown, figure = (cell for cell in article.select("div.cell") if cell not in cells)
    assert not shown.select("details"), "as they always were"
    assert len(figure.select("details.hide")) == 1


def test_buttons_are_made_from_the_address(finished: Path) -> None:
    html = finished / "book" / "_build" / "html"
    page = (html / "chapters" / "00_preface.html").read_text(encoding="utf-8")
    assert page.count(f'href="{COLAB}"') == 2, "the badge and the launch button"
    assert f'href="{EXAMPLE}/edit/main/book/chapters/00_preface.md"' in page, "people edit the source"
    assert f'href="{EXAMPLE}/issues/new' in page


def test_without_an_address_there_are_no_buttons() -> None:
    config = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    assert config["repository"] == "", "not decided yet"
    without = with_buttons(config)
    assert not {"repository", "launch_buttons"} & without.keys()


def test_a_first_build_that_fails_leaves_no_pages(project: Path) -> None:
    (project / "empty").mkdir()
    with pytest.raises(RenderError, match="Table of Contents"):
        render(project / "empty", project / "html")
    assert not (project / "html").exists()
