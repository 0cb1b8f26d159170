from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from snnmlp_edu import NetworkConfig

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BOOK = Path(__file__).parents[1] / "book"
LONG = ("test_site.py", "test_processes.py")

gc.disable()  # what is imported and collected stays: looking for garbage in it takes a quarter of that time


def pytest_collection_finish() -> None:
    """From now on only what tests make is looked through for garbage."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first: begun last, they would keep one process alone at work."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True)
def deterministic(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Each test starts from one seed, with deterministic algorithms, default neuron backend, own cache."""
    monkeypatch.setenv("SNNMLP_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("SNNMLP_LIF_BACKEND", raising=False)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the tests' tensors are too small to share
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """No neuron is compiled unless it asks: for trainings that are not about neurons, it takes longest."""
    monkeypatch.setenv("SNNMLP_LIF_BACKEND", "eager")


@pytest.fixture
def tiny() -> NetworkConfig:
    """Two stages, small enough for fp64 on any machine."""
    return NetworkConfig(
        dim=6, depths=(2, 1), patch_size=2, image_size=8, in_channels=2, num_classes=5, time_steps=3
    )


@pytest.fixture(scope="session")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book, rendered strictly from the stored notebooks."""
    import nbformat
    from filelock import FileLock

    from book.engine.render import chapters, lay_out, render

    # Several workers render it once: the first one into a folder of the whole session.
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared
    folder = shared / "pages"
    with FileLock(shared / "pages.lock"):
        if not (folder / "html" / "index.html").is_file():
            files = {name: BOOK / "chapters" / f"{name}.ipynb" for name in chapters(BOOK)}
            stored = {name: nbformat.read(file, as_version=4) for name, file in files.items()}
            lay_out(BOOK, stored, "# Execution times\n", folder / "source")
            render(folder / "source", folder / "html")
    return folder / "html"


@pytest.fixture(scope="session")
def site(html: Path) -> Iterator[str]:
    """The address at which this machine serves the book to itself."""
    from book.engine.browser import serve

    with serve(html) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium. It is closed with its module: its event loop would get in the way of others."""
    from book.engine.browser import MISSING, find_browser, open_browser

    if find_browser() is None:
        pytest.skip(MISSING)
    with open_browser() as opened:
        yield opened
