"""Saving the state of a run while it goes on: now and then, after each epoch, and when it is told to stop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from .diagnosis import Diverged
from .resume import LAST, generator_states, restore_generators, writing

SECONDS = 60.0


class KeepLast(Callback):
    """Keep `last.safetensors`, from which the run can go on.

    It is written before the first step, after each epoch, when SIGTERM arrives, and in between every so
    many steps, or when a minute has passed: a run that is killed loses no more. It must stand behind the
    callbacks whose state it saves, and behind the one that stops the training.

    Args:
        folder: the run's folder.
        steps: optimiser steps between two saves; None saves once a minute.
    """

    def __init__(self, folder: Path, steps: int | None) -> None:
        self.folder = folder
        self.steps = steps
        self.saved_step: int | None = None
        self.saved_at = 0.0
        self.generators: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The shared random generators."""
        return {"generators": generator_states()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the generators; they are set when training starts, after everything else was set up."""
        self.generators = state_dict["generators"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the first state of a new run: a folder that cannot be written is noticed at once."""
        if self.generators is None:
            self.save(trainer)
        else:
            restore_generators(self.generators)
            with writing(self.folder):
                for remains in self.folder.glob(f".{LAST}.*"):  # of a save that was killed
                    remains.unlink()
            self.saved_step, self.saved_at = trainer.global_step, time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save if it is time; after the last batch of an epoch, validation comes first."""
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save_if_due(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if it is time."""
        self._save_if_due(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Do not let SIGTERM wait for the end of a long validation; it is done anew when the run goes on."""
        if trainer.received_sigterm and not trainer.should_stop:
            raise SIGTERMException

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after validation."""
        self.save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save when the run was told to stop, which happens between two steps."""
        if isinstance(exception, SIGTERMException) and not trainer.should_stop:
            self.save(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """A state that is saved during validation begins with the validation when it is resumed."""
        if trainer.validating:
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress = {"total": begun, "current": begun, "is_last_batch": False}
            checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"] = progress

    def _save_if_due(self, trainer: Trainer) -> None:
        if trainer.should_stop or trainer.global_step == self.saved_step:
            return
        if self.steps is None:
            # Clocks differ between processes, and all must come to the same decision.
            passed = time.monotonic() - self.saved_at >= SECONDS
            due = trainer.strategy.reduce_boolean_decision(passed, all=False)
        else:
            due = trainer.global_step % self.steps == 0
        if due:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the state, unless it is past saving.

        Raises:
            Diverged: a weight or a running statistic is no longer finite.
            InputError: the folder cannot be written.
        """
        for name, tensor in trainer.lightning_module.state_dict().items():
            if not torch.isfinite(tensor).all():
                where = name.removeprefix("model.")
                raise Diverged(f"{where} holds NaN or infinite values after step {trainer.global_step}")
        with writing(self.folder):
            trainer.save_checkpoint(self.folder / LAST)
        self.saved_step, self.saved_at = trainer.global_step, time.monotonic()
