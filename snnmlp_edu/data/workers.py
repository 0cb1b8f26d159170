"""Many independent calls, distributed over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track
from torch import Generator
from torch.utils.data import DataLoader, Dataset

from ..errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """`function` applied to every item, in order.

    Args:
        function: what a worker does; it and its results must be picklable.
        items: its arguments.
        workers: processes; 0 does all in this one.
    """
    if workers == 0:
        yield from map(function, items)
        return
    yield from DataLoader(
        _Calls(function, items),
        batch_size=None,
        num_workers=workers,
        collate_fn=identity,
        generator=Generator(),  # else it draws from the shared one
    )


@contextmanager
def naming_lost_workers() -> Iterator[None]:
    """Turn what PyTorch raises when a worker was killed, or times out, into one line.

    It is raised wherever the program happens to be, so everything that uses workers belongs inside.

    Raises:
        InputError: a worker was lost.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(("DataLoader worker (pid", "DataLoader timed out", "Pin memory thread")):
            raise
        what = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        raise InputError(
            f"a process that reads images was lost ({what}), as where memory runs out; take"
            " loading.workers=0 (with evaluate --workers 0)"
        ) from error


def progress(items: Iterable[Result], title: str, total: int, announce: bool) -> Iterable[Result]:
    """The items, with a progress bar on a terminal."""
    console = Console(stderr=True)
    if not announce or not console.is_terminal:
        return items
    return track(items, title, total, console=console, transient=True)


def identity(value: Any) -> Any:
    """What a loader was given, unchanged."""
    return value


class _Calls(Dataset):
    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self.function, self.items = function, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.function(self.items[index])
