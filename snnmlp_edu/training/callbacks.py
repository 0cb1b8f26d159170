"""What happens between the steps of a training: keeping the best epoch, and stopping."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from ..checkpoints import save_checkpoint
from ..data.files import write_atomically
from ..data.transforms import Preprocessing
from ..network import SpikingMLP
from .module import TrainingModule
from .recipe import Recipe

CHECKPOINT = "checkpoint.safetensors"
HISTORY = "epochs.csv"


class KeepBest(Callback):
    """After each validation: a row of `epochs.csv`, and a checkpoint if no epoch validated better.

    Args:
        folder: the run's folder.
        preprocessing: travels with the checkpoint.
        class_names: likewise.
        recipe: likewise.
        announce: print a line for each epoch.
    """

    def __init__(
        self,
        folder: Path,
        preprocessing: Preprocessing,
        class_names: tuple[str, ...],
        recipe: Recipe,
        announce: bool,
    ) -> None:
        self.folder = folder
        self.preprocessing = preprocessing
        self.class_names = class_names
        self.recipe = recipe
        self.announce = announce
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"validation_accuracy": -1.0}
        self.start = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the epoch; equal accuracy keeps the earlier one."""
        assert isinstance(pl_module, TrainingModule)
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "learning_rate": pl_module.learning_rate,
            "train_loss": pl_module.train_tally.loss,
            "train_accuracy": pl_module.train_tally.accuracy,
            "validation_loss": pl_module.validation_tally.loss,
            "validation_accuracy": pl_module.validation_tally.accuracy,
            "seconds": time.monotonic() - self.start,
        }
        self.history.append(row)
        if self.announce:
            print(
                f"epoch {row['epoch']}: loss {row['train_loss']:.3f}, accuracy {row['train_accuracy']:.3f},"
                f" validation accuracy {row['validation_accuracy']:.3f}, {row['seconds']:.0f} s"
            )
        text = io.StringIO()
        table = csv.DictWriter(text, list(row), lineterminator="\n")
        table.writeheader()
        table.writerows(self.history)
        write_atomically(self.folder / HISTORY, text.getvalue().encode())
        if row["validation_accuracy"] > self.best["validation_accuracy"]:
            self.best = row
            self.save(pl_module.model, row)

    def save(self, model: nn.Module, metrics: dict[str, Any]) -> None:
        """Write the checkpoint with what was measured so far."""
        assert isinstance(model, SpikingMLP)
        save_checkpoint(
            self.folder / CHECKPOINT,
            model,
            self.preprocessing,
            class_names=self.class_names,
            preset=self.recipe.preset,
            metrics=metrics,
            recipe=self.recipe.to_dict(),
        )


class StopAfter(Callback):
    """Stop after so many optimiser steps; the epoch that is cut short is validated like any other."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Ask Lightning to validate and stop; its own `max_steps` would stop without validation."""
        if trainer.global_step >= self.steps:
            trainer.should_stop = True
