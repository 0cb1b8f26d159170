"""What people see while a network trains: the progress bar, and curves for TensorBoard."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch.utils.tensorboard import SummaryWriter

from .callbacks import KeepBest
from .pace import Pace, in_words
from .run_folder import RunFolder

TENSORBOARD = "tensorboard"
STEPS_A_POINT = 10


class TrainingBar(RichProgressBar):
    """Lightning's progress bar, with images a second, the firing rate, and the time that the run still takes.

    Args:
        pace: measures the first and the last.
        keeper: measures the firing rate, after each epoch.
    """

    def __init__(self, pace: Pace, keeper: KeepBest) -> None:
        super().__init__(refresh_rate=5)
        self.pace, self.keeper = pace, keeper

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands beside the bar."""
        shown: dict[str, Any] = dict(super().get_metrics(trainer, pl_module))
        shown.pop("v_num", None)
        if self.pace.images_per_second is not None:
            shown["images/s"] = f"{self.pace.images_per_second:,.0f}"
        if self.keeper.history and self.keeper.history[-1]["firing_rate"] is not None:
            shown["firing rate"] = self.keeper.history[-1]["firing_rate"]
        if self.pace.seconds_left is not None:
            shown["left"] = in_words(self.pace.seconds_left)
        return shown


class TensorBoardCurves(Callback):
    """Curves for TensorBoard in the run's folder: loss and learning rate by step, the rest by epoch.

    Args:
        folder: of the run.
        keeper: measures what is written after each epoch; it must stand before this one.
    """

    def __init__(self, folder: RunFolder, keeper: KeepBest) -> None:
        self.folder, self.keeper = folder, keeper
        self.writer: SummaryWriter | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the files; points that a run wrote behind the state from which it goes on are dropped."""
        if trainer.is_global_zero:
            purge = trainer.global_step + 1 if trainer.global_step else None
            self.writer = SummaryWriter(str(self.folder.path / TENSORBOARD), purge_step=purge)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One point of loss and learning rate every few steps."""
        if self.writer is not None and trainer.global_step % STEPS_A_POINT == 0:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            self.writer.add_scalar("step/loss", float(outputs["loss"]), trainer.global_step)
            self.writer.add_scalar("step/learning_rate", rate, trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All that was measured after an epoch, and every layer's firing rate."""
        if self.writer is None:
            return
        row = self.keeper.history[-1]
        values = {f"epoch/{name}": row[name] for name in row if name not in ("epoch", "step")}
        values |= {f"firing_rate/{path}": rate for path, rate in self.keeper.firing_rates.items()}
        for name, value in values.items():
            if value is not None:
                self.writer.add_scalar(name, value, trainer.global_step)
        self.writer.flush()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the files."""
        if self.writer is not None:
            self.writer.close()
