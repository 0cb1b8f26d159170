"""The folder of a run: made by the first process, known to all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from ..data.files import write_atomically
from ..errors import InputError
from .processes import on_first
from .recipe import Recipe
from .resume import RECIPE

LEFT_OUT = "left_out.txt"


class RunFolder(Callback):
    """Opens a run's folder before anything is trained; it must stand first among the callbacks.

    Args:
        output: folder in which a new run gets its own.
        recipe: after which it is called, and which is saved there.
        left_out: a line for each image that is left out, saved there too.
        existing: the folder of a run that is resumed.
        resume_command: from a folder to the command that resumes its run.
    """

    def __init__(
        self,
        output: Path,
        recipe: Recipe,
        left_out: Sequence[str],
        existing: Path | None,
        resume_command: Callable[[Path], str],
    ) -> None:
        self.output, self.recipe, self.left_out, self.existing = output, recipe, left_out, existing
        self._resume_command = resume_command

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the folder, in the first process; the others learn its name."""
        if self.existing is None:
            self.existing = on_first(
                trainer, lambda: make_run_folder(self.output, self.recipe, self.left_out)
            )

    @property
    def path(self) -> Path:
        """The run's folder."""
        assert self.existing is not None, "training has not begun"
        return self.existing

    @property
    def resume_command(self) -> str:
        """The command that resumes the run."""
        return self._resume_command(self.path)


def make_run_folder(output: Path, recipe: Recipe, left_out: Sequence[str] = ()) -> Path:
    """Make `output/<recipe>-<seed>-<number>`, with the resolved recipe and the images left out.

    Raises:
        InputError: the folder cannot be made or written.
    """
    if not output.parent.is_dir():
        raise InputError(f"there is no folder {output.parent} to hold {output.name}; create it first")
    try:
        output.mkdir(exist_ok=True)
        for number in itertools.count(1):
            folder = output / f"{recipe.name}-{recipe.seed}-{number}"
            try:
                folder.mkdir()
                break
            except FileExistsError:
                continue
        write_atomically(folder / RECIPE, recipe.to_yaml().encode())
        if left_out:
            write_atomically(folder / LEFT_OUT, "".join(f"{line}\n" for line in left_out).encode())
    except OSError as error:
        raise InputError(
            f"the output folder {output} cannot be written ({error.strerror}); choose another with --output"
        ) from error
    return folder
