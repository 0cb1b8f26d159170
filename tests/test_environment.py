"""`make` prepares .venv once: with uv, else with pip.

Stand-ins note what they are asked for; nothing is installed.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("make", "sh", "mkdir", "rm", "cp", "cat", "tr", "dirname")

# A Python of the version $VERSION. It fails with the words that match $FAILS, and those of its pip's
# configuration are $PIP_CONFIG. Only the script under test is run by the Python of these tests.
PYTHON = f"""#!/bin/sh
case "$*" in
  .ci/environment.py)
    exec '{sys.executable}' -c "import runpy, sys
sys.version_info, sys.executable = ($VERSION), '$PWD/fake'
runpy.run_path('.ci/environment.py', run_name='__main__')" ;;
  -c*) exec cat "$(dirname "$0")/version" ;;
  "-m pip config list") echo "$PIP_CONFIG"; exit ;;
esac
echo "python $*" >> calls
echo "$3 ${{OMP_WAIT_POLICY-unset}}" >> policies
case "$*" in "-m venv --clear"*) rm -rf .venv ;; esac
case "$*" in "-m venv"*)
  mkdir -p .venv/bin; cp fake .venv/bin/python; echo "$VERSION" | tr , ' ' > .venv/bin/version ;;
esac
case "$*" in $FAILS) echo 'WARNING: noise' >&2; echo 'error: no way' >&2; exit 1 ;; esac
"""
UV = '#!/bin/sh\necho "uv $*" >> calls\necho "$UV_DEFAULT_INDEX|$UV_INDEX|$UV_FIND_LINKS" >> indexes\n'
WHAT = "--constraint constraints.txt --editable .[dev]"
MAKE, COMPLETE = "python -m venv --clear .venv", "python -m venv .venv"
GET_UV, PIP = "python -m pip install --quiet uv", f"python -m pip install --quiet {WHAT}"


class Clone:
    """A clone whose path has spaces and other letters, and whose programs are stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        (folder / ".ci").mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt", ".ci/environment.py"):
            shutil.copy(ROOT / name, folder / name)
        for name in TOOLS:
            found = shutil.which(name)
            assert found, f"{name} is not installed"
            (folder / "bin" / name).symlink_to(found)
        self.program("fake", PYTHON)
        self.program("bin/python3", PYTHON)

    def program(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")
        (self.folder / name).chmod(0o755)

    def make(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        given = {"PATH": str(self.folder / "bin"), "VERSION": "3, 11", "FAILS": "", "PIP_CONFIG": ""}
        return subprocess.run(
            ["make", *(words or ("setup",))],
            cwd=self.folder,
            env=given | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        """What the stand-ins were asked for since the last look."""
        path = self.folder / "calls"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def uv(self, program: str = "uv") -> str:
        return f"{program} pip install --quiet --python {self.folder}/.venv/bin/python {WHAT}"


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "ein Weg ä")


def test_uv_installs_the_tested_versions_once(clone: Clone) -> None:
    clone.program("bin/uv", UV)
    assert clone.make().returncode == 0
    assert clone.calls() == [MAKE, clone.uv()]
    assert clone.make().returncode == 0
    assert clone.calls() == [], "nothing changed: nothing to install, and no network to ask"


def test_without_uv_pip_brings_it(clone: Clone) -> None:
    assert clone.make().returncode == 0
    assert clone.calls() == [MAKE, GET_UV, clone.uv("python -m uv")]


def test_pip_installs_where_uv_cannot_be_had(clone: Clone) -> None:
    done = clone.make(FAILS="*quiet uv")
    assert done.returncode == 0
    assert clone.calls() == [MAKE, GET_UV, PIP]
    assert [line for line in done.stdout.splitlines() if "uv" in line and "error: no way" in line]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("#!/bin/sh\necho 'error: no index' >&2\nexit 2\n", "error: no index"),
        ("#!/bin/sh\nexit 127\n", "127"),
        ("\x7fELF, but torn", "Exec format error"),
        ("#!/no/such/interpreter\n", "No such file"),
    ],
)
def test_pip_installs_where_uv_fails(clone: Clone, program: str, reason: str) -> None:
    clone.program("bin/uv", program)
    done = clone.make()
    assert done.returncode == 0
    assert clone.calls() == [MAKE, PIP]
    (line,) = [line for line in done.stdout.splitlines() if "uv" in line]
    assert reason in line
    assert done.stderr == ""


def test_uv_is_told_the_indexes_of_pip(clone: Clone) -> None:
    clone.program("bin/uv", UV)
    lines = [
        ":env:.index-url='https://mine.example/simple'",
        "global.extra-index-url='file:///a file:///b'",
        "global.find-links='/wheels'",
        "global.index-url='https://ours.example/simple'",
    ]
    clone.make(PIP_CONFIG="\n".join(lines), UV_FIND_LINKS="/own")
    indexes = (clone.folder / "indexes").read_text(encoding="utf-8")
    assert indexes == "https://mine.example/simple|file:///a file:///b|/own\n", "uv's own settings win"


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_dependencies_are_installed_and_touched_files_are_not(clone: Clone, name: str) -> None:
    clone.program("bin/uv", UV)
    clone.make()
    clone.calls()
    os.utime(clone.folder / name, (2**31, 2**31))
    clone.make()
    assert clone.calls() == [], "as after a look at another branch"
    with (clone.folder / name).open("a", encoding="utf-8") as file:
        file.write("# another\n")
    clone.make()
    assert clone.calls() == [COMPLETE, clone.uv()]


def test_a_failed_installation_is_tried_again(clone: Clone) -> None:
    assert clone.make(FAILS="*install*").returncode != 0
    clone.calls()
    assert clone.make().returncode == 0
    assert clone.calls() == [COMPLETE, GET_UV, clone.uv("python -m uv")], "what is there is completed"


def test_an_environment_between_two_sets_of_dependencies_is_not_ready(clone: Clone) -> None:
    path = clone.folder / "constraints.txt"
    before = path.read_bytes()
    clone.make()
    path.write_bytes(before + b"# another\n")
    assert clone.make(FAILS="*install*").returncode != 0
    path.write_bytes(before)
    clone.calls()
    clone.make()
    assert clone.calls() == [COMPLETE, GET_UV, clone.uv("python -m uv")], "some may be the others' versions"


def test_a_clone_that_moved_is_installed_from_where_it_is(clone: Clone) -> None:
    clone.make()
    clone.calls()
    clone.folder = clone.folder.rename(clone.folder.with_name("moved"))
    clone.make()
    assert clone.calls() == [COMPLETE, GET_UV, clone.uv("python -m uv")]


@pytest.mark.parametrize("version", ["3, 10", "3, 6"])
def test_an_old_python_is_refused_in_one_line(clone: Clone, version: str) -> None:
    done = clone.make(VERSION=version)
    assert done.returncode != 0
    message, *_ = done.stderr.splitlines()
    assert f"python3 is {version.replace(', ', '.')}" in message
    assert "make PYTHON=" in message
    assert not (clone.folder / ".venv").exists()
    ast.parse((ROOT / ".ci/environment.py").read_text(encoding="utf-8"), feature_version=(3, 7))


def test_another_python_makes_the_environment_anew_if_it_is_asked_for(clone: Clone) -> None:
    clone.make("setup", "PYTHON=./fake", VERSION="3, 12")
    clone.calls()
    for version in ("3, 11", "3, 10"):
        assert clone.make(VERSION=version).returncode == 0
        assert clone.calls() == [], "nobody asked for another"
    done = clone.make("setup", "PYTHON=./fake")
    assert clone.calls()[0] == MAKE
    assert "3.12" in done.stdout.splitlines()[0]


def test_a_broken_environment_is_made_anew(clone: Clone) -> None:
    clone.make()
    clone.calls()
    python = clone.folder / ".venv/bin/python"
    python.unlink()
    python.symlink_to("python-that-was-removed")
    done = clone.make()
    assert done.returncode == 0
    assert "broken" in done.stdout.splitlines()[0]


def test_an_environment_of_an_old_python_is_made_anew(clone: Clone) -> None:
    clone.make()
    clone.calls()
    (clone.folder / ".venv/bin/version").write_text("3 9")
    assert "3.9" in clone.make().stdout
    assert clone.calls()[0] == MAKE


def test_threads_that_wait_sleep_in_tests_alone(clone: Clone) -> None:
    clone.make()
    seen = {}
    for target in ("test", "test-portable", "book", "notebooks", "bench"):
        (clone.folder / "policies").unlink()
        assert clone.make(target).returncode == 0
        lines = (clone.folder / "policies").read_text(encoding="utf-8").splitlines()
        (seen[target],) = {line.split()[-1] for line in lines}
    assert seen == {
        **dict.fromkeys(("test", "test-portable"), "PASSIVE"),
        **dict.fromkeys(("book", "notebooks", "bench"), "unset"),
    }
    (clone.folder / "policies").unlink()
    clone.make("test", OMP_WAIT_POLICY="ACTIVE")
    assert "PASSIVE" not in (clone.folder / "policies").read_text(encoding="utf-8"), "a person's own choice"


def test_targets_call_modules() -> None:
    """The first line of a script in .venv/bin breaks where the path of the clone has spaces."""
    for name in ("Makefile", ".ci/run", ".pre-commit-config.yaml"):
        called = re.findall(r"\.venv/bin/(\w+)", (ROOT / name).read_text(encoding="utf-8"))
        assert set(called) <= {"python"}, name


def test_make_passes_on_what_is_asked_of_the_book(clone: Clone) -> None:
    clone.make()
    clone.calls()
    for words in (["book"], ["book", "EXECUTE=all"], ["pdf", "PROFILE=cpu"]):
        assert clone.make(*words).returncode == 0
    assert clone.calls() == [
        "python -m book.engine book --profile smoke --execute changed",
        "python -m book.engine book --profile smoke --execute all",
        "python -m book.engine pdf --profile cpu --execute changed",
    ]
