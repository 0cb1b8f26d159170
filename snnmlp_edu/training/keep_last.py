"""Saving the state of a run while it goes on: now and then, after each epoch, and when it is told to stop."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from .diagnosis import Diverged
from .processes import any_process, every_process, on_first, own
from .resume import LAST, StateIO, generator_states, restore_generators, writing
from .run_folder import RunFolder
from .stopping import SIGNALS, StopRequest

SECONDS = 60.0


class KeepLast(Callback):
    """Keep `last.safetensors`, from which the run can go on.

    It is written before the first step, after each epoch, when the training is told to stop, and in between
    every so many steps, or when a minute has passed: a run that is killed loses no more. It must stand after
    the callbacks whose state it saves, and after the one that stops the training.

    A signal may reach several processes at different moments, or one of them alone. All learn of it at the
    end of a batch, and stop there together.

    Args:
        folder: the run's folder.
        steps: optimiser steps between two saves; None saves once a minute.
        state_io: what writes the state.
        stop: whether the training shall stop.
    """

    def __init__(self, folder: RunFolder, steps: int | None, state_io: StateIO, stop: StopRequest) -> None:
        self.folder = folder
        self.steps = steps
        self.state_io = state_io
        self.stop = stop
        self.saved_step: int | None = None
        self.saved_at = 0.0
        self.generators: list[dict[str, Any]] | None = None
        self.of_processes: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """The shared random generators of every process."""
        return {"generators": self.of_processes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the generators; they are set when training starts, after everything else was set up."""
        self.generators = state_dict["generators"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the first state of a new run: a folder that cannot be written is noticed at once."""
        if threading.current_thread() is threading.main_thread():
            # Lightning's handler exchanges messages in the midst of whatever was going on.
            signal.signal(signal.SIGTERM, self.stop)
        if self.generators is None:
            self.save(trainer)
        else:
            restore_generators(own(trainer, self.generators))
            on_first(trainer, self._clear_remains)
            self.saved_step, self.saved_at = trainer.global_step, time.monotonic()

    def _clear_remains(self) -> None:
        with writing(self.folder.path, self.folder.resume_command):
            for remains in self.folder.path.glob(f".{LAST}.*"):  # of a save that was killed
                remains.unlink()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save if it is time; after the last batch of an epoch, validation comes first."""
        passed = time.monotonic() - self.saved_at >= SECONDS
        # Clocks differ between processes, and all must come to the same decision.
        flags = [*(self.stop.number == number for number in SIGNALS), passed]
        *told, passed = any_process(trainer, *flags)
        if any(told):
            self.stop.number = SIGNALS[told.index(True)]
            trainer._signal_connector.received_sigterm = True
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save_if_due(trainer, passed)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if it is time."""
        passed = time.monotonic() - self.saved_at >= SECONDS
        self._save_if_due(trainer, any_process(trainer, passed)[0])

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Do not wait for the end of a long validation; it is done anew when the run is resumed."""
        alone = trainer.world_size == 1 and self.stop.number is not None
        if (alone or trainer.received_sigterm) and not trainer.should_stop:
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

    def _save_if_due(self, trainer: Trainer, minute_passed: bool) -> None:
        if trainer.should_stop or trainer.global_step == self.saved_step:
            return
        if minute_passed if self.steps is None else trainer.global_step % self.steps == 0:
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
        self.of_processes = every_process(trainer, generator_states())
        trainer.save_checkpoint(self.folder.path / LAST)
        on_first(trainer, self._raise_failure)
        self.saved_step, self.saved_at = trainer.global_step, time.monotonic()

    def _raise_failure(self) -> None:
        failure, self.state_io.failure = self.state_io.failure, None
        if failure is not None:
            with writing(self.folder.path, self.folder.resume_command):
                raise failure
