"""The training step: loss, optimiser and schedule of a recipe, as a LightningModule."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..network import SpikingNetwork
from .diagnosis import Diverged, first_broken_layer
from .losses import make_loss
from .mixing_images import BatchMixing
from .optimisation import Plan, make_optimizer, make_schedule
from .processes import any_process, every_process, own, seed_of


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

    def over_processes(self, trainer: Trainer) -> Tally:
        """The sums of all processes together."""
        tallies = every_process(trainer, asdict(self))
        return Tally(*(sum(tally[name] for tally in tallies) for name in ("loss_sum", "correct", "seen")))

    @property
    def loss(self) -> float:
        """Mean loss of an image."""
        return self.loss_sum / self.seen

    @property
    def accuracy(self) -> float:
        """Part of the images that were classified correctly."""
        return self.correct / self.seen


class TrainingModule(LightningModule):
    """What Lightning needs to train a network by a recipe.

    With `ema_decay` a moving average of the weights is kept beside them, updated after each step. The
    running statistics of batch norms are averaged in the same way, with the same decay.

    Args:
        model: the network.
        plan: the recipe, on so many images and processes.
    """

    def __init__(self, model: SpikingNetwork, plan: Plan) -> None:
        super().__init__()
        recipe = plan.recipe
        self.model = model
        self.plan = plan
        self.learning_rate = plan.learning_rate
        self.train_tally = Tally()
        self.validation_tally = Tally()
        self.loss = make_loss(recipe)
        self.mixing = BatchMixing(recipe, model.config.num_classes, recipe.seed)
        self.gradients: dict[str, Tensor] = {}
        self.averaged: AveragedModel | None = None
        if recipe.ema_decay is not None:
            average = get_ema_multi_avg_fn(recipe.ema_decay)
            self.averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
            self.averaged.requires_grad_(False)

    @property
    def evaluated(self) -> SpikingNetwork:
        """The network that is validated and kept: the average, where there is one."""
        return self.model if self.averaged is None else self.averaged.module  # type: ignore[return-value]

    def setup(self, stage: str) -> None:
        """Let every process but the first draw mixtures of its own."""
        rank = self.trainer.global_rank
        if rank > 0:
            config, recipe = self.model.config, self.plan.recipe
            self.mixing = BatchMixing(recipe, config.num_classes, seed_of(recipe.seed, rank))

    def on_train_start(self) -> None:
        """Go on with the gradients of a step that was cut between two of its batches."""
        for name, parameter in self.model.named_parameters():
            if name in self.gradients:
                parameter.grad = self.gradients[name].to(parameter)
        self.gradients = {}

    def on_train_epoch_start(self) -> None:
        """Count anew."""
        self.train_tally = Tally()

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.validation_tally = Tally()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The recipe's loss of one batch."""
        images, labels = self.mixing(*batch)
        with self._presentation():
            steps = self.model.forward_steps(images)
            steps = steps if steps.dtype == torch.float64 else steps.float()  # [T, B, classes]
            loss = self.loss(steps, labels)
            self._stop_if_broken(loss, images)
        self.learning_rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.train_tally.add(loss, self.model.head.combine(steps), labels)
        self.log("loss", self.train_tally.loss, prog_bar=True, logger=False)
        self.log("accuracy", self.train_tally.accuracy, prog_bar=True, logger=False)
        return loss

    def _presentation(self) -> AbstractContextManager[None]:
        """How often images are presented in this epoch: as the network says, or fewer times at first."""
        recipe = self.plan.recipe
        early = self.current_epoch < recipe.early_epochs
        return self.model.presenting(recipe.early_time_steps) if early else nullcontext()

    def _stop_if_broken(self, loss: Tensor, images: Tensor) -> None:
        """Raise `Diverged` in every process if the loss of any is not finite."""
        sound = bool(torch.isfinite(loss))
        if not any_process(self.trainer, not sound)[0]:
            return
        broken = first_broken_layer(self.model, images) or "the loss itself"
        what = f"the loss is {loss.item()} at step {self.global_step}, first broken: {broken}"
        said = every_process(self.trainer, None if sound else what)
        raise Diverged(next(text for text in said if text is not None))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count loss and hits on images that are not trained on."""
        images, labels = batch
        logits = self.evaluated(images)
        self.validation_tally.add(functional.cross_entropy(logits, labels), logits, labels)

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Change the weights, and let the average follow."""
        super().optimizer_step(*arguments, **named)
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What was counted and drawn so far goes into the state of the run, and gradients not yet used."""
        counted = {
            "train": asdict(self.train_tally),
            "validation": asdict(self.validation_tally),
            "mixing": self.mixing.state,
        }
        checkpoint["counted"] = every_process(self.trainer, counted)
        checkpoint["learning_rate"] = self.learning_rate
        checkpoint["gradients"] = self._pending_gradients()

    def _pending_gradients(self) -> dict[str, Tensor]:
        """The gradients so far of a step that is not finished, as their mean over all processes."""
        if (self.trainer.fit_loop.batch_idx + 1) % self.plan.recipe.accumulate == 0:
            return {}
        named = self.model.named_parameters()
        found = {name: p.grad.clone() for name, p in named if p.grad is not None}
        if self.trainer.world_size > 1:
            for gradient in found.values():
                torch.distributed.all_reduce(gradient)
                gradient /= self.trainer.world_size
        return found

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there."""
        counted = own(self.trainer, checkpoint["counted"])
        self.train_tally = Tally(**counted["train"])
        self.validation_tally = Tally(**counted["validation"])
        self.mixing.state = counted["mixing"]
        self.learning_rate = checkpoint["learning_rate"]
        self.gradients = checkpoint["gradients"]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Optimiser and schedule of the recipe, the schedule step by step."""
        optimizer = make_optimizer(self.model, self.plan.recipe, self.plan.learning_rate)
        schedule = make_schedule(optimizer, self.plan)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
