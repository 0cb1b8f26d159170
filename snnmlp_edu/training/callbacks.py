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
from ..recording import record
from .data_module import DataModule
from .diagnosis import firing_warning
from .module import TrainingModule
from .recipe import Recipe
from .resume import CHECKPOINT, writing

HISTORY = "epochs.csv"
FIRING_IMAGES = 16


class KeepBest(Callback):
    """After each validation: a row of `epochs.csv`, and a checkpoint if no epoch validated better.

    The firing rate, mean over the neuron layers, is measured on the first validation images; layers that
    hardly ever fire or hardly ever rest are named in a warning.

    Args:
        folder: the run's folder.
        preprocessing: travels with the checkpoint.
        class_names: likewise.
        recipe: likewise.
        announce: print a line for each epoch, and the warnings.
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
            "firing_rate": None,
            "seconds": self.seconds,
        }
        rates = self._firing_rates(trainer, pl_module)
        if rates:
            row["firing_rate"] = sum(rates.values()) / len(rates)
        self.history.append(row)
        if self.announce:
            print(
                f"epoch {row['epoch']}: loss {row['train_loss']:.3f}, accuracy {row['train_accuracy']:.3f},"
                f" validation accuracy {row['validation_accuracy']:.3f}, {row['seconds']:.0f} s"
            )
            if warning := firing_warning(rates):
                print(warning)
        text = io.StringIO()
        table = csv.DictWriter(text, list(row), lineterminator="\n")
        table.writeheader()
        table.writerows(self.history)
        with writing(self.folder):
            write_atomically(self.folder / HISTORY, text.getvalue().encode())
            if row["validation_accuracy"] > self.best["validation_accuracy"]:
                self.best = row
                self.save(pl_module.model, row)

    @property
    def seconds(self) -> float:
        """Time since the run began, without the time in which it was stopped."""
        return time.monotonic() - self.start

    def state_dict(self) -> dict[str, Any]:
        """What was measured so far."""
        return {"history": self.history, "best": self.best, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.history, self.best = state_dict["history"], state_dict["best"]
        self.start = time.monotonic() - state_dict["seconds"]

    def _firing_rates(self, trainer: Trainer, pl_module: TrainingModule) -> dict[str, float]:
        """Spikes a neuron and step of each layer; none for a network without spikes."""
        model, data = pl_module.model, trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(model, SpikingMLP)
        assert isinstance(data, DataModule)
        if model.config.activation != "lif":
            return {}
        images = data.validation_sample(FIRING_IMAGES).to(pl_module.device)
        return record(model, images).firing_rates()

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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that is resumed after its last step has nothing left to train."""
        trainer.should_stop = trainer.global_step >= self.steps

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Ask Lightning to validate and stop; its own `max_steps` would stop without validation."""
        if trainer.global_step >= self.steps:
            trainer.should_stop = True
