"""pyproject.toml declares the packages that are imported, each where it is needed, and no more."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions

import jupytext
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_repository import PROJECT, ROOT

# What is declared without being imported, and why.
NOT_IMPORTED = {
    "build": "a command: the wheel and the source archive of a release",
    "django-static-mathjax": "its files: the MathJax that the pages load",
    "hatchling": "the build backend, for builds without a network",
    "jupyter-book": "a command: the book",
    "jupyterlab": "a command: readers open the notebooks in it",
    "mypy": "a command: types",
    "nbval": "a plug-in of pytest: notebooks against their stored outputs",
    "nirtorch": "snntorch.import_nir imports it",
    "pytest-xdist": "a plug-in of pytest: several processes",
    "ruff": "a command: style and formatting",
    "sphinx-exercise": "an extension of Sphinx, by its name in book/_config.yml",
    "sphinx-proof": "an extension of Sphinx, by its name in book/_config.yml",
    "tensorboard": "torch.utils.tensorboard imports it",
}
# Whose imports each group of dependencies is for.
FOR = {
    "dependencies": "package",
    "train": "package",
    "bench": "package",
    "export": "package",
    "book": "book",
    "dev": "tests",
}


def sources(part: str) -> Iterator[str]:
    """The program text of the package, of the book with its chapters, or of the tests."""
    folders = {
        "package": ("snnmlp_edu",),
        "book": ("book/engine", "book/interactive", "book/_ext"),
        "tests": ("tests",),
    }
    for folder in folders[part]:
        for file in (ROOT / folder).rglob("*.py"):
            yield file.read_text(encoding="utf-8")
    for chapter in (ROOT / "book" / "chapters").glob("*.md") if part == "book" else ():
        for cell in jupytext.read(chapter).cells:
            if cell.cell_type == "code":
                yield re.sub(
                    r"^( *)[%!]\w.*", r"\1pass", cell.source, flags=re.MULTILINE
                )  # commands of IPython


@cache
def imported(part: str) -> set[str]:
    """The distributions that a part imports, at any depth of its files."""
    modules = set()
    for text in sources(part):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module)
    ours = {"book", "snnmlp_edu", *(file.stem for file in (ROOT / "tests").glob("*.py"))}
    known = packages_distributions()
    tops = {module.split(".")[0] for module in modules} - ours - sys.stdlib_module_names
    # Two distributions hold lightning_fabric; what is not installed is called as it is imported.
    return {canonicalize_name(min(known.get(top, [top]))) for top in tops}


def declared(group: str, deeply: bool = False) -> set[str]:
    """The distributions of a group, or with those of the groups that it names."""
    listed = PROJECT["dependencies"] if group == "dependencies" else PROJECT["optional-dependencies"][group]
    found = set()
    for each in map(Requirement, listed):
        if each.name != PROJECT["name"]:
            found.add(canonicalize_name(each.name))
        elif deeply:
            found |= {name for extra in each.extras for name in declared(extra, deeply)}
    return found


def test_every_group_is_for_a_part() -> None:
    assert FOR.keys() == {"dependencies", *PROJECT["optional-dependencies"]}


@pytest.mark.parametrize("part", ["package", "book", "tests"])
def test_what_is_imported_is_declared(part: str) -> None:
    groups = [group for group in FOR if FOR[group] == part]
    there = declared("dependencies").union(*(declared(group, deeply=True) for group in groups))
    assert imported(part) <= there, imported(part) - there


@pytest.mark.parametrize("group", FOR)
def test_what_is_declared_is_imported_where_it_is_declared(group: str) -> None:
    idle = declared(group) - imported(FOR[group])
    assert idle <= NOT_IMPORTED.keys(), idle - NOT_IMPORTED.keys()


def test_the_table_of_the_others_is_up_to_date() -> None:
    everything = set().union(*map(declared, FOR))
    assert NOT_IMPORTED.keys() <= everything
    assert not NOT_IMPORTED.keys() & (imported("package") | imported("book"))
