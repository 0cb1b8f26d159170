"""The state of a training: all that its next step depends on, in one object that is saved and loaded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..model.network import SpikingNetwork
from .losses import StepLoss, make_loss
from .processes import every_process, world_size
from .schedule import TrainingSchedule, make_learning_rate_schedule, make_optimizer


@dataclass
class Tally:
    """Sums over the batches of an epoch, so that means are over images."""

    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count one batch; `loss` is its mean. Of mixed labels `[B, classes]` the largest share counts."""
        classes = labels.argmax(1) if labels.ndim == 2 else labels
        self.loss_sum += float(loss.detach()) * len(labels)
        self.correct += int((logits.argmax(1) == classes).sum())
        self.seen += len(labels)

    def over_processes(self) -> Tally:
        """The sums of all processes together."""
        tallies = every_process(asdict(self))
        return Tally(*(sum(tally[name] for tally in tallies) for name in ("loss_sum", "correct", "seen")))

    @property
    def loss(self) -> float:
        """Mean loss per image."""
        return self.loss_sum / self.seen

    @property
    def accuracy(self) -> float:
        """Part of the images that were classified correctly."""
        return self.correct / self.seen


@dataclass
class TrainingState:
    """The state of a training.

    Args:
        model: the network.
        schedule: how many steps there are, of which recipe.
        optimizer: changes the weights.
        learning_rate_schedule: sets the rate of every step.
        average: the moving average of the weights and of the running statistics, where the recipe keeps one.
        scaler: of the gradients, in half precision.
        epoch: epochs that are finished, with their validation.
        batch: batches of this epoch that were trained on.
        learning_rate: of the last step.
        tally: loss and hits of this epoch so far, in this process.
        history: one mapping for each finished epoch.
        best: the one with the highest validation accuracy; of equal ones the first.
        started: when the run would have started had it never stopped, on `time.monotonic`'s clock.
    """

    model: SpikingNetwork
    schedule: TrainingSchedule
    optimizer: Optimizer
    learning_rate_schedule: LRScheduler
    average: AveragedModel | None = None
    scaler: torch.amp.GradScaler | None = None
    epoch: int = 0
    batch: int = 0
    learning_rate: float = 0.0
    tally: Tally = field(default_factory=Tally)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=lambda: {"validation_accuracy": -1.0})
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def begin(
        cls,
        model: SpikingNetwork,
        schedule: TrainingSchedule,
        scaler: torch.amp.GradScaler | None = None,
    ) -> TrainingState:
        """The state before the first step.

        Args:
            model: on its device.
            schedule: of the recipe.
            scaler: of the gradients, in half precision.
        """
        optimizer = make_optimizer(model, schedule)
        average, decay = None, schedule.recipe.ema_decay
        if decay is not None:
            average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
            average.requires_grad_(False)
        rates = make_learning_rate_schedule(optimizer, schedule)
        return cls(model, schedule, optimizer, rates, average, scaler)

    @property
    def loss(self) -> StepLoss:
        """The recipe's loss, of logits `[T, B, classes]` and labels."""
        return make_loss(self.schedule.recipe)

    @property
    def evaluated(self) -> SpikingNetwork:
        """The network that is validated and kept: the average, where there is one."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    @property
    def step(self) -> int:
        """Updates of the weights so far."""
        steps = self.epoch * self.schedule.steps_per_epoch + self.batch // self.schedule.recipe.accumulate
        return min(steps, self.schedule.steps)  # max_steps may cut the last epoch short

    @property
    def batches_this_epoch(self) -> int:
        """Batches of this epoch; the last one may be cut short by `max_steps`."""
        schedule = self.schedule
        steps = min(schedule.steps_per_epoch, schedule.steps - self.epoch * schedule.steps_per_epoch)
        return steps * schedule.recipe.accumulate

    @property
    def batch_completes_step(self) -> bool:
        """Whether the weights are updated after the next batch."""
        return (self.batch + 1) % self.schedule.recipe.accumulate == 0

    @property
    def step_is_complete(self) -> bool:
        """Whether the last batch was the last of its step."""
        return self.batch % self.schedule.recipe.accumulate == 0

    @property
    def seconds(self) -> float:
        """Time since the run began, without the time in which it was stopped."""
        return time.monotonic() - self.started

    def remaining_epochs(self) -> Iterator[int]:
        """The number of each epoch that is not finished; `end_epoch` leads from one to the next."""
        while self.epoch * self.schedule.steps_per_epoch < self.schedule.steps:
            yield self.epoch

    def end_epoch(self) -> None:
        """Count the epoch as finished."""
        self.epoch, self.batch, self.tally = self.epoch + 1, 0, Tally()

    def state_dict(self) -> dict[str, Any]:
        """All of it as nested plain values and tensors; every process has to call this."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "learning_rate": self.learning_rate,
            "tallies": every_process(asdict(self.tally)),
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds,
            "gradients": self._pending_gradients(),
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "learning_rate_schedule": self.learning_rate_schedule.state_dict(),
        }

    def load_state_dict(self, values: Mapping[str, Any], rank: int = 0) -> None:
        """Restore the state of the process of this rank."""
        self.model.load_state_dict(values["model"])
        if self.average is not None:
            self.average.load_state_dict(values["average"])
        if self.scaler is not None:
            self.scaler.load_state_dict(values["scaler"])
        self.optimizer.load_state_dict(values["optimizer"])
        self.learning_rate_schedule.load_state_dict(values["learning_rate_schedule"])
        for name, parameter in self.model.named_parameters():
            if name in values["gradients"]:
                parameter.grad = values["gradients"][name].to(parameter)
        for name in ("epoch", "batch", "learning_rate", "history", "best"):
            setattr(self, name, values[name])
        self.tally = Tally(**values["tallies"][rank])
        self.started = time.monotonic() - values["seconds"]

    def _pending_gradients(self) -> dict[str, Tensor]:
        """The gradients so far of a step that is not finished, as their mean over all processes."""
        if self.step_is_complete:
            return {}
        named = self.model.named_parameters()
        found = {name: p.grad.clone() for name, p in named if p.grad is not None}
        if world_size() > 1:
            for gradient in found.values():
                torch.distributed.all_reduce(gradient)
                gradient /= world_size()
        return found
