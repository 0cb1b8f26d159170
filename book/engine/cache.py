"""Decide whether a chapter has to run again, and keep what its last run showed."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from snnmlp_edu.data.files import write_atomically

from .execute import execute, with_outputs

WHAT_CHAPTERS_USE = ("snnmlp_edu", "data")


class Run(NamedTuple):
    """A chapter's notebook with its outputs, the seconds its execution took, and whether it ran just now.

    Committed notebooks store no seconds: theirs are None.
    """

    notebook: NotebookNode
    seconds: float | None
    fresh: bool


def run_chapter(
    root: Path, chapter: str, notebook: NotebookNode, profile: str, kept: Path, jobs: int = 1
) -> Run:
    """Execute a chapter, or reuse its kept outputs if nothing that its cells depend on has changed.

    Prose, figure captions and other metadata are always those of `notebook`, so editing them runs nothing.
    `jobs` is the number of chapters that run at once and share the cores.
    """
    key = cache_key(root, notebook, profile)
    path = kept / f"{chapter}.ipynb"
    stored = _read(path)
    if stored is not None and stored.metadata.get("run", {}).get("key") == key:
        return Run(with_outputs(notebook, stored), stored.metadata["run"]["seconds"], fresh=False)
    begin = time.perf_counter()
    executed = execute(notebook, chapter, profile, jobs)
    seconds = round(time.perf_counter() - begin, 1)
    labelled = copy.deepcopy(executed)
    labelled.metadata["run"] = {"key": key, "profile": profile, "seconds": seconds}
    write_if_changed(path, notebook_text(labelled))
    return Run(executed, seconds, fresh=True)


def committed_run(path: Path, notebook: NotebookNode) -> Run | None:
    """The committed notebook's outputs, if it was executed with the code that the source has now.

    Prose and other metadata are those of `notebook`, as in `run_chapter`.
    """
    stored = _read(path)
    if stored is None or _code(stored) != _code(notebook):
        return None
    if any(cell.execution_count is None for cell in stored.cells if cell.cell_type == "code"):
        return None
    return Run(with_outputs(notebook, stored), seconds=None, fresh=False)


def _read(path: Path) -> NotebookNode | None:
    """A stored notebook; None where there is none or the file is not one, as after an unfinished merge."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (OSError, ValueError, AttributeError, nbformat.ValidationError):
        return None  # nbformat meets JSON that is no object with an AttributeError
    return notebook


def _code(notebook: NotebookNode) -> list[tuple[str, list[str]]]:
    """What runs: each code cell with its tags."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [(cell.source, cell.metadata.get("tags", [])) for cell in cells]


def cache_key(root: Path, notebook: NotebookNode, profile: str) -> str:
    """Hash of everything a chapter's outputs depend on.

    That is its code cells with their tags, the profile, the library, the data, and
    the versions of Python and of every installed package.
    """
    packages = sorted(f"{each.name}=={each.version}" for each in importlib.metadata.distributions())
    versions = [platform.python_version(), platform.machine(), *packages]
    parts = [_code(notebook), profile, tree_hash(root / each for each in WHAT_CHAPTERS_USE), versions]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def tree_hash(paths: Iterable[Path]) -> str:
    """Hash of the names and contents of all files under some folders, but for hidden and compiled ones."""
    digest = hashlib.sha256()
    for top in paths:
        for path in sorted(top.rglob("*")):
            relative = path.relative_to(top)
            if path.is_file() and not any(p == "__pycache__" or p.startswith(".") for p in relative.parts):
                digest.update(f"{top.name}/{relative.as_posix()}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def notebook_text(notebook: NotebookNode) -> str:
    """The text of a notebook file: sorted, so that equal notebooks are equal files.

    Raises:
        nbformat.ValidationError: the notebook does not follow the format.
    """
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=4) + "\n"


def write_if_changed(path: Path, text: str) -> bool:
    """Write a file in one step, and only if its content changes; returns whether it did."""
    content = text.encode()
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return True
