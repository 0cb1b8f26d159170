"""What people see while a network trains: the progress bar, and curves for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor

from .state import TrainingState
from .throughput import Throughput, in_words

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TENSORBOARD = "tensorboard"
STEPS_PER_POINT = 10


class ProgressBar:
    """One bar per epoch, with loss, accuracy, images per second, firing rate, and the time that is left."""

    def __init__(self) -> None:
        text = TextColumn("{task.description}", markup=False)
        beside = TextColumn("{task.fields[measured]}", markup=False)
        console = Console()
        seen = console.is_terminal or console.is_jupyter  # a file gets the line about each epoch alone
        columns = (text, BarColumn(), MofNCompleteColumn(), beside)
        self.progress = Progress(*columns, console=console, refresh_per_second=2, disable=not seen)
        self.task = self.progress.add_task("", measured="", visible=False)

    def begin_epoch(self, state: TrainingState) -> None:
        """Begin a bar."""
        description = f"epoch {state.epoch + 1}/{state.schedule.epochs}"
        total = state.batches_this_epoch
        self.progress.reset(
            self.task,
            description=description,
            total=total,
            completed=state.batch,
            measured="",
            visible=True,
        )
        self.progress.start()

    def show(self, state: TrainingState, throughput: Throughput) -> None:
        """Move the bar to the current step of the training."""
        self.progress.update(self.task, completed=state.batch, measured=measured(state, throughput))

    def end_epoch(self) -> None:
        """Take the bar away; a line about the epoch takes its place."""
        self.progress.update(self.task, visible=False)
        self.progress.stop()

    def close(self) -> None:
        """Take the bar away for good."""
        self.progress.stop()


def measured(state: TrainingState, throughput: Throughput) -> str:
    """The text next to the bar."""
    parts = [f"loss {state.tally.loss:.3f}", f"accuracy {state.tally.accuracy:.3f}"]
    if throughput.images_per_second is not None:
        parts.append(f"{throughput.images_per_second:,.0f} images/s")
    if state.history and state.history[-1]["firing_rate"] is not None:
        parts.append(f"firing rate {state.history[-1]['firing_rate']:.3f}")
    if throughput.seconds_left is not None:
        parts.append(f"{in_words(throughput.seconds_left)} left")
    return ", ".join(parts)


class TensorBoardCurves:
    """Curves for TensorBoard in the run's folder: loss and learning rate by step, the rest by epoch.

    Args:
        folder: of the run.
        step: at which it begins or continues; points that a run wrote after that are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # it takes seconds to import

        self.writer: SummaryWriter = SummaryWriter(
            str(folder / TENSORBOARD), purge_step=step + 1 if step else None
        )

    def end_batch(self, state: TrainingState, loss: Tensor) -> None:
        """One point of loss and learning rate every few steps."""
        if state.step_is_complete and state.step % STEPS_PER_POINT == 0:
            self.writer.add_scalar("step/loss", float(loss.detach()), state.step)
            self.writer.add_scalar("step/learning_rate", state.learning_rate, state.step)

    def end_epoch(self, row: dict[str, float | None], firing_rates: dict[str, float]) -> None:
        """All that was measured after an epoch, and every layer's firing rate."""
        values = {f"epoch/{name}": row[name] for name in row if name not in ("epoch", "step")}
        values |= {f"firing_rate/{path}": rate for path, rate in firing_rates.items()}
        for name, value in values.items():
            if value is not None:
                self.writer.add_scalar(name, value, row["step"])
        self.writer.flush()

    def close(self) -> None:
        """Close the files."""
        self.writer.close()
