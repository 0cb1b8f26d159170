from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

# PyTorch is imported where it is used: the process that only hands out the tests needs none.
if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from snnmlp_edu import NetworkConfig

BOOK = Path(__file__).parents[1] / "book"
LONG = ("test_site.py", "test_processes.py")

gc.disable()  # what is imported and collected stays: looking for garbage in it takes a quarter of that time


def pytest_configure(config: pytest.Config) -> None:
    """Where processes fork well, the kernels of notebooks begin at once."""
    if sys.platform == "linux" and config.getoption("dist", "no") == "no":  # else it is others that run tests
        import kernels

        kernels.offer()


def pytest_collection_finish() -> None:
    """From now on only what tests make is looked through for garbage."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first: begun last, they would keep one process alone at work."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the whole session, for all its processes."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


@pytest.fixture(autouse=True)
def deterministic(monkeypatch: pytest.MonkeyPatch, shared_folder: Path) -> Iterator[None]:
    """Each test starts from one seed, with deterministic algorithms, default neuron backend, our cache."""
    import torch

    monkeypatch.setenv("SNNMLP_CACHE", str(shared_folder / "cache"))
    monkeypatch.delenv("SNNMLP_LIF_BACKEND", raising=False)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the tests' tensors are too small to share
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


class Undrawn:
    """What stands for a figure."""

    def savefig(self, file: BinaryIO, format: str) -> None:
        file.write(b"curves")


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No learning curves, unless a test asks for `drawn`: they take as long as a small training."""
    if "snnmlp_edu.training.fitting" in sys.modules:
        monkeypatch.setattr("snnmlp_edu.training.fitting.plot_learning_curves", lambda history: Undrawn())


@pytest.fixture
def drawn(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Learning curves as they are; and of what histories they were drawn."""
    from snnmlp_edu.plots import plot_learning_curves

    histories: list[Any] = []
    monkeypatch.setattr(
        "snnmlp_edu.training.fitting.plot_learning_curves",
        lambda history: histories.append([*history]) or plot_learning_curves(history),
    )
    return histories


@pytest.fixture
def step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """No neuron is compiled unless it asks: for trainings that are not about neurons, it takes longest."""
    monkeypatch.setenv("SNNMLP_LIF_BACKEND", "eager")


@pytest.fixture
def tiny() -> NetworkConfig:
    """Two stages, small enough for fp64 on any machine."""
    from snnmlp_edu import NetworkConfig

    return NetworkConfig(
        dim=6, depths=(2, 1), patch_size=2, image_size=8, in_channels=2, num_classes=5, time_steps=3
    )


@pytest.fixture(scope="session")
def explorers(shared_folder: Path) -> Path:
    """The files of all explorers and of Bokeh, as they lie in a site: made once for all that show them."""
    from filelock import FileLock

    from book.interactive.embed import EXPLORERS, write_explorers

    folder = shared_folder / "explorers"
    with FileLock(shared_folder / "explorers.lock"):
        if not folder.is_dir():
            write_explorers([*EXPLORERS], shared_folder / "explorers.new")
            (shared_folder / "explorers.new").rename(folder)
    return folder


@pytest.fixture(scope="session")
def html(shared_folder: Path, explorers: Path) -> Path:
    """The book, rendered strictly from the stored notebooks."""
    import nbformat
    from filelock import FileLock

    from book.engine.render import chapters, lay_out, render

    folder = shared_folder / "pages"
    with FileLock(shared_folder / "pages.lock"):  # several workers render it once: the first one
        if not (folder / "html" / "index.html").is_file():
            files = {name: BOOK / "chapters" / f"{name}.ipynb" for name in chapters(BOOK)}
            stored = {name: nbformat.read(file, as_version=4) for name, file in files.items()}
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    "book.engine.render.write_explorers",
                    lambda names, extra: shutil.copytree(explorers, extra, dirs_exist_ok=True),
                )
                lay_out(BOOK, stored, "# Execution times\n", folder / "source")
            render(folder / "source", folder / "html")
    return folder / "html"


@pytest.fixture(scope="session")
def site(html: Path) -> Iterator[str]:
    """The address at which this machine serves the book to itself."""
    from book.engine.browser import serve

    with serve(html) as address:
        yield address


@pytest.fixture
def tested_once(shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal weights are tested on equal images once in the whole session: on 1,000 images it takes long."""
    from filelock import FileLock

    from snnmlp_edu.checkpoints import Checkpoint, hash_tensors
    from snnmlp_edu.data.sources import ImageSource
    from snnmlp_edu.ledger import verification
    from snnmlp_edu.training import evaluation

    test, folder = evaluation.evaluate_source, shared_folder / "tested"
    folder.mkdir(exist_ok=True)

    def once(checkpoint: Checkpoint, source: ImageSource) -> tuple[int, int]:
        if source.files is not None:
            return test(checkpoint, source)
        images, labels = source.load("test")
        tensors = {**checkpoint.model.state_dict(), "images": images, "labels": labels}
        facts = checkpoint.model.config, checkpoint.preprocessing, checkpoint.class_names, source.class_names
        key = hashlib.sha256(f"{hash_tensors(tensors)} {facts}".encode()).hexdigest()
        with FileLock(folder / f"{key}.lock"):
            kept = folder / f"{key}.json"
            if not kept.is_file():
                kept.write_text(json.dumps(test(checkpoint, source)))
            correct, total = json.loads(kept.read_text())
        return correct, total

    for module in (evaluation, verification):
        monkeypatch.setattr(module, "evaluate_source", once)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium. It is closed with its module: its event loop would get in the way of others."""
    from book.engine.browser import MISSING, find_browser, open_browser

    if find_browser() is None:
        pytest.skip(MISSING)
    with open_browser() as opened:
        yield opened
