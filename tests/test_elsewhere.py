"""Chapters away from home: alone in an empty folder, as on Colab, and by papermill from anywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import nbformat
import pytest

from book.engine.render import chapters

ROOT = Path(__file__).parents[1]
CHAPTERS = ROOT / "book" / "chapters"
NAMES = chapters(ROOT / "book")
OURS = re.compile(r"snnmlp_edu|_editable_impl_snnmlp_edu|__editable__|__pycache__")


def run(
    python: Path | str, *arguments: str, folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python in a folder where nothing of this checkout can be found by accident."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SNNMLP", "PIP"))
    }
    environment = kept | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables}
    command = [str(python), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def papermill(
    python: Path | str, name: str, folder: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a chapter's stored notebook, copied into a folder, by papermill's own command."""
    notebook = folder / f"{name}.ipynb"
    notebook.write_bytes((CHAPTERS / f"{name}.ipynb").read_bytes())
    words = ["-m", "papermill", notebook.name, "out.ipynb", "--no-progress-bar", *arguments]
    return run(python, *words, folder=folder, **variables)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is published, built without a look at any other machine."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    search = os.pathsep.join(path for path in sys.path if path and Path(path) != ROOT)
    built = run(sys.executable, *words, str(ROOT), folder=folder, PYTHONPATH=search)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def colab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has what Colab has, PyTorch and snnTorch's other needs included, but not this package.

    It borrows the packages of the environment that runs the tests: nothing is downloaded.
    """
    home = tmp_path_factory.mktemp("colab")
    made = run(sys.executable, "-m", "venv", "--without-pip", str(home / "venv"), folder=home)
    assert made.returncode == 0, made.stderr
    borrowed = home / "borrowed"
    borrowed.mkdir()
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if not OURS.match(package.name) and package.suffix != ".pth":
            (borrowed / package.name).symlink_to(package)
    python = home / "venv" / "bin" / "python"
    where = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=home)
    (Path(where.stdout.strip()) / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    missing = run(python, "-c", "import snnmlp_edu", folder=home)
    assert "No module named 'snnmlp_edu'" in missing.stderr
    return python


def installed(python: Path, folder: Path) -> set[str]:
    """What lies in the environment's own folder of packages."""
    code = "import os, sysconfig; print(*os.listdir(sysconfig.get_path('purelib')))"
    return set(run(python, "-c", code, folder=folder).stdout.split())


def test_notebook_alone_installs_the_package_and_nothing_else_and_runs(
    colab: Path, wheel: Path, tmp_path: Path
) -> None:
    before = installed(colab, tmp_path)
    parameters = ("-p", "profile", "cpu")
    done = papermill(colab, "00_preface", tmp_path, *parameters, SNNMLP_SOURCE=str(wheel), PIP_NO_INDEX="1")
    assert done.returncode == 0, done.stderr[-3000:]
    new = {name.split("-")[0] for name in installed(colab, tmp_path) - before}
    assert new == {"snnmlp_edu"}, "torch and numpy are left alone"
    where = run(colab, "-c", "import snnmlp_edu; print(snnmlp_edu.__file__)", folder=tmp_path).stdout
    assert Path(where.strip()).is_relative_to(colab.parents[1])
    out = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    said = "".join(output.get("text", "") for cell in out.cells for output in cell.get("outputs", []))
    assert "test accuracy:" in said, "images and weights came with the package"
    assert {path.name for path in tmp_path.iterdir()} == {"00_preface.ipynb", "out.ipynb"}
    (injected,) = [cell for cell in out.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert 'profile = "cpu"' in injected.source


def setup_cell(name: str) -> str:
    cells = nbformat.read(CHAPTERS / f"{name}.ipynb", as_version=4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


@pytest.mark.parametrize("name", NAMES)
def test_first_cell_looks_for_the_package_and_leaves_the_rest_alone(name: str) -> None:
    source = setup_cell(name)
    assert 'importlib.util.find_spec("snnmlp_edu") is None' in source
    assert source.count("%pip install -q") == 1
    assert "torch" not in source.split("%pip")[1]


def test_without_a_source_the_first_cell_says_what_to_do(tmp_path: Path) -> None:
    # The package is not where this Python looks: its folder of packages is not on the path.
    code = setup_cell("01_lif").replace('find_spec("snnmlp_edu")', 'find_spec("not_there")')
    done = run(
        sys.executable, "-m", "IPython", "--no-banner", "-c", code, folder=tmp_path, IPYTHONDIR=str(tmp_path)
    )
    said = done.stdout + done.stderr
    assert "install snnmlp-edu, or set SNNMLP_SOURCE to where it is" in said


def test_papermill_stops_at_an_unknown_profile_and_names_the_choices(tmp_path: Path) -> None:
    done = papermill(sys.executable, "00_preface", tmp_path, "-p", "profile", "smoek", PYTHONPATH=str(ROOT))
    assert done.returncode != 0
    assert re.search(r"InputError: .*'smoek'.*choose one of smoke, cpu, gpu, paper", done.stderr)


@pytest.mark.parametrize("name", NAMES)
def test_every_chapter_refuses_an_unknown_profile(name: str) -> None:
    source = "\n".join(cell.source for cell in nbformat.read(CHAPTERS / f"{name}.ipynb", as_version=4).cells)
    assert re.search(r"if profile not in PROFILES:\n    raise (InputError|ValueError)\(", source)


def test_wheel_has_the_source_of_the_engine(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    for file in (ROOT / "snnmlp_edu" / "engine").glob("*.[ch]"):
        assert found[f"snnmlp_edu/engine/{file.name}"] == file.read_bytes()
