"""What happens between the steps of a training: keeping the best epoch, and stopping."""

from __future__ import annotations

import csv
import io
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ..checkpoints import CHECKPOINT, save_checkpoint
from ..data.files import write_atomically
from ..data.transforms import Preprocessing
from ..network import SpikingNetwork
from ..recording import record
from .data_module import DataModule
from .diagnosis import firing_warning
from .module import TrainingModule
from .optimisation import Plan
from .pace import Pace, in_words
from .processes import on_first
from .resume import writing
from .run_folder import RunFolder

HISTORY = "epochs.csv"
FIRING_IMAGES = 16


class KeepBest(Callback):
    """After each validation: a row of `epochs.csv`, and a checkpoint if no epoch validated better.

    The firing rate, mean over the neuron layers, is measured on the first validation images; layers that
    hardly ever fire or hardly ever rest are named in a warning.

    Where the weights are averaged, the average is what is validated and kept. Only the first of several
    processes writes.

    Args:
        folder: the run's folder.
        preprocessing: travels with the checkpoint.
        class_names: likewise.
        preset: likewise, by which the network is built.
        plan: its recipe likewise.
        pace: how fast the training goes.
        announce: print the plan, a line for each epoch, and the warnings.
    """

    def __init__(
        self,
        folder: RunFolder,
        preprocessing: Preprocessing,
        class_names: tuple[str, ...],
        preset: str | None,
        plan: Plan,
        pace: Pace,
        announce: bool,
    ) -> None:
        self.folder = folder
        self.preprocessing = preprocessing
        self.class_names = class_names
        self.preset = preset
        self.plan = plan
        self.pace = pace
        self.announce = announce
        self.firing_rates: dict[str, float] = {}
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"validation_accuracy": -1.0}
        self.start = time.monotonic()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what will be done, now that the folder stands."""
        if self.announce and trainer.is_global_zero:
            print(self.plan)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the epoch; equal accuracy keeps the earlier one."""
        assert isinstance(pl_module, TrainingModule)
        train = pl_module.train_tally.over_processes(trainer)
        validation = pl_module.validation_tally.over_processes(trainer)
        self.firing_rates = self._firing_rates(trainer, pl_module)
        rates = self.firing_rates.values()
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "learning_rate": pl_module.learning_rate,
            "train_loss": train.loss,
            "train_accuracy": train.accuracy,
            "validation_loss": validation.loss,
            "validation_accuracy": validation.accuracy,
            "firing_rate": sum(rates) / len(rates) if rates else None,
            "seconds": self.seconds,
            "images_per_second": self.pace.images_per_second,
        }
        self.history.append(row)
        if self.announce and trainer.is_global_zero:
            self._print(row)
        better = row["validation_accuracy"] > self.best["validation_accuracy"]
        self.best = row if better else self.best
        on_first(trainer, lambda: self._write(pl_module.evaluated if better else None, row))

    def _print(self, row: dict[str, Any]) -> None:
        parts = [
            f"epoch {row['epoch']}: loss {row['train_loss']:.3f}",
            f"accuracy {row['train_accuracy']:.3f}",
            f"validation accuracy {row['validation_accuracy']:.3f}",
        ]
        if row["firing_rate"] is not None:
            parts.append(f"firing rate {row['firing_rate']:.3f}")
        if row["images_per_second"] is not None:
            parts.append(f"{row['images_per_second']:,.0f} images/s")
        parts.append(in_words(row["seconds"]))
        if self.pace.seconds_left:
            parts.append(f"{in_words(self.pace.seconds_left)} left")
        print(", ".join(parts))
        if warning := firing_warning(self.firing_rates):
            print(warning)

    def _write(self, better: SpikingNetwork | None, row: dict[str, Any]) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, list(row), lineterminator="\n")
        table.writeheader()
        table.writerows(self.history)
        with writing(self.folder.path, self.folder.resume_command):
            write_atomically(self.folder.path / HISTORY, text.getvalue().encode())
            if better is not None:
                self.save(better, row)

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
        model, data = pl_module.evaluated, trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, DataModule)
        if model.config.activation != "lif":
            return {}
        images = data.validation_sample(FIRING_IMAGES).to(pl_module.device)
        return record(model, images).firing_rates()

    def save(self, model: SpikingNetwork, metrics: dict[str, Any]) -> None:
        """Write the checkpoint with what was measured so far."""
        save_checkpoint(
            self.folder.path / CHECKPOINT,
            model,
            self.preprocessing,
            class_names=self.class_names,
            preset=self.preset,
            metrics={**metrics, "global_batch": self.plan.images_a_step, "processes": self.plan.processes},
            recipe=self.plan.recipe.to_dict(),
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
