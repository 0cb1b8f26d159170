"""The files around the code: do they agree with each other, and are they fit to be published?"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from book.engine.cache import notebook_text
from book.engine.convert import convert
from book.engine.render import chapters, repository

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def declared_dependencies() -> list[str]:
    """Every dependency of pyproject.toml, with all extras, but for the package itself."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [each for group in groups for each in group if Requirement(each).name != PROJECT["name"]]


def test_conda_environment_has_the_dependencies_of_pyproject() -> None:
    environment = yaml.safe_load(read("environment.yml"))
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert sorted(pip["pip"]) == sorted([*declared_dependencies(), "--editable ."])
    assert environment["name"] == PROJECT["name"]


def pinned_versions() -> dict[str, str]:
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), (
            f"not a plain name==version: {line}"
        )
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): version for name, version in pairs}


def test_constraints_pin_every_dependency_to_a_version_that_pyproject_allows() -> None:
    pinned = pinned_versions()
    optional = {Requirement(each).name for each in PROJECT["optional-dependencies"]["bench"]}
    for requirement in map(Requirement, declared_dependencies()):
        if requirement.name not in optional:
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement}: constraints.txt has {version}"


def test_constraints_ask_for_nothing_that_only_one_platform_has() -> None:
    names = set(pinned_versions())
    assert not {name for name in names if name.startswith(("nvidia", "cuda"))} | names & {"triton", "pip"}


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == PROJECT["version"]
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", read("CHANGELOG.md"), flags=re.MULTILINE)
    assert released[0] == PROJECT["version"]


def test_licence_is_the_one_that_is_declared() -> None:
    licence = read("LICENSE")
    assert licence.startswith("MIT License\n\nCopyright (c) 2026 The snnmlp-edu authors\n")
    assert "THE SOFTWARE IS PROVIDED" in licence
    assert PROJECT["license"] == yaml.safe_load(read("CITATION.cff"))["license"] == "MIT"
    assert PROJECT["license-files"] == ["LICENSE"]


def test_citation_file_follows_its_format() -> None:
    """What version 1.2.0 of the Citation File Format demands of the fields that are used here."""
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["title"] == PROJECT["name"]
    assert citation["message"]
    assert citation["authors"] == PROJECT["authors"]
    (paper,) = citation["references"]
    assert paper["title"]
    assert paper["type"] == "article"
    assert all(author.keys() == {"family-names", "given-names"} for author in paper["authors"])
    assert paper["doi"] == "10.1109/TNNLS.2024.3394837"
    assert [each["value"] for each in paper["identifiers"]] == ["arXiv:2306.12465"]


@pytest.mark.parametrize("name", chapters(BOOK))
def test_notebook_is_what_its_source_converts_to(name: str) -> None:
    file = BOOK / "chapters" / f"{name}.ipynb"
    difference = f"{file.relative_to(ROOT)} is not as its source makes it: run make notebooks"
    assert file.is_file(), difference
    stored = nbformat.read(file, as_version=4)
    converted = convert(BOOK / "chapters" / f"{name}.md", repository(BOOK))
    fields = ("id", "cell_type", "source", "metadata")
    assert [[cell[f] for f in fields] for cell in stored.cells] == [
        [cell[f] for f in fields] for cell in converted.cells
    ], difference
    assert stored.metadata == converted.metadata, difference
    assert notebook_text(stored) == file.read_text(encoding="utf-8")


def test_every_chapter_is_in_the_table_of_contents() -> None:
    written = {path.stem for path in (BOOK / "chapters").iterdir() if path.suffix in (".md", ".ipynb")}
    assert written == set(chapters(BOOK))


def published_files() -> list[Path]:
    """What a commit of everything would contain."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in sorted(set(names.split("\0"))) if name and (path := ROOT / name).is_file()]


# Written so that no pattern is an example of itself.
REGISTRY = r"\b(?:pypi|test\.pypi|npmjs|pythonhosted|anaconda|debian)\.(?:org|com)\b"
MACHINE = r"(?<![\w.~])/(?:root|work|opt|home|Users|private|tmp)/[\w.-]"


def test_no_file_names_a_registry_or_a_path_of_the_machine_it_was_made_on() -> None:
    found = []
    for path in published_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or a compressed file
        text = re.sub(r'"image/\w+": "[^"]*"', "", text)  # pictures inside notebooks
        found += [
            f"{path.relative_to(ROOT)}: {match[0]}" for match in re.finditer(f"{REGISTRY}|{MACHINE}", text)
        ]
    assert not found


def test_no_published_file_is_large() -> None:
    assert not [str(path) for path in published_files() if path.stat().st_size > 4_000_000]


def test_make_has_the_promised_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE))
    assert {"setup", "book", "pdf", "notebooks", "test", "test-portable", "lint", "bench", "clean"} <= targets


def test_continuous_integration_stops_at_the_first_failure() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text(encoding="utf-8").splitlines()


# For maintainers


def github(name: str) -> Any:
    return yaml.safe_load(read(f".github/{name}"))


def test_workflows_run_what_a_person_runs() -> None:
    commands = []
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        workflow = github(f"workflows/{path.name}")
        assert workflow["permissions"] == {"contents": "read"}, "a job that needs more says so itself"
        assert True in workflow, "YAML reads the word `on` as true"
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        commands += [step["run"].partition(" #")[0] for step in steps if "run" in step]
        for action in (step["uses"] for step in steps if "uses" in step):
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", action), action
    assert sorted(commands) == [".ci/run", "make book EXECUTE=all", "make pdf"]


def test_every_chapter_is_executed_each_week_and_before_a_release() -> None:
    """Otherwise `make book` shows the chapters as they were committed."""
    workflow = github("workflows/weekly.yml")
    (schedule,) = workflow[True]["schedule"]  # YAML reads the word `on` as true
    assert re.fullmatch(r"\d+ \d+ \* \* \d", schedule["cron"])
    assert workflow["jobs"]["execute"]["steps"][-1]["run"] == "make book EXECUTE=all"
    assert "`make book EXECUTE=all`" in read("RELEASING.md")


def test_published_folder_is_the_one_that_the_book_is_built_into() -> None:
    (upload,) = [
        step["with"]["path"]
        for step in github("workflows/pages.yml")["jobs"]["build"]["steps"]
        if step.get("uses", "").startswith("actions/upload-pages-artifact")
    ]
    assert upload == "book/_build/html"


def test_commit_hooks_are_the_tools_of_the_environment() -> None:
    (repository_of_hooks,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repository_of_hooks["repo"] == "local", "no second set of versions, and no address"
    linted = read("Makefile").split("\nlint:")[1].split("\n\n")[0]
    for hook in repository_of_hooks["hooks"]:
        assert hook.keys() >= {"id", "name", "entry", "language"}
        program, module, tool, *_ = hook["entry"].split()
        assert (program, module) == (".venv/bin/python", "-m")
        assert tool == "pytest" or f") {tool}" in linted


@pytest.mark.parametrize("name", ["bug", "chapter", "result"])
def test_issue_template_asks_for_what_is_needed(name: str) -> None:
    """What GitHub demands of an issue form."""
    form = github(f"ISSUE_TEMPLATE/{name}.yml")
    assert form["name"]
    assert form["description"]
    identifiers = [part["id"] for part in form["body"]]
    assert len(identifiers) == len(set(identifiers)) >= 2
    assert all(part["type"] in ("input", "textarea") for part in form["body"])
    assert all(part["attributes"]["label"] for part in form["body"])
    assert any(part.get("validations", {}).get("required") for part in form["body"])


def test_contributing_is_one_page_and_says_what_each_kind_of_addition_touches() -> None:
    text = read("CONTRIBUTING.md")
    assert len(text.splitlines()) <= 60
    rows = dict(re.findall(r"^\| ([a-z ]+) \| (.+)$", text, flags=re.MULTILINE))
    kinds = {"preset", "skip variant", "surrogate", "norm", "data set", "claim", "chapter"}
    assert kinds <= rows.keys()
    for kind in kinds:  # the paths in its row, below the repository or below snnmlp_edu/
        for path in re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|yaml|yml|md|bib))`", rows[kind]):
            assert (ROOT / path).is_file() or (ROOT / "snnmlp_edu" / path).is_file(), path


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "RELEASING.md", "README.md"])
def test_what_instructions_name_is_there(name: str) -> None:
    text = read(name)
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE))
    commands = re.findall(r"`make ([a-z -]+)", text) + re.findall(
        r"^make ([a-z-]+)", text, flags=re.MULTILINE
    )
    assert {word for command in commands for word in command.split()} <= targets
    files = re.findall(r"`((?:book|data|snnmlp_edu|tests)/[\w./-]+)`", text)
    generated = ("book/_build",)
    placeholders = ("NN_name", "NAME")
    missing = [
        file
        for file in files
        if not (ROOT / file).exists()
        and not file.startswith(generated)
        and not any(each in file for each in placeholders)
    ]
    assert missing == []
