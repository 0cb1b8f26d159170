"""Saving the state of a run: after so many steps, after each epoch, and when told to stop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import Preempted
from .diagnosis import Diverged
from .processes import any_process, on_first, rank, world_size
from .resume import LAST, read_state, write_state, writing
from .state import TrainingState
from .stopping import SIGNALS, StopRequest

SECONDS = 60.0


class StateSaver:
    """Keeps `last.safetensors`, from which a run can continue.

    It is written before the first step, after each epoch, when the run is told to stop, and in between every
    so many steps, or when a minute has passed: a run that is killed loses no more.

    SIGTERM and Ctrl-C may reach several processes at different moments, or one of them alone. All learn of it
    at the end of a batch, and stop there together.

    Args:
        folder: the run's folder.
        description: of the run, saved with every state.
        stop: whether the training is to stop.
        resume_command: with which the run is resumed.
        resumed: whether the state was loaded from this folder.
    """

    def __init__(
        self,
        folder: Path,
        description: Mapping[str, Any],
        stop: StopRequest,
        resume_command: str,
        resumed: bool = False,
    ) -> None:
        self.folder, self.description, self.resumed = folder, description, resumed
        self.stop, self.resume_command = stop, resume_command
        self.saved_step: int | None = None
        self.saved_at = 0.0

    def load(self, state: TrainingState) -> None:
        """Load the state in the folder, and remove leftovers of a killed save."""
        state.load_state_dict(read_state(self.folder / LAST), rank())
        on_first(self._clear_remains)
        self.saved_step, self.saved_at = state.step, time.monotonic()

    def _clear_remains(self) -> None:
        with writing(self.folder, self.resume_command):
            for remains in self.folder.glob(f".{LAST}.*"):
                remains.unlink()

    def save_first(self, state: TrainingState) -> None:
        """Save a state that was not loaded from here."""
        if not self.resumed:
            self.save(state)

    def save_if_due(self, state: TrainingState) -> None:
        """Save after a batch if it is time, or if the run is told to stop.

        Raises:
            Preempted: it is.
        """
        minute_passed = time.monotonic() - self.saved_at >= SECONDS
        # Clocks differ between processes, and all must come to the same decision.
        *told, minute_passed = any_process(*(self.stop.number == number for number in SIGNALS), minute_passed)
        if any(told):
            self.stop.number = SIGNALS[told.index(True)]
            self._stop(state)
        if not state.step_is_complete or state.step == self.saved_step:
            return
        every = state.schedule.recipe.save_every
        if minute_passed if every is None else state.step % every == 0:
            self.save(state)

    def stop_if_told(self, state: TrainingState) -> None:
        """Stop a single process between two batches of validation; several agree at the end of a batch.

        Raises:
            Preempted: the run is told to stop.
        """
        if self.stop.number is not None and world_size() == 1:
            self._stop(state)

    def _stop(self, state: TrainingState) -> None:
        self.save(state)
        assert self.stop.number is not None
        raise Preempted(f"stopped at step {state.step}; resume with: {self.resume_command}", self.stop.number)

    def save(self, state: TrainingState) -> None:
        """Write the state, unless its values are not finite.

        Raises:
            Diverged: a weight or a running statistic is no longer finite.
            InputError: the folder cannot be written; an older state is left as it was.
        """
        values = state.state_dict()
        for name, tensor in {**values["model"], **(values["average"] or {})}.items():
            if not torch.isfinite(tensor).all():
                raise Diverged(f"{name} holds NaN or infinite values after step {state.step}")
        on_first(lambda: self._write(values))
        self.saved_step, self.saved_at = state.step, time.monotonic()

    def _write(self, values: Mapping[str, Any]) -> None:
        with writing(self.folder, self.resume_command):
            write_state(self.folder / LAST, values, self.description)
