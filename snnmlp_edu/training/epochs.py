"""What is written down of every epoch: a row of measurements, and the weights of the best one."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoints import CHECKPOINT, save_checkpoint
from ..data.files import write_atomically
from ..model.network import SpikingNetwork
from ..model.recording import record
from .batches import TrainingData
from .diagnosis import firing_warning
from .processes import on_first, rank
from .progress import ProgressBar, TensorBoardCurves
from .resume import writing
from .state import Tally, TrainingState
from .throughput import Throughput, in_words

HISTORY = "epochs.csv"
FIRING_IMAGES = 16


class EpochKeeper:
    """After each validation: a row of `epochs.csv`, and a checkpoint if no epoch validated better.

    The firing rate, mean over the neuron layers, is measured on the first validation images; layers that
    hardly ever fire or hardly ever rest are named in a warning. Only the first of several processes writes,
    prints and shows progress.

    Args:
        folder: the run's folder.
        data: its preprocessing and class names travel with the checkpoint.
        preset: by which the checkpoint builds the network again.
        resume_command: with which the run is resumed.
        progress: show a bar, and print the schedule, a line for each epoch, and the warnings.
    """

    def __init__(
        self, folder: Path, data: TrainingData, preset: str | None, resume_command: str, progress: bool
    ) -> None:
        self.folder, self.data, self.preset, self.resume_command = folder, data, preset, resume_command
        self.announce = progress and rank() == 0
        self.bar = ProgressBar() if self.announce else None
        self.curves: TensorBoardCurves | None = None
        self.throughput: Throughput | None = None

    def begin(self, state: TrainingState) -> None:
        """Say what will be done, now that the folder exists."""
        self.throughput = Throughput(state.schedule, state.model.config.time_steps, state.step)
        if self.announce:
            print(state.schedule)
        if state.schedule.recipe.tensorboard and rank() == 0:
            self.curves = TensorBoardCurves(self.folder, state.step)

    def begin_epoch(self, state: TrainingState) -> None:
        """Restart the measurement of the throughput."""
        assert self.throughput is not None
        self.throughput.begin_epoch()
        if self.bar is not None:
            self.bar.begin_epoch(state)

    def end_batch(self, state: TrainingState, loss: Tensor) -> None:
        """Show and measure one more batch."""
        assert self.throughput is not None
        self.throughput.end_batch(state.step)
        if self.bar is not None:
            self.bar.show(state, self.throughput)
        if self.curves is not None:
            self.curves.end_batch(state, loss)

    def keep(self, state: TrainingState, validation: Tally) -> None:
        """Record the epoch in the history; equal accuracy keeps the earlier one.

        Raises:
            InputError: the folder cannot be written.
        """
        assert self.throughput is not None
        train, validation = state.tally.over_processes(), validation.over_processes()
        rates = self.firing_rates(state)
        row = {
            "epoch": state.epoch + 1,
            "step": state.step,
            "learning_rate": state.learning_rate,
            "train_loss": train.loss,
            "train_accuracy": train.accuracy,
            "validation_loss": validation.loss,
            "validation_accuracy": validation.accuracy,
            "firing_rate": sum(rates.values()) / len(rates) if rates else None,
            "seconds": state.seconds,
            "images_per_second": self.throughput.images_per_second,
        }
        state.history.append(row)
        better = row["validation_accuracy"] > state.best["validation_accuracy"]
        state.best = row if better else state.best
        if self.bar is not None:
            self.bar.end_epoch()
        if self.announce:
            self._print(row, rates)
        if self.curves is not None:
            self.curves.end_epoch(row, rates)
        on_first(lambda: self._write(state, better))

    def firing_rates(self, state: TrainingState) -> dict[str, float]:
        """Spikes per neuron and step of each layer; none for a network without spikes."""
        if state.model.config.activation != "lif":
            return {}
        return record(state.evaluated, self.data.validation_sample(FIRING_IMAGES)).firing_rates()

    def _print(self, row: dict[str, Any], rates: dict[str, float]) -> None:
        assert self.throughput is not None
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
        if self.throughput.seconds_left:
            parts.append(f"{in_words(self.throughput.seconds_left)} left")
        print(", ".join(parts))
        if warning := firing_warning(rates):
            print(warning)

    def _write(self, state: TrainingState, better: bool) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, list(state.history[-1]), lineterminator="\n")
        table.writeheader()
        table.writerows(state.history)
        with writing(self.folder, self.resume_command):
            write_atomically(self.folder / HISTORY, text.getvalue().encode())
            if better:
                self.save(state, state.evaluated, state.best)

    def save(self, state: TrainingState, model: SpikingNetwork, metrics: dict[str, Any]) -> None:
        """Write the checkpoint with what was measured so far."""
        schedule = state.schedule
        save_checkpoint(
            self.folder / CHECKPOINT,
            model,
            self.data.preprocessing,
            class_names=self.data.class_names,
            preset=self.preset,
            metrics={
                **metrics,
                "global_batch": schedule.global_batch_size,
                "processes": schedule.processes,
            },
            recipe=schedule.recipe.to_dict(),
        )

    def close(self) -> None:
        """Take the bar away and close the curves' files."""
        if self.bar is not None:
            self.bar.close()
        if self.curves is not None:
            self.curves.close()
